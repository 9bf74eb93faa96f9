"""Selection of curves for each target on the page, with legends and text for screen readers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_vision.evaluation.classes.curves import ClassCurves
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.classes.view import NOTHING, has_width, is_known, number, range_text
from lepton_vision.reporting.figures import (
    SERIES,
    Line,
    Mark,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
    to_svg,
)
from lepton_vision.reporting.wording import READING
from lepton_vision.types import Figure, Target

LARGEST_GRID = 24
"""Classes that get a reliability and a score figure of their own; more would make the page heavy."""


@dataclass(frozen=True, slots=True)
class Legend:
    """One line of a legend.

    Attributes:
        series: position in the palette; None for a muted line.
        shape: "line", "dash" (a line with gaps), "dot" (with an interval), "disc", "point" (an operating point),
            "dots" (a dotted line), "band", "bar", "level" (a line across) or "cut" (a threshold, or a dashed line
            across).
        text: what it stands for.
        note: a figure that belongs to it, or "".
    """

    series: int | None
    shape: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of the page.

    Attributes:
        title: heading.
        svg: the drawing, or "" where it is undefined.
        keys: the legend.
        reading: how to read it.
        missing: why there is no drawing, or "".
    """

    title: str
    svg: str
    keys: tuple[Legend, ...]
    reading: str
    missing: str = ""


def curve_charts(evaluation: Evaluation, target: Target, *, name: str) -> list[Chart]:
    """Return ROC and precision–recall, with all classes in one drawing; ``name`` stands before every id."""
    roc, pr = curve_lines(evaluation, target)
    charts = []
    kinds = (("roc", "ROC curve", roc, "auroc"), ("pr", "Precision–recall curve", pr, "average_precision"))
    for short, title, lines, figure in kinds:
        is_drawn = any(getattr(line.curves, short) is not None for line in lines)
        keys = _curve_keys(evaluation, target, lines, figure=figure)
        label = f"{title} of {target.name}. " + ". ".join(f"{key.text}: {key.note}" for key in keys if key.note)
        draw = roc_figure if short == "roc" else precision_recall_figure
        svg = to_svg(draw(lines), name=f"{name}-{short}", label=label) if is_drawn else ""
        missing = "" if is_drawn else "Undefined: the labelled images are all of one class."
        charts.append(Chart(title, svg, tuple(keys), READING[short], missing))
    return charts


def curve_lines(evaluation: Evaluation, target: Target) -> tuple[list[Line], list[Line]]:
    """Lines of ROC and precision–recall figures, one per class."""
    curves = evaluation.curves.get(target.name, ())
    marks = _marks(evaluation, target)
    series = _choose_series(evaluation, target, curves)
    levels = [_level(one) for one in curves]
    roc = [Line(one, series[k], marks[k][0]) for k, one in enumerate(curves)]
    pr = [Line(one, series[k], marks[k][1], levels[k]) for k, one in enumerate(curves)]
    return roc, pr


def class_charts(evaluation: Evaluation, target: Target, *, name: str) -> list[tuple[str, Chart, Chart]]:
    """Return (class, reliability, scores) for each class; at most ``LARGEST_GRID``, small where there are several."""
    curves = evaluation.curves.get(target.name, ())[:LARGEST_GRID]
    thresholds = evaluation.operating_point.thresholds.get(target.name, ())
    charts = []
    for k, one in enumerate(curves):
        cut = thresholds[k] if k < len(thresholds) and is_known(thresholds[k]) else None
        prefix, is_small = f"{name}-{k}", len(curves) > 1
        reliability = _reliability(one, name=prefix, is_small=is_small)
        charts.append((one.class_name, reliability, _scores(one, cut, name=prefix, is_small=is_small)))
    return charts


def _reliability(curves: ClassCurves, *, name: str, is_small: bool) -> Chart:
    bins = curves.reliability
    said = "; ".join(f"{number(one.predicted, digits=2)} said, {number(one.observed, digits=2)} seen" for one in bins)
    label = f"Reliability of {curves.class_name}: {said or 'nothing is labelled'}"
    svg = to_svg(reliability_figure(bins, is_small=is_small), name=f"{name}-rel", label=label) if bins else ""
    keys = (
        Legend(0, "dot", "Group of about equal size", f"{len(bins)} groups"),
        Legend(None, "dots", "Perfect calibration"),
    )
    return Chart("Reliability", svg, keys, READING["reliability"], "" if svg else "No labelled image.")


def _scores(curves: ClassCurves, cut: float | None, *, name: str, is_small: bool) -> Chart:
    positives, negatives = (int(np.sum(part)) for part in (curves.histogram.positives, curves.histogram.negatives))
    threshold = "" if cut is None else f" Threshold {number(cut)}."
    label = f"Scores of {positives} that are {curves.class_name} and {negatives} that are not.{threshold}"
    figure = scores_figure(curves.histogram, thresholds=() if cut is None else (cut,), is_small=is_small)
    svg = to_svg(figure, name=f"{name}-scores", label=label) if positives + negatives else ""
    keys = [Legend(1, "bar", curves.class_name, f"n = {positives:,}"), Legend(0, "bar", "others", f"n = {negatives:,}")]
    if cut is not None:
        keys.append(Legend(None, "cut", "Threshold", number(cut)))
    return Chart("Scores", svg, tuple(keys), READING["scores"], "" if svg else "No labelled image.")


