"""Report pages: one self-contained HTML file from an evaluation of classes (``write_report``) or of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.reporting.classes.card import write_report as write_report
    from lepton_vision.reporting.classes.comparison_page import write_comparison as write_comparison
    from lepton_vision.reporting.classes.plots import plot_bland_altman as plot_bland_altman
    from lepton_vision.reporting.classes.plots import plot_decision_curve as plot_decision_curve
    from lepton_vision.reporting.classes.plots import plot_precision_recall as plot_precision_recall
    from lepton_vision.reporting.classes.plots import plot_reliability as plot_reliability
    from lepton_vision.reporting.classes.plots import plot_roc as plot_roc
    from lepton_vision.reporting.classes.plots import plot_scatter as plot_scatter
    from lepton_vision.reporting.classes.plots import plot_scores as plot_scores
    from lepton_vision.reporting.masks.card import write_segmentation_report as write_segmentation_report
    from lepton_vision.reporting.masks.overlays import NoOverlay as NoOverlay
    from lepton_vision.reporting.masks.overlays import Overlay as Overlay

__getattr__ = resolver(__name__, __file__)
