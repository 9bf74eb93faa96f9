"""Evaluation in, one self-contained page out: classification (``write_report``) or masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.reporting.card import write_report as write_report
    from lepton_vision.reporting.mask_card import write_segmentation_report as write_segmentation_report
    from lepton_vision.reporting.overlays import NoOverlay as NoOverlay
    from lepton_vision.reporting.overlays import Overlay as Overlay

_HOMES = {
    "NoOverlay": "overlays",
    "Overlay": "overlays",
    "write_report": "card",
    "write_segmentation_report": "mask_card",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
