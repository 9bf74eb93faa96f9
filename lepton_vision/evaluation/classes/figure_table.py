"""Table of the figures of classes and numbers: name, wording, direction, uses, formula, in the order of the pages.

A figure that is made of ``sums`` needs one entry here and nothing else: computation, intervals, pages, comparison,
subgroups and monitoring read the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from lepton_vision.evaluation.classes.sums import AnswerSums, Cells, ValueSums
from lepton_vision.evaluation.statistics.ranking import ratio
from lepton_vision.types import (
    CLASS_KINDS,
    EXCLUSIVE,
    MEANS,
    ORDERED,
    VALUES,
    YES_NO,
    FloatArray,
    Target,
    TargetKind,
)
from lepton_vision.types.figure import FigureSpec, unknown_spec


@dataclass(frozen=True, eq=False)
class Entry:
    """One figure of the table.

    Attributes:
        spec: what it is.
        binary: its formula for one class; None where it has none, or is computed elsewhere.
        exclusive: its formula for exclusive classes as a whole; None likewise.
        value: its formula for a number; None likewise.
        is_stated: whether it is at a stated prevalence.
    """

    spec: FigureSpec
    binary: Callable[[Cells], FloatArray] | None = None
    exclusive: Callable[[AnswerSums], FloatArray] | None = None
    is_stated: bool = False
    value: Callable[[ValueSums], FloatArray] | None = None


def _matthews(c: Cells) -> FloatArray:
    product = (c.tp + c.fp) * (c.tp + c.fn) * (c.tn + c.fp) * (c.tn + c.fn)
    return ratio(c.tp * c.tn - c.fp * c.fn, np.sqrt(product))


def _gorodkin(a: AnswerSums) -> FloatArray:
    spread = (a.n**2 - (a.true**2).sum(axis=1)) * (a.n**2 - (a.called**2).sum(axis=1))
    return ratio(a.hits * a.n - (a.true * a.called).sum(axis=1), np.sqrt(spread.clip(0.0)))


def _kappa(a: AnswerSums) -> FloatArray:
    """Cohen's, weighted by the square of the distance (Psychol Bull 70:213, 1968)."""
    place = np.arange(a.true.shape[1], dtype=np.float64)
    # The distances that chance gives: (i - j)^2 over all pairs of a true and a called class.
    chance = a.n * (a.true @ place**2 + a.called @ place**2) - 2.0 * (a.true @ place) * (a.called @ place)
    return 1.0 - ratio(a.losses[:, 3], ratio(chance, a.n))


def _ppv_at_prevalence(c: Cells) -> FloatArray:
    """By Bayes' rule (Altman and Bland, BMJ 309:102, 1994)."""
    true, false = c.sensitivity * c.stated, (1 - c.specificity) * (1 - c.stated)
    return ratio(true, true + false)


def _npv_at_prevalence(c: Cells) -> FloatArray:
    cleared, missed = c.specificity * (1 - c.stated), (1 - c.sensitivity) * c.stated
    return ratio(cleared, cleared + missed)


def _f1_macro(a: AnswerSums) -> FloatArray:
    return a.mean("f1") * np.where((a.true > 0)[:, a.needed].all(axis=1), 1.0, np.nan)


_LIMITS = 1.96  # standard deviations (Bland and Altman, Stat Methods Med Res 8:135, 1999)


def _concordance(v: ValueSums) -> FloatArray:
    """Lin, Biometrics 45:255, 1989."""
    found = ratio(2.0 * v.product, v.spread_true + v.spread_said + v.n * v.bias**2)
    return np.where(v.spread_true > 0, found, np.nan)


