"""Pages of numbers: what they say and draw, beside classes, with many samples, with hostile units, and compared."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from html_pages import HOSTILE, Page

from lepton_vision import reporting
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ReportError
from lepton_vision.evaluation import Evaluation, choose_operating_point, compare, evaluate
from lepton_vision.evaluation.classes.conformal import fit_set_rules
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.values.points import ValuePoints
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.reporting.classes.card import render_report
from lepton_vision.reporting.documents.evidence import RunFacts
from lepton_vision.reporting.documents.model_card import render_card
from lepton_vision.reporting.figures import MOST_DOTS
from lepton_vision.reporting.values.figures import bland_altman_figure, scatter_figure
from lepton_vision.types import Figure, Target

AGE = Target("age", "regression", unit="years")
SICK = Target("sick", "binary", ("no", "yes"))
FEW = EvaluationConfig(replicates=100)
NONE = OperatingPoint({}, "sensitivity >= 0.95")


def drawn(*targets: Target, n: int = 80, seed: int = 0, split: str = "test") -> Predictions:
    rng = np.random.default_rng(seed)
    age, sick = rng.normal(60, 12, n), rng.integers(0, 2, n).astype(float)
    truth = {"age": age, "sick": sick}
    said = {"age": age + rng.normal(1, 4, n), "sick": (0.4 * sick + 0.6 * rng.random(n)).clip(0, 1)}
    names = [target.name for target in targets]
    ids = np.array([f"{split}{k}" for k in range(n)])
    kept = [{name: values[name] for name in names} for values in (truth, said)]
    return Predictions(targets, ids, ids, ids, *kept, split=split)


def evaluated(*targets: Target, unknown: bool = False) -> Evaluation:
    val, test = drawn(*targets, seed=1, split="val"), drawn(*targets)
    if unknown:
        test.y_true["age"][:] = np.nan
    columns = {"sex": ["f", "m"] * 40}
    point, rules = choose_operating_point(val), fit_set_rules(val)
    return evaluate(test, operating_point=point, config=FEW, set_rules=rules, columns=columns)


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return evaluated(AGE)


def test_a_page_of_a_number_says_and_draws_it(alone: Evaluation) -> None:
    page = Page(render_report(alone))
    figures = alone.figures["age"]
    mae = f"{figures['mae'].value:.3f}"
    assert "age a number, in years" in page.words
    assert f"The predictions are off by {mae} years on average." in page.words
    assert "Mean absolute error (years)" in page.words
    assert "Lin’s concordance" in page.words
    drawings = [values["aria-label"] or "" for tag, values in page.tags if values.get("class") == "plot"]
    assert len(drawings) == 2
    assert drawings[0].startswith("Predicted against true age (years) of 80 images. R² ")
    assert drawings[1].startswith("Predicted less true age (years): bias ")
    half = (alone.analyses.intervals or {})["age"].half_width
    assert f"± {half:.3f} years, from 80 patients of validation." in page.words
    assert "Largest errors" in page.words
    assert re.search(r"\d years predicted as \d", page.words)
    assert "Largest gap: " in page.words
    assert "Bias ∓ 1.96 standard deviations" in page.words


def test_a_negative_number_has_its_sign() -> None:
    ids = np.array(["a", "b"])
    made = Predictions((AGE,), ids, ids, ids, {"age": np.array([-3.5, 4.0])}, {"age": np.array([2.0, -60.25])})
    words = Page(render_report(evaluate(made, operating_point=NONE, config=FEW))).words
    assert "−3.5 years predicted as 2 years 5.5 years too high" in words
    assert "4 years predicted as −60.25 years 64.25 years too low" in words


def test_a_page_of_a_number_speaks_of_no_decision(alone: Evaluation) -> None:
    words = Page(render_report(alone)).words
    for absent in (
        "Operating point",
        "sensitivity",
        "probability",
        "Least sure",
        "Decision curve",
        "0 to 1",
        "Confusion",
    ):
        assert absent not in words, absent


def test_a_number_stands_beside_classes() -> None:
    words = Page(render_report(evaluated(AGE, SICK))).words
    for there in ("a number, in years", "positive: yes", "Operating point", "Bland–Altman", "ROC curve", "Least sure"):
        assert there in words, there


def test_a_number_that_nobody_knows_has_a_page() -> None:
    words = Page(render_report(evaluated(AGE, unknown=True))).words
    assert "Nothing can be said: no labelled sample." in words
    assert words.count("No labelled image.") == 2


def test_a_unit_is_text_and_never_markup() -> None:
    text = render_report(evaluated(Target("age", "regression", unit=HOSTILE)))
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    Page(text)


def test_the_card_tells_the_figures_of_a_number(alone: Evaluation) -> None:
    card = render_card(RunFacts(alone, settings={"evaluation": {"calibrate": True}}), about={})
    assert "age (regression: years)" in card
    assert "| Mean absolute error (years) |" in card
    assert "Calibrated" not in card
    assert "operating point" not in card.lower()


def test_many_samples_are_counted_in_cells() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 20 * MOST_DOTS)
    points = ValuePoints(truth, truth + rng.normal(0, 0.1, truth.size))
    few = ValuePoints(points.truth[:MOST_DOTS], points.said[:MOST_DOTS])
    assert [len(line.get_xdata()) for line in scatter_figure(few).axes[0].lines] == [2, MOST_DOTS]
    (axes,) = scatter_figure(points).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2]
    corners = np.concatenate([patch.get_path().vertices for patch in axes.patches])
    counts = np.histogram2d(points.truth, points.said, bins=56, range=[(truth.min(), points.truth.max())] * 2)[0]
    assert len(corners) / 5 == pytest.approx((counts > 0).sum(), rel=0.15)  # five corners close a cell
    assert len(reporting.figures.to_svg(scatter_figure(points), name="x", label="x")) < 200_000


def test_the_lines_of_the_plot_are_the_figures() -> None:
    points = ValuePoints(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.5, 3.0]))
    bias, low, high = (Figure(value, value - 0.1, value + 0.1, 3) for value in (0.5, -0.5, 1.5))
    (axes,) = bland_altman_figure(points, bias=bias, limits=(low, high)).axes
    levels = [float(line.get_ydata()[0]) for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert levels == [0.0, 0.5, -0.5, 1.5]
    dots = next(line for line in axes.lines if len(line.get_xdata()) == 3)
    assert dots.get_xdata().tolist() == [1.5, 2.25, 3.0]
    assert dots.get_ydata().tolist() == [1.0, 0.5, 0.0]
    undefined = Figure(math.nan, math.nan, math.nan, 1, "one patient only")
    one = ValuePoints(np.array([7.0]), np.array([7.0]))
    (axes,) = bland_altman_figure(one, bias=Figure(0.0, math.nan, math.nan, 1), limits=(undefined, undefined)).axes
    assert axes.get_xlim()[0] < 7.0 < axes.get_xlim()[1]


def test_notebooks_draw_a_number(alone: Evaluation) -> None:
    assert reporting.plot_scatter(alone).axes[0].get_ylabel() == "Predicted value"
    assert reporting.plot_bland_altman(alone, "age").axes[0].get_ylabel() == "Predicted less true"
    for draw in (reporting.plot_roc, reporting.plot_reliability, reporting.plot_scores):
        with pytest.raises(ReportError, match="a target with classes"):
            draw(alone)
    with pytest.raises(ReportError, match="a target that is a number"):
        reporting.plot_scatter(evaluated(SICK))


def test_a_comparison_of_numbers_shows_both_models(tmp_path: object) -> None:
    first, second = drawn(AGE), drawn(AGE)
    second.y_prob["age"][:] = second.y_true["age"] + 0.3 * (second.y_prob["age"] - second.y_true["age"])
    found = compare(first, second, operating_point=NONE, config=FEW, margin=2.0)
    path = reporting.write_comparison(found, f"{tmp_path}/page.html", predictions=(first, second), names=("a", "b"))
    page = Page(path.read_text(encoding="utf-8"))
    drawings = [values["aria-label"] or "" for tag, values in page.tags if values.get("class") == "plot"]
    assert [one.startswith("Predicted against true age (years) of 80 ") for one in drawings] == [True, True]
    assert "Each bar has a scale of its own." in page.words
    assert "non-inferior (margin 2" in page.words
    assert "Operating points" not in page.words
    assert "Predicted against true (years): b" in page.words


def test_another_site_is_told_in_the_unit() -> None:
    there = drawn(AGE, seed=4, split="val")
    found = evaluate(there, operating_point=NONE, config=FEW, site=Site(drawn(AGE)))
    words = Page(render_report(found)).words
    assert "Another site" in words
    assert "Mean absolute error (years)" in words.split("At home")[1]
    assert "Recalibration" not in words
