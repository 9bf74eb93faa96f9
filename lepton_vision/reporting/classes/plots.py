"""Curves of an Evaluation as matplotlib figures with legends, for a notebook or a paper."""

from __future__ import annotations

from collections.abc import Callable

from lepton_vision.errors import ReportError, nearest
from lepton_vision.evaluation.classes.curves import ClassCurves
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.classes.analysis_figures import decision_figure
from lepton_vision.reporting.classes.charts import curve_lines
from lepton_vision.reporting.classes.view import is_known
from lepton_vision.reporting.figures import (
    Line,
    Plot,
    name_lines,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    scores_figure,
)
from lepton_vision.reporting.values.figures import bland_altman_figure, scatter_figure
from lepton_vision.types import Target


def plot_roc(evaluation: Evaluation, target: str | None = None) -> Plot:
    """Draw the ROC curve of each class, with the band of a single one and the frozen operating point.

    Args:
        evaluation: what ``evaluate`` returned.
        target: its name; None is the first.

    Returns:
        A matplotlib Figure that a notebook shows by itself; ``.savefig("roc.pdf")`` keeps it.

    Raises:
        ReportError: no such target.

    Example:
        >>> plot_roc(evaluation).savefig("roc.pdf")  # doctest: +SKIP
    """
    return _curves(evaluation, target, "auroc", roc_figure)


def plot_precision_recall(evaluation: Evaluation, target: str | None = None) -> Plot:
    """Draw precision against recall in steps, each class with its prevalence; arguments as for ``plot_roc``."""
    return _curves(evaluation, target, "average_precision", precision_recall_figure)


def plot_reliability(evaluation: Evaluation, target: str | None = None, *, class_name: str | None = None) -> Plot:
    """Draw the observed share of positives against the probability, with Wilson intervals.

    Args:
        evaluation: what ``evaluate`` returned.
        target: its name; None is the first.
        class_name: which class; None is the positive one, or the first.

    Raises:
        ReportError: no such target or class.
    """
    return reliability_figure(_class(_find(evaluation, target), evaluation, class_name)[1].reliability)


def plot_scores(evaluation: Evaluation, target: str | None = None, *, class_name: str | None = None) -> Plot:
    """Draw the scores of positives (upwards) and negatives (downwards); arguments as for ``plot_reliability``."""
    found = _find(evaluation, target)
    place, curves = _class(found, evaluation, class_name)
    thresholds = evaluation.operating_point.thresholds.get(found.name, ())
    cuts = [t for t in thresholds[place : place + 1] if is_known(t)]
    return scores_figure(curves.histogram, thresholds=cuts)


def plot_decision_curve(evaluation: Evaluation, target: str | None = None, *, class_name: str | None = None) -> Plot:
    """Draw the net benefit beside treating everybody or nobody; arguments as for ``plot_reliability``.

    Raises:
        ReportError: no such target or class, or the net benefit was not analysed.
    """
    found = _find(evaluation, target)
    place, _ = _class(found, evaluation, class_name)
    curves = (evaluation.analyses.decision_curve or {}).get(found.name, ())
    if place >= len(curves):
        raise ReportError("Expected an evaluation with decision curves. Received: one without.", key="decision_curve")
    return name_lines(decision_figure(curves[place]), {0: "model", 1: "treat everybody"})


def plot_scatter(evaluation: Evaluation, target: str | None = None) -> Plot:
    """Draw the predictions of a number against its true values.

    Args:
        evaluation: what ``evaluate`` returned.
        target: its name; None is the first.

    Raises:
        ReportError: no such target, or it is no number.
    """
    return scatter_figure(evaluation.points[_find_number(evaluation, target).name])


def plot_bland_altman(evaluation: Evaluation, target: str | None = None) -> Plot:
    """Draw predicted less true over the mean of both, with bias and limits; arguments as for ``plot_scatter``."""
    name = _find_number(evaluation, target).name
    figures = evaluation.figures[name]
    limits = figures["limit_low"], figures["limit_high"]
    return bland_altman_figure(evaluation.points[name], bias=figures["bias"], limits=limits)


def _find_number(evaluation: Evaluation, name: str | None) -> Target:
    found = _find(evaluation, name)
    if not found.is_value:
        raise ReportError(
            f"Expected a target that is a number. Received: {found.name!r}, {found.kind}.", key=found.name
        )
    return found


def _curves(evaluation: Evaluation, target: str | None, figure: str, draw: Callable[[list[Line]], Plot]) -> Plot:
    found = _find(evaluation, target)
    if found.is_value:
        raise ReportError(f"Expected a target with classes. Received: {found.name!r}, a number.", key=found.name)
    roc, pr = curve_lines(evaluation, found)
    lines = roc if figure == "auroc" else pr
    figures = evaluation.figures.get(found.name, {})
    names = {}
    for line in lines:
        if line.series is not None:
            key = figure if found.is_binary else f"{figure}_{line.curves.class_name}"
            value = figures.get(key)
            names[line.series] = f"{line.curves.class_name}: {value}" if value else line.curves.class_name
    return name_lines(draw(lines), names)


def _find(evaluation: Evaluation, name: str | None) -> Target:
    names = [target.name for target in evaluation.targets]
    wanted = names[0] if name is None else name
    if wanted not in names:
        raise ReportError(f"No target {wanted!r} in this evaluation. {nearest(wanted, names)}", key=wanted)
    return evaluation.targets[names.index(wanted)]


def _class(target: Target, evaluation: Evaluation, name: str | None) -> tuple[int, ClassCurves]:
    curves = evaluation.curves.get(target.name, ())
    names = [one.class_name for one in curves]
    if not names:
        raise ReportError(f"Expected a target with classes. Received: {target.name!r}, a number.", key=target.name)
    wanted = names[0] if name is None and names else str(name)
    if wanted not in names:
        raise ReportError(f"No curves of {wanted!r} for {target.name!r}. {nearest(wanted, names)}", key=wanted)
    return names.index(wanted), curves[names.index(wanted)]
