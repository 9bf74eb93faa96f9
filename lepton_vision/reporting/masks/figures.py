"""Drawing of mask charts: spread, volumes, agreement, lesion detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_vision.reporting.figures import INK, MUTED, SERIES, Plot, chart_style, dot_style, set_range, square_axes
from lepton_vision.types import FloatArray


def spread_figure(values: Sequence[FloatArray], *, xlabel: str, is_share: bool) -> Plot:
    """Draw one row of points for each structure, numbered from 1, with its quartiles and median.

    Args:
        values: for each structure (N,) float64; NaN is left out.
        xlabel: what is measured, with its unit.
        is_share: whether the axis goes from 0 to 1; else from 0 to the largest value.
    """
    with chart_style():
        plot, axes = square_axes(xlabel=xlabel, ylabel="Structure", height=max(110.0, 30.0 + 38.0 * len(values)))
        known = [one[np.isfinite(one)] for one in values]
        largest = 1.0 if is_share else max((float(one.max()) for one in known if one.size), default=1.0) or 1.0
        for row, one in enumerate(known):
            color = SERIES[row % len(SERIES)]
            if not one.size:
                continue
            low, middle, high = np.quantile(one, [0.25, 0.5, 0.75])
            axes.barh([row], [high - low], 0.56, left=[low], color=color, alpha=0.22, linewidth=0, zorder=2)
            axes.plot([middle] * 2, [row - 0.28, row + 0.28], color=color, linewidth=2.2, zorder=4)
            heights = row + 0.44 * (np.arange(one.size) * 0.618034 % 1.0 - 0.5)  # golden ratio: even, and repeatable
            axes.plot(
                one, heights, **(dot_style(color, size=5.0) | {"alpha": 0.75, "markeredgewidth": 0.6, "zorder": 3.0})
            )
        set_range(axes, x=(0.0, largest))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_yticks(range(len(values)), [str(row + 1) for row in range(len(values))])
        axes.grid(visible=False, axis="y")
    return plot


def volume_figure(truth: FloatArray, prediction: FloatArray, *, series: int = 0) -> Plot:
    """Draw predicted against true volume [ml], (N,) float64 each without NaN, and the line where both are the same."""
    with chart_style():
        plot, axes = square_axes(xlabel="True volume [ml]", ylabel="Predicted volume [ml]")
        largest = float(max(truth.max(), prediction.max())) or 1.0
        axes.plot([0, largest], [0, largest], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        axes.plot(truth, prediction, **(dot_style(SERIES[series % len(SERIES)], size=6.5) | {"alpha": 0.85}))
        set_range(axes, x=(0.0, largest), y=(0.0, largest))
    return plot


def bland_altman_figure(means: FloatArray, errors: FloatArray, *, lines: Sequence[float], series: int = 0) -> Plot:
    """Draw prediction minus truth against their mean (Bland and Altman, Lancet 327:307, 1986), (N,) float64 [ml] each.

    Args:
        means: mean of both volumes.
        errors: their difference.
        lines: bias, then the limits of agreement where there are any.
        series: position in ``SERIES``.
    """
    with chart_style():
        plot, axes = square_axes(xlabel="Mean of both volumes [ml]", ylabel="Prediction − truth [ml]")
        axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1.6)
        for k, level in enumerate(lines):
            style = "solid" if k == 0 else (0, (4, 2))
            axes.axhline(level, color=INK, linewidth=1.2, linestyle=style, zorder=1.7)
        axes.plot(means, errors, **(dot_style(SERIES[series % len(SERIES)], size=6.5) | {"alpha": 0.85}))
        largest = max(float(np.abs(errors).max()), *map(abs, lines)) or 1.0
        set_range(axes, x=(0.0, float(means.max()) or 1.0), y=(-largest, largest))
    return plot


def froc_figure(false_per_case: FloatArray, sensitivity: FloatArray, *, series: int = 0) -> Plot:
    """Draw lesion sensitivity, (T,) float64, against false positives per case, (T,) ascending, from none upwards."""
    with chart_style():
        plot, axes = square_axes(xlabel="False positives per case", ylabel="Lesion sensitivity")
        color = SERIES[series % len(SERIES)]
        x, y = np.concatenate([[0.0], false_per_case]), np.concatenate([[0.0], sensitivity])
        axes.plot(x, y, color=color, linewidth=2.0, drawstyle="steps-post", zorder=3)
        set_range(axes, x=(0.0, float(x.max()) or 1.0))
    return plot
