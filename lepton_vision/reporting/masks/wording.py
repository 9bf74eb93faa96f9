"""Plain wording of figures, statuses and reasons of a mask evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from lepton_vision.evaluation.masks.case import Status
from lepton_vision.reporting.wording import REASON_NAMES

MASK_GROUPS: Mapping[str, str] = {
    "overlap": "Overlap, case by case",
    "surfaces": "Surfaces",
    "volume": "Volume",
    "presence": "Structure there or not",
    "lesions": "Lesions",
}
"""Headings of the groups of figures, in order."""
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
