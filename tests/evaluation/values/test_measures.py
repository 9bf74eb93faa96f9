"""Figures of a number against scikit-learn, scipy, published data and hand counts, for any weighting of patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from lepton_vision.evaluation.values.measures import ValueMeasures

# Bland and Altman, Lancet 327:307, 1986: peak flow (l/min) by a large and by a mini meter, 17 subjects.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def measures_of(truth: np.ndarray, said: np.ndarray, unit: np.ndarray | None = None) -> ValueMeasures:
    unit = np.arange(len(truth)) if unit is None else unit
    truth, said = np.asarray(truth, dtype=np.float64), np.asarray(said, dtype=np.float64)
    return ValueMeasures(truth, said, unit=unit.astype(np.intp), units=int(unit.max(initial=-1)) + 1)


def figures_of(made: ValueMeasures) -> dict[str, float]:
    return {name: float(one[0]) for name, one in made.values(np.ones((1, made.units))).items()}


@pytest.mark.parametrize("digits", [0, 6])
def test_every_weighting_gives_what_others_say_of_the_repeated_samples(digits: int) -> None:
    rng = np.random.default_rng(digits)
    unit = np.sort(rng.integers(0, 30, 80))
    unit = np.unique(unit, return_inverse=True)[1]
    truth = np.round(1e5 + rng.normal(0, 3, 80), digits)  # ties where there are no digits; squares need care
    said = np.round(truth + rng.normal(1, 2, 80), digits)
    made = measures_of(truth, said, unit)
    counts = np.vstack([np.ones(made.units), rng.integers(0, 4, (6, made.units))]).astype(np.float64)
    found = made.values(counts)
    for row, weight in enumerate(counts):
        rows = np.repeat(np.arange(80), weight[unit].astype(int))
        t, s = truth[rows], said[rows]
        expected = {
            "mae": mean_absolute_error(t, s),
            "rmse": root_mean_squared_error(t, s),
            "bias": np.mean(s - t),
            "r2": r2_score(t, s),
            "pearson": stats.pearsonr(t, s).statistic,
            "spearman": stats.spearmanr(t, s).statistic,
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, rel=1e-9), name
        # Lin 1989, eq. 4: the correlation times how far the line is off, by scale and location shift
        scale, shift = np.std(s) / np.std(t), np.mean(s - t) / np.sqrt(np.std(s) * np.std(t))
        accuracy = 2 / (scale + 1 / scale + shift**2)
        assert found["concordance"][row] == pytest.approx(expected["pearson"] * accuracy, rel=1e-9)


def test_the_limits_of_agreement_of_published_data() -> None:
    found = figures_of(measures_of(np.array(MINI), np.array(LARGE)))
    assert round(found["bias"], 1) == -2.1  # as published, and the standard deviation 38.8
    assert round((found["limit_high"] - found["bias"]) / 1.96, 1) == 38.8
    assert round((found["bias"] - found["limit_low"]) / 1.96, 1) == 38.8


def test_concordance_by_hand() -> None:
    # covariance and both variances are 2, the means differ by 1: 2 * 2 / (2 + 2 + 1)
    assert figures_of(measures_of(np.arange(5), np.arange(1, 6)))["concordance"] == pytest.approx(0.8)
    # reversed: -2 * 2 / (2 + 2)
    assert figures_of(measures_of(np.arange(5), np.arange(5)[::-1]))["concordance"] == pytest.approx(-1.0)


def test_several_images_of_a_patient_add_both_variances() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([1, 3, 2, 5, 4, 2])
    unit = np.repeat(np.arange(6), sizes)
    gap = rng.normal(0, 2, 6)[unit] + rng.normal(0, 1, unit.size)
    truth = rng.normal(50, 9, unit.size)
    made = measures_of(truth, truth + gap, unit)
    for counts in (np.ones(6), np.array([2.0, 1, 0, 1, 1, 3])):
        kept = np.repeat(np.arange(6), counts.astype(int))
        groups = [gap[unit == k] for k in kept]
        n = sum(map(len, groups))
        within = sum(((one - one.mean()) ** 2).sum() for one in groups) / (n - len(groups))
        between = stats.f_oneway(*groups).statistic * within  # mean squares of the one-way analysis of variance
        divisor = (n**2 - sum(len(one) ** 2 for one in groups)) / ((len(groups) - 1) * n)  # Bland and Altman 2007
        deviation = math.sqrt((between - within) / divisor + within)
        found = made.values(counts[None])
        assert found["limit_high"][0] - found["bias"][0] == pytest.approx(1.96 * deviation)


def test_images_that_differ_more_within_patients_have_no_variance_between_them() -> None:
    truth, unit = np.zeros(6), np.repeat(np.arange(3), 2)
    found = figures_of(measures_of(truth, np.array([-3.0, 3, -3, 3, -3, 3]), unit))
    assert found["limit_high"] == pytest.approx(1.96 * math.sqrt(18))  # within: 6 * 9 / 3


@pytest.mark.parametrize(
    ("truth", "said", "undefined"),
    [
        ([5, 5, 5, 5], [4, 5, 6, 7], {"r2", "pearson", "spearman", "concordance"}),
        ([0.1, 0.1, 0.1], [0.3, 0.3, 0.3], {"r2", "pearson", "spearman", "concordance"}),
        ([1, 2, 3, 4], [2, 2, 2, 2], {"pearson", "spearman"}),
        ([1], [2], {"r2", "pearson", "spearman", "concordance", "limit_low", "limit_high"}),
        ([], [], {"mae", "rmse", "bias", "r2", "pearson", "spearman", "concordance", "limit_low", "limit_high"}),
    ],
)
def test_what_cannot_be_told_is_undefined_with_its_reason(
    truth: list[float], said: list[float], undefined: set[str]
) -> None:
    made = measures_of(np.array(truth), np.array(said))
    found = figures_of(made)
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    assert not any(made.reason(name).startswith("undefined") for name in undefined)


def test_a_resample_of_one_patient_tells_of_no_correlation() -> None:
    made = measures_of(np.array([0.1, 2.7, 3.3]), np.array([0.2, 2.0, 3.1]))
    found = made.values(np.array([[3.0, 0, 0], [0.0, 3, 0], [1.0, 1, 1]]))
    for name in ("r2", "pearson", "spearman", "concordance", "limit_low"):
        assert np.isnan(found[name]).tolist() == [name != "limit_low"] * 2 + [False], name


def test_one_patient_has_no_limits_and_few_have_no_intervals() -> None:
    made = measures_of(np.array([1.0, 2, 4]), np.array([1.0, 3, 4]), np.zeros(3))
    assert math.isnan(figures_of(made)["limit_low"])
    assert made.reason("limit_low") == "one patient only"
    three = measures_of(np.array([1.0, 2, 4]), np.array([1.0, 3, 4]))
    assert three.no_interval("mae") == "no interval: 3 patients only"
    assert measures_of(np.arange(4), np.arange(4)).no_interval("mae") == ""


def test_what_rounding_leaves_is_no_spread() -> None:
    made = measures_of(np.full(20, 0.1), np.full(20, 0.3))
    found = made.values(np.vstack([np.ones(20), np.random.default_rng(0).integers(0, 4, (50, 20))]).astype(float))
    assert np.ptp(found["limit_high"]) < 1e-12
    same = figures_of(measures_of(np.random.default_rng(0).normal(3, 1, 20), np.full(20, 0.3)))["concordance"]
    assert math.copysign(1.0, same) == 1.0
    assert same == 0.0
