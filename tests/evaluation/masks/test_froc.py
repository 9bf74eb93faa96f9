"""FROC: a hand count, a plain loop over thresholds, and the patient as the unit."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import LesionScores, froc
from lepton_vision.evaluation.masks.froc import FROC_RATES
from lepton_vision.evaluation.statistics.intervals import draw_counts

NONE = np.array([])
# Two cases, four lesions (one never hit), three false candidates.
HAND = [
    LesionScores("a", "p", np.array([0.9, 0.5, np.nan]), np.array([0.8, 0.4])),
    LesionScores("b", "q", np.array([0.7]), np.array([0.6])),
]


def test_a_hand_count() -> None:
    """Descending: 0.9 hit, 0.8 false, 0.7 hit, 0.6 false, 0.5 hit, 0.4 false; two cases, so a false one is 0.5."""
    found = froc(HAND)
    assert found.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert found.false_per_case.tolist() == [0, 0.5, 0.5, 1.0, 1.0, 1.5]
    assert found.sensitivity.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    expected = {0.125: 0.25, 0.25: 0.25, 0.5: 0.5, 1.0: 0.75, 2.0: 0.75, 4.0: 0.75, 8.0: 0.75}
    for rate, value in expected.items():
        figure = found.figures[f"sensitivity_at_{rate:g}"]
        assert (figure.value, figure.n) == (value, 4)
    assert found.figures["cpm"].value == pytest.approx(sum(expected.values()) / 7)
    assert (found.n, found.n_patients, found.n_lesions) == (2, 2, 4)


def test_equal_scores_are_one_threshold() -> None:
    found = froc([LesionScores("a", "p", np.array([0.5]), np.array([0.5]))], rates=(0.0, 1.0))
    assert found.thresholds.tolist() == [0.5]
    assert found.figures["sensitivity_at_0"].value == 0.0  # the lesion cannot be had without the false one
    assert found.figures["sensitivity_at_1"].value == 1.0


def random_cases(n: int, *, seed: int = 0) -> list[LesionScores]:
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(n):
        hit = np.round(rng.beta(3, 2, rng.integers(0, 4)), 2)
        hit[rng.random(hit.size) < 0.2] = np.nan
        cases.append(LesionScores(f"i{number}", f"p{number // 3}", hit, np.round(rng.beta(2, 3, rng.poisson(3)), 2)))
    return cases


def loop(cases: list[LesionScores], rate: float) -> float:
    """Try every threshold, and none."""
    lesions = sum(case.lesion_scores.size for case in cases)
    scores = [score for case in cases for score in [*case.lesion_scores, *case.false_scores] if score == score]
    best = 0.0
    for threshold in [*scores, 2.0]:
        false = sum(int((case.false_scores >= threshold).sum()) for case in cases)
        found = sum(int((case.lesion_scores >= threshold).sum()) for case in cases)
        if false / len(cases) <= rate:
            best = max(best, found / lesions)
    return best


@pytest.mark.parametrize("seed", range(5))
def test_a_plain_loop_over_thresholds(seed: int) -> None:
    cases = random_cases(24, seed=seed)
    found = froc(cases, config=EvaluationConfig(replicates=100))
    values = [found.figures[f"sensitivity_at_{rate:g}"].value for rate in FROC_RATES]
    assert values == pytest.approx([loop(cases, rate) for rate in FROC_RATES])
    assert found.figures["cpm"].value == pytest.approx(np.mean(values))
    assert found.figures["cpm"].low < found.figures["cpm"].value < found.figures["cpm"].high


def test_the_interval_is_that_of_a_plain_loop() -> None:
    """Each replicate puts a patient's cases in as often as it was drawn."""
    cases = random_cases(18, seed=1)
    patients = sorted({case.patient_id for case in cases})
    config = EvaluationConfig(replicates=100, seed=4, interval="percentile")
    figure = froc(cases, rates=(1.0,), config=config).figures["sensitivity_at_1"]
    drawn = []
    for count in np.concatenate(list(draw_counts(len(patients), replicates=100, samples=18, seed=4))):
        times = dict(zip(patients, count.astype(int), strict=True))
        drawn.append(loop([case for case in cases for _ in range(times[case.patient_id])], 1.0))
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_copies_of_a_patients_cases_do_not_narrow_the_interval() -> None:
    once = random_cases(24)
    copies = [
        LesionScores(f"{k}{c.image_id}", c.patient_id, c.lesion_scores, c.false_scores) for k in range(4) for c in once
    ]
    apart = [LesionScores(c.image_id, c.image_id, c.lesion_scores, c.false_scores) for c in copies]
    clustered, naive = froc(copies).figures["cpm"], froc(apart).figures["cpm"]
    assert clustered.value == pytest.approx(naive.value)
    assert clustered.high - clustered.low > 1.5 * (naive.high - naive.low)


def test_no_lesion_is_undefined_and_no_candidate_is_zero() -> None:
    nothing = froc([LesionScores("a", "p", NONE, np.array([0.3])), LesionScores("b", "q", NONE, NONE)])
    assert np.isnan(nothing.figures["cpm"].value)
    assert nothing.figures["cpm"].reason == "no lesion in the truth"
    assert nothing.to_dict()["curve"] == [{"threshold": 0.3, "false_per_case": 0.5, "sensitivity": None}]
    missed = froc([LesionScores(k, k, np.array([np.nan]), NONE) for k in "abc"])
    assert missed.figures["sensitivity_at_8"].value == 0.0
    assert missed.figures["sensitivity_at_8"].high > 0.3  # Wilson over three patients, not [0, 0]


@pytest.mark.parametrize(("cases", "rates"), [([], (1.0,)), (HAND + HAND[:1], (1.0,)), (HAND, (-1.0,)), (HAND, ())])
def test_bad_input_is_refused(cases: list[LesionScores], rates: tuple[float, ...]) -> None:
    with pytest.raises(EvaluationError, match="Received"):
        froc(cases, rates=rates)


def test_it_shows_itself() -> None:
    html = froc(HAND)._repr_html_()
    assert "2 cases of 2 patients" in html
    assert "<th>cpm</th>" in html
