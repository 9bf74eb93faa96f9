"""A bundle and new files in, one row for every file out; masks to files that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.scoring.batch import ScoreSummary as ScoreSummary
    from lepton_vision.scoring.batch import score as score
    from lepton_vision.scoring.dicom_results import SegmentationInfo as SegmentationInfo
    from lepton_vision.scoring.dicom_results import write_segmentation as write_segmentation
    from lepton_vision.scoring.mask_export import export_mask as export_mask
    from lepton_vision.scoring.mask_files import write_mask as write_mask

_HOMES = {
    "ScoreSummary": "batch",
    "SegmentationInfo": "dicom_results",
    "export_mask": "mask_export",
    "score": "batch",
    "write_mask": "mask_files",
    "write_segmentation": "dicom_results",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
