"""HTML report page of a Comparison: two models side by side, their differences and their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_vision.errors import ReportError
from lepton_vision.evaluation.classes.binary_views import binary_views
from lepton_vision.evaluation.classes.comparison import Comparison, Difference
from lepton_vision.evaluation.classes.curves import class_curves
from lepton_vision.evaluation.classes.figure_table import parse_key
from lepton_vision.evaluation.values.points import value_points
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.reporting.classes.analyses import show
from lepton_vision.reporting.classes.case_words import count_cases, plural
from lepton_vision.reporting.classes.charts import Chart, Legend
from lepton_vision.reporting.classes.view import NOTHING, digits_of, has_width, is_known, number, show_facts
from lepton_vision.reporting.figures import Line, Mark, roc_figure, to_svg
from lepton_vision.reporting.page import check_place, render_template, write_page
from lepton_vision.reporting.values.charts import scatter_chart
from lepton_vision.reporting.values.figures import value_range
from lepton_vision.reporting.wording import METHOD_NAMES, READING, split_name, term
from lepton_vision.types import Target
from lepton_vision.types.figure import FigureSpec

LARGEST_GRID = 12
"""Classes that get ROC curves of their own."""


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One figure of both models, as text.

    Attributes:
        name: of the figure, with its class.
        meaning: one plain sentence, or "".
        a: figure of the first model.
        b: figure of the second.
        difference: b - a, signed.
        interval: of the difference, or "".
        p: P value, with that of Holm's adjustment; or "".
        test: by what test, and n.
        scale: value, low, high, 0 and the margin (or None) in percent of a scale around 0; None where there is none.
        verdict: what a margin says, or "".
        reason: why something is undefined, or a caveat; or "".
    """

    name: str
    meaning: str
    a: str
    b: str
    difference: str
    interval: str
    p: str
    test: str
    scale: tuple[float, float, float, float, float | None] | None
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class TargetView:
    """Both models on one target: the endpoints, all figures, and the curves by class."""

    target: Target
    anchor: str
    endpoints: list[DifferenceRow]
    rows: list[DifferenceRow]
    ends: str
    charts: list[tuple[str, Chart]]


def write_comparison(
    comparison: Comparison,
    path: str | Path,
    *,
    predictions: tuple[Predictions, Predictions] | None = None,
    names: tuple[str, str] = ("first model", "second model"),
    title: str | None = None,
) -> Path:
    """Write one HTML file with everything inside it; it names no path, no file and no identifier of a header.

    Args:
        comparison: what ``compare`` returned.
        path: the file to write; its folder is made if it is missing.
        predictions: of both models, of the unit that was compared, for the ROC curves; None leaves them out.
        names: what the models are called.
        title: heading; None makes one of the names.

    Returns:
        The path of the page.

    Raises:
        ReportError: the names are equal or empty, ``path`` is a folder, or cannot be written.

    Example:
        >>> write_comparison(found, "comparison.html", names=("ours", "theirs"))  # doctest: +SKIP
    """
    check_place(path)
    if not all(name.strip() for name in names) or names[0] == names[1]:
        raise ReportError(f"Expected two different names of models. Received: {names[0]!r} and {names[1]!r}.")
    unit = str(comparison.provenance.get("unit", "image"))
    facts = dict(comparison.provenance)
    page = render_template(
        "comparison.html.j2",
        title=title or f"{names[1]} against {names[0]}",
        names=names,
        comparison=comparison,
        split=split_name(comparison.split),
        confidence=f"{comparison.confidence:.0%}".replace("%", " %"),
        counted=count_cases(comparison.n, comparison.n_patients, unit=unit),
        points=[point.criterion for point in comparison.operating_points],
        has_decisions=not all(target.is_value for target in comparison.targets),
        sections=[_view(comparison, target, i, predictions, names) for i, target in enumerate(comparison.targets)],
        facts=show_facts(facts),
        unit=unit,
        units=plural(unit),
    )
    return write_page(path, page)


def _view(
    comparison: Comparison,
    target: Target,
    position: int,
    predictions: tuple[Predictions, Predictions] | None,
    names: tuple[str, str],
) -> TargetView:
    figures, chosen = comparison.differences[target.name], comparison.endpoints[target.name]
    own = comparison.own_figures
    ends = _ends(figures, own)
    anchor = f"target-{position}"
    rows = {key: _row(key, one, target, ends=ends, own=own) for key, one in figures.items()}
    make = _scatters if target.is_value else _charts
    charts = [] if predictions is None else make(predictions, target, figures, names=names, anchor=anchor)
    return TargetView(
        target, anchor, [rows[key] for key in chosen], list(rows.values()), f"{ends:g}", charts[:LARGEST_GRID]
    )


def _ends(figures: Mapping[str, Difference], own: Mapping[str, FigureSpec]) -> float:
    """Largest distance from 0 that a scale shows: that of figures that are shares, and their margins, rounded up."""
    sizes = [0.05]
    for key, one in figures.items():
        if term(key, own=own).scale == "share":
            sizes += [
                abs(x) for x in (one.figure.value, one.figure.low, one.figure.high, one.margin or 0.0) if is_known(x)
            ]
    return math.ceil(20.0 * min(max(sizes), 1.0)) / 20.0


