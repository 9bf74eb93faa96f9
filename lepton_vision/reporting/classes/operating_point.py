"""Description of the operating point: its origin, its figures on validation, and its figures here."""

from __future__ import annotations

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.predictions.operating_point import PointFigures
from lepton_vision.reporting.classes.view import has_width, is_known, number, point_origin, range_text, threshold_text
from lepton_vision.reporting.wording import split_name
from lepton_vision.types import Figure, Target


def describe_operating_point(evaluation: Evaluation, target: Target) -> str:
    """Tell the frozen operating point of a target in two sentences."""
    if target.is_value:
        return "A number is predicted: nothing is decided."
    if target.is_exclusive:
        return "The class with the largest probability is called: no threshold was chosen."
    figures, point = evaluation.figures.get(target.name, {}), evaluation.operating_point
    names = target.answers
    limits = zip(names, point.thresholds.get(target.name, ()), strict=False)
    undecided = [name for name, threshold in limits if not is_known(threshold)]
    missing = f" There is none for {', '.join(undecided)}, of which nothing is decided." if undecided else ""
    if undecided and len(undecided) == len(names):
        return missing.strip().replace("There is none", "There is no operating point")
    here = ", ".join(
        f"{name} {_with_interval(figures[name])}" for name in ("sensitivity", "specificity") if name in figures
    )
    means = "means over the classes: " if target.has_label_by_class else ""
    where = "Here" if evaluation.split is None else f"On the {split_name(evaluation.split)} split"
    found = f" {where} it gives {means}{here}." if here else ""
    threshold = f"Threshold {threshold_text(evaluation, target)}: " if target.is_binary else "Thresholds: "
    there, expected = _there(point.figures.get(target.name, ())), _expected(evaluation, target)
    return f"{threshold}{point_origin(evaluation)}{there}.{missing}{found}{expected}"


def _there(figures: tuple[PointFigures, ...]) -> str:
    """Figures of the point on validation; for several classes the means over those that have one."""
    figures = tuple(one for one in figures if is_known(one.sensitivity))
    if not figures:
        return ""
    shown = (sum(getattr(one, name) for one in figures) / len(figures) for name in ("sensitivity", "specificity"))
    sensitivity, specificity = map(number, shown)
    return f" (there: sensitivity {sensitivity}, specificity {specificity})"


def _expected(evaluation: Evaluation, target: Target) -> str:
    """Figures expected of as many cases as these, from validation; of a multilabel target by class."""
    said = []
    for one in evaluation.expected(target):
        shares = f"sensitivity {_ends(one.sensitivity)}, specificity {_ends(one.specificity)}"
        said.append(shares if target.is_binary else f"{one.class_name} {shares}")
    if not said:
        return ""
    level = f"{evaluation.confidence * 100:g} % prediction interval from validation"
    return f" To be expected of as many new cases: {'; '.join(said)} ({level})."


def _ends(ends: tuple[float, float]) -> str:
    return f"{number(ends[0])} – {number(ends[1])}"


def _with_interval(figure: Figure) -> str:
    if not is_known(figure.value):
        return "undefined"
    return number(figure.value) + (f" ({range_text(figure.low, figure.high)})" if has_width(figure) else "")
