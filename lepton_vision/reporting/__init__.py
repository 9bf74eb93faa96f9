"""Evaluation in, one self-contained page out: classification (``write_report``) or masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.reporting.card import write_report as write_report
    from lepton_vision.reporting.comparison_page import write_comparison as write_comparison
    from lepton_vision.reporting.mask_card import write_segmentation_report as write_segmentation_report
    from lepton_vision.reporting.overlays import NoOverlay as NoOverlay
    from lepton_vision.reporting.overlays import Overlay as Overlay
    from lepton_vision.reporting.plots import plot_decision_curve as plot_decision_curve
    from lepton_vision.reporting.plots import plot_precision_recall as plot_precision_recall
    from lepton_vision.reporting.plots import plot_reliability as plot_reliability
    from lepton_vision.reporting.plots import plot_roc as plot_roc
    from lepton_vision.reporting.plots import plot_scores as plot_scores

_HOMES = {
    "NoOverlay": "overlays",
    "Overlay": "overlays",
    "plot_decision_curve": "plots",
    "plot_precision_recall": "plots",
    "plot_reliability": "plots",
    "plot_roc": "plots",
    "plot_scores": "plots",
    "write_comparison": "comparison_page",
    "write_report": "card",
    "write_segmentation_report": "mask_card",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
