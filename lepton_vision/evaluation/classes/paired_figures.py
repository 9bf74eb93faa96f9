"""Differences between two models on the same cases: paired intervals and tests, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.classes.figure_table import BINARY, DECIDED
from lepton_vision.evaluation.classes.figures import measures_of, same_means, thresholds_of
from lepton_vision.evaluation.classes.measures import Extent
from lepton_vision.evaluation.classes.own_figures import ClassMeasures, OwnFigures
from lepton_vision.evaluation.statistics.composites import widen_mean
from lepton_vision.evaluation.statistics.delong import auroc_covariance
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, draw_figures, patient_units
from lepton_vision.evaluation.statistics.paired_intervals import Pairs, count_pairs, tango_interval
from lepton_vision.evaluation.statistics.paired_tests import PairedTest, compare_draws, compare_proportions
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Interval, Target

_OF_BOTH = tuple(
    name
    for name in BINARY
    if name in DECIDED and name not in ("sensitivity", "specificity", "accuracy", "balanced_accuracy")
)
"""Figures of decisions on positive and on negative samples that are no means."""


@dataclass(frozen=True, eq=False)
class PairedFigure:
    """One figure of two models, before anything is judged.

    Attributes:
        a: figure of the first model.
        b: figure of the second.
        figure: b - a with its interval.
        test: of no difference.
        drawn: (R,) replicates of b - a without NaN.
        pairs: of a proportion, the pairs that its interval is of; None for any other figure.
        patients: in the smallest class, or denominator, that the figure rests on.
    """

    a: float
    b: float
    figure: Figure
    test: PairedTest
    drawn: FloatArray
    pairs: Pairs | None
    patients: int


def paired_figures(
    pair: tuple[Predictions, Predictions],
    target: Target,
    *,
    points: tuple[OperatingPoint, OperatingPoint],
    settings: EvaluationConfig,
    own: OwnFigures,
) -> dict[str, PairedFigure]:
    """Compute each figure's difference with its interval and its test.

    Proportions of the same cases have Tango's score interval, which is right with few and with no discordant pairs;
    all other figures have that of a bootstrap. No test on so many patients can give a smaller P than that of signs.
    """
    rows, extent = pair[0].labelled(target), Extent(settings.max_fpr, settings.prevalence)
    parts = [one.select(rows) for one in pair]
    limits = [thresholds_of(point, target) for point in points]
    how: dict[str, Any] = {"extent": extent, "own": own}
    make = [partial(measures_of, p, target, thresholds=t, **how) for p, t in zip(parts, limits, strict=True)]
    averaged = same_means([one() for one in make])
    first, second = (one(averaged=averaged) for one in make)
    measures, bootstrap = _PairedMeasures(first, second), Bootstrap.of(settings)
    drawn = draw_figures(measures, bootstrap)
    ones = np.ones((1, measures.units))
    a, b = first.values(ones), second.values(ones)
    proportions, areas = _proportions(parts, target, limits), dict[str, _Area]()
    unit = patient_units(parts[0].patient_id)[0]
    for name, is_positive, scores in _questions(parts, target):
        area = _auroc_test(is_positive, scores, unit, confidence=settings.confidence)
        if area is not None:
            areas[name] = area
    found = {}
    for name, figure in bootstrap_figures(measures, bootstrap, drawn=drawn).items():
        kept, patients = drawn[name][~np.isnan(drawn[name])], measures.fewest(name)
        if reason := first.no_interval(name):
            figure = replace(figure, low=np.nan, high=np.nan, reason=reason, method="")
        test, pairs = _floored(compare_draws(kept), patients), None
        if name in proportions and not np.isnan(figure.value) and measures.units > 1:
            test, pairs = _floored(proportions[name][0], patients), proportions[name][1]
            figure = _scored(figure, pairs, confidence=settings.confidence)
        elif name in areas:
            test, figure = _floored(areas[name].test, patients), replace(figure, others=(areas[name].interval,))
        if np.isnan(figure.value):
            test = PairedTest(float("nan"), test.method)
        found[name] = PairedFigure(float(a[name][0]), float(b[name][0]), figure, test, kept, pairs, patients)
    return found | _unmoved(found, first.means())


def _floored(test: PairedTest, patients: int) -> PairedTest:
    """The test with a P of at least that of n differences that all have the same sign, 2 / 2^n."""
    return test._replace(p_value=max(test.p_value, 2.0 ** (1 - patients)))


def _unmoved(found: Mapping[str, PairedFigure], means: Mapping[str, Mapping[str, float]]) -> dict[str, PairedFigure]:
    """Figures of several proportions of which one has no discordant pair, so that no replicate moves it.

    The interval of a mean is widened to that of its parts, squared and added; other figures of the same decisions have
    none.
    """
    still = {name for name, one in found.items() if one.pairs is not None and not one.pairs.gained + one.pairs.lost}
    changed = {}
    for name, weights in means.items():
        parts = {part: found[part].figure for part in weights}
        if still & set(weights) and not np.isnan(found[name].figure.value):
            figure = widen_mean(found[name].figure, parts, weights=list(weights.values()))
            changed[name] = replace(found[name], figure=figure)
    for part in still:
        base, _, suffix = part.partition("_")
        label = {"sensitivity": "positive", "specificity": "negative"}.get(base)
        for name in (f"{one}{'_' if suffix else ''}{suffix}" for one in _OF_BOTH if label):
            if name in found and not np.isnan(found[name].figure.value):
                reason = f"no interval: both models decide all {label} samples alike"
                bare = replace(found[name].figure, low=np.nan, high=np.nan, method="", reason=reason)
                changed[name] = replace(found[name], figure=bare)
    return changed


def _scored(figure: Figure, pairs: Pairs, *, confidence: float) -> Figure:
    """A difference of proportions with Tango's interval in the place of the bootstrap's, which stands beside it."""
    low, high = tango_interval(pairs, confidence=confidence)
    others = (Interval(figure.method, figure.low, figure.high),) if figure.method and figure.low < figure.high else ()
    reason = f"the images of a patient are alike: worth {pairs.n:.0f} independent pairs" if pairs.n < figure.n else ""
    return replace(figure, low=low, high=high, method="tango", others=others, reason=reason)


class _PairedMeasures:
    """Figures of the second model less those of the first, for the same weightings of the patients."""

    def __init__(self, first: ClassMeasures, second: ClassMeasures) -> None:
        self.first, self.second, self.units, self.n = first, second, first.units, first.n

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        a, b = self.first.values(counts), self.second.values(counts)
        return {name: b[name] - a[name] for name in a if not name.startswith("prevalence")}

    def size(self, name: str) -> int:
        return self.first.size(name)

    def denominator_units(self, name: str) -> int | None:
        del name  # a difference of proportions is none
        return None

    def fewest(self, name: str) -> int:
        """Patients in the smallest class, or denominator, that the figure rests on."""
        return min(self.first.fewest(name), self.second.fewest(name))

    def reason(self, name: str) -> str:
        ones = np.ones((1, self.units))
        first = self.first if np.isnan(self.first.values(ones)[name][0]) else self.second
        return first.reason(name)


def _questions(parts: list[Predictions], target: Target) -> Iterator[tuple[str, BoolArray, FloatArray]]:
    """Name of the AUROC, (N,) truth and (N, 2) scores of each binary view; rows without a label are NaN scores."""
    truth = parts[0].y_true[target.name]
    prob = [part.y_prob[target.name] for part in parts]
    if target.is_value:
        return
    if target.is_binary:
        yield "auroc", truth > 0, np.column_stack(prob)
        return
    for k, name in enumerate(target.classes):
        is_positive = truth == k if target.is_exclusive else truth[:, k] > 0
        scores = np.column_stack([one[:, k] for one in prob])
        if target.has_label_by_class:
            scores[np.isnan(truth[:, k])] = np.nan
        yield f"auroc_{name}", is_positive, scores


class _Area(NamedTuple):
    """Test and interval of the difference of two AUROCs."""

    test: PairedTest
    interval: Interval


def _auroc_test(is_positive: BoolArray, scores: FloatArray, unit: IntArray, *, confidence: float) -> _Area | None:
    known = ~np.isnan(scores[:, 0])
    is_positive, scores, unit = is_positive[known], scores[known], unit[known]
    if is_positive.all() or not is_positive.any():
        return None
    found = auroc_covariance(is_positive, scores, unit=unit)
    contrast = np.array([-1.0, 1.0])
    difference, variance = float(found.auroc @ contrast), float(contrast @ found.covariance @ contrast)
    method = "obuchowski" if np.unique(unit).size < unit.size else "delong"
    if np.array_equal(scores[:, 0], scores[:, 1]) or not variance > 0:
        return None
    error = float(np.sqrt(variance))
    half = float(ndtri(0.5 + confidence / 2)) * error
    p_value = float(2.0 * norm.sf(abs(difference) / error))
    return _Area(PairedTest(p_value, method), Interval(method, difference - half, difference + half))


def _proportions(
    parts: list[Predictions], target: Target, limits: list[tuple[float, ...]]
) -> dict[str, tuple[PairedTest, Pairs]]:
    """Tests and pairs of the proportions whose denominators do not depend on the decisions; none without a sample."""
    truth = parts[0].y_true[target.name]
    unit = patient_units(parts[0].patient_id)[0]
    prob = [part.y_prob[target.name] for part in parts]

    def pair(name: str, rows: BoolArray, right: list[BoolArray]) -> dict[str, tuple[PairedTest, Pairs]]:
        several = right[0][rows], right[1][rows]
        if not rows.any():
            return {}
        return {name: (compare_proportions(*several, unit=unit[rows]), count_pairs(*several, unit=unit[rows]))}

    found = dict[str, tuple[PairedTest, Pairs]]()
    if target.is_exclusive:
        right = [one.argmax(axis=1) == truth for one in prob] if truth.size else [truth > 0] * 2
        found |= pair("accuracy", np.ones(truth.size, dtype=np.bool_), right)
        for k, name in enumerate(target.classes):
            found |= pair(f"sensitivity_{name}", truth == k, right)
        return found
    for k, name in enumerate(("",) if target.is_binary else tuple(f"_{c}" for c in target.classes)):
        label = truth if target.is_binary else truth[:, k]
        scores = prob if target.is_binary else [one[:, k] for one in prob]
        right = [(score >= limit[k]) == (label > 0) for score, limit in zip(scores, limits, strict=True)]
        rows = {"sensitivity": label > 0, "specificity": label == 0, "accuracy": ~np.isnan(label)}
        for figure, kept in rows.items():
            found |= pair(f"{figure}{name}", kept, right)
    return found
