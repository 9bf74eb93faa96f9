"""Sample sizes against published figures, simulation and a search over every n."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import plan_sample
from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.classes.planning import PlannedFigure, _placement_moments, auroc_variance
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures


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
    """Of many images the interval is the mean's with its standard error, by hand."""
    plan = plan_sample("accuracy", expected=0.8, width=0.02)
    assert plan.n_images == pytest.approx(4 * norm.ppf(0.975) ** 2 * 0.8 * 0.2 / 0.02**2, rel=0.002)
    assert 0.0198 < plan.high - plan.low <= 0.02
    assert plan.low < 0.8 < plan.high


@pytest.mark.parametrize(
    ("figure", "expected", "width", "prevalence"),
    [("auroc", 0.9, 0.15, 0.25), ("sensitivity", 0.85, 0.25, 0.2), ("accuracy", 0.8, 0.2, 0.5)],
)
def test_studies_of_the_planned_size_get_the_promised_width(
    figure: PlannedFigure, expected: float, width: float, prevalence: float
) -> None:
    n, widths = plan_sample(figure, expected=expected, width=width, prevalence=prevalence).n_images, []
    for seed in range(30):
        rng, truth = np.random.default_rng(seed), (np.arange(n) < round(n * prevalence)).astype(float)
        scale = np.where(truth > 0, expected / (1 - expected), 1.0)
        score = 1 - np.exp(-rng.exponential(size=n) * scale / 5)
        call = np.where(rng.random(n) < expected, truth, 1 - truth) * 0.8 + 0.1
        prob = score if figure == "auroc" else call
        measures = BinaryMeasures(truth, prob, unit=np.arange(n), units=n, threshold=0.5)
        found = bootstrap_figures(measures, Bootstrap(300))[figure]
        widths.append(found.high - found.low)
    assert np.mean(widths) == pytest.approx(width, rel=0.08)


def test_how_exponential_scores_are_placed_against_simulation() -> None:
    rng = np.random.default_rng(0)
    below, above = np.exp(-rng.exponential(size=400_000) * 4.0), np.exp(-rng.exponential(size=400_000) / 4.0)
    second, fourth = _placement_moments(0.8, model="hanley_mcneil")
    assert second == pytest.approx((below.var(), above.var()), rel=0.01)
    assert fourth == pytest.approx(
        (((below - below.mean()) ** 4).mean(), ((above - above.mean()) ** 4).mean()), rel=0.02
    )


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
        ({"width": 0.0}, "width: expected a number between"),
        ({"prevalence": None}, "needs the prevalence"),
        ({"prevalence": 1.0}, "prevalence: expected a number between"),
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