def _curve_keys(evaluation: Evaluation, target: Target, lines: list[Line], *, figure: str) -> list[Legend]:
    figures = evaluation.figures.get(target.name, {})
    is_roc = figure == "auroc"
    if target.is_binary:
        keys = [Legend(0, "line", target.positive, _with_interval(figures.get(figure)))]
        if any(line.curves.bands is not None for line in lines):
            keys.append(Legend(0, "band", f"{evaluation.confidence * 100:g} % band", "point by point, over patients"))
        shown = ("sensitivity", "specificity") if is_roc else ("sensitivity", "ppv")
        names = ("sensitivity", "specificity") if is_roc else ("recall", "precision")
        values = [number(_value(figures.get(one))) for one in shown]
        note = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        if any(line.mark is not None and is_known(line.mark.x) and is_known(line.mark.y) for line in lines):
            keys.append(Legend(None, "point", "Operating point", note))
        level = lines[0].level if lines else None
        guess = Legend(None, "dots", "Prevalence", NOTHING if level is None else number(level))
        return [*keys, Legend(None, "dots", "Chance", "0.500") if is_roc else guess]
    keys = []
    for line in lines:
        if line.series is not None:
            text = _with_interval(figures.get(f"{figure}_{line.curves.class_name}"))
            keys.append(Legend(line.series, "dash" if line.series >= 4 else "line", line.curves.class_name, text))
    hidden = sum(line.series is None for line in lines)
    if hidden:
        keys.append(Legend(None, "line", f"{hidden} other classes", "see the table"))
    decision = "Largest probability wins" if target.is_exclusive else "Operating point"
    return [*keys, Legend(None, "point", decision), Legend(None, "dots", "Chance" if is_roc else "Prevalence")]


def _choose_series(evaluation: Evaluation, target: Target, curves: tuple[ClassCurves, ...]) -> list[int | None]:
    """Give each class a colour; where there are too many, the weakest ones by AUROC get one each."""
    if len(curves) <= len(SERIES):
        return list(range(len(curves)))
    figures = evaluation.figures.get(target.name, {})
    auroc = [_value(figures.get(f"auroc_{one.class_name}")) for one in curves]
    weakest = sorted(range(len(curves)), key=lambda k: (not is_known(auroc[k]), auroc[k] if is_known(auroc[k]) else 0))
    chosen = sorted(weakest[: len(SERIES)])
    return [chosen.index(k) if k in chosen else None for k in range(len(curves))]


def _marks(evaluation: Evaluation, target: Target) -> list[tuple[Mark | None, Mark | None]]:
    """Operating point of each class in the ROC and in the precision–recall plane."""
    figures = evaluation.figures.get(target.name, {})
    if not target.is_exclusive:
        suffixes = [""] if target.is_single else [f"_{name}" for name in target.classes]
        return [_binary_marks(*(figures.get(f"{key}{end}") for key in _MARKED)) for end in suffixes]
    table = np.asarray(evaluation.confusion.get(target.name, np.zeros((0, 0))), dtype=np.float64)
    if table.shape != (len(target.classes),) * 2:
        return [(None, None)] * len(target.classes)
    marks: list[tuple[Mark | None, Mark | None]] = []
    for k in range(len(target.classes)):
        hits, true, called, others = table[k, k], table[k].sum(), table[:, k].sum(), table.sum() - table[k].sum()
        sensitivity = float(hits / true) if true else np.nan
        roc = Mark(float((called - hits) / others) if others else np.nan, sensitivity)
        marks.append((roc, Mark(sensitivity, float(hits / called) if called else np.nan)))
    return marks


_MARKED = ("sensitivity", "specificity", "ppv")


def _binary_marks(
    sensitivity: Figure | None, specificity: Figure | None, ppv: Figure | None
) -> tuple[Mark | None, Mark | None]:
    if sensitivity is None:
        return None, None
    found = (sensitivity.low, sensitivity.high)
    roc = pr = None
    if specificity is not None:
        ends = (1.0 - _number(specificity.high), 1.0 - _number(specificity.low))
        roc = Mark(1.0 - _value(specificity), _value(sensitivity), ends, (_number(found[0]), _number(found[1])))
    if ppv is not None:
        right = (_number(ppv.low), _number(ppv.high))
        pr = Mark(_value(sensitivity), _value(ppv), (_number(found[0]), _number(found[1])), right)
    return roc, pr


def _level(curves: ClassCurves) -> float | None:
    positives, negatives = np.sum(curves.histogram.positives), np.sum(curves.histogram.negatives)
    return float(positives / (positives + negatives)) if positives + negatives else None


def _with_interval(figure: Figure | None) -> str:
    value = _value(figure)
    if figure is None or not is_known(value):
        return "undefined"
    return f"{number(value)} ({range_text(figure.low, figure.high)})" if has_width(figure) else number(value)


def _value(figure: Figure | None) -> float:
    return np.nan if figure is None else _number(figure.value)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
