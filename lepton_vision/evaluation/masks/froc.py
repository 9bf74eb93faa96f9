"""FROC analysis: lesion sensitivity against false positives per case, over all score thresholds of the candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.lesions import LesionScores
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.statistics.ranking import IntArray, ratio
from lepton_vision.types import Figure, FloatArray, Result, Table, figures_table, plain
from lepton_vision.types.figure import FigureSpec

# The seven rates of LUNA16 (Setio et al., Medical Image Analysis 42:1, 2017).
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


CPM = FigureSpec("cpm", "Mean of these (CPM)", "Plain mean of the sensitivities above.", kinds=())


@dataclass(frozen=True, eq=False)
class Froc(Result):
    """Result of ``froc``.

    Attributes:
        figures: ``sensitivity_at_<rate>`` for each rate of false positives per case, and ``cpm``, their plain mean
            (competition performance metric, Niemeijer et al., IEEE TMI 30:215, 2011). n counts lesions.
        thresholds: (T,) float64, distinct scores, descending; a candidate counts where its score >= threshold.
        false_per_case: (T,) float64, false positives per case at each threshold.
        sensitivity: (T,) float64, share of the lesions found at each threshold; NaN where there is no lesion.
        n: cases, those without a lesion too.
        n_patients: patients among them.
        n_lesions: lesions of all cases.
        confidence: of the intervals.
        provenance: method and number of the replicates, seed.
    """

    figures: Mapping[str, Figure]
    thresholds: FloatArray
    false_per_case: FloatArray
    sensitivity: FloatArray
    n: int
    n_patients: int
    n_lesions: int
    confidence: float = 0.95
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: undefined numbers are None."""
        curve = zip(*(plain(one) for one in (self.thresholds, self.false_per_case, self.sensitivity)), strict=True)
        points = [dict(zip(("threshold", "false_per_case", "sensitivity"), point, strict=True)) for point in curve]
        counts = self._plain("n", "n_patients", "n_lesions", "confidence", "figures")
        return counts | {"curve": points, "provenance": dict(self.provenance)}

    def _tables(self) -> tuple[Table, ...]:
        caption = f"FROC · {self.n} cases of {self.n_patients} patients · {self.confidence:.0%} intervals"
        return (figures_table(caption, self.figures, counted="lesions"),)


def froc(
    cases: Iterable[LesionScores], *, rates: Sequence[float] = FROC_RATES, config: EvaluationConfig | None = None
) -> Froc:
    """Compute the sensitivity at stated rates of false positives per case, with intervals over patients.

    The sensitivity at a rate is that of the lowest threshold with at most so many false positives per case: a point
    that can be chosen, without interpolation between points (LUNA16's script interpolates and is never below it).
    Cases without a lesion count in the rate. A lesion that no candidate hits is missed at every threshold.

    Args:
        cases: each image once (see ``lesions.score_lesions``).
        rates: false positives per case, 0 or more.
        config: replicates, confidence and seed.

    Raises:
        EvaluationError: no case, an image_id that stands twice, or a rate below 0.

    Example:
        >>> cases = [LesionScores("a", "p", np.array([0.9]), np.array([0.4])),
        ...          LesionScores("b", "q", np.array([0.3]), np.array([]))]
        >>> found = froc(cases, rates=(0.0, 0.5))
        >>> found.figures["sensitivity_at_0"].value, found.figures["sensitivity_at_0.5"].value
        (0.5, 1.0)
    """
    settings, found = config or EvaluationConfig(), _check(cases, rates)
    unit, units = patient_units(np.array([case.patient_id for case in found], dtype=np.str_))
    measures = _FrocMeasures(found, tuple(float(rate) for rate in rates), unit=unit, units=units)
    bootstrap = Bootstrap.of(settings)
    thresholds, false, true = measures.curve()
    return Froc(
        figures=bootstrap_figures(measures, bootstrap),
        thresholds=thresholds,
        false_per_case=false / len(found),
        sensitivity=ratio(true, np.full(true.shape, measures.lesions)),
        n=len(found),
        n_patients=units,
        n_lesions=measures.lesions,
        confidence=settings.confidence,
        provenance={
            "intervals": bootstrap.name,
            "replicates": settings.replicates,
            "seed": settings.seed,
        },
    )


def _check(cases: Iterable[LesionScores], rates: Sequence[float]) -> tuple[LesionScores, ...]:
    found = tuple(cases)
    repeated = len(found) - len({case.image_id for case in found})
    if not found or repeated:
        raise EvaluationError(
            f"A FROC needs at least one case, and each image_id once. Received: {len(found)} cases, {repeated} ids "
            "repeated.",
            key="image_id",
        )
    if not rates or not all(np.isfinite(rate) and rate >= 0.0 for rate in rates):
        raise EvaluationError(f"Expected rates of 0 or more. Received: {list(rates)}.", key="rates")
    return found


class _FrocMeasures:
    """Sensitivity at each rate for many weightings of the patients; lesions and false candidates are sorted once.

    ``n`` counts sorted scores or cases, whichever are more: the width of a replicate.
    """

    def __init__(
        self, cases: tuple[LesionScores, ...], rates: tuple[float, ...], *, unit: IntArray, units: int
    ) -> None:
        hit = [case.lesion_scores[~np.isnan(case.lesion_scores)] for case in cases]
        false = [case.false_scores for case in cases]
        score = np.concatenate([*hit, *false])
        owner = np.repeat(np.concatenate([unit, unit]), [part.size for part in (*hit, *false)])
        is_lesion = np.arange(score.size) < sum(part.size for part in hit)
        order = np.argsort(-score, kind="stable")
        self._score, self._owner, self._is_lesion = score[order], owner[order], is_lesion[order]
        # last position of each group of equal scores: a threshold takes all of them or none
        self._ends = np.flatnonzero(np.append(self._score[1:] != self._score[:-1], True)[: score.size])
        self._lesions = np.bincount(unit, weights=[case.lesion_scores.size for case in cases], minlength=units)
        self._cases = np.bincount(unit, minlength=units).astype(np.float64)
        self._names = {f"sensitivity_at_{rate:g}": rate for rate in rates}
        self.units, self.lesions, self.n = units, int(self._lesions.sum()), max(len(cases), score.size)

    def _cumulated(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(R, T + 1) false and found at each threshold, from none upwards."""
        weight = counts.take(self._owner, axis=1)
        parts = [np.cumsum(weight * part, axis=1)[:, self._ends] for part in (~self._is_lesion, self._is_lesion)]
        start = np.zeros((len(counts), 1))
        return np.hstack([start, parts[0]]), np.hstack([start, parts[1]])

    def curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Thresholds, false positives and found lesions of all cases, (T,) each."""
        false, found = self._cumulated(np.ones((1, self.units)))
        return self._score[self._ends], false[0, 1:], found[0, 1:]

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Sensitivity at each rate and their mean, (R,) each."""
        false, found = self._cumulated(counts)
        lesions, cases = counts @ self._lesions, counts @ self._cases
        rows, figures = np.arange(len(counts)), {}
        for name, rate in self._names.items():
            last = (false <= (rate * cases)[:, None]).sum(axis=1) - 1
            figures[name] = ratio(found[rows, last], lesions)
        return figures | {"cpm": np.mean(list(figures.values()), axis=0)}

    def size(self, name: str) -> int:
        """Lesions."""
        del name
        return self.lesions

    def denominator_units(self, name: str) -> int | None:
        """Patients with a lesion."""
        return None if name == "cpm" else int((self._lesions > 0).sum())

    def reason(self, name: str) -> str:
        """Why there is no figure."""
        del name
        return "no lesion in the truth"
