"""Drawing of charts with matplotlib, and as SVG in the colours of the page: the doorway to matplotlib.

Every figure has the same size and the same place for its axes, so that figures beside each other line up. No text of
the user (a class name, a title) is drawn: a ``$`` would be read as mathematics and a glyph may be missing; the page
sets such text in HTML. pyplot is not used and no setting of matplotlib changes for anybody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from lepton_vision.evaluation.classes.curves import ClassCurves, Histogram, ReliabilityBin
from lepton_vision.types import FloatArray


class Plot(Figure):
    """A figure that a notebook shows without pyplot (this package has a Figure of its own: a number with interval)."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        with chart_style():
            self.savefig(buffer, format="png", dpi=2.0 * _POINTS, facecolor="white")
        return buffer.getvalue()


INK, MUTED, GRID, PAPER = "#17212d", "#5a6774", "#e1e6ec", "#fefefe"
# Told apart with any colour vision and, as the lines change their dashes too, without colour (after Okabe and Ito).
SERIES = ("#0a5fa5", "#c2460b", "#0c7a5e", "#7a3fa3", "#8f6a06", "#b3226d", "#1f86a8", "#4f5d6e")
_DASHES: tuple[Any, ...] = ("solid", "solid", "solid", "solid", (0, (5, 2)), (0, (5, 2)), (0, (5, 2)), (0, (5, 2)))
# A browser may show the page light or dark: these colours become variables of the page's style sheet.
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card"} | {
    color: f"--series-{i}" for i, color in enumerate(SERIES)
}

MOST_DOTS = 1000
"""Samples up to which each is a dot; more are counted in cells."""
_CELLS, _SHADES = 56, 5

LIMITS = (-0.015, 1.015)
"""Ends of an axis of one unit."""

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


def chart_style() -> AbstractContextManager[Any]:
    """Settings of every figure, for as long as it is drawn or written."""
    return rc_context(_SETTINGS)


def roc_figure(lines: Sequence[Line], *, is_small: bool = False) -> Plot:
    """Draw ROC curves, the line of chance, the band of a single curve, and the operating points with intervals."""
    with chart_style():
        plot, axes = square_axes(xlabel="1 − specificity", ylabel="Sensitivity", is_small=is_small)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        _draw_band(axes, lines, name="sensitivity")
        for line in _muted_first(lines):
            if line.curves.roc is not None:
                axes.plot(line.curves.roc.false_positive_rate, line.curves.roc.sensitivity, **_stroke(line))
        _draw_marks(axes, lines)
    return plot


def precision_recall_figure(lines: Sequence[Line]) -> Plot:
    """Draw precision–recall step curves, the prevalence of each class and the operating points.

    The curves are steps: straight lines between the points would flatter the model.
    """
    with chart_style():
        plot, axes = square_axes(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
        _draw_band(axes, lines, name="precision")
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
    with chart_style():
        plot, axes = square_axes(xlabel="Predicted probability", ylabel="Observed share", is_small=is_small)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1.5)
        color = SERIES[series % len(SERIES)]
        for one in bins:
            if np.isfinite([one.predicted, one.low, one.high]).all():
                axes.plot([one.predicted] * 2, [one.low, one.high], color=color, linewidth=1.4, alpha=0.55, zorder=2)
        points = [(one.predicted, one.observed) for one in bins if np.isfinite([one.predicted, one.observed]).all()]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=color, linewidth=1.2, alpha=0.75, zorder=2.5)
            axes.plot(x, y, **dot_style(color, size=5.0 if is_small else 6.5))
    return plot


def scores_figure(histogram: Histogram, *, thresholds: Sequence[float] = (), is_small: bool = False) -> Plot:
    """Draw which scores positives (upwards) and negatives (downwards) get, each as a share of its own group."""
    with chart_style():
        plot, axes = square_axes(xlabel="Predicted probability", ylabel="Share of group", is_small=is_small)
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


