"""Intervals of figures at 100 %: Wilson's ends against published ones and a search, and their coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest

from lepton_vision.cli.console import show
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.measures import BinaryMeasures, Extent
from lepton_vision.evaluation.statistics.composites import Share, ratio_interval, square_and_add, with_edges
from lepton_vision.evaluation.statistics.differences import difference_figure
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Figure, Target, decimals

SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
FEW = EvaluationConfig(replicates=100, prevalence=0.1)


def share(hits: int, n: int) -> Share:
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Share(hits / n, ends.low, ends.high)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_newcombes_published_intervals(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe, Stat Med 17:873, 1998, table II, method 10, contrasts a, b and h."""
    found = square_and_add(lambda a, b: a - b, [share(*first), share(*second)])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("above", "below"), [((10, 10), (5, 50)), ((0, 10), (45, 50)), ((8, 10), (3, 50))])
def test_the_ends_of_a_ratio_are_where_the_difference_reaches_zero(
    above: tuple[int, int], below: tuple[int, int]
) -> None:
    one, other = share(*above), share(*below)
    found = ratio_interval(one, other)

    def end(r: float, *, is_low: bool) -> float:
        scaled = Share(r * other.value, r * other.low, r * other.high)
        ends = square_and_add(lambda a, b: a - b, [one, scaled])
        return ends.low if is_low else ends.high

    value = one.value / other.value
    if value > 0:
        assert found.low == pytest.approx(brentq(lambda r: end(r, is_low=True), 1e-9, value), rel=1e-6)
    assert found.high == pytest.approx(brentq(lambda r: end(r, is_low=False), value, 1e4), rel=1e-6)


def one_study(seed: int, *, positives: int, sensitivity: float, negatives: int = 60) -> dict[str, Figure]:
    rng = np.random.default_rng(seed)
    truth = (np.arange(positives + negatives) < positives).astype(float)
    called = np.where(truth > 0, rng.random(truth.size) < sensitivity, rng.random(truth.size) > 0.9)
    unit = np.arange(truth.size)
    measures = BinaryMeasures(
        truth, np.where(called, 0.9, 0.1), unit=unit, units=unit.size, threshold=0.5, extent=Extent(0.1, 0.1)
    )
    figures = bootstrap_figures(measures, Bootstrap(100, 0.95, seed))
    return with_edges(figures, edges=measures.at_edge(0.95), means=measures.means())


@pytest.mark.parametrize("positives", [10, 20])
def test_intervals_hold_the_truth_with_few_positives(positives: int) -> None:
    se, sp, share_ = 0.95, 0.9, positives / (positives + 60)
    called = share_ * se + (1 - share_) * (1 - sp)
    true = {
        "balanced_accuracy": (se + sp) / 2,
        "lr_positive": se / (1 - sp),
        "lr_negative": (1 - se) / sp,
        "mcc": (se + sp - 1) * (share_ * (1 - share_) / (called * (1 - called))) ** 0.5,
        "f1": 2 * share_ * se / (share_ * se + called),
        "npv_at_prevalence": 0.9 * sp / (0.9 * sp + 0.1 * (1 - se)),
        "ppv_at_prevalence": 0.1 * se / (0.1 * se + 0.9 * (1 - sp)),
    }
    studies = [one_study(seed, positives=positives, sensitivity=se) for seed in range(60)]
    for name, value in true.items():
        known = [one[name] for one in studies if not np.isnan(one[name].low)]
        held = sum(one.low - 1e-9 <= value <= one.high + 1e-9 for one in known)
        assert held >= 53, name  # 93 % of 60 and less than one standard error and a half
        assert all(one.low < one.high for one in known)


def predictions(truth: np.ndarray, prob: np.ndarray) -> Predictions:
    ids = np.array([f"i{k}" for k in range(truth.size)])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth.astype(float)}, {"sick": prob}, split="test")


def bare(plain: object) -> list[object]:
    """Every mapping of a JSON value that has both ends of an interval, and every pair of named ends."""
    found = list[object]()
    if isinstance(plain, dict):
        if plain.get("low") is not None and not isinstance(plain["low"], list) and plain["low"] == plain.get("high"):
            found.append(plain)
        for key, value in (plain.get("intervals") or {}).items() if isinstance(plain.get("intervals"), dict) else ():
            found += [key] if value[0] == value[1] else []
    values = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    return found + [one for value in values for one in bare(value)]


@pytest.mark.parametrize("positives", [2, 10])
def test_a_perfect_model_has_no_interval_without_width(positives: int) -> None:
    truth = np.arange(100) < positives
    result = evaluate(predictions(truth, np.where(truth, 0.9, 0.1)), operating_point=POINT, config=FEW)
    figures = result.figures["sick"]
    for name in ("sensitivity", "specificity", "balanced_accuracy", "f1", "mcc", "lr_negative", "npv_at_prevalence"):
        assert figures[name].low < figures[name].high, name
    assert np.isnan([figures["auroc"].low, figures["auroc"].high]).all()
    assert str(figures["auroc"]) == "1.000 (no interval)"
    assert not bare(json.loads(json.dumps(result.to_dict())))
    assert "1.000, 1.000" not in result._repr_html_()


def test_three_positives_have_no_bootstrap_interval_of_the_ranking() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(100) < 3
    figures = evaluate(predictions(truth, rng.random(100)), operating_point=POINT, config=FEW).figures["sick"]
    for name in ("auroc", "average_precision", "partial_auroc"):
        assert np.isnan(figures[name].low)
        assert figures[name].reason == "no interval: one class has 3 patients only"


def test_a_difference_of_perfect_figures_has_a_width() -> None:
    first, second = (Figure(1.0, share(n, n).low, 1.0, n, "", "wilson") for n in (10, 20))
    found = difference_figure(first, second)
    assert (found.low, found.high) == pytest.approx((-(1 - first.low), 1 - second.low))
    assert np.isnan(difference_figure(first, Figure(1.0, np.nan, np.nan, 20)).low)


def test_ends_are_printed_apart() -> None:
    assert decimals(0.9998, 1.0) == 4
    assert str(Figure(1.0, 0.9998, 1.0, 20_000)) == "1.000 [0.9998, 1.0000]"
    assert str(Figure(0.9, 0.8, 0.95, 10)) == "0.900 [0.800, 0.950]"


def test_an_end_at_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure(0.0, -1e-17, 2.4, 12)
    assert str(figure) == "0.000 [0.000, 2.400]"
    show({"lr_negative": figure.to_dict()})
    assert capsys.readouterr().out == "lr_negative  0.000 [0.000, 2.400]  n 12\n"
