"""Charts: positions against the curves, and unchanged settings of matplotlib."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib
import numpy as np
from sklearn.metrics import auc, roc_curve

from lepton_vision.evaluation.classes.curves import class_curves
from lepton_vision.reporting.figures import (
    SERIES,
    Line,
    Mark,
    chart_style,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
    set_range,
    square_axes,
    to_svg,
)
from lepton_vision.reporting.masks.figures import bland_altman_figure, froc_figure, spread_figure, volume_figure

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
    code = "import sys, lepton_vision.reporting.classes.card; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_the_spread_has_every_point_in_its_row_and_the_quartiles_of_numpy() -> None:
    values = [RNG.random(9), np.array([0.25, np.nan]), np.array([np.nan])]
    (axes,) = spread_figure(values, xlabel="Dice", is_share=True).axes
    points = [line.get_xydata() for line in axes.lines if line.get_marker() == "o"]
    assert [sorted(one[:, 0]) for one in points] == [sorted(values[0]), [0.25]]
    assert [(one[:, 1].round(0) == row).all() for row, one in enumerate(points)] == [True, True]
    box = axes.patches[0]
    ends = [box.get_x(), box.get_x() + box.get_width()]
    np.testing.assert_allclose(ends, np.quantile(values[0], [0.25, 0.75]))
    medians = [line.get_xydata()[0, 0] for line in axes.lines if line.get_marker() != "o"]
    np.testing.assert_allclose(medians, [np.median(values[0]), 0.25])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3"]


def test_volumes_stand_where_they_are_and_the_line_is_that_of_equal_ones() -> None:
    truth, prediction = np.array([1.0, 40.0, 0.0]), np.array([2.0, 30.0, 0.0])
    (axes,) = volume_figure(truth, prediction).axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert lines == [[[0.0, 0.0], [40.0, 40.0]], [[1.0, 2.0], [40.0, 30.0], [0.0, 0.0]]]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[1] > 40.0


def test_bland_altman_draws_the_errors_and_the_levels_it_is_given() -> None:
    means, errors = np.array([10.0, 20.0]), np.array([-3.0, 1.0])
    (axes,) = bland_altman_figure(means, errors, lines=(-1.0, -6.5, 4.5)).axes
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_marker() != "o"]
    assert levels == [0.0, -1.0, -6.5, 4.5]
    assert axes.lines[-1].get_xydata().tolist() == [[10.0, -3.0], [20.0, 1.0]]
    assert axes.get_ylim()[0] < -6.5
    volume_figure(np.zeros(1), np.zeros(1))  # nothing to scale by
    bland_altman_figure(np.zeros(1), np.zeros(1), lines=(0.0,))


def test_the_froc_rises_at_the_thresholds_only() -> None:
    (axes,) = froc_figure(np.array([0.0, 0.5, 3.0]), np.array([0.2, 0.6, 0.6])).axes
    (curve,) = axes.lines
    assert curve.get_xydata().tolist() == [[0.0, 0.0], [0.0, 0.2], [0.5, 0.6], [3.0, 0.6]]
    assert curve.get_drawstyle() == "steps-post"
    assert axes.get_xlim()[1] > 3.0


def test_coordinates_are_rounded_and_the_labels_of_ticks_are_not() -> None:
    with chart_style():
        plot, axes = square_axes(xlabel="", ylabel="", height=100.0)
        set_range(axes, y=(0.0, 0.02))
    svg = to_svg(plot, name="a", label="")
    labels = re.findall(r">([\d.]+)</text>", svg)
    assert [label for label in labels if len(label) > 3] == ["0.005", "0.01", "0.015", "0.02"]
    coordinates = re.findall(r'\bd="([^"]+)"', svg)
    assert coordinates
    assert not re.search(r"\d\.\d{3}", " ".join(coordinates))
