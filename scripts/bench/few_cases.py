"""How often verdicts, tests and intervals of few cases are wrong in simulated studies; see ``coverage.py --what``."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import fisher_exact, multinomial

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.classes.comparison import compare
from lepton_vision.evaluation.classes.measures import BinaryMeasures, Extent
from lepton_vision.evaluation.classes.subgroups import evaluate_subgroups
from lepton_vision.evaluation.statistics.composites import with_edges
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.evaluation.statistics.paired_intervals import Pairs, non_inferiority_p, tango_p
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
LOSSES = ((20, 0.1), (30, 0.05), (60, 0.05), (150, 0.05))  # positives, and the loss, which is the margin
# Patients of two subgroups, and the shares of positives in them.
DESIGNS = (
    ((100, 100), (0.3, 0.3)),
    ((100, 100), (0.05, 0.5)),
    ((150, 150), (0.08, 0.4)),
    ((300, 300), (0.05, 0.3)),
    ((200, 200), (0.1, 0.3)),
    ((200, 800), (0.05, 0.3)),
)
SPECIFICITY, NEGATIVES, STATED = 0.9, 80, 0.1


def study(truth: np.ndarray, prob: np.ndarray) -> Predictions:
    """One image for each patient."""
    ids = np.array([f"i{k}" for k in range(truth.size)])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth.astype(float)}, {"sick": prob}, split="test")


def non_inferiority(studies: int, *, replicates: int, seed: int) -> Iterator[str]:
    """The second model loses as many of the positives as the margin allows; nominal 2.5 %."""
    for positives, loss in LOSSES:
        declared = {"sensitivity": 0, "auroc": 0}
        for number in range(studies):
            rng = np.random.default_rng([seed, positives, number])
            found, lost = rng.random(positives) < 0.95, rng.random(positives) < loss / 0.95
            alarm, truth = rng.random(50) < 0.1, np.arange(positives + 50) < positives
            pair = [
                np.where(np.r_[one, alarm], 0.8, 0.2) + rng.random(truth.size) / 100 for one in (found, found & ~lost)
            ]
            differences = compare(
                *(study(truth, one) for one in pair),
                operating_point=POINT,
                margin=loss,
                config=EvaluationConfig(replicates=replicates, seed=number),
            ).differences["sick"]
            for name in declared:
                declared[name] += differences[name].is_non_inferior is True
        rates = ", ".join(f"{name} {count / studies:.1%}" for name, count in declared.items())
        yield f"{positives} positives, loss and margin {loss:g}: called non-inferior in {rates} of {studies} studies"


def exact(studies: int, *, replicates: int, seed: int) -> Iterator[str]:
    """Verdicts on proportions over every possible table, for every share of discordant pairs: nothing is drawn."""
    del studies, replicates, seed
    for n in (20, 30, 60, 150):
        cells = [(g, k, n - g - k) for g in range(n + 1) for k in range(n + 1 - g)]
        for margin in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
            found = [Pairs(gained, lost, n, n) for gained, lost, _ in cells]
            alone = np.array([tango_p(one, margin=margin) for one in found])
            order = np.argsort(-alone, kind="stable")  # P falls along it
            first = bisect.bisect_left(order, True, key=lambda k: non_inferiority_p(found[k], margin=margin) <= 0.025)
            declared = {"the verdict": order[first:], "Tango's score test alone": np.flatnonzero(alone <= 0.025)}
            worst = {
                name: max(multinomial.pmf(cells, n, [p, p + margin, 1 - 2 * p - margin])[rows].sum() for p in shares)
                for name, rows in declared.items()
                for shares in [np.linspace(0.0, (1.0 - margin) / 2 - 1e-9, 61)]
            }
            told = ", ".join(f"{name} {level:.2%}" for name, level in worst.items())
            yield f"{n} positives, loss and margin {margin:g}: wrong in at most {told}"


def gaps(studies: int, *, replicates: int, seed: int) -> Iterator[str]:
    """Scores of positives and of negatives are alike in both subgroups; nominal 5 %. Beside it Fisher's exact test."""
    for patients, shares in DESIGNS:
        yield from _gaps(patients, shares, lost=0.0, studies=studies, replicates=replicates, seed=seed)


