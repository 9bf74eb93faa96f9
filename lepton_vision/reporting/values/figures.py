"""Charts of a number: predictions against true values, and Bland–Altman plots (Lancet 327:307, 1986)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_vision.evaluation.values.points import ValuePoints
from lepton_vision.reporting.figures import (
    INK,
    MUTED,
    SERIES,
    Plot,
    chart_style,
    draw_points,
    make_room,
    set_range,
    square_axes,
)
from lepton_vision.types import Figure, FloatArray

_DOTTED, _DASHED = (0, (2, 3)), (0, (5, 2.5))

Range = tuple[float, float]


def value_range(several: Sequence[ValuePoints]) -> Range:
    """Range of all true and predicted values."""
    return _ends(np.concatenate([part for one in several for part in (one.truth, one.said)]))


def scatter_figure(points: ValuePoints, *, limits: Range | None = None, series: int = 0) -> Plot:
    """Draw predicted against true values with the line where both are equal; ``limits`` are of both axes."""
    found = value_range([points]) if limits is None else limits
    with chart_style():
        plot, axes = square_axes(xlabel="True value", ylabel="Predicted value")
        axes.plot(found, found, color=MUTED, linewidth=1.0, linestyle=_DOTTED, zorder=1.5)
        draw_points(axes, points.truth, points.said, ranges=(found, found), color=SERIES[series % len(SERIES)])
        set_range(axes, x=found, y=found)
        make_room(axes)
    return plot


def bland_altman_figure(points: ValuePoints, *, bias: Figure, limits: tuple[Figure, Figure], series: int = 0) -> Plot:
    """Draw predicted less true over the mean of both, with bias and limits of agreement and their intervals."""
    x, y = (points.truth + points.said) / 2.0, points.said - points.truth
    lines = [one for one in (bias, *limits) if np.isfinite(one.value)]
    ends = [end for one in lines for end in (one.value, one.low, one.high) if np.isfinite(end)]
    x_range, y_range = _ends(x), _ends(np.concatenate([y, ends, [0.0]]))
    with chart_style():
        plot, axes = square_axes(xlabel="Mean of predicted and true", ylabel="Predicted less true")
        axes.axhline(0.0, color=MUTED, linewidth=1.0, linestyle=_DOTTED, zorder=1.5)
        draw_points(axes, x, y, ranges=(x_range, y_range), color=SERIES[series % len(SERIES)])
        for one in lines:
            if one.low < one.high:
                axes.axhspan(one.low, one.high, color=INK, alpha=0.14, linewidth=0, zorder=1.8)
            axes.axhline(one.value, color=INK, linewidth=1.3, linestyle="solid" if one is bias else _DASHED, zorder=4)
        set_range(axes, x=x_range, y=y_range)
        make_room(axes)
    return plot


def _ends(values: FloatArray) -> Range:
    """Lowest and highest; a little around them where they are one."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    around = 0.0 if high > low else max(abs(low), 1.0) * 0.05
    return low - around, high + around
