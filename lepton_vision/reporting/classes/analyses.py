"""Report panels of the analyses: charts, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton_vision.evaluation.classes.analyses import (
    Abstention,
    CalibrationStatistics,
    ConformalSets,
    DecisionCurve,
    External,
    Recalibration,
)
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.classes.analysis_figures import abstention_figure, decision_figure
from lepton_vision.reporting.classes.charts import Chart, Legend
from lepton_vision.reporting.classes.view import NOTHING, digits_of, has_width, is_known, number, range_text
from lepton_vision.reporting.figures import to_svg
from lepton_vision.reporting.wording import ANALYSIS_NAMES, READING, term
from lepton_vision.types import Figure, Target
from lepton_vision.types.figure import FigureSpec

LARGEST_PANEL = 12
"""Classes that get a drawing of their own."""


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; the first cell of a row is its heading, the others are numbers.

    Attributes:
        label: for a screen reader.
        columns: headings.
        rows: cells as text.
    """

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One analysis and its result.

    Attributes:
        title: heading.
        reading: how to read it.
        charts: (class, drawing); the class is "" where there is one only.
        tables: what was counted.
        sentences: what to take away.
    """

    title: str
    reading: str
    charts: tuple[tuple[str, Chart], ...] = ()
    tables: tuple[Table, ...] = ()
    sentences: tuple[str, ...] = ()


def show(figure: Figure | None, words: FigureSpec | None = None) -> str:
    """Print a figure with its interval, or why it has none; ``words`` know whether it has a unit."""
    if figure is None or not is_known(figure.value):
        return NOTHING
    digits = 3 if words is None else digits_of(words, figure.value, figure.low, figure.high)
    value = number(figure.value, digits=digits)
    if has_width(figure):
        value = f"{value} ({range_text(figure.low, figure.high, digits=digits)})"
    return value.replace("-", "−")


def target_panels(evaluation: Evaluation, target: Target, *, anchor: str) -> list[Panel]:
    """Return calibration, net benefit, abstention and prediction sets of one target, as far as they were analysed."""
    found, panels = evaluation.analyses, []
    if calibration := (found.calibration or {}).get(target.name):
        panels.append(_calibration(calibration))
    if curves := (found.decision_curve or {}).get(target.name):
        panels.append(_net_benefit(curves, name=f"{anchor}-benefit"))
    if abstention := (found.abstention or {}).get(target.name):
        panels.append(_abstention(abstention, name=f"{anchor}-abstain"))
    if sets := (found.conformal or {}).get(target.name):
        panels.append(_sets(sets))
    return panels


def _calibration(classes: Sequence[CalibrationStatistics]) -> Panel:
    columns = ("Figure", *(one.class_name for one in classes))
    tables = (Table("Calibration", columns, _by_class(classes)),)
    return Panel("Calibration in figures", READING["calibration"], tables=tables)


def _by_class(classes: Sequence[CalibrationStatistics] | Sequence[Recalibration]) -> tuple[tuple[str, ...], ...]:
    """One row per figure, one column per class."""
    names = {name: ANALYSIS_NAMES.get(name) or term(name).title for one in classes for name in one.figures}
    return tuple((title, *(show(one.figures.get(name)) for one in classes)) for name, title in names.items())


def _net_benefit(curves: Sequence[DecisionCurve], *, name: str) -> Panel:
    charts = []
    for k, curve in enumerate(curves[:LARGEST_PANEL]):
        label = f"Net benefit of {curve.class_name} over the threshold probability, beside treating everybody or nobody"
        svg = to_svg(decision_figure(curve), name=f"{name}-{k}", label=label)
        keys = (Legend(0, "line", "Model"), Legend(1, "dash", "Treat everybody"), Legend(None, "dots", "Treat nobody"))
        charts.append((curve.class_name if len(curves) > 1 else "", Chart("Decision curve", svg, keys, "")))
    sentences = tuple(_useful(curve) for curve in curves[:LARGEST_PANEL])
    return Panel("Decision curve", READING["benefit"], tuple(charts), sentences=sentences)


def _useful(curve: DecisionCurve) -> str:
    """Where the whole band of the gain lies above 0."""
    is_better = curve.gain.low > 0
    if not is_better.any():
        return f"{curve.class_name}: at no threshold is the model clearly better than treating everybody or nobody."
    found = curve.threshold[is_better]
    whole = "between" if is_better[is_better.argmax() : len(is_better) - is_better[::-1].argmax()].all() else "within"
    return (
        f"{curve.class_name}: clearly better than treating everybody or nobody {whole} the thresholds "
        f"{number(float(found.min()), digits=2)} and {number(float(found.max()), digits=2)}."
    )


def _abstention(curves: Sequence[Abstention], *, name: str) -> Panel:
    charts, rows = [], []
    for k, curve in enumerate(curves[:LARGEST_PANEL]):
        label = f"Share of wrong decisions over the share that is decided{_of(curve.class_name)}"
        svg = to_svg(abstention_figure(curve), name=f"{name}-{k}", label=label)
        keys = (Legend(0, "line", "Wrong decisions", f"mean {show(curve.aurc)}"),)
        charts.append((curve.class_name if len(curves) > 1 else "", Chart("Abstention", svg, keys, "")))
        rows += [
            (
                (f"{curve.class_name}, " if curve.class_name else "") + f"at most {one.risk:.0%} wrong",
                show(one.share) if is_known(one.share.value) and one.share.value < 1.0 else "no share is enough",
            )
            for one in curve.referrals
        ]
    tables = (Table("Referral", ("Of those decided", "Share to refer"), tuple(rows)),) if rows else ()
    return Panel("If the unsure cases are referred", READING["abstention"], tuple(charts), tables)


def _sets(sets: Sequence[ConformalSets]) -> Panel:
    tables = []
    for one in sets:
        rows = [(f"{name} in the set", f"{one.stated:.0%}", show(figure)) for name, figure in one.coverage.items()]
        rows.append(("Answers in a set", NOTHING, show(one.mean_size)))
        rows += [(f"Sets with {k} answers", NOTHING, show(share)) for k, share in enumerate(one.sizes)]
        tables.append(
            Table(f"Prediction sets{_of(one.class_name)}", ("Share of images", "Stated", "Found"), tuple(rows))
        )
    return Panel("Prediction sets", READING["sets"], tables=tuple(tables))


def external_panel(
    external: External | None, own: Mapping[str, FigureSpec] | None = None, *, targets: Sequence[Target] = ()
) -> Panel | None:
    """Return what the model lost or gained at another site, or None; ``own`` describes figures of the caller.

    ``targets`` know the units of their figures.
    """
    if external is None:
        return None
    tables, known = [], {target.name: target for target in targets if target.is_value}
    for target, shifts in external.shifts.items():
        words = {name: term(name, known.get(target), own) for name in shifts}
        rows = tuple(
            (words[name].title, *(show(part, words[name]) for part in (one.internal, one.external, one.difference)))
            for name, one in shifts.items()
        )
        tables.append(Table(f"{target}: here and there", (target, "At home", "Here", "Difference"), rows))
    for target, classes in external.recalibration.items():
        if not classes:
            continue
        columns = ("Recalibration", *(one.class_name for one in classes))
        tables.append(Table(f"{target}: recalibration", columns, _by_class(classes)))
    compared = f"Compared with: {external.reference}." if external.reference else "No internal evaluation was given."
    return Panel("Another site", READING["external"], tables=tuple(tables), sentences=(compared,))


def _of(class_name: str) -> str:
    return f" of {class_name}" if class_name else ""