def name_lines(plot: Plot, names: Mapping[int, str]) -> Plot:
    """Add a legend by position in ``SERIES``; names are drawn as they are, ``$`` too. Returns the same figure."""
    (axes,) = plot.axes
    lines = {line.get_color(): line for line in axes.lines if line.get_color() in SERIES}
    shown = {name: lines[SERIES[k]] for k, name in names.items() if SERIES[k] in lines}
    with chart_style():
        legend = axes.legend(shown.values(), shown.keys(), fontsize=8.5, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return plot


def to_svg(plot: Plot, *, name: str, label: str) -> str:
    """Turn a figure into an ``<svg>`` element for a page; the same figure gives the same text.

    Args:
        plot: a figure of this module.
        name: unique in the page; stands before every id.
        label: what a screen reader says instead of the figure (any text, it is escaped).
    """
    buffer = StringIO()
    with chart_style():
        plot.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    body = body[body.index("<svg") : body.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    # Coordinates are rounded; a number that begins a text stays as it is.
    body = re.sub(r"(?<![>\d])-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), body)
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


def small_frame() -> dict[str, float]:
    """Axes rectangle of a small figure in its SVG: left and upper edge, and side, in units of its view box."""
    return {"left": _LEFT, "top": _TOP, "side": _SMALL_WIDTH - _LEFT - _RIGHT, "low": LIMITS[0], "high": LIMITS[1]}


def square_axes(*, xlabel: str, ylabel: str, is_small: bool = False, height: float | None = None) -> tuple[Plot, Axes]:
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
    axes.set_xlim(*LIMITS)
    axes.set_ylim(*LIMITS)
    axes.grid(visible=True)
    return plot, axes


def set_range(axes: Axes, *, x: tuple[float, float] | None = None, y: tuple[float, float] | None = None) -> None:
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


def dot_style(color: str, *, size: float) -> dict[str, Any]:
    """Points without a line between them, ``size`` in points, with a rim of the page's colour."""
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


def _draw_band(axes: Axes, lines: Sequence[Line], *, name: str) -> None:
    """The pointwise interval of a curve that stands alone; several would hide each other."""
    bands = lines[0].curves.bands if len(lines) == 1 else None
    if bands is not None:
        low, high = getattr(bands, name)
        shade_band(axes, bands.grid, (low, high), color=lines[0].color)


def shade_band(axes: Axes, x: FloatArray, ends: tuple[FloatArray, FloatArray], *, color: str) -> None:
    """Shade what lies between two curves, (P,) each; where one is NaN there is a gap."""
    axes.fill_between(x, *ends, color=color, alpha=0.18, linewidth=0, zorder=1.8)


def make_room(axes: Axes) -> None:
    """Move the left edge where the numbers along it are long."""
    longest = max(len(label.get_text()) for label in axes.get_yticklabels())
    left, low, width, height = axes.get_position().bounds
    moved = 0.02 * max(longest - 4, 0)
    axes.set_position((left + moved, low, width - moved, height))


def draw_points(
    axes: Axes, x: FloatArray, y: FloatArray, *, ranges: tuple[tuple[float, float], tuple[float, float]], color: str
) -> None:
    """Draw each sample, or of many how often each cell is hit, in shades by the logarithm."""
    if x.size <= MOST_DOTS:
        size = 4.2 if x.size <= 200 else 3.2
        axes.plot(x, y, "o", color=color, alpha=0.55, markersize=size, markeredgewidth=0, zorder=3, clip_on=False)
        return
    counts, left, low = np.histogram2d(x, y, bins=_CELLS, range=ranges)
    shade = np.ceil(_SHADES * np.log1p(counts) / np.log1p(counts.max())).astype(np.intp)
    width, height = left[1] - left[0], low[1] - low[0]
    for k in range(1, _SHADES + 1):
        cells = [_cell(left[i], low[j], width, height) for i, j in np.argwhere(shade == k)]
        if cells:
            alpha = 0.15 + 0.8 * k / _SHADES
            axes.add_patch(PathPatch(Path.make_compound_path(*cells), color=color, alpha=alpha, linewidth=0, zorder=3))


def _cell(left: float, low: float, width: float, height: float) -> Path:
    right, high = left + width, low + height
    return Path([(left, low), (right, low), (right, high), (left, high), (left, low)], closed=True)


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
        axes.plot([mark.x], [mark.y], **dot_style(color, size=8.0))


def _shares(counts: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


def _percent_ticks(largest: float) -> list[float]:
    """Ticks from 0: at most four steps of a round size."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.25) if largest / step <= 4.0 or step == 0.25)
    return [step * k for k in range(int(largest / step) + 1)]
