"""Sample sizes against published figures, simulation and a search over every n."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from lepton_vision.cli import app
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import plan_sample
from lepton_vision.evaluation.planning import auroc_variance


def test_hanley_and_mcneils_published_error() -> None:
    """Radiology 143:29, 1982, the worked example: 58 normal and 51 abnormal scans, area 0.893, standard error 0.032."""
    variance = auroc_variance(0.893, positives=51, negatives=58, model="hanley_mcneil")
    assert round(variance**0.5, 3) in (0.032, 0.033)  # the paper prints 0.032 and rounds Q1 and Q2


def test_the_variance_of_exponential_scores_against_simulation() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [80, 40])
    scale = np.where(truth == 1, 4.0, 1.0)  # P(X > Y) = s / (1 + s) = 0.8
    areas = [roc_auc_score(truth, rng.exponential(size=120) * scale) for _ in range(2000)]
    assert np.mean(areas) == pytest.approx(0.8, abs=0.005)
    expected = auroc_variance(0.8, positives=40, negatives=80, model="hanley_mcneil")
    assert np.std(areas) == pytest.approx(expected**0.5, rel=0.06)


def test_obuchowskis_variance_against_the_power_that_proc_publishes() -> None:
    """pROC's own test of power.roc.test: AUROC 0.7313686 with 41 cases and 72 controls has a power of 0.9904833."""
    none, some = (auroc_variance(a, positives=41, negatives=72, model="obuchowski") for a in (0.5, 0.7313686))
    power = norm.cdf((0.7313686 - 0.5 - norm.ppf(0.975) * none**0.5) / some**0.5)
    assert power == pytest.approx(0.9904833, abs=1e-6)


def test_a_proportion_has_the_smallest_size_that_does() -> None:
    plan = plan_sample("accuracy", expected=0.8, width=0.15)
    widths = {
        n: np.diff(binomtest(round(0.8 * n), n).proportion_ci(0.95, method="wilson"))[0] for n in range(5, 300, 5)
    }
    assert abs(min(n for n, width in widths.items() if width <= 0.15) - plan.n_images) <= 5
    assert plan.high - plan.low <= 0.15


def test_positives_are_what_sensitivity_needs() -> None:
    rare, common = (plan_sample("sensitivity", expected=0.9, width=0.1, prevalence=p) for p in (0.1, 0.5))
    assert rare.n_positive == pytest.approx(common.n_positive, abs=1)
    assert rare.n_images == pytest.approx(5 * common.n_images, rel=0.02)
    assert plan_sample("specificity", expected=0.9, width=0.1, prevalence=0.1).n_images < rare.n_images / 8


def test_images_of_one_patient_count_less() -> None:
    keys = {"expected": 0.9, "width": 0.08, "prevalence": 0.3}
    alone = plan_sample("auroc", **keys)  # type: ignore[arg-type]
    shared = plan_sample("auroc", **keys, images_per_patient=5, icc=0.5)  # type: ignore[arg-type]
    assert shared.design_effect == 3.0
    assert shared.n_images == 3 * alone.n_images
    assert shared.n_patients == -(-shared.n_images // 5) < alone.n_patients


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"figure": "aurok"}, "'auroc'"),
        ({"expected": 0.4}, "between 0.5 and 1"),
        ({"width": 0.0}, "width between"),
        ({"prevalence": None}, "needs the prevalence"),
        ({"prevalence": 1.0}, "prevalence between"),
        ({"icc": 1.5}, "icc from 0 to 1"),
        ({"model": "hanley"}, "hanley_mcneil"),
    ],
)
def test_impossible_plans_are_refused(keys: dict[str, object], word: str) -> None:
    values = {"figure": "auroc", "expected": 0.9, "width": 0.1, "prevalence": 0.2} | keys
    figure = values.pop("figure")
    with pytest.raises(EvaluationError, match=word):
        plan_sample(figure, **values)  # type: ignore[arg-type]


def test_the_command_prints_the_plan() -> None:
    done = CliRunner().invoke(
        app,
        [
            "plan",
            "--figure",
            "auroc",
            "--expected",
            "0.9",
            "--width",
            "0.1",
            "--prevalence",
            "0.2",
            "--images-per-patient",
            "4",
            "--icc",
            "0.3",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    expected = plan_sample("auroc", expected=0.9, width=0.1, prevalence=0.2, images_per_patient=4, icc=0.3)
    assert json.loads(done.output) == expected.to_dict()
