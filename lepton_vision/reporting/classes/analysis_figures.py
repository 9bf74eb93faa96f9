"""Charts of the analyses: net benefit, abstention, overall calibration."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.classes.analyses import Abstention, DecisionCurve
from lepton_vision.reporting.figures import MUTED, SERIES, Plot, chart_style, set_range, shade_band, square_axes

_DASHED = (0, (5, 2))
_DOTTED = (0, (2, 3))


def decision_figure(curve: DecisionCurve) -> Plot:
    """Draw the net benefit of the model with its band, of treating everybody, and of treating nobody."""
    with chart_style():
        plot, axes = square_axes(xlabel="Threshold probability", ylabel="Net benefit", height=220.0)
        shade_band(axes, curve.threshold, (curve.model.low, curve.model.high), color=SERIES[0])
        axes.axhline(0.0, color=MUTED, linewidth=1.0, linestyle=_DOTTED, zorder=1.9)
        axes.plot(curve.threshold, curve.treat_all.value, color=SERIES[1], linewidth=1.5, linestyle=_DASHED, zorder=2.5)
        axes.plot(curve.threshold, curve.model.value, color=SERIES[0], linewidth=2.0, zorder=3.0)
        shown = np.concatenate([curve.model.value, curve.model.high, curve.treat_all.value])
        largest = float(shown[np.isfinite(shown)].max(initial=0.05))
        # Treating everybody falls without bound; what lies far below zero is of no use to anybody.
        set_range(axes, x=(0.0, float(curve.threshold.max(initial=0.0)) or 1.0), y=(-0.25 * largest, largest))
    return plot


def abstention_figure(curve: Abstention) -> Plot:
    """Draw the share of wrong decisions among the surest so many, with its band."""
    with chart_style():
        plot, axes = square_axes(xlabel="Share that is decided", ylabel="Share decided wrongly", height=220.0)
        shade_band(axes, curve.coverage, (curve.risk.low, curve.risk.high), color=SERIES[0])
        axes.plot(curve.coverage, curve.risk.value, color=SERIES[0], linewidth=2.0, zorder=3.0)
        shown = np.concatenate([curve.risk.value, curve.risk.high])
        set_range(axes, y=(0.0, float(shown[np.isfinite(shown)].max(initial=0.02))))
    return plot
