"""A bundle and new files in, one row for every file out; masks to files that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.scoring.batch import score as score
    from lepton_vision.scoring.cluster import Cluster as Cluster
    from lepton_vision.scoring.cluster import score_on_ray as score_on_ray
    from lepton_vision.scoring.dicom_report import ReportInfo as ReportInfo
    from lepton_vision.scoring.dicom_report import Statement as Statement
    from lepton_vision.scoring.dicom_report import write_report as write_report
    from lepton_vision.scoring.dicom_results import SegmentationInfo as SegmentationInfo
    from lepton_vision.scoring.dicom_results import write_segmentation as write_segmentation
    from lepton_vision.scoring.mask_export import export_mask as export_mask
    from lepton_vision.scoring.mask_files import write_mask as write_mask
    from lepton_vision.scoring.parts import list_run as list_run
    from lepton_vision.scoring.parts import merge_parts as merge_parts
    from lepton_vision.scoring.parts import score_part as score_part
    from lepton_vision.scoring.summary import ScoreSummary as ScoreSummary

_HOMES = {
    "Cluster": "cluster",
    "ReportInfo": "dicom_report",
    "ScoreSummary": "summary",
    "SegmentationInfo": "dicom_results",
    "export_mask": "mask_export",
    "Statement": "dicom_report",
    "list_run": "parts",
    "merge_parts": "parts",
    "score": "batch",
    "score_on_ray": "cluster",
    "score_part": "parts",
    "write_report": "dicom_report",
    "write_mask": "mask_files",
    "write_segmentation": "dicom_results",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
