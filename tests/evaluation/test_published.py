"""Worked examples from the literature whose data are printed: our figures against the printed ones, digit by digit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import compare, evaluate
from lepton_vision.evaluation.classes.binary_views import BinaryView
from lepton_vision.evaluation.classes.decision_curve import decision_curve
from lepton_vision.evaluation.statistics.delong import auroc_covariance
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, clopper_pearson, wilson
from lepton_vision.evaluation.statistics.paired_tests import compare_proportions
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import FloatArray, Target, TargetKind

# Albumin, total protein, 10 - K-G score, and 0 where the patient benefits: 43 patients of DeLong et al. 1988 as printed
# in the SAS/STAT User's Guide, The LOGISTIC Procedure, "Comparing Receiver Operating Characteristic Curves".
OVARIAN = """
3.0 5.8 10 0   3.2 6.3 5 1   3.9 6.8 3 1   2.8 4.8 6 0   3.2 5.8 3 1   0.9 4.0 5 0   2.5 5.7 8 0   1.6 5.6 5 1
3.8 5.7 5 1   3.7 6.7 6 1   3.2 5.4 4 1   3.8 6.6 6 1   4.1 6.6 5 1   3.6 5.7 5 1   4.3 7.0 4 1   3.6 6.7 4 0
2.3 4.4 6 1   4.2 7.6 4 0   4.0 6.6 6 0   3.5 5.8 6 1   3.8 6.8 7 1   3.0 4.7 8 0   4.5 7.4 5 1   3.7 7.4 5 1
3.1 6.6 6 1   4.1 8.2 6 1   4.3 7.0 5 1   4.3 6.5 4 1   3.2 5.1 5 1   2.6 4.7 6 1   3.3 6.8 6 0   1.7 4.0 7 0
3.7 6.1 5 1   3.3 6.3 7 1   4.2 7.7 6 1   3.5 6.2 5 1   2.9 5.7 9 0   2.1 4.8 7 1   2.8 6.2 8 0   4.0 7.0 7 1
3.3 5.7 6 1   3.7 6.9 5 1   3.6 6.6 5 1
"""
# Score A of 26 children: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, table 14.1.
SPATIAL = np.array(
    [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41], dtype=float
)


def single(
    truth: np.ndarray, prob: np.ndarray, *, kind: TargetKind = "binary", classes: tuple[str, ...] = ("no", "yes")
) -> Predictions:
    """Independent cases of one target."""
    ids = np.array([f"i{k}" for k in range(len(truth))])
    target = Target("y", kind, classes)
    return Predictions((target,), ids, ids, ids, {"y": truth.astype(float)}, {"y": prob})


def test_delong_et_al_1988_three_tests_before_surgery() -> None:
    """Areas, standard errors and the overall test of SAS: chi-squared 2.5340 with two degrees of freedom."""
    rows = np.array(OVARIAN.split(), dtype=float).reshape(43, 4)
    albumin, protein, score = -rows[:, 0], -rows[:, 1], rows[:, 2]
    found = auroc_covariance(rows[:, 3] == 0, np.column_stack([albumin, protein, score]))
    assert found.auroc.round(4).tolist() == [0.7366, 0.6478, 0.7258]
    assert np.sqrt(np.diag(found.covariance)).round(4).tolist() == [0.0927, 0.1000, 0.1028]
    contrast = np.array([[1, 0, -1], [0, 1, -1]])
    gap, variance = contrast @ found.auroc, contrast @ found.covariance @ contrast.T
    assert round(float(gap @ np.linalg.solve(variance, gap)), 4) == 2.5340
    scaled = [(one - one.min()) / (one.max() - one.min()) for one in (score, albumin)]
    point = OperatingPoint({"y": (0.5,)}, "stated")
    one, other = (single(rows[:, 3] == 0, prob) for prob in scaled)
    difference = compare(one, other, operating_point=point).differences["y"]["auroc"]
    assert difference.test == "delong"
    assert round(difference.figure.value, 4) == 0.0108
    assert round(difference.p_value, 4) == 0.9102


def test_hanley_and_mcneil_1982_readings_of_ct() -> None:
    """109 CT images rated 1 to 5 (Radiology 143:29): area 0.893; error and interval as in Stata's [R] roctab."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    truth = np.repeat([0, 1], [58, 51])
    rating = np.concatenate([np.repeat(np.arange(5), normal), np.repeat(np.arange(5), abnormal)])
    figure = evaluate(single(truth, rating / 4), operating_point=OperatingPoint({"y": (0.5,)}, "stated")).figures["y"]
    assert round(figure["auroc"].value, 4) == 0.8932
    found = auroc_covariance(truth > 0, rating[:, None].astype(float))
    error = float(found.covariance[0, 0]) ** 0.5
    assert round(error, 4) == 0.0307
    ends = found.auroc[0] + np.array([-1.959964, 1.959964]) * error
    assert ends.round(5).tolist() == [0.83295, 0.95339]
    # BCa is not symmetric either: it lies beside the interval on the logit scale.
    assert (figure["auroc"].low, figure["auroc"].high) == pytest.approx(found.interval(), abs=0.01)


