"""Plain wording of figures, statuses and reasons of a mask evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from lepton_vision.evaluation.masks.case import Status
from lepton_vision.reporting.wording import REASON_NAMES, Term

MASK_TERMS: Mapping[str, Term] = {
    "dice": Term("Dice", "Overlap of truth and prediction: twice the shared voxels over all voxels of both."),
    "iou": Term("IoU", "Shared voxels over the voxels of either mask (Jaccard)."),
    "sensitivity": Term("Sensitivity (voxels)", "Share of the true voxels that are predicted."),
    "precision": Term("Precision (voxels)", "Share of the predicted voxels that are true."),
    "hd95_mm": Term(
        "HD95 [mm]",
        "Distance that 95 % of the surface lies within; 0 is perfect. Larger direction, as in MONAI; MedPy pools both.",
        is_share=False,
    ),
    "hd95_mm_mean": Term("HD95, mean [mm]", "The same; one case far off weighs more here.", is_share=False),
    "surface_dice": Term(
        "Surface Dice",
        "Share of both surfaces within the tolerance of each other: of voxels, as in MONAI; DeepMind's is of area.",
    ),
    "surface_dice_area": Term(
        "Surface Dice by area",
        "Share of the area of both surfaces within the tolerance of each other: DeepMind's rule, within 0.01 of it.",
    ),
    "volume_error_ml": Term("Volume error [ml]", "Prediction minus truth; above 0 is too large.", is_share=False),
    "absolute_volume_error_ml": Term(
        "Volume error, absolute [ml]", "Its size, whichever the direction.", is_share=False
    ),
    "missed_rate": Term(
        "Missed cases", "Share of the cases with the structure where nothing was predicted; 0 is best.", is_share=False
    ),
    "false_positive_rate": Term(
        "False positive cases", "Share of the cases without the structure where some was predicted; 0 is best.",
        is_share=False,
    ),
    "lesion_sensitivity": Term("Lesion sensitivity", "Share of the true lesions that a predicted one hits."),
    "lesion_precision": Term("Lesion precision", "Share of the predicted lesions that hit a true one."),
    "false_lesions_per_case": Term("False lesions per case", "Predicted lesions that hit none.", is_share=False),
    "cpm": Term("Mean of these (CPM)", "Plain mean of the sensitivities above."),
}  # fmt: skip

HEAD_TERMS: Mapping[str, Term] = {
    "agreement": Term("Label and mask agree", "Share of the cases: positive with a mask, or negative without one."),
    "mask_if_positive": Term("A mask under a positive label", "Share of the cases called positive."),
    "empty_if_negative": Term("No mask under a negative label", "Share of the cases called negative."),
    "true_agreement": Term("Label and true mask agree", "The same against the truth: how often the label is correct."),
    "true_mask_if_positive": Term("A true mask under a positive label", "Share of the cases called positive."),
    "true_empty_if_negative": Term("No true mask under a negative label", "Share of the cases called negative."),
    "hit_rate": Term("Hottest point in the true mask", "Share of the cases with a mask where Grad-CAM points at it."),
    "chance": Term("A point at random", "Mean share of the image that the mask covers, tolerance included."),
    "gain": Term("Gain over chance", "The difference of both, case by case.", is_share=False),
}

MASK_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Overlap, case by case", ("dice", "iou", "sensitivity", "precision")),
    ("Surfaces", ("hd95_mm", "hd95_mm_mean", "surface_dice", "surface_dice_area")),
    ("Volume", ("volume_error_ml", "absolute_volume_error_ml")),
    ("Structure there or not", ("missed_rate", "false_positive_rate")),
    ("Lesions", ("lesion_sensitivity", "lesion_precision", "false_lesions_per_case")),
)
MASK_HEADLINES = ("dice", "surface_dice", "hd95_mm", "absolute_volume_error_ml")
"""What the summary opens with."""
OVERVIEW = ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "missed_rate", "false_positive_rate")
"""Columns of the table that compares structures."""

STATUS_NAMES: Mapping[Status, tuple[str, str]] = {
    "present": ("Present", "in truth and prediction"),
    "missed": ("Missed", "in the truth only"),
    "false_positive": ("False positive", "in the prediction only"),
    "absent": ("Absent", "in neither"),
}

MASK_READING: Mapping[str, str] = {
    "spread": (
        "One point is one case; the box holds the middle half of them, the line is their median. Cases that leave the "
        "figure undefined are not drawn."
    ),
    "volume": "On the dotted line both volumes are the same; above it the prediction is too large.",
    "bland_altman": (
        "The solid line is the mean error, the dashed ones hold about 95 % of the errors where they are normally "
        "distributed (mean ± 1.96 standard deviations; cases taken as independent)."
    ),
    "froc": (
        "Each step is a threshold of the candidates' scores. The nearer to the upper left corner, the better; what "
        "happens to the right of the last step is not known."
    ),
    "overlay": (
        "Ranked by the Dice of the whole case. A slice is the one where the true structure is largest, or the "
        "predicted one where there is no truth; a small structure is cut out and enlarged. The image is shown through "
        "the first window of the model; masks of another tool through the window of the header, or from its darkest to "
        "its brightest half percent where there is none. Letters at the edges are sides of the patient."
    ),
}

REASONS: Mapping[str, str] = {
    **REASON_NAMES,
    "geometry": "irregular series, or elsewhere in the patient than the truth",
}


def failure_words(reason: str) -> str:
    """Put ``prediction: truncated`` into words; what is no such code stays as it is."""
    side, separator, code = reason.partition(": ")
    return f"{side}: {REASONS[code]}" if separator and code in REASONS else reason
