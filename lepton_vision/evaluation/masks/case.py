"""Comparison of one structure's mask with the truth in one case; the only place of the rules for empty masks.

================  ===========================  ====================================  ================================
status            dice, iou, surface_dice      hd95_mm                               sensitivity / precision
================  ===========================  ====================================  ================================
present           computed                     computed                              computed
missed            0                            undefined: no predicted surface       0 / undefined: no predicted voxel
false_positive    0                            undefined: no truth surface           undefined: no truth voxel / 0
absent (both)     undefined: nothing in both   undefined                             undefined / undefined
================  ===========================  ====================================  ================================

An undefined figure is NaN with its reason; it is in no mean, and it is counted. Volumes are always counted: those of a
false positive too. Without a known spacing hd95_mm, surface_dice and volumes are undefined whatever the status, and so
are volumes in 2-D (there is no thickness).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.lesions import LesionCounts, count_lesions
from lepton_vision.evaluation.masks.surface_area import area_surface_dice
from lepton_vision.evaluation.masks.surfaces import (
    BoolArray,
    bounding_box,
    check_geometry,
    check_tolerance,
    surface_distances,
)

Status = Literal["present", "missed", "false_positive", "absent"]
STATUSES: tuple[Status, ...] = ("present", "missed", "false_positive", "absent")
CASE_FIGURES = (
    "dice",
    "iou",
    "hd95_mm",
    "surface_dice",
    "sensitivity",
    "precision",
    "volume_truth_ml",
    "volume_prediction_ml",
    "volume_error_ml",
)
_ABSENT = "absent in truth and prediction"
# The table above: a number is the value, a text the reason why there is none.
EMPTY_RULES: dict[Status, dict[str, float | str]] = {
    "missed": {
        "dice": 0.0,
        "iou": 0.0,
        "hd95_mm": "no predicted surface (missed)",
        "surface_dice": 0.0,
        "sensitivity": 0.0,
        "precision": "no predicted voxel",
    },
    "false_positive": {
        "dice": 0.0,
        "iou": 0.0,
        "hd95_mm": "no truth surface",
        "surface_dice": 0.0,
        "sensitivity": "no truth voxel",
        "precision": 0.0,
    },
    "absent": dict.fromkeys(CASE_FIGURES[:6], _ABSENT),
}
_NO_SPACING = "pixel spacing unknown"
NO_THICKNESS = "no volume in 2-D"


class VoxelCounts(NamedTuple):
    """Voxels in both masks, in the truth, and in the prediction; of slices, pixels."""

    shared: int
    truth: int
    prediction: int


_NONE = VoxelCounts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class MaskFigures:
    """Figures of one mask against the truth; NaN is undefined.

    Attributes:
        status: "present" (voxels in both), "missed" (truth only), "false_positive" (prediction only), "absent".
        dice: 2 TP / (2 TP + FP + FN), 0 to 1 (Dice, Ecology 26:297, 1945).
        iou: TP / (TP + FP + FN), 0 to 1.
        hd95_mm: 95th percentile of the distances between the surfaces, the larger of both directions; see
            ``surfaces.SurfaceDistances.hausdorff_mm``.
        surface_dice: share of both surfaces that lies within the tolerance of the other, 0 to 1; see
            ``surfaces.SurfaceDistances.surface_dice``.
        sensitivity: share of the truth's voxels that are predicted.
        precision: share of the predicted voxels that are true.
        volume_truth_ml: volume of the truth [ml].
        volume_prediction_ml: volume of the prediction [ml].
        volume_error_ml: prediction minus truth [ml]; positive is too large.
        reasons: by name, why a figure is undefined.
        lesions: counts of components, or None where not asked for.
        voxels: what the overlap was computed from.
        surface_dice_area: the same weighed by area, see ``surface_area.area_surface_dice``. None where it was not
            asked for.
    """

    status: Status
    dice: float
    iou: float
    hd95_mm: float
    surface_dice: float
    sensitivity: float
    precision: float
    volume_truth_ml: float
    volume_prediction_ml: float
    volume_error_ml: float
    reasons: Mapping[str, str] = field(default_factory=dict)
    lesions: LesionCounts | None = None
    voxels: VoxelCounts = _NONE
    surface_dice_area: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and CSV; an undefined number becomes None."""
        numbers = {name: getattr(self, name) for name in CASE_FIGURES}
        if self.surface_dice_area is not None:
            numbers["surface_dice_area"] = self.surface_dice_area
        plain: dict[str, Any] = {"status": self.status}
        plain |= {name: None if math.isnan(value) else value for name, value in numbers.items()}
        if self.lesions is not None:
            plain |= {f"lesions_{name}": count for name, count in self.lesions._asdict().items()}
        return plain | {"reason": "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())}


class CaseFigures(NamedTuple):
    """One row of the table of cases: one structure in one case.

    ``volume_id`` names the volume that the case is a slice of, "" where it is none; see ``volumes``.
    """

    image_id: str
    patient_id: str
    structure: str
    figures: MaskFigures
    volume_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one per column."""
        ids = {"image_id": self.image_id, "patient_id": self.patient_id, "structure": self.structure}
        return ids | ({"volume_id": self.volume_id} if self.volume_id else {}) | self.figures.to_dict()


def compare_masks(
    truth: BoolArray,
    prediction: BoolArray,
    *,
    spacing_mm: tuple[float, ...] | None = None,
    tolerance_mm: float = 1.0,
    min_iou: float | None = None,
    by_area: bool = False,
) -> MaskFigures:
    """Compute the figures of one structure in one case.

    Args:
        truth: (H, W) or (D, H, W) bool.
        prediction: bool of the same shape.
        spacing_mm: distance of voxel centres along each axis, or None where unknown.
        tolerance_mm: surfaces at most so far apart agree.
        min_iou: count lesions, with this IoU for a hit (0: any shared voxel); None counts none.
        by_area: compute the surface Dice weighed by area too.

    Raises:
        EvaluationError: shapes that differ, no 2 or 3 axes, no booleans, a spacing or tolerance that is none.

    Example:
        >>> truth = np.array([[0, 1, 1, 0]], dtype=np.bool_)
        >>> prediction = np.array([[0, 0, 1, 1]], dtype=np.bool_)
        >>> figures = compare_masks(truth, prediction, spacing_mm=(1.0, 0.5))
        >>> figures.dice, figures.hd95_mm
        (0.5, 0.475)
    """
    if truth.dtype != np.bool_ or prediction.dtype != np.bool_:
        raise EvaluationError(
            f"Expected two masks of booleans. Received: {truth.dtype} and {prediction.dtype}. Compare labels with the "
            "structure's value first.",
            key="mask",
        )
    check_geometry(truth.shape, prediction.shape, spacing_mm=spacing_mm)
    check_tolerance(tolerance_mm)
    box = bounding_box(truth | prediction)
    truth, prediction = truth[box], prediction[box]
    counts = [int(np.count_nonzero(mask)) for mask in (truth & prediction, truth, prediction)]
    voxels = VoxelCounts(*counts)
    status, values = overlap_of(voxels)
    if status == "present" and spacing_mm is not None:
        distances = surface_distances(truth, prediction, spacing_mm=spacing_mm)
        values["hd95_mm"] = distances.hausdorff_mm()
        values["surface_dice"] = distances.surface_dice(tolerance_mm=tolerance_mm)
    values |= _volumes(voxels, spacing_mm=spacing_mm)
    if spacing_mm is None and status != "absent":
        values |= {"hd95_mm": _NO_SPACING, "surface_dice": _NO_SPACING}
    if by_area:
        values["surface_dice_area"] = values["surface_dice"]
        if status == "present" and spacing_mm is not None:
            values["surface_dice_area"] = area_surface_dice(
                truth, prediction, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm
            )
    lesions = None if min_iou is None else count_lesions(truth, prediction, min_iou=min_iou)
    return make_figures(status, values, voxels=voxels, lesions=lesions)


def overlap_of(voxels: VoxelCounts) -> tuple[Status, dict[str, float | str]]:
    """Return the status that counts stand for, and its figures: a number, or the reason why there is none.

    With voxels in both masks, hd95_mm and surface_dice are left to who knows the surfaces.
    """
    shared, truth, prediction = voxels
    if not (truth and prediction):
        status: Status = "missed" if truth else "false_positive" if prediction else "absent"
        return status, dict(EMPTY_RULES[status])
    return "present", {
        "dice": 2 * shared / (truth + prediction),
        "iou": shared / (truth + prediction - shared),
        "sensitivity": shared / truth,
        "precision": shared / prediction,
    }


def make_figures(
    status: Status,
    values: Mapping[str, float | str],
    *,
    voxels: VoxelCounts,
    lesions: LesionCounts | None = None,
) -> MaskFigures:
    """Return figures whose undefined ones, given as a reason, are NaN; ``values`` has all of ``CASE_FIGURES``."""
    numbers = {name: value if isinstance(value, float) else math.nan for name, value in values.items()}
    reasons = {name: value for name, value in values.items() if isinstance(value, str)}
    return MaskFigures(status, **numbers, reasons=reasons, lesions=lesions, voxels=voxels)


def _volumes(voxels: VoxelCounts, *, spacing_mm: tuple[float, ...] | None) -> dict[str, float | str]:
    names = CASE_FIGURES[6:]
    if spacing_mm is None or len(spacing_mm) == 2:
        return dict.fromkeys(names, _NO_SPACING if spacing_mm is None else NO_THICKNESS)
    voxel_ml = math.prod(spacing_mm) / 1000.0
    _, truth, prediction = voxels
    return dict(zip(names, (truth * voxel_ml, prediction * voxel_ml, (prediction - truth) * voxel_ml), strict=True))
