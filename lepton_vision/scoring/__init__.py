"""Bulk scoring of new files with a bundle: one row per file, and masks in formats of other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.scoring.batch import score as score
    from lepton_vision.scoring.cluster.parts import list_run as list_run
    from lepton_vision.scoring.cluster.parts import merge_parts as merge_parts
    from lepton_vision.scoring.cluster.parts import score_part as score_part
    from lepton_vision.scoring.cluster.ray import Cluster as Cluster
    from lepton_vision.scoring.cluster.ray import score_on_ray as score_on_ray
    from lepton_vision.scoring.dicom.report import ReportInfo as ReportInfo
    from lepton_vision.scoring.dicom.report import Statement as Statement
    from lepton_vision.scoring.dicom.report import write_structured_report as write_structured_report
    from lepton_vision.scoring.dicom.segmentation import SegmentationInfo as SegmentationInfo
    from lepton_vision.scoring.dicom.segmentation import write_segmentation as write_segmentation
    from lepton_vision.scoring.masks.export import export_mask as export_mask
    from lepton_vision.scoring.masks.files import write_mask as write_mask
    from lepton_vision.scoring.summary import ScoreSummary as ScoreSummary

__getattr__ = resolver(__name__, __file__)
