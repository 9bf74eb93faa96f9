"""Pictures of a number on the page, with legends and text for screen readers, and its result in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from lepton_vision.evaluation.classes.analyses import ValueIntervals
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.classes.figure_table import SPECS
from lepton_vision.evaluation.values.points import ValuePoints
from lepton_vision.reporting.classes.analyses import Panel, Table, show
from lepton_vision.reporting.classes.case_words import plural, several, unit_of
from lepton_vision.reporting.classes.charts import Chart, Legend
from lepton_vision.reporting.classes.view import NOTHING, digits_of, is_known, number
from lepton_vision.reporting.figures import MOST_DOTS, to_svg
from lepton_vision.reporting.values.figures import Range, bland_altman_figure, scatter_figure
from lepton_vision.reporting.wording import READING, in_unit, with_unit
from lepton_vision.types import Figure, Target

_NOTHING = "No labelled image."


def value_charts(evaluation: Evaluation, target: Target, *, name: str) -> list[Chart]:
    """Return the scatter and the Bland–Altman plot of a number; ``name`` stands before every id."""
    points, figures = evaluation.points[target.name], evaluation.figures[target.name]
    unit, level = unit_of(evaluation), f"{evaluation.confidence * 100:g} % intervals"
    return [
        scatter_chart(points, target, name=f"{name}-scatter", note=f"R² {show(figures['r2'])}", unit=unit),
        _bland_altman(points, target, figures, name=f"{name}-difference", level=level, unit=unit),
    ]


def scatter_chart(
    points: ValuePoints,
    target: Target,
    *,
    name: str,
    note: str,
    unit: str,
    limits: Range | None = None,
    series: int = 0,
) -> Chart:
    """Return predictions against true values of each ``unit`` of analysis; ``note`` stands beside the legend."""
    counted = several(points.truth.size, unit)
    label = f"Predicted against true {with_unit(target.name, target)} of {counted}. {note}"
    figure = scatter_figure(points, limits=limits, series=series)
    svg = to_svg(figure, name=name, label=label) if points.truth.size else ""
    keys = (_samples(points, note, unit=unit, series=series), Legend(None, "dots", "Predicted = true"))
    title = with_unit("Predicted against true", target)
    return Chart(title, svg, keys, READING["scatter"], "" if svg else _NOTHING)


def _bland_altman(
    points: ValuePoints, target: Target, figures: Mapping[str, Figure], *, name: str, level: str, unit: str
) -> Chart:
    bias, *limits = (figures[key] for key in ("bias", "limit_low", "limit_high"))
    ends = " and ".join(_value(one.value) for one in limits)
    shown = show(bias, SPECS["bias"])
    label = f"Predicted less true {with_unit(target.name, target)}: bias {shown}, limits of agreement {ends}."
    figure = bland_altman_figure(points, bias=bias, limits=(limits[0], limits[1]))
    svg = to_svg(figure, name=name, label=label) if points.truth.size else ""
    keys = [_samples(points, "", unit=unit), Legend(None, "level", "Bias", _value(bias.value))]
    if all(is_known(one.value) for one in limits):
        keys.append(Legend(None, "cut", "Limits of agreement", ends))
    if any(one.low < one.high for one in (bias, *limits)):
        keys.append(Legend(None, "band", level, "over patients"))
    title = with_unit("Bland–Altman: difference by size", target)
    return Chart(title, svg, tuple(keys), READING["bland_altman"], "" if svg else _NOTHING)


def _samples(points: ValuePoints, note: str, *, unit: str, series: int = 0) -> Legend:
    if points.truth.size <= MOST_DOTS:
        return Legend(series, "disc", f"One {unit}", note)
    return Legend(series, "bar", f"{plural(unit).capitalize()}: the darker, the more", note)


def interval_panel(found: ValueIntervals, target: Target) -> Panel:
    """Return what the intervals of a number hold and how wide they are."""
    half = in_unit(_value(found.half_width), target) if is_known(found.half_width) else ""
    rows = (
        ("True value inside", f"{found.stated:.0%}", show(found.coverage)),
        ("Width of each interval", NOTHING, in_unit(_value(found.width), target) if half else NOTHING),
    )
    table = Table("Prediction intervals", ("Share of images", "Stated", "Found"), rows)
    said = (
        f"Each interval is the prediction ± {half}, from {found.n_validation:,} patients of validation."
        if half
        else f"There is no interval: {found.n_validation:,} patients of validation are too few for {found.stated:.0%}."
    )
    return Panel("Prediction intervals", READING["intervals"], tables=(table,), sentences=(said,))


def describe_error(evaluation: Evaluation, target: Target) -> str:
    """Tell in one or two sentences how far the predictions are off."""
    figures = evaluation.figures[target.name]
    mae, low, high = (figures[key] for key in ("mae", "limit_low", "limit_high"))
    if not is_known(mae.value):
        return f"Nothing can be said: {mae.reason}."
    said = f"The predictions are off by {in_unit(_value(mae.value), target)} on average."
    if not is_known(low.value):
        return said
    between = f"{_value(low.value)} and {in_unit(_value(high.value), target)}"
    return f"{said} About 95 of 100 differences, predicted less true, lie between {between}."


def _value(value: float) -> str:
    """A number in the unit of a target."""
    return number(value, digits=digits_of(SPECS["bias"], value)).replace("-", "−")