_MULTICLASS: tuple[TargetKind, ...] = tuple(kind for kind in EXCLUSIVE if kind not in ORDERED)
_OVER: dict[str, Any] = {"is_averaged": True, "is_by_class": True}
_RANKED: dict[str, Any] = {"group": "ranking", **_OVER}
_DECIDED: dict[str, Any] = {"group": "decisions", "kinds": YES_NO}
_MAIN: dict[str, Any] = dict.fromkeys(("headline", "endpoint", "tested"), YES_NO)
_GRADES: dict[str, Any] = {"group": "decisions", **dict.fromkeys(("kinds", "headline", "endpoint"), ORDERED)}
_ERROR: dict[str, Any] = {"group": "probabilities", "better": "lower", "scale": "number"}
_IN_UNIT: dict[str, Any] = {"group": "error", "scale": "number", "kinds": VALUES, "has_unit": True}
_AGREEMENT: dict[str, Any] = {"group": "agreement", "scale": "number", "kinds": VALUES}
TABLE: tuple[Entry, ...] = (
    Entry(FigureSpec(
        "kappa_quadratic", "Quadratic weighted kappa",
        "Agreement of grades beyond chance; an error counts by the square of its steps.", **_GRADES, tested=ORDERED,
    ), exclusive=_kappa),
    Entry(FigureSpec(
        "class_error", "Mean error in steps", "How many grades the call is away from the truth.",
        **_GRADES | {"better": "lower", "scale": "number"},
    ), exclusive=lambda a: ratio(a.losses[:, 2], a.n)),
    Entry(FigureSpec(
        "auroc", "AUROC", "How often a positive image gets a higher score than a negative one; 0.5 is chance.",
        of_exclusive="Each class against the rest, mean over the classes; 0.5 is chance.",
        **_RANKED | dict.fromkeys(("headline", "endpoint", "tested"), CLASS_KINDS),
    ), lambda c: c.ranks.auroc),
    Entry(FigureSpec(
        "average_precision", "Average precision", "Area under the precision–recall curve; chance is the prevalence.",
        of_exclusive="Each class against the rest, mean over the classes; chance is the mean prevalence.",
        headline=YES_NO, **_RANKED,
    ), lambda c: c.ranks.average_precision),
    Entry(FigureSpec(
        "partial_auroc", "Partial AUROC", "AUROC where false alarms are few, rescaled: 0.5 is chance, 1 is perfect.",
        kinds=YES_NO, group="ranking",
    ), lambda c: c.ranks.partial_auroc),
    Entry(FigureSpec(
        "sensitivity", "Sensitivity", "Share of the positive images that were called positive.",
        **_DECIDED | _OVER | _MAIN,
    ), lambda c: c.sensitivity),
    Entry(FigureSpec(
        "specificity", "Specificity", "Share of the negative images that were called negative.",
        **_DECIDED | _OVER | _MAIN,
    ), lambda c: c.specificity),
    Entry(FigureSpec(
        "ppv", "PPV", "Share of the calls “positive” that were correct; holds at this prevalence only.",
        **_DECIDED | _OVER,
    ), lambda c: ratio(c.tp, c.tp + c.fp)),
    Entry(FigureSpec(
        "npv", "NPV", "Share of the calls “negative” that were correct; holds at this prevalence only.",
        **_DECIDED | _OVER,
    ), lambda c: ratio(c.tn, c.tn + c.fn)),
    Entry(FigureSpec(
        "ppv_at_prevalence", "PPV at the stated prevalence", "PPV where as many images are positive as was stated.",
        **_DECIDED,
    ), _ppv_at_prevalence, is_stated=True),
    Entry(FigureSpec(
        "npv_at_prevalence", "NPV at the stated prevalence", "NPV where as many images are positive as was stated.",
        **_DECIDED,
    ), _npv_at_prevalence, is_stated=True),
    Entry(FigureSpec(
        "lr_positive", "LR+", "By how much a call “positive” raises the odds of being positive.", scale="number",
        **_DECIDED,
    ), lambda c: ratio(c.sensitivity, ratio(c.fp, c.tn + c.fp))),
    Entry(FigureSpec(
        "lr_negative", "LR−", "By how much a call “negative” lowers the odds of being positive.", "lower", "number",
        **_DECIDED,
    ), lambda c: ratio(ratio(c.fn, c.tp + c.fn), c.specificity)),
    Entry(FigureSpec(
        "accuracy", "Accuracy", "Share of correct decisions; easy to reach where one class is rare.",
        group="decisions", headline=EXCLUSIVE, endpoint=_MULTICLASS, tested=EXCLUSIVE,
    ), lambda c: ratio(c.tp + c.tn, c.n), lambda a: ratio(a.hits, a.n)),
    Entry(FigureSpec(  # ``BinaryMeasures.at_half``
        "accuracy_at_half", "Accuracy at 0.5",
        "Share of right decisions if a probability of one half were the threshold, as often published.",
        kinds=("binary",), group="decisions",
    )),
    Entry(FigureSpec(
        "balanced_accuracy", "Balanced accuracy", "Mean over the classes of the share decided correctly.",
        of_exclusive="Share of each class that was called by its name, mean over the classes.", group="decisions",
        headline=_MULTICLASS, endpoint=_MULTICLASS, tested=_MULTICLASS,
    ), lambda c: (c.sensitivity + c.specificity) / 2, lambda a: a.mean("sensitivity")),
    Entry(
        FigureSpec("f1", "F1", "Harmonic mean of sensitivity and PPV.", is_averaged=True, **_DECIDED),
        lambda c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),
    ),
    Entry(FigureSpec(
        "f1_macro", "F1 (mean)", "Harmonic mean of sensitivity and PPV, averaged over the classes.", kinds=EXCLUSIVE,
        group="decisions", headline=_MULTICLASS,
    ), exclusive=_f1_macro),
    Entry(FigureSpec(
        "mcc", "Matthews correlation", "Correlation of truth and decision; 0 is chance, 1 is perfect.",
        group="decisions",
    ), _matthews, _gorodkin),
    Entry(FigureSpec(
        "brier", "Brier score", "Mean squared error of the probability; 0 is perfect.",
        of_exclusive="Squared error of the probabilities, summed over the classes; 0 is perfect, 2 the worst.",
        **_ERROR,
    ), lambda c: ratio(c.squares, c.n), lambda a: ratio(a.losses[:, 1], a.n)),
    Entry(
        FigureSpec("log_loss", "Log loss", "Penalty for being sure and wrong, in nats; 0 is perfect.", **_ERROR),
        lambda c: ratio(c.nats, c.n), lambda a: ratio(a.losses[:, 0], a.n),
    ),
    Entry(FigureSpec(
        "ece", "Calibration error", "Mean gap between said and seen (ECE, equal mass); 0 is perfect.", **_ERROR,
    ), lambda c: ratio(c.gaps, c.n)),
    Entry(FigureSpec(  # this one and the next: ``calibration_error``
        "debiased_ece", "Calibration error without chance",
        "The gap that is left when what chance adds to it is taken off.", **_ERROR,
    )),
    Entry(FigureSpec(
        "chance_ece", "Calibration error of chance",
        "What perfect probabilities would give on so few or many images: more than 0, as shares of few images scatter.",
        **_ERROR | {"better": "neither"},
    )),
    Entry(FigureSpec(
        "prevalence", "Prevalence", "Share of positive images in this sample.", "neither", kinds=("binary",),
        group="sample", is_by_class=True,
    ), lambda c: ratio(c.tp + c.fn, c.n)),
    Entry(FigureSpec(
        "mae", "Mean absolute error", "How far the prediction is from the true value, on average.", "lower",
        **_IN_UNIT | dict.fromkeys(("headline", "endpoint", "tested"), VALUES),
    ), value=lambda v: ratio(v.absolute, v.n)),
    Entry(FigureSpec(
        "rmse", "Root mean squared error", "As the mean absolute error, but a few large errors weigh more.", "lower",
        endpoint=VALUES, **_IN_UNIT,
    ), value=lambda v: np.sqrt(ratio(v.squares, v.n))),
    Entry(FigureSpec(
        "bias", "Bias", "Mean of predicted less true: above 0 the predictions are too high on the whole.", "neither",
        headline=VALUES, tested=VALUES, **_IN_UNIT,
    ), value=lambda v: v.bias),
    Entry(FigureSpec(
        "limit_low", "Lower limit of agreement",
        "About 95 of 100 differences, predicted less true, lie between the two limits (bias ∓ 1.96 SD).", "neither",
        **_IN_UNIT,
    ), value=lambda v: v.bias - _LIMITS * v.deviation),
    Entry(FigureSpec(
        "limit_high", "Upper limit of agreement",
        "About 95 of 100 differences, predicted less true, lie between the two limits (bias ∓ 1.96 SD).", "neither",
        **_IN_UNIT,
    ), value=lambda v: v.bias + _LIMITS * v.deviation),
    Entry(FigureSpec(
        "r2", "R²",
        "Share of the variance of the true values that is predicted; 0 is as good as always saying their mean.",
        headline=VALUES, endpoint=VALUES, **_AGREEMENT,
    ), value=lambda v: 1.0 - ratio(v.squares, v.spread_true)),
    Entry(FigureSpec(
        "pearson", "Pearson correlation",
        "How close predicted and true values lie to a straight line, whichever one; 1 is perfect.", **_AGREEMENT,
    ), value=lambda v: ratio(v.product, np.sqrt(v.spread_true * v.spread_said))),
    Entry(FigureSpec(
        "spearman", "Spearman correlation",
        "How far the predictions are in the order of the true values; 1 is perfect.", **_AGREEMENT,
    ), value=lambda v: v.rank_correlation),
    Entry(FigureSpec(
        "concordance", "Lin’s concordance",
        "How close predicted and true values are to being equal: a bias or a wrong spread lowers it; 1 is perfect.",
        headline=VALUES, **_AGREEMENT,
    ), value=_concordance),
)  # fmt: skip
SPECS: Mapping[str, FigureSpec] = {one.spec.name: one.spec for one in TABLE}
AVERAGED = tuple(name for name, spec in SPECS.items() if spec.is_averaged)
BINARY: Mapping[str, Entry] = {one.spec.name: one for one in TABLE if one.binary is not None}
DECIDED = frozenset(name for name, spec in SPECS.items() if spec.group == "decisions")
"""Figures of decisions: undefined without an operating point."""
RANKED = tuple(name for name, spec in SPECS.items() if spec.group == "ranking")


