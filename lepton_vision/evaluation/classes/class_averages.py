"""Averages of figures over the classes of a target: macro, weighted and pooled (micro), with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lepton_vision.evaluation.classes.calibration_error import mean_error
from lepton_vision.evaluation.classes.figure_table import AVERAGED
from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.delong import AurocSamples, mean_auroc
from lepton_vision.evaluation.statistics.ranking import BoolArray, ratio
from lepton_vision.types import Figure, FloatArray, Interval

Averaged = Mapping[str, BoolArray]
"""By figure, (K,) bool: which classes its means are over."""


def judged(parts: Mapping[str, BinaryMeasures], names: Sequence[str]) -> dict[str, BoolArray]:
    """By figure, which of the K classes its means are over.

    Left out are those that leave it undefined because samples of the class, or of the rest, or an operating point are
    missing. A class without a positive sample that is called all the same has a PPV and an F1 of 0, which count. A
    class that has samples and is never called leaves the mean of the PPV undefined.
    """
    ones = {name: part.values(np.ones((1, part.units))) for name, part in parts.items()}
    return {
        name: np.array([not (part.lacks(name) and np.isnan(ones[k][name][0])) for k, part in parts.items()])
        for name in names
    }


def macro(parts: Mapping[str, Mapping[str, FloatArray]], name: str, averaged: Averaged) -> FloatArray:
    """(R,) plain mean of a figure over its classes; NaN where there are none."""
    stack = np.stack([values[name] for values in parts.values()])[averaged[name]]
    return stack.mean(axis=0) if len(stack) else np.full(stack.shape[1], np.nan)


def left_out(parts: Mapping[str, BinaryMeasures], averaged: Averaged, figure: str) -> str:
    """Say which classes a mean is without, and why; "" where it has all."""
    if averaged[figure].all():
        return ""
    absent = [
        f"{k} ({one.reason(figure)})"
        for k, one, is_in in zip(parts, parts.values(), averaged[figure], strict=True)
        if not is_in
    ]
    return f"mean of {int(averaged[figure].sum())} of {len(parts)} classes, without {', '.join(absent)}"


def withheld(parts: Mapping[str, BinaryMeasures], name: str, *, averaged: Averaged) -> str:
    """Say why a figure of the ranking has no interval: of its class, or of the first class of a mean that has none."""
    figure = name.removesuffix("_weighted")
    if figure in averaged:
        asked = zip(parts.items(), averaged[figure], strict=True)
        reasons = [f"{one.withheld(figure)} ({k})" for (k, one), is_in in asked if is_in and one.withheld(figure)]
        return reasons[0] if reasons else ""
    found = find_class(name, parts)
    return "" if found is None else found[0].withheld(found[1])


def denominator_units(
    parts: Mapping[str, BinaryMeasures], name: str, *, micro: BinaryMeasures, whole: tuple[str, ...] = ()
) -> int | None:
    """Patients in the denominator of a proportion of a class, or of all pooled; None for any other figure."""
    if name.endswith("_micro"):
        return micro.denominator_units(name.removesuffix("_micro"))
    found = find_class(name, parts, whole=whole)
    return None if found is None else found[0].denominator_units(found[1])


def fewest(
    parts: Mapping[str, BinaryMeasures],
    name: str,
    *,
    micro: BinaryMeasures,
    averaged: Averaged,
    whole: tuple[str, ...] = (),
) -> int:
    """Patients in the smallest class, or denominator, that a figure rests on; of a mean, of any of its classes."""
    found = find_class(name, parts, whole=whole)
    if found is not None:
        return found[0].fewest(found[1])
    figure = name.removesuffix("_weighted")
    if name.endswith("_micro") or figure not in averaged:
        return micro.fewest(name.removesuffix("_micro"))
    return min(
        (one.fewest(figure) for one, is_in in zip(parts.values(), averaged[figure], strict=True) if is_in), default=0
    )


def means(
    parts: Mapping[str, BinaryMeasures], names: Mapping[str, str], *, averaged: Averaged
) -> dict[str, dict[str, float]]:
    """By name of a mean over the classes of a figure, and of balanced accuracies, the weights of their parts."""
    found = {
        f"{name}_{k}": {f"{p}_{k}": w for p, w in one.items()}
        for k, part in parts.items()
        for name, one in part.means().items()
    }
    for name, figure in names.items():
        kept = [k for k, is_in in zip(parts, averaged[figure], strict=True) if is_in]
        found[name] = {f"{figure}_{k}": 1.0 / len(kept) for k in kept}
    return found


def at_edge(parts: Mapping[str, BinaryMeasures], *, micro: BinaryMeasures, confidence: float) -> dict[str, Interval]:
    """``<figure>_<class>`` and ``<figure>_micro`` whose interval comes from proportions of which one is 0 or 1."""
    found = {f"{name}_{k}": ends for k, part in parts.items() for name, ends in part.at_edge(confidence).items()}
    return found | {f"{name}_micro": ends for name, ends in micro.at_edge(confidence).items() if name in AVERAGED}


def averages(
    parts: Mapping[str, Mapping[str, FloatArray]],
    *,
    support: FloatArray,
    micro: Mapping[str, FloatArray],
    averaged: Averaged,
) -> dict[str, FloatArray]:
    """``<figure>_micro`` and ``<figure>_weighted`` of ``AVERAGED``; ``support`` (K, R): how often each class is true.

    Classes without a positive sample have no weight; they do not make a weighted mean undefined.
    """
    found = {f"{name}_micro": micro[name] for name in AVERAGED}
    for name in AVERAGED:
        stack = np.stack([values[name] for values in parts.values()])
        weight = support * averaged[name][:, None]
        total = (np.where(weight > 0, stack, 0.0) * weight).sum(axis=0)
        found[f"{name}_weighted"] = ratio(total, weight.sum(axis=0))
    return found


def by_class(parts: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """``<figure>_<class>`` of every class."""
    return {f"{name}_{k}": values for k, figures in parts.items() for name, values in figures.items()}


def find_class(
    name: str, parts: Mapping[str, BinaryMeasures], *, whole: tuple[str, ...] = ()
) -> tuple[BinaryMeasures, str] | None:
    """Find the class and the figure that ``<figure>_<class>`` names; None for a figure over the classes."""
    if name in whole:
        return None
    for class_name, part in parts.items():
        figure = name.removesuffix(f"_{class_name}")
        if figure != name and figure in part.names:
            return part, figure
    return None


def analytic(
    parts: Mapping[str, BinaryMeasures], *, micro: BinaryMeasures, confidence: float, averaged: Averaged
) -> dict[str, tuple[Interval, ...]]:
    """Intervals without resampling: ``auroc``, ``<figure>_micro`` and ``<figure>_<class>``."""
    found = {f"{name}_{k}": ends for k, part in parts.items() for name, ends in part.analytic(confidence).items()}
    found |= {f"{name}_micro": ends for name, ends in micro.analytic(confidence).items() if name in AVERAGED}
    asked = [part.auroc_samples for part, is_over in zip(parts.values(), averaged["auroc"], strict=True) if is_over]
    found["auroc"] = _of_mean_auroc(asked, confidence) if asked else ()
    return {name: ends for name, ends in found.items() if ends}


def calibration(
    parts: Mapping[str, BinaryMeasures], *, confidence: float, is_over: BoolArray, caveat: str = ""
) -> dict[str, Figure]:
    """Figures of the calibration error: their means over the classes, then ``<figure>_<class>``."""
    found = {name: part.calibration_error(confidence) for name, part in parts.items()}
    means = mean_error([one for one, is_in in zip(found.values(), is_over, strict=True) if is_in]).figures()
    means = {k: replace(one, reason="; ".join(filter(None, (caveat, one.reason)))) for k, one in means.items()}
    return means | {f"{k}_{name}": figure for name, one in found.items() for k, figure in one.figures().items()}


def _of_mean_auroc(samples: Sequence[AurocSamples], confidence: float) -> tuple[Interval, ...]:
    if any(one.is_positive.all() or not one.is_positive.any() for one in samples):
        return ()
    units = max(int(one.unit.max()) for one in samples) + 1
    is_clustered = any(np.unique(one.unit).size < one.unit.size for one in samples)
    return mean_auroc(samples, units=units).intervals(confidence=confidence, is_clustered=is_clustered)
