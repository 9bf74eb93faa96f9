"""Figures: what is drawn stands where the curves say, and nothing of matplotlib changes for others."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib
import numpy as np
from sklearn.metrics import auc, roc_curve

from lepton_vision.evaluation.curves import class_curves
from lepton_vision.reporting.figures import (
    SERIES,
    Line,
    Mark,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
    to_svg,
)

RNG = np.random.default_rng(3)
TRUTH = RNG.random(200) < 0.4
PROB = np.clip(0.3 * TRUTH + RNG.random(200) * 0.7, 0, 1)
CURVES = class_curves(TRUTH, PROB, class_name="COVID")


def test_the_roc_curve_is_the_one_of_scikit_learn() -> None:
    (axes,) = roc_figure([Line(CURVES)]).axes
    drawn = next(line for line in axes.lines if line.get_color() == SERIES[0]).get_xydata()
    x, y, _ = roc_curve(TRUTH, PROB, drop_intermediate=False)
    theirs = {(round(a, 12), round(b, 12)) for a, b in zip(x, y, strict=True)}
    assert {(round(a, 12), round(b, 12)) for a, b in drawn.tolist()} <= theirs
    assert np.isclose(auc(drawn[:, 0], drawn[:, 1]), auc(x, y), atol=1e-12)


def test_the_operating_point_and_its_interval_are_drawn() -> None:
    mark = Mark(0.2, 0.9, (0.1, 0.3), (0.8, 0.95))
    (axes,) = roc_figure([Line(CURVES, mark=mark)]).axes
    points = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0.2, 0.9]] in points
    assert [[0.1, 0.9], [0.3, 0.9]] in points
    assert [[0.2, 0.8], [0.2, 0.95]] in points


def test_a_mark_that_is_undefined_is_left_out() -> None:
    (axes,) = roc_figure([Line(CURVES, mark=Mark(np.nan, 0.9))]).axes
    assert len(axes.lines) == 2


def test_prevalence_is_a_level_line_and_the_curve_has_steps() -> None:
    (axes,) = precision_recall_figure([Line(CURVES, level=float(TRUTH.mean()))]).axes
    assert [[0.0, TRUTH.mean()], [1.0, TRUTH.mean()]] in [line.get_xydata().tolist() for line in axes.lines]
    curve = next(line for line in axes.lines if line.get_color() == SERIES[0])
    assert curve.get_drawstyle() == "steps-pre"


def test_reliability_points_are_the_bins() -> None:
    (axes,) = reliability_figure(CURVES.reliability).axes
    expected = [[one.predicted, one.observed] for one in CURVES.reliability]
    assert expected in [line.get_xydata().tolist() for line in axes.lines]


def test_scores_are_shares_of_each_group() -> None:
    (axes,) = scores_figure(CURVES.histogram, thresholds=(0.4,)).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert np.isclose(sum(h for h in heights if h > 0), 1.0)
    assert np.isclose(sum(h for h in heights if h < 0), -1.0)
    assert [0.4, 0.4] in [list(line.get_xdata()) for line in axes.lines]


def test_svg_is_repeatable_takes_its_colours_from_the_page_and_escapes_its_label() -> None:
    first = to_svg(roc_figure([Line(CURVES)]), name="a", label='x" onload="y<')
    assert to_svg(roc_figure([Line(CURVES)]), name="a", label='x" onload="y<') == first
    assert "var(--series-0)" in first
    # matplotlib's own black may stand in a hidden definition, none of our palette may
    assert not re.findall("|".join(SERIES), first)
    assert 'onload="' not in first
    assert "http" not in first
    assert "Sensitivity</text>" in first
    ids = re.findall(r'\bid="([^"]*)"', first)
    assert all(one.startswith("a-") for one in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", first)) | set(re.findall(r'href="#([^"]*)"', first)) <= set(ids)


def test_settings_of_matplotlib_stay_and_pyplot_is_not_loaded() -> None:
    before = dict(matplotlib.rcParams)
    to_svg(roc_figure([Line(CURVES)]), name="a", label="")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, lepton_vision.reporting.card; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
