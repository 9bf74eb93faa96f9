"""Tango's interval against published figures and a numerical likelihood, with its level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import multinomial, norm

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import compare
from lepton_vision.evaluation.classes.figure_table import SPECS
from lepton_vision.evaluation.classes.non_inferiority import patients_needed
from lepton_vision.evaluation.statistics.paired_intervals import Pairs, count_pairs, non_inferiority_p, tango_interval
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
QUICK = EvaluationConfig(replicates=100)


def pairs(gained: int, lost: int, n: int) -> Pairs:
    return Pairs(gained, lost, n, n)


def test_a_published_interval() -> None:
    """Airway hyper-responsiveness before and after transplantation: Fagerland et al., Stat Med 33:2850, 2014."""
    assert tango_interval(pairs(1, 7, 21)) == pytest.approx((-0.517, -0.026), abs=5e-4)


def score_of_a_numerical_likelihood(gained: int, lost: int, n: int, difference: float) -> float:
    """Distance over its standard error, at the maximum of the likelihood with that difference, found by search."""

    def loss(share: float) -> float:
        return -float(
            xlogy(gained, share + difference)
            + xlogy(lost, share)
            + xlogy(n - gained - lost, 1 - 2 * share - difference)
        )

    ends = max(0.0, -difference) + 1e-12, (1.0 - difference) / 2 - 1e-12
    share = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
    return (gained - lost - n * difference) / np.sqrt(n * (2 * share + difference - difference**2))


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 2, 50), (1, 7, 21), (3, 4, 30), (5, 0, 40)])
def test_the_ends_are_where_the_score_reaches_its_quantile(gained: int, lost: int, n: int) -> None:
    low, high = tango_interval(pairs(gained, lost, n))
    for end, expected in ((low, 1.959964), (high, -1.959964)):
        assert score_of_a_numerical_likelihood(gained, lost, n, end) == pytest.approx(expected, abs=1e-3)
    tail = norm.sf(score_of_a_numerical_likelihood(gained, lost, n, -0.1))
    assert non_inferiority_p(pairs(10 * gained, 10 * lost, 10 * n), margin=0.1) == pytest.approx(
        norm.sf(score_of_a_numerical_likelihood(10 * gained, 10 * lost, 10 * n, -0.1)), abs=1e-5
    )
    assert non_inferiority_p(pairs(gained, lost, n), margin=0.1) >= tail - 1e-5


def test_without_a_discordant_pair_it_keeps_a_width() -> None:
    for n in (5, 30, 1000):
        z = 1.959964**2
        assert tango_interval(pairs(0, 0, n)) == pytest.approx((-z / (n + z), z / (n + z)), abs=1e-7)
    assert tango_interval(pairs(0, 20, 20))[0] == -1.0
    assert tango_interval(pairs(20, 0, 20))[1] == 1.0


@pytest.mark.parametrize(("n", "margin"), [(10, 0.02), (15, 0.3), (20, 0.05), (20, 0.15), (30, 0.1)])
def test_a_loss_of_the_margin_is_seldom_called_non_inferior(n: int, margin: float) -> None:
    """Every possible table with its chance, for every share of discordant pairs; by the interval alone above 3 %."""
    tables = [(g, k) for g in range(n + 1) for k in range(n + 1 - g)]
    is_declared = np.array([non_inferiority_p(pairs(*one, n), margin=margin) <= 0.025 for one in tables])
    is_beyond = np.array([tango_interval(pairs(*one, n))[0] > -margin for one in tables])
    assert not (is_declared & ~is_beyond).any()
    cells, by_interval = [[g, k, n - g - k] for g, k in tables], []
    for share in np.linspace(0.0, (1.0 - margin) / 2 - 1e-9, 41):
        chance = multinomial.pmf(cells, n, [share, share + margin, 1 - 2 * share - margin])
        assert chance.sum() == pytest.approx(1.0)
        assert chance[is_declared].sum() <= 0.0251
        by_interval.append(chance[is_beyond].sum())
    assert max(by_interval) > 0.03


def test_copies_of_the_same_images_are_no_new_evidence() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60) < 0.9, rng.random(60) < 0.8
    alone = count_pairs(a, b, unit=np.arange(60))
    copies = count_pairs(np.repeat(a, 5), np.repeat(b, 5), unit=np.repeat(np.arange(60), 5))
    assert copies[:3] == pytest.approx(alone[:3], rel=0.02)
    assert copies.patients == alone.patients == 60
    same = count_pairs(np.repeat(a, 5), np.repeat(a, 5), unit=np.repeat(np.arange(60), 5))
    assert (same.gained, same.lost, same.n) == (0.0, 0.0, pytest.approx(60.0))


def test_clustered_losses_are_seldom_called_non_inferior() -> None:
    """The second model loses all images of one patient in ten, three of each: as images alone it would be declared."""
    rng, declared = np.random.default_rng(1), {"patients": 0, "images": 0}
    for _ in range(400):
        lost = np.repeat(rng.random(60) < 0.1, 3) & (rng.random(180) < 0.95)
        for name, unit in (("patients", np.repeat(np.arange(60), 3)), ("images", np.arange(180))):
            found = count_pairs(np.ones(180, dtype=bool), ~lost, unit=unit)
            declared[name] += non_inferiority_p(found, margin=0.095) <= 0.025
    assert declared["patients"] <= 20  # 2.5 % of 400 is 10; above 20 with a chance of 0.1 %
    assert declared["images"] > 20


def study(positives: int, negatives: int, *, lost: int = 0) -> tuple[Predictions, Predictions]:
    n = positives + negatives
    ids, truth = np.array([f"i{k}" for k in range(n)]), (np.arange(n) < positives).astype(float)
    score = np.where(truth > 0, 0.9, 0.1) + 0.001 * np.arange(n) / n
    first = Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": score})
    return first, replace(first, y_prob={"sick": np.where(np.arange(n) < lost, 0.2, score)})


@pytest.mark.parametrize("positives", [1, 5, 30])
def test_nothing_is_judged_from_no_evidence(positives: int) -> None:
    found = compare(*study(positives, 35), operating_point=POINT, margin=0.05, config=QUICK).differences["sick"]
    for name in ("auroc", "sensitivity", "specificity"):
        assert found[name].is_non_inferior is not True
        assert found[name].figure.low < 0 < found[name].figure.high or np.isnan(found[name].figure.low)
        assert found[name].p_non_inferior > 0.025 or np.isnan(found[name].p_non_inferior)
    assert found["auroc"].is_non_inferior is None
    if positives == 5:
        assert found["sensitivity"].no_verdict == "5 patients, 10 needed for this margin"
        assert found["sensitivity"].to_dict()["no_verdict"] == found["sensitivity"].no_verdict


def test_enough_pairs_are_judged() -> None:
    found = compare(*study(100, 100), operating_point=POINT, margin=0.05, config=QUICK).differences["sick"]
    assert found["sensitivity"].is_non_inferior is True  # 3.84 / 103.84 = 0.037
    lost = compare(*study(100, 100, lost=3), operating_point=POINT, margin=0.05, config=QUICK).differences["sick"]
    assert lost["sensitivity"].is_non_inferior is False
    assert lost["sensitivity"].figure.method == "tango"
    both = [lost[name].figure for name in ("sensitivity", "specificity")]
    balanced = lost["balanced_accuracy"].figure  # no negative is decided otherwise: their interval is in it
    spread = np.hypot(both[0].value - both[0].low, both[1].value - both[1].low) / 2
    assert balanced.low <= balanced.value - spread + 1e-12
    assert np.isnan(lost["mcc"].figure.low)
    assert lost["mcc"].figure.reason == "no interval: both models decide all negative samples alike"


def test_no_difference_of_few_pairs_is_significant() -> None:
    """Three positives that the second ranks first where the first ranks them last: signs alone give 1 in 4."""
    first, second = study(3, 40)
    worst = replace(first, y_prob={"sick": np.where(first.y_true["sick"] > 0, 0.01, 0.5)})
    found = compare(worst, second, operating_point=POINT, config=QUICK).differences["sick"]
    for name, one in found.items():
        if name not in ("brier", "log_loss", "ece", "specificity", "accuracy"):
            assert np.isnan(one.p_value) or one.p_value >= 0.25, name


def test_how_many_patients_a_margin_needs() -> None:
    """So many that the score interval of 0 losses ends within the margin."""
    for margin in (0.05, 0.1):
        n = patients_needed(SPECS["auroc"], margin=margin)
        assert tango_interval(pairs(0, 0, n))[0] >= -margin > tango_interval(pairs(0, 0, n - 1))[0]
    assert patients_needed(SPECS["lr_positive"], margin=2.0) == 10
