"""Curves as matplotlib figures, and as SVG that takes its colours from the page: the doorway to matplotlib.

Every figure has the same size and the same place for its axes, so that figures beside each other line up. No text of
the user (a class name, a title) is drawn: a ``$`` would be read as mathematics and a glyph may be missing; the page
sets such text in HTML. pyplot is not used and no setting of matplotlib changes for anybody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import MaxNLocator

from lepton_vision.evaluation.curves import ClassCurves, Histogram, ReliabilityBin
from lepton_vision.types import FloatArray

INK, MUTED, GRID, PAPER = "#17212d", "#5a6774", "#e1e6ec", "#fefefe"
# Told apart with any colour vision and, as the lines change their dashes too, without colour (after Okabe and Ito).
SERIES = ("#0a5fa5", "#c2460b", "#0c7a5e", "#7a3fa3", "#8f6a06", "#b3226d", "#1f86a8", "#4f5d6e")
_DASHES: tuple[Any, ...] = ("solid", "solid", "solid", "solid", (0, (5, 2)), (0, (5, 2)), (0, (5, 2)), (0, (5, 2)))
# A browser may show the page light or dark: these colours become variables of the page's style sheet.
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card"} | {
    color: f"--series-{i}" for i, color in enumerate(SERIES)
}

_POINTS = 72.0  # SVG units of matplotlib per inch
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 360.0, 50.0, 10.0, 44.0, 10.0
_SMALL_WIDTH = 224.0
# Any: newer versions of matplotlib type the keys as literals, older ones as strings.
_SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelpad": 5.0,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.major.pad": 5.0,
    "ytick.major.pad": 5.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lepton_vision",
    "path.sketch": None,
}


@dataclass(frozen=True, slots=True)
class Mark:
    """The operating point in a figure, with intervals along both axes; any number may be NaN.

    Attributes:
        x: position.
        y: position.
        x_range: lower and upper end of the interval along x.
        y_range: lower and upper end of the interval along y.
    """

    x: float
    y: float
    x_range: tuple[float, float] = (np.nan, np.nan)
    y_range: tuple[float, float] = (np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Line:
    """One class in a figure of curves.

    Attributes:
        curves: what to draw.
        series: position in ``SERIES``, or None for a muted line behind the others.
        mark: operating point, or None.
        level: prevalence, for the baseline of the precision–recall curve; None or NaN draws none.
    """

    curves: ClassCurves
    series: int | None = 0
    mark: Mark | None = None
    level: float | None = None

    @property
    def color(self) -> str:
        """Colour of the line."""
        return MUTED if self.series is None else SERIES[self.series % len(SERIES)]


def roc_figure(lines: Sequence[Line]) -> Plot:
    """Draw ROC curves, the line of chance, and the operating points with their intervals."""
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="1 − specificity", ylabel="Sensitivity")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        for line in _muted_first(lines):
            if line.curves.roc is not None:
                axes.plot(line.curves.roc.false_positive_rate, line.curves.roc.sensitivity, **_stroke(line))
        _draw_marks(axes, lines)
    return plot


def precision_recall_figure(lines: Sequence[Line]) -> Plot:
    """Draw precision–recall step curves, the prevalence of each class and the operating points.

    The curves are steps: straight lines between the points would flatter the model.
    """
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
        for line in _muted_first(lines):
            if line.level is not None and np.isfinite(line.level) and line.series is not None:
                color = MUTED if len(lines) == 1 else line.color
                axes.plot([0, 1], [line.level] * 2, color=color, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
            if line.curves.pr is not None:
                axes.plot(line.curves.pr.recall, line.curves.pr.precision, drawstyle="steps-pre", **_stroke(line))
        _draw_marks(axes, lines)
    return plot


def reliability_figure(bins: Sequence[ReliabilityBin], *, series: int = 0, is_small: bool = False) -> Plot:
    """Draw the observed share of positives against the mean probability, one point per bin with its interval."""
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="Predicted probability", ylabel="Observed share", is_small=is_small)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        color = SERIES[series % len(SERIES)]
        for one in bins:
            if np.isfinite([one.predicted, one.low, one.high]).all():
                axes.plot([one.predicted] * 2, [one.low, one.high], color=color, linewidth=1.4, alpha=0.55, zorder=2)
        points = [(one.predicted, one.observed) for one in bins if np.isfinite([one.predicted, one.observed]).all()]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=color, linewidth=1.2, alpha=0.75, zorder=2.5)
            axes.plot(x, y, **_dot(color, size=5.0 if is_small else 6.5))
    return plot


def scores_figure(histogram: Histogram, *, thresholds: Sequence[float] = (), is_small: bool = False) -> Plot:
    """Draw which scores positives (upwards) and negatives (downwards) get, each as a share of its own group."""
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="Predicted probability", ylabel="Share of group", is_small=is_small)
        edges = np.asarray(histogram.edges, dtype=np.float64)
        widths = np.diff(edges)
        shares = [_shares(histogram.positives), -_shares(histogram.negatives)]
        for share, color in zip(shares, (SERIES[1], SERIES[0]), strict=True):
            axes.bar(edges[:-1] + widths / 2, share, widths * 0.86, color=color, alpha=0.85, linewidth=0, zorder=2)
        axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=3)
        for threshold in thresholds:
            if np.isfinite(threshold):
                axes.axvline(min(threshold, 1.0), color=INK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=4)
        largest = max(float(np.abs(np.concatenate(shares)).max(initial=0.0)), 0.05)
        ticks = _percent_ticks(largest)
        axes.set_ylim(-largest * 1.06, largest * 1.06)
        axes.set_yticks([-t for t in ticks[:0:-1]] + ticks)
        axes.set_yticklabels([f"{t:.0%}" for t in ticks[:0:-1] + ticks])
    return plot


def spread_figure(values: Sequence[FloatArray], *, xlabel: str, is_share: bool) -> Plot:
    """Draw one row of points for each structure, numbered from 1, with its quartiles and median.

    Args:
        values: for each structure (N,) float64; NaN is left out.
        xlabel: what is measured, with its unit.
        is_share: whether the axis goes from 0 to 1; else from 0 to the largest value.
    """
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel=xlabel, ylabel="Structure", height=max(110.0, 30.0 + 38.0 * len(values)))
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
            axes.plot(one, heights, **(_dot(color, size=5.0) | {"alpha": 0.75, "markeredgewidth": 0.6, "zorder": 3.0}))
        _set_range(axes, x=(0.0, largest))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_yticks(range(len(values)), [str(row + 1) for row in range(len(values))])
        axes.grid(visible=False, axis="y")
    return plot


def volume_figure(truth: FloatArray, prediction: FloatArray, *, series: int = 0) -> Plot:
    """Draw predicted against true volume [ml], (N,) float64 each without NaN, and the line where both are the same."""
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="True volume [ml]", ylabel="Predicted volume [ml]")
        largest = float(max(truth.max(), prediction.max())) or 1.0
        axes.plot([0, largest], [0, largest], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        axes.plot(truth, prediction, **(_dot(SERIES[series % len(SERIES)], size=6.5) | {"alpha": 0.85}))
        _set_range(axes, x=(0.0, largest), y=(0.0, largest))
    return plot


def bland_altman_figure(means: FloatArray, errors: FloatArray, *, lines: Sequence[float], series: int = 0) -> Plot:
    """Draw prediction minus truth against their mean (Bland and Altman, Lancet 327:307, 1986), (N,) float64 [ml] each.

    Args:
        means: mean of both volumes.
        errors: their difference.
        lines: bias, then the limits of agreement where there are any.
        series: position in ``SERIES``.
    """
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="Mean of both volumes [ml]", ylabel="Prediction − truth [ml]")
        axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1.6)
        for k, level in enumerate(lines):
            style = "solid" if k == 0 else (0, (4, 2))
            axes.axhline(level, color=INK, linewidth=1.2, linestyle=style, zorder=1.7)
        axes.plot(means, errors, **(_dot(SERIES[series % len(SERIES)], size=6.5) | {"alpha": 0.85}))
        largest = max(float(np.abs(errors).max()), *map(abs, lines)) or 1.0
        _set_range(axes, x=(0.0, float(means.max()) or 1.0), y=(-largest, largest))
    return plot


def froc_figure(false_per_case: FloatArray, sensitivity: FloatArray, *, series: int = 0) -> Plot:
    """Draw lesion sensitivity, (T,) float64, against false positives per case, (T,) ascending, from none upwards."""
    with rc_context(_SETTINGS):
        plot, axes = _square(xlabel="False positives per case", ylabel="Lesion sensitivity")
        color = SERIES[series % len(SERIES)]
        x, y = np.concatenate([[0.0], false_per_case]), np.concatenate([[0.0], sensitivity])
        axes.plot(x, y, color=color, linewidth=2.0, drawstyle="steps-post", zorder=3)
        _set_range(axes, x=(0.0, float(x.max()) or 1.0))
    return plot


def to_svg(plot: Plot, *, name: str, label: str) -> str:
    """Turn a figure into an ``<svg>`` element for a page; the same figure gives the same text.

    Args:
        plot: a figure of this module.
        name: unique in the page; stands before every id.
        label: what a screen reader says instead of the figure (any text, it is escaped).
    """
    buffer = StringIO()
    with rc_context(_SETTINGS):
        plot.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    body = body[body.index("<svg") : body.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    body = re.sub(r"(font(?:-family)?:[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1sans-serif", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    body = re.sub(r"\s*\n\s*", "\n", body)
    width, height = plot.get_size_inches() * _POINTS
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{body}</svg>"
    )


def _square(*, xlabel: str, ylabel: str, is_small: bool = False, height: float | None = None) -> tuple[Plot, Axes]:
    """Axes of one unit by one unit, drawn square or ``height`` high, at the same place in every figure."""
    width = _SMALL_WIDTH if is_small else _WIDTH
    side = width - _LEFT - _RIGHT
    tall = side if height is None else height
    height = tall + _BOTTOM + _TOP
    plot = Plot(figsize=(width / _POINTS, height / _POINTS), dpi=_POINTS)
    FigureCanvasSVG(plot)
    axes = plot.add_axes((_LEFT / width, _BOTTOM / height, side / width, tall / height))
    ticks = (0.0, 0.5, 1.0) if is_small else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    for axis, text in ((axes.xaxis, xlabel), (axes.yaxis, ylabel)):
        axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.set_label_text(text)
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    axes.grid(visible=True)
    return plot, axes


def _set_range(axes: Axes, *, x: tuple[float, float] | None = None, y: tuple[float, float] | None = None) -> None:
    """Give an axis a range other than 0 to 1, with at most six round ticks."""
    for axis, limits, place in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
        if limits is None or limits == (0.0, 1.0):
            continue
        margin = 0.04 * (limits[1] - limits[0])
        place(limits[0] - margin, limits[1] + margin)
        ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(*limits)
        shown = [tick for tick in ticks if limits[0] - margin <= tick <= limits[1] + margin]
        axis.set_ticks(shown, labels=[f"{tick:g}".replace("-", "−") for tick in shown])


def _muted_first(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.series is not None)


def _stroke(line: Line) -> dict[str, Any]:
    if line.series is None:
        return {"color": MUTED, "linewidth": 0.9, "alpha": 0.45, "zorder": 2.0}
    dashes = _DASHES[line.series % len(_DASHES)]
    return {"color": line.color, "linewidth": 2.0, "linestyle": dashes, "zorder": 3.0, "solid_capstyle": "round"}


def _dot(color: str, *, size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markerfacecolor": color,
        "markeredgecolor": PAPER,
        "markeredgewidth": 1.2,
        "zorder": 6.0,
        "clip_on": False,
    }


def _draw_marks(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        mark = line.mark
        if mark is None or line.series is None or not np.isfinite([mark.x, mark.y]).all():
            continue
        color = INK if len(lines) == 1 else line.color
        if np.isfinite(mark.x_range).all():
            axes.plot(mark.x_range, [mark.y] * 2, color=color, linewidth=1.3, zorder=5.0)
        if np.isfinite(mark.y_range).all():
            axes.plot([mark.x] * 2, mark.y_range, color=color, linewidth=1.3, zorder=5.0)
        axes.plot([mark.x], [mark.y], **_dot(color, size=8.0))


def _shares(counts: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


def _percent_ticks(largest: float) -> list[float]:
    """Ticks from 0: at most four steps of a round size."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.25) if largest / step <= 4.0 or step == 0.25)
    return [step * k for k in range(int(largest / step) + 1)]