def _row(key: str, one: Difference, target: Target, *, ends: float, own: Mapping[str, FigureSpec]) -> DifferenceRow:
    base, part = parse_key(key, target)
    words = term(base if part in target.classes else key, target, own)
    name = f"{words.title}: {part}" if part in target.classes else words.title
    figure = one.figure
    is_drawn = is_known(figure.value) and (words.scale == "share" or target.is_value)
    scale = _scale(one, ends=_own_end(one) if target.is_value else ends, spec=words) if is_drawn else None
    shown, digits = show(figure, words).split(" (", 1), digits_of(words, one.a, one.b)
    p = "" if not is_known(one.p_value) else f"P {_p(one.p_value)}"
    if is_known(one.p_adjusted):
        p += f", adjusted {_p(one.p_adjusted)}"
    return DifferenceRow(
        name,
        words.meaning,
        number(one.a, digits=digits).replace("-", "−"),
        number(one.b, digits=digits).replace("-", "−"),
        shown[0],
        shown[1].rstrip(")") if len(shown) > 1 else "",
        p,
        f"{METHOD_NAMES.get(one.test, one.test.replace('_', ' '))}, n = {figure.n:,}",
        scale,
        _verdict(one),
        figure.reason,
    )


def _own_end(one: Difference) -> float:
    """End of the scale of a figure that is no share, for its bar alone."""
    shown = (one.figure.value, one.figure.low, one.figure.high, one.margin or 0.0)
    return 1.15 * max(abs(x) for x in shown if is_known(x)) or 1.0


def _scale(one: Difference, *, ends: float, spec: FigureSpec) -> tuple[float, float, float, float, float | None]:
    """Value, low, high, 0 and the margin in percent of a scale around 0; a loss of the margin is to the worse side."""
    figure = one.figure
    low, high = (figure.low, figure.high) if has_width(figure) else (figure.value, figure.value)
    at = [round(50.0 + 50.0 * min(max(x / ends, -1.0), 1.0), 2) for x in (figure.value, low, high, 0.0)]
    worse = 50.0 if spec.better == "lower" else -50.0
    margin = None if one.margin is None else round(50.0 + worse * one.margin / ends, 2)
    return at[0], at[1], at[2], at[3], margin


def _scatters(
    predictions: tuple[Predictions, Predictions],
    target: Target,
    figures: Mapping[str, Difference],
    *,
    names: tuple[str, str],
    anchor: str,
) -> list[tuple[str, Chart]]:
    """Predictions of each model against the true values, in one range."""
    points, r2 = [value_points(one, target) for one in predictions], figures["r2"]
    how: dict[str, Any] = {"limits": value_range(points), "unit": "case"}
    charts = []
    for k, (one, value) in enumerate(zip(points, (r2.a, r2.b), strict=True)):
        note = f"R² {number(value)}"
        charts.append(scatter_chart(one, target, name=f"{anchor}-scatter-{k}", note=note, series=k, **how))
    return list(zip(names, charts, strict=True))


def _verdict(one: Difference) -> str:
    if one.margin is None:
        return ""
    if one.is_non_inferior is None:
        return f"margin {one.margin:g}: no verdict ({one.no_verdict})"
    said = "non-inferior" if one.is_non_inferior else "non-inferiority is not shown"
    p = f", one-sided P {_p(one.p_non_inferior)}" if is_known(one.p_non_inferior) else ""
    return f"{said} (margin {one.margin:g}{p})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {number(value)}"


def _charts(
    predictions: tuple[Predictions, Predictions],
    target: Target,
    figures: Mapping[str, Difference],
    *,
    names: tuple[str, str],
    anchor: str,
) -> list[tuple[str, Chart]]:
    """ROC curves of both models, a drawing by class."""
    pairs = zip(*(binary_views(one, target, most=LARGEST_GRID) for one in predictions), strict=True)
    charts = []
    for k, pair in enumerate(pairs):
        end = "" if target.is_binary else f"_{pair[0].class_name}"
        curves = [
            class_curves(one.is_positive, one.prob, class_name=name) for one, name in zip(pair, names, strict=True)
        ]
        marks = [_mark(figures, end, side=side) for side in ("a", "b")]
        lines = [Line(one, series, mark) for series, (one, mark) in enumerate(zip(curves, marks, strict=True))]
        auroc = figures.get(f"auroc{end}")
        notes = [NOTHING if auroc is None else f"AUROC {number(getattr(auroc, side))}" for side in ("a", "b")]
        keys = [
            Legend(series, "line", name, note) for series, (name, note) in enumerate(zip(names, notes, strict=True))
        ]
        if any(marks):
            keys.append(Legend(None, "point", "Operating points"))
        is_drawn = all(one.roc is not None for one in curves)
        said = ". ".join(f"{name}: {note}" for name, note in zip(names, notes, strict=True))
        label = f"ROC curves of {pair[0].class_name}. {said}"
        svg = to_svg(roc_figure(lines), name=f"{anchor}-roc-{k}", label=label) if is_drawn else ""
        missing = "" if is_drawn else "Undefined: the labelled images are all of one class."
        keys.append(Legend(None, "dots", "Chance", "0.500"))
        charts.append((pair[0].class_name, Chart("ROC curves", svg, tuple(keys), READING["roc"], missing)))
    return charts


def _mark(figures: Mapping[str, Difference], end: str, *, side: str) -> Mark | None:
    found = [figures.get(f"{key}{end}") for key in ("specificity", "sensitivity")]
    if found[0] is None or found[1] is None:
        return None
    specificity, sensitivity = (float(getattr(one, side)) for one in found)
    return Mark(1.0 - specificity, sensitivity)
