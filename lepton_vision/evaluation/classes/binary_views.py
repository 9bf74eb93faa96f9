"""Binary views of a target: its positive class, or each of its classes (multiclass: one against the rest)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lepton_vision.evaluation.classes.analyses import Band
from lepton_vision.evaluation.classes.many_classes import SHOWN, are_many
from lepton_vision.evaluation.statistics.intervals import patient_units
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Target


@dataclass(frozen=True, eq=False)
class BinaryView:
    """Samples with a known answer.

    Attributes:
        class_name: what is positive.
        is_positive: (N,) bool.
        prob: (N,) float64 in [0, 1], probability of the class.
        unit: (N,) patient of each sample, 0 … U-1.
        units: U; the same for all views of a target.
    """

    class_name: str
    is_positive: BoolArray
    prob: FloatArray
    unit: IntArray
    units: int

    @property
    def n(self) -> int:
        """Number of samples N."""
        return int(self.prob.size)

    def missing(self) -> str:
        """Why a figure that needs both classes is undefined; empty where both are there."""
        if not self.n:
            return "no labelled sample"
        if not self.is_positive.any():
            return "no positive sample"
        return "no negative sample" if self.is_positive.all() else ""


def shown_views(predictions: Predictions, target: Target) -> tuple[BinaryView, ...]:
    """The views that have analyses of their own: of very many classes (``many_classes``) the first ones."""
    is_many = target.is_exclusive and are_many(len(target.classes), predictions.n)
    return binary_views(predictions, target, most=SHOWN if is_many else None)


def binary_views(predictions: Predictions, target: Target, *, most: int | None = None) -> tuple[BinaryView, ...]:
    """One view for a binary target, none for a number, K otherwise, or ``most``; without samples of unknown answer."""
    part = predictions.select(predictions.labelled(target))
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    unit, units = patient_units(part.patient_id)
    if target.is_value:
        return ()
    if target.is_binary:
        return (BinaryView(target.positive, truth > 0, prob, unit, units),)
    found = []
    for k, name in enumerate(target.classes[:most]):
        if target.is_exclusive:  # all known, and a view of the probabilities, as there may be a thousand classes
            found.append(BinaryView(name, truth == k, prob[:, k], unit, units))
            continue
        known = ~np.isnan(truth[:, k])
        found.append(BinaryView(name, truth[known, k] > 0, prob[known, k], unit[known], units))
    return tuple(found)


def grouped_sums(unit: IntArray, group: IntArray, *, units: int, groups: int, columns: FloatArray) -> csr_array:
    """(U, M * G): what each patient's samples add to each of G groups, one block for each of M ``columns`` (N, M)."""
    m = columns.shape[1]
    place = np.concatenate([group + k * groups for k in range(m)])
    entries = (columns.T.ravel(), (np.tile(unit, m), place))
    return csr_array(entries, shape=(units, m * groups))


def band_of(figures: dict[str, Figure], prefix: str) -> Band:
    """Join the figures ``<prefix>_0``, ``<prefix>_1`` … to a curve."""
    several = [figure for name, figure in figures.items() if name.rpartition("_")[0] == prefix]
    return Band(*(np.array([getattr(one, part) for one in several]) for part in ("value", "low", "high")))
