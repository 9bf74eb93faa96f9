"""Lesion-wise detection: connected components, found and false lesions, scored candidates.

A lesion is a connected component; voxels that touch by a face, an edge or a corner belong together (8 neighbours in
2-D, 26 in 3-D). A candidate (a predicted component) hits a lesion where both share a voxel (``min_iou`` 0, the default)
or where their IoU is at least ``min_iou``. A lesion is found when any candidate hits it; a candidate that hits none is
false. Two candidates on one lesion find it once and neither is false; one candidate on two lesions finds both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lepton_vision.errors import EvaluationError
from lepton_vision.types import FloatArray

BoolArray = npt.NDArray[np.bool_]


class LesionCounts(NamedTuple):
    """Lesions of one structure in one case.

    Attributes:
        lesions: components of the truth.
        found: of these, hit by a candidate.
        candidates: components of the prediction.
        false: of these, without a lesion.
    """

    lesions: int
    found: int
    candidates: int
    false: int


@dataclass(frozen=True, eq=False)
class LesionScores:
    """Lesions and scored candidates of one case: what ``froc`` needs.

    Attributes:
        image_id: pseudonymous id.
        patient_id: "" where unknown.
        lesion_scores: (L,) float64, for each lesion the highest score of a candidate that hits it; NaN where none does.
        false_scores: (F,) float64, scores of the candidates that hit no lesion.

    Raises:
        EvaluationError: a score that is infinite, or a false candidate without one.
    """

    image_id: str
    patient_id: str
    lesion_scores: FloatArray
    false_scores: FloatArray

    def __post_init__(self) -> None:
        for name in ("lesion_scores", "false_scores"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64).reshape(-1))
        if np.isinf(self.lesion_scores).any() or not np.isfinite(self.false_scores).all():
            raise EvaluationError(
                "Scores must be finite (NaN only for a lesion that no candidate hits). Remove infinite scores.",
                key="scores",
            )


def count_lesions(truth: BoolArray, prediction: BoolArray, *, min_iou: float = 0.0) -> LesionCounts:
    """Count the lesions of one structure.

    Args:
        truth: (H, W) or (D, H, W) bool.
        prediction: bool of the same shape.
        min_iou: 0 for any shared voxel, or the smallest IoU of a hit, up to 1.

    Example:
        >>> truth = np.array([[1, 1, 0, 0, 1]], dtype=np.bool_)
        >>> prediction = np.array([[0, 1, 0, 0, 0]], dtype=np.bool_)
        >>> count_lesions(truth, prediction)
        LesionCounts(lesions=2, found=1, candidates=1, false=0)
    """
    lesions, candidates = components(truth), components(prediction)
    hits = _hits(lesions, candidates, min_iou=min_iou)
    return LesionCounts(len(hits), int(hits.any(axis=1).sum()), hits.shape[1], int((~hits.any(axis=0)).sum()))


def score_lesions(
    truth: BoolArray,
    probability: npt.NDArray[np.floating],
    *,
    min_probability: float = 0.1,
    min_iou: float = 0.0,
    image_id: str = "",
    patient_id: str = "",
) -> LesionScores:
    """Turn a probability map into scored candidates and match them with the lesions.

    Candidates are the components of ``probability >= min_probability``; the score of one is its highest probability.

    Args:
        truth: (H, W) or (D, H, W) bool.
        probability: float in [0, 1] of the same shape.
        min_probability: where a candidate begins, above 0.
        min_iou: see the module.
        image_id: pseudonymous id.
        patient_id: "" where unknown.

    Raises:
        EvaluationError: shapes that differ, or a probability that is NaN or outside [0, 1].

    Example:
        >>> truth = np.array([[1, 1, 0, 0, 0]], dtype=np.bool_)
        >>> score_lesions(truth, np.array([[0.2, 0.7, 0.0, 0.0, 0.4]])).false_scores.tolist()
        [0.4]
    """
    if truth.shape != probability.shape:
        raise EvaluationError(
            f"A probability map needs the shape of its truth, {truth.shape}. Received: {probability.shape}.",
            key="probability",
        )
    if not ((probability >= 0.0) & (probability <= 1.0)).all():  # catches NaN too
        raise EvaluationError(
            "A probability map must lie in [0, 1]. Received: values outside, or NaN. Apply the sigmoid or softmax.",
            key="probability",
        )
    if not 0.0 < min_probability <= 1.0:
        raise EvaluationError(
            f"Expected min_probability in (0, 1]. Received: {min_probability:g}.", key="min_probability"
        )
    lesions, candidates = components(truth), components(probability >= min_probability)
    hits = _hits(lesions, candidates, min_iou=min_iou)
    names = np.arange(1, hits.shape[1] + 1)
    scores = np.asarray(ndimage.maximum(probability, candidates, names), dtype=np.float64).reshape(-1)
    best = np.where(hits, scores, -np.inf).max(axis=1, initial=-np.inf)
    found = np.where(np.isfinite(best), best, np.nan)
    return LesionScores(image_id, patient_id, found, scores[~hits.any(axis=0)])


def components(mask: BoolArray) -> npt.NDArray[np.int32]:
    """Number the connected components 1, 2 …; 0 is background. Shape as ``mask``, 8 or 26 neighbours."""
    labels, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, dtype=np.bool_))
    return np.asarray(labels, dtype=np.int32)


def check_min_iou(min_iou: float) -> None:
    """Raise EvaluationError where ``min_iou`` is no IoU."""
    if not 0.0 <= min_iou <= 1.0:
        raise EvaluationError(f"Expected min_iou from 0 (any shared voxel) to 1. Received: {min_iou:g}.", key="min_iou")


def _hits(lesions: npt.NDArray[np.int32], candidates: npt.NDArray[np.int32], *, min_iou: float) -> BoolArray:
    """(L, C) bool: whether each candidate hits each lesion."""
    check_min_iou(min_iou)
    rows, columns = int(lesions.max(initial=0)), int(candidates.max(initial=0))
    both = (lesions > 0) & (candidates > 0)
    cells = (lesions[both].astype(np.intp) - 1) * columns + candidates[both] - 1
    shared = np.bincount(cells, minlength=rows * columns).reshape(rows, columns)
    if min_iou == 0.0:
        return np.asarray(shared > 0)
    sizes = np.bincount(lesions.ravel(), minlength=rows + 1)[1:], np.bincount(candidates.ravel())[1:]
    union = sizes[0][:, None] + sizes[1][None, :] - shared
    return np.asarray(shared >= min_iou * union)
