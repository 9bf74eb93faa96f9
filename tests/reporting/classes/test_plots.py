"""Curves for a notebook: the lines of the page, with a legend, and a picture without pyplot."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from analysis_studies import make_analyses
from html_pages import HOSTILE

from lepton_vision import reporting
from lepton_vision.errors import ReportError
from lepton_vision.evaluation.classes.analyses import Analyses
from lepton_vision.evaluation.classes.evaluation import Evaluation


def legend(plot: object) -> list[str]:
    return [text.get_text() for text in plot.axes[0].get_legend().get_texts()]  # type: ignore[attr-defined]


def test_curves_carry_their_figures_and_a_single_one_its_band(binary: Evaluation) -> None:
    plot = reporting.plot_roc(binary)
    figure = binary.figures["covid"]["auroc"]
    assert legend(plot) == [f"COVID: {figure}"]
    (band,) = plot.axes[0].collections
    bands = binary.curves["covid"][0].bands
    assert bands is not None
    ends = band.get_paths()[0].vertices
    for grid, low, high in zip(bands.grid, *bands.sensitivity, strict=True):
        there = ends[np.isclose(ends[:, 0], grid), 1]
        assert np.isclose(there, low).any()
        assert np.isclose(there, high).any()
    assert legend(reporting.plot_precision_recall(binary)) == [f"COVID: {binary.figures['covid']['average_precision']}"]


def test_a_notebook_gets_a_picture_without_pyplot(binary: Evaluation) -> None:
    was_there = "matplotlib.pyplot" in sys.modules
    for plot in (reporting.plot_roc(binary), reporting.plot_reliability(binary), reporting.plot_scores(binary)):
        picture = plot._repr_png_()
        assert picture.startswith(b"\x89PNG")
        assert 5_000 < len(picture) < 200_000
    assert ("matplotlib.pyplot" in sys.modules) == was_there


def test_several_classes_have_a_line_each_and_may_be_chosen(several: Evaluation) -> None:
    plot = reporting.plot_roc(several, "grade")
    assert [text.split(":")[0] for text in legend(plot)] == ["none", "mild", "moderate", "severe"]
    assert not plot.axes[0].collections
    bins = {c.class_name: c.reliability for c in several.curves["signs"]}["effusion"]
    drawn = reporting.plot_reliability(several, "signs", class_name="effusion").axes[0].lines
    assert [[one.predicted, one.observed] for one in bins] in [line.get_xydata().tolist() for line in drawn]
    scores = reporting.plot_scores(several, "signs", class_name="nodule").axes[0]
    assert [0.4, 0.4] in [list(line.get_xdata()) for line in scores.lines]


def test_a_decision_curve_where_there_is_one(binary: Evaluation) -> None:
    plot = reporting.plot_decision_curve(dataclasses.replace(binary, analyses=make_analyses()))
    assert legend(plot) == ["model", "treat everybody"]
    with pytest.raises(ReportError, match="Expected an evaluation with decision curves"):
        reporting.plot_decision_curve(dataclasses.replace(binary, analyses=Analyses()))


def test_unknown_names_are_told_and_any_name_can_be_drawn(binary: Evaluation) -> None:
    with pytest.raises(ReportError, match=r"No target 'covit' .*covid"):
        reporting.plot_roc(binary, "covit")
    with pytest.raises(ReportError, match="No curves of 'COVIT'"):
        reporting.plot_scores(binary, class_name="COVIT")
    (curves,) = binary.curves["covid"]
    named = dataclasses.replace(
        binary, curves={"covid": (dataclasses.replace(curves, class_name="$x^{ " + HOSTILE[:30]),)}
    )
    assert legend(reporting.plot_roc(named))[0].startswith("$x^{ ")
    assert reporting.plot_roc(named)._repr_png_()
