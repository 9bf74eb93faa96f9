"""What is gained by leaving the doubtful cases to a reader: risk–coverage curve, its area, and the share referred."""

from __future__ import annotations

import numpy as np

from lepton_vision.calibrators import logits
from lepton_vision.evaluation.analyses import Abstention, Referral
from lepton_vision.evaluation.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.questions import Question, band_of, questions_of
from lepton_vision.evaluation.ranking import BoolArray, IntArray
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import FloatArray, Target

COVERAGES: FloatArray = np.arange(1, 101) / 100
RISKS = (0.01, 0.02, 0.05, 0.1)


def abstentions(
    predictions: Predictions, target: Target, *, thresholds: tuple[float, ...], bootstrap: Bootstrap
) -> tuple[Abstention, ...]:
    """Order the decisions of a target by confidence and see how often the more confident ones are wrong.

    The confidence of a yes-or-no decision is the distance of its log odds from those of the threshold (at a threshold
    of one half the order of max(p, 1 - p)); of a multiclass decision the largest probability. Among decisions of
    equal confidence the order is left to chance, and its mean is taken.

    The share to be referred is read off these samples: it describes them, it is no rule for new ones.

    Returns:
        One for a binary or multiclass target, K for a multilabel one.
    """
    if target.kind == "multiclass":
        part = predictions.select(predictions.labelled(target))
        truth, prob = part.y_true[target.name], part.y_prob[target.name]
        unit, units = patient_units(part.patient_id)
        is_wrong = (prob.argmax(axis=1) != truth) if part.n else np.zeros(0, dtype=np.bool_)
        kept = _Measures(is_wrong, prob.max(axis=1, initial=0.0), unit=unit, units=units)
        return (_abstention("", kept, bootstrap),)
    several = zip(questions_of(predictions, target), thresholds, strict=True)
    return tuple(_abstention(one.class_name, _decided(one, threshold), bootstrap) for one, threshold in several)


def _decided(question: Question, threshold: float) -> _Measures:
    is_wrong = (question.prob >= threshold) != question.is_positive
    distance = np.abs(logits(question.prob) - logits(np.array(threshold)))
    return _Measures(is_wrong, distance, unit=question.unit, units=question.units)


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
        rounded = np.round(confidence, 9)  # 0.3 and 0.7 are equally far from 0.5
        order = np.argsort(-rounded, kind="stable")
        ordered = rounded[order]
        self._unit, self._wrong = unit[order], is_wrong[order].astype(np.float64)
        self._ends = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]])) if self.n else order

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        weight = counts.take(self._unit, axis=1)
        kept, wrong = np.cumsum(weight, axis=1), np.cumsum(weight * self._wrong, axis=1)
        rows = [_row(kept[r, self._ends], wrong[r, self._ends]) for r in range(len(counts))]
        table = np.array(rows).T
        names = ["aurc", *(f"referred_{k}" for k in range(len(RISKS)))]
        return dict(zip(names + [f"risk_{k}" for k in range(COVERAGES.size)], table, strict=True))

    def size(self, _name: str) -> int:
        """All labelled samples."""
        return self.n

    def denominator_units(self, _name: str) -> int | None:
        """None: it is no plain proportion."""
        return None

    def reason(self, _name: str) -> str:
        """Why a figure is undefined."""
        return "no labelled sample"


def _row(kept: FloatArray, wrong: FloatArray) -> FloatArray:
    """Figures of one weighting, from the running sums at the end of each group of equal confidence."""
    total = round(float(kept[-1])) if kept.size else 0
    if total == 0:
        return np.full(1 + len(RISKS) + COVERAGES.size, np.nan)
    kept, wrong = np.concatenate([[0.0], kept]), np.concatenate([[0.0], wrong])
    size = np.arange(1, total + 1)
    risk = np.interp(size, kept, wrong) / size
    safe = [np.flatnonzero(risk <= allowed + 1e-12) for allowed in RISKS]
    referred = [1.0 - (sizes[-1] + 1) / total if sizes.size else 1.0 for sizes in safe]
    on_grid = np.interp(COVERAGES * total, kept, wrong) / (COVERAGES * total)
    return np.concatenate([[risk.mean()], referred, on_grid])