def power(studies: int, *, replicates: int, seed: int) -> Iterator[str]:
    """Positives of the second subgroup score lower: sensitivity 0.8 against 0.5, AUROC 0.88 against 0.72."""
    for patients, shares in DESIGNS[::2]:
        yield from _gaps(patients, shares, lost=0.8416, studies=studies, replicates=replicates, seed=seed)


def _gaps(
    patients: tuple[int, int],
    shares: tuple[float, float],
    *,
    lost: float,
    studies: int,
    replicates: int,
    seed: int,
) -> Iterator[str]:
    reached, disagree = dict[str, int](), 0
    for number in range(studies):
        rng, group = np.random.default_rng([seed, number]), np.repeat([0, 1], patients)
        truth = rng.random(group.size) < np.array(shares)[group]
        prob = 1 / (1 + np.exp(0.8416 - (1.6833 - lost * group) * truth - rng.normal(size=group.size)))
        table = [[int(((prob >= 0.5) == k)[truth & (group == g)].sum()) for k in (0, 1)] for g in (0, 1)]
        fisher = fisher_exact(table).pvalue <= 0.05
        reached["fisher_of_sensitivity"] = reached.get("fisher_of_sensitivity", 0) + fisher
        (column,) = evaluate_subgroups(
            study(truth, prob),
            {"sex": group.tolist()},
            operating_point=POINT,
            config=EvaluationConfig(replicates=replicates, interval="percentile", seed=number),
        )
        for gap in column.gaps:
            reached[gap.figure] = reached.get(gap.figure, 0) + (gap.p <= 0.05)
            disagree += (gap.p <= 0.05) != (gap.difference.low > 0)
    rates = ", ".join(f"{name} {count / studies:.1%}" for name, count in reached.items())
    yield f"{patients} patients, prevalence {shares}: P <= 0.05 in {rates}; intervals that disagree: {disagree}"


def composites(studies: int, *, replicates: int, seed: int, sizes: Sequence[int] = (10, 20)) -> Iterator[str]:
    """Coverage of 95 % intervals of figures that are made of sensitivity and specificity."""
    for positives in sizes:
        for sensitivity in (0.9, 0.95, 0.98):
            true = true_composites(sensitivity, share=positives / (positives + NEGATIVES))
            held, known = dict.fromkeys(true, 0), dict.fromkeys(true, 0)
            for number in range(studies):
                rng = np.random.default_rng([seed, positives, number])
                truth = (np.arange(positives + NEGATIVES) < positives).astype(float)
                called = rng.random(truth.size) < np.where(truth > 0, sensitivity, 1 - SPECIFICITY)
                unit, extent = np.arange(truth.size), Extent(0.1, STATED)
                measures = BinaryMeasures(
                    truth, np.where(called, 0.9, 0.1), unit=unit, units=unit.size, threshold=0.5, extent=extent
                )
                figures = bootstrap_figures(measures, Bootstrap(replicates, 0.95, number))
                figures = with_edges(figures, edges=measures.at_edge(0.95), means=measures.means())
                for name, value in true.items():
                    known[name] += bool(figures[name].low < figures[name].high)
                    held[name] += bool(figures[name].low <= value <= figures[name].high)
            rates = ", ".join(f"{name} {held[name] / known[name]:.1%} of {known[name]}" for name in true)
            yield f"{positives} positives, sensitivity {sensitivity:g}: {rates}"


def true_composites(sensitivity: float, *, share: float) -> dict[str, float]:
    """What an endless study would give with this share of positives."""
    called = share * sensitivity + (1 - share) * (1 - SPECIFICITY)
    true, false = STATED * sensitivity, (1 - STATED) * (1 - SPECIFICITY)
    cleared, missed = (1 - STATED) * SPECIFICITY, STATED * (1 - sensitivity)
    spread = (share * (1 - share) / (called * (1 - called))) ** 0.5
    return {
        "balanced_accuracy": (sensitivity + SPECIFICITY) / 2,
        "lr_positive": sensitivity / (1 - SPECIFICITY),
        "lr_negative": (1 - sensitivity) / SPECIFICITY,
        "mcc": (sensitivity + SPECIFICITY - 1) * spread,
        "f1": 2 * share * sensitivity / (share + called),
        "ppv_at_prevalence": true / (true + false),
        "npv_at_prevalence": cleared / (cleared + missed),
    }


RATES: Mapping[str, Callable[..., Iterator[str]]] = {
    "exact": exact,
    "non_inferiority": non_inferiority,
    "gaps": gaps,
    "power": power,
    "composites": composites,
}
