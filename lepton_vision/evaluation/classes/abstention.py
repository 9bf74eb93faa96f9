"""Selective classification: risk–coverage curve, its area, and the share of cases referred to a reader."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.classes.analyses import Abstention, Referral
from lepton_vision.evaluation.classes.binary_views import BinaryView, band_of, binary_views, grouped_sums
from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.predictions.calibration import logits
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target
from lepton_vision.types.target import are_called

COVERAGES: FloatArray = np.arange(1, 101) / 100
RISKS = (0.01, 0.02, 0.05, 0.1)
BLOCKS = 1024


def abstentions(
    predictions: Predictions, target: Target, *, thresholds: tuple[float, ...], bootstrap: Bootstrap
) -> tuple[Abstention, ...]:
    """Order the decisions of a target by confidence and see how often the more confident ones are wrong.

    The confidence of a yes-or-no decision is the distance of its log odds from those of the threshold (at a threshold
    of one half the order of max(p, 1 - p)); of one of exclusive classes the largest probability. Among decisions of
    equal confidence the order is left to chance, and its mean is taken; so it is in each of 1024 blocks where there are
    more different confidences.

    The share to be referred is read off these samples: it describes them, it is no rule for new ones.

    Returns:
        One for a binary, multiclass or ordinal target, K for a multilabel one; none for a class without a threshold,
        nor for a number.
    """
    if target.is_value:
        return ()
    if target.is_exclusive:
        part = predictions.select(predictions.labelled(target))
        truth, prob = part.y_true[target.name], part.y_prob[target.name]
        unit, units = patient_units(part.patient_id)
        is_wrong = (prob.argmax(axis=1) != truth) if part.n else np.zeros(0, dtype=np.bool_)
        kept = _Measures(is_wrong, prob.max(axis=1, initial=0.0), unit=unit, units=units)
        return (_abstention("", kept, bootstrap),)
    several = zip(binary_views(predictions, target), thresholds, strict=True)
    return tuple(
        _abstention(one.class_name, _decided(one, threshold), bootstrap)
        for one, threshold in several
        if not np.isnan(threshold)
    )


def _decided(view: BinaryView, threshold: float) -> _Measures:
    is_wrong = are_called(view.prob, threshold) != view.is_positive
    distance = np.abs(logits(view.prob) - logits(np.array(threshold)))
    return _Measures(is_wrong, distance, unit=view.unit, units=view.units)


def _abstention(class_name: str, measures: _Measures, bootstrap: Bootstrap) -> Abstention:
    figures = bootstrap_figures(measures, bootstrap)
    referrals = tuple(Referral(risk, figures[f"referred_{k}"]) for k, risk in enumerate(RISKS))
    return Abstention(class_name, measures.n, COVERAGES, band_of(figures, "risk"), figures["aurc"], referrals)


class _Measures:
    """``aurc``, ``referred_0`` … by ``RISKS``, ``risk_0`` … by ``COVERAGES``.

    Args:
        is_wrong: (N,) bool decisions.
        confidence: (N,) float64.
        unit: (N,) patient.
        units: U.
    """

    def __init__(self, is_wrong: BoolArray, confidence: FloatArray, *, unit: IntArray, units: int) -> None:
        self.n, self.units = int(is_wrong.size), units
        rank = np.unique(-np.round(confidence, 9), return_inverse=True)[1]  # 0.3 and 0.7 are equally far from 0.5
        block = equal_mass_bins(rank.astype(np.float64), bins=BLOCKS) if rank.max(initial=-1) >= BLOCKS else rank
        self._blocks = int(block.max(initial=-1)) + 1
        columns = np.column_stack([np.ones(self.n), is_wrong])
        self._sums = grouped_sums(unit, block, units=units, groups=self._blocks, columns=columns)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        sums = (counts @ self._sums).reshape(len(counts), 2, self._blocks)
        ends = np.concatenate([np.zeros((len(counts), 2, 1)), np.cumsum(sums, axis=2)], axis=2)
        curve = _Curve(kept=np.round(ends[:, 0]), wrong=ends[:, 1])
        figures = {"aurc": curve.area()}
        figures |= {f"referred_{k}": 1.0 - ratio(curve.largest_kept(risk), curve.total) for k, risk in enumerate(RISKS)}
        return figures | {f"risk_{k}": risk for k, risk in enumerate(curve.at(COVERAGES).T)}

    def size(self, _name: str) -> int:
        """All labelled samples."""
        return self.n

    def denominator_units(self, _name: str) -> int | None:
        """None: it is no plain proportion."""
        return None

    def reason(self, _name: str) -> str:
        """Why a figure is undefined."""
        return "no labelled sample"


class _Curve:
    """Running sums of R weightings at the ends of G blocks of equal confidence, (R, G + 1) each, from 0.

    Inside a block the order is left to chance: after i decisions, e + s (i - w) are wrong on average, where w and e are
    the sums before the block and s is its share of wrong decisions. The risk is s + (e - s w) / i.
    """

    def __init__(self, *, kept: FloatArray, wrong: FloatArray) -> None:
        self._kept, self._wrong, self.total = kept, wrong, kept[:, -1]
        self._share = np.nan_to_num(ratio(np.diff(wrong), np.diff(kept)))
        self._rest = wrong[:, :-1] - self._share * kept[:, :-1]

    def area(self) -> FloatArray:
        """(R,) mean risk over i = 1 … total: the sum of 1 / i over a block is a difference of harmonic numbers."""
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1.0, self.total.max(initial=0.0) + 1.0))])
        steps = np.diff(harmonic[self._kept.astype(np.intp)])
        return ratio((self._share * np.diff(self._kept) + self._rest * steps).sum(axis=1), self.total)

    def largest_kept(self, risk: float) -> FloatArray:
        """(R,) most decisions that can be kept with at most this risk."""
        start, end = self._kept[:, :-1], self._kept[:, 1:]
        is_safe = (self._wrong[:, 1:] <= risk * end + 1e-9) & (end > start)
        # Where a block ends above the risk, the risk rises inside it, and was safe up to rest / (risk - share).
        is_rising = (self._share > risk) & (self._rest < 0)
        turn = np.floor(np.divide(self._rest, risk - self._share, out=np.zeros_like(start), where=is_rising) + 1e-9)
        inside = np.where(turn > start, np.minimum(turn, end), 0.0)
        kept: FloatArray = np.where(is_safe, end, inside).max(axis=1, initial=0.0)
        return kept

    def at(self, coverages: FloatArray) -> FloatArray:
        """(R, P) risk at each coverage."""
        rows = np.full((len(self.total), coverages.size), np.nan)
        for r in np.flatnonzero(self.total > 0):
            wanted = coverages * self.total[r]
            rows[r] = np.interp(wanted, self._kept[r], self._wrong[r]) / wanted
        return rows