def test_mcnemar_in_fagerland_lydersen_and_laake_2013() -> None:
    """BMC Med Res Methodol 13:91: 21 children and 161 patients, before and after a therapy."""
    for cells, printed in (((1, 1, 7, 12), 0.070), ((59, 6, 16, 80), 0.052)):
        first = np.repeat([True, True, False, False], cells)
        second = np.repeat([True, False, True, False], cells)
        test = compare_proportions(first, second, unit=np.arange(first.size))
        assert test.method == "mcnemar_exact"
        assert round(test.p_value, 3) == printed


@pytest.mark.parametrize(
    ("hits", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_newcombe_1998(hits: int, n: int, score: tuple[float, float], exact: tuple[float, float]) -> None:
    """Stat Med 17:857, table I: score interval without continuity correction, and Clopper–Pearson's."""
    assert tuple(np.round([*map(float, wilson(hits, n))], 4)) == score
    assert tuple(np.round([*map(float, clopper_pearson(hits, n))], 4)) == exact


class Variance:
    """Plug-in variance of SPATIAL, for weightings of the children."""

    units = n = SPATIAL.size

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        share = counts / counts.sum(axis=1, keepdims=True)
        return {"variance": share @ SPATIAL**2 - (share @ SPATIAL) ** 2}

    def size(self, name: str) -> int:
        return self.n

    def reason(self, name: str) -> str:
        return ""

    def denominator_units(self, name: str) -> int | None:
        return None


def test_efron_and_tibshirani_1993_the_variance_of_a_spatial_test() -> None:
    """Table 14.2, 90 %, 2,000 replicates: 171.5, percentile (100.8, 233.9), BCa (115.8, 259.6).

    The book does not expand BCa's levels for 26 children: the confidence is set so that ours come out as its 90 %. Its
    ends are of its own 2,000 replicates; their spread over seeds, measured here, is the tolerance.
    """
    plain = 1 - 2 * stats.t.sf(stats.norm.isf(0.05) * (25 / 26) ** 0.5, 25)
    for method, confidence, ends in (("percentile", 0.9, (100.8, 233.9)), ("bca", plain, (115.8, 259.6))):
        settings = [Bootstrap(2000, confidence, seed, method) for seed in range(20)]  # type: ignore[arg-type]
        figures = [bootstrap_figures(Variance(), one)["variance"] for one in settings]
        found = np.array([(one.low, one.high) for one in figures])
        assert round(figures[0].value, 1) == 171.5
        assert {one.method for one in figures} == {method}
        # two and a half deviations of the difference between the book's draw and the mean of ours
        assert (np.abs(found.mean(axis=0) - ends) < 2.5 * found.std(axis=0, ddof=1)).all(), (method, found.mean(axis=0))


def test_boyd_1982_two_readers_of_mammograms() -> None:
    """85 xeromammograms, normal to cancer (Altman 1991, p. 403; Stata's [R] kappa): quadratic weights give 0.6714."""
    cells = np.array([[21, 12, 0, 0], [4, 17, 1, 0], [3, 9, 15, 2], [0, 0, 0, 1]])
    first, second = (np.repeat(axis.ravel(), cells.ravel()) for axis in np.indices((4, 4)))
    made = single(first, np.eye(4)[second], kind="ordinal", classes=("normal", "benign", "suspect", "cancer"))
    figures = evaluate(made, operating_point=OperatingPoint({}, "")).figures["y"]
    assert figures["kappa_quadratic"].n == 85
    assert round(figures["kappa_quadratic"].value, 4) == 0.6714


def test_altman_and_bland_1994_liver_scans() -> None:
    """BMJ 308:1552 and 309:102: 344 liver scans; at a prevalence of 0.25 the predictive values are 0.45 and 0.95."""
    truth = np.repeat([1, 1, 0, 0], [231, 27, 32, 54])
    called = np.repeat([1.0, 0.0, 1.0, 0.0], [231, 27, 32, 54])
    config = EvaluationConfig(prevalence=0.25)
    found = evaluate(single(truth, called), operating_point=OperatingPoint({"y": (0.5,)}, "stated"), config=config)
    printed = {"sensitivity": 0.90, "specificity": 0.63, "ppv": 0.88, "npv": 0.67, "prevalence": 0.75}
    printed |= {"ppv_at_prevalence": 0.45, "npv_at_prevalence": 0.95}
    figures = found.figures["y"]
    assert {name: round(figures[name].value, 2) for name in printed} == printed
    assert round(figures["lr_positive"].value, 1) == 2.4


def test_vickers_and_elkin_2006_seminal_vesicle_invasion() -> None:
    """Med Decis Making 26:565: at 10 % the model finds 65 of 87 with 225 false positives among 902 men: 0.0443."""
    truth = np.repeat([True, True, False, False], [65, 22, 225, 590])
    prob = np.repeat([0.2, 0.05, 0.2, 0.05], [65, 22, 225, 590])
    curve = decision_curve(BinaryView("invasion", truth, prob, np.arange(902), 902), Bootstrap(100))
    place = int(np.argmin(np.abs(curve.threshold - 0.10)))
    assert round(float(curve.model.value[place]), 4) == 0.0443