def binary_values(cells: Cells, names: tuple[str, ...], *, is_decided: bool) -> dict[str, FloatArray]:
    """Figures of one class by name, (R,) each; those of decisions are NaN where there is no operating point."""
    blank = np.full(len(cells.tp), np.nan)
    formulas = {name: BINARY[name].binary for name in names}
    return {
        name: blank if name in DECIDED and not is_decided else formula(cells)
        for name, formula in formulas.items()
        if formula is not None
    }


def exclusive_values(sums: AnswerSums, kind: TargetKind) -> dict[str, FloatArray]:
    """Figures over all exclusive classes that do not need the order of the scores, (R,) each."""
    figures = {
        one.spec.name: one.exclusive(sums) for one in TABLE if one.exclusive is not None and kind in one.spec.kinds
    }
    return figures | {f"{name}_macro": sums.mean(name) for name in ("specificity", "ppv", "npv")}


def value_figures(sums: ValueSums) -> dict[str, FloatArray]:
    """Figures of a number by name, (R,) each."""
    return {one.spec.name: one.value(sums) for one in TABLE if one.value is not None}


def names_for(use: Literal["headline", "endpoint", "tested"], kind: TargetKind) -> tuple[str, ...]:
    """Figures of the table that a kind of target is summed up, compared or tested by."""
    return tuple(name for name, spec in SPECS.items() if kind in getattr(spec, use))


def spec_of(name: str, target: Target, own: Mapping[str, FigureSpec] = MappingProxyType({})) -> FigureSpec:
    """Describe the figure that a key of results is of; ``own`` holds those that the caller brought."""
    base = parse_key(name, target)[0]
    return own.get(name) or SPECS.get(base) or unknown_spec(base)


def parse_key(name: str, target: Target) -> tuple[str, str]:
    """Return the figure and the class, or the mean over them ("macro" …), that a key of results is of; "" for neither.

    Example:
        >>> target = Target("kind", "multiclass", ("a", "b"))
        >>> parse_key("auroc_b", target), parse_key("ppv_macro", target), parse_key("f1_macro", target)
        (('auroc', 'b'), ('ppv', 'macro'), ('f1_macro', ''))
    """
    for part in (*target.classes, *MEANS) if not target.is_single and name not in SPECS else ():
        base = name.removesuffix(f"_{part}")
        if base != name and base in SPECS:
            return base, part
    return name, ""
