"""Figures by sex, age band, manufacturer, site or any other column, and whether their gaps are more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.analyses import Gap, Subgroup, SubgroupColumn
from lepton_vision.evaluation.classification import figures_of
from lepton_vision.evaluation.grouping import group_values
from lepton_vision.evaluation.intervals import Bootstrap, Measures, draw_counts, patient_units
from lepton_vision.evaluation.paired_tests import holm
from lepton_vision.evaluation.ranking import BoolArray, IntArray
from lepton_vision.evaluation.target_measures import measures_of
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, OperatingPoint, Target

TESTED = {
    "binary": ("auroc", "sensitivity", "specificity"),
    "multilabel": ("auroc", "sensitivity", "specificity"),
    "multiclass": ("auroc", "accuracy", "balanced_accuracy"),
    "ordinal": ("auroc", "accuracy", "kappa_quadratic"),
}
Names = npt.NDArray[np.str_]


def evaluate_subgroups(
    predictions: Predictions,
    columns: Mapping[str, Sequence[Any]],
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig | None = None,
) -> tuple[SubgroupColumn, ...]:
    """Compute the figures of every subgroup at the one operating point, and test the largest gap of each figure.

    The interval of a gap is simultaneous over all pairs of subgroups, since the largest was picked
    (``simultaneous_interval``). The test permutes subgroups over patients: its null hypothesis is that which subgroup a
    patient is in says nothing about labels and probabilities (so a gap may also come from a different mixture of
    cases). Where patients have images in several subgroups they cannot be permuted; the gap is then compared with those
    of resampled patients, each subgroup's figure centred on its own (Efron and Tibshirani 1993, ch. 16). All gaps of
    all columns are corrected together (Holm, Scand J Stat 6:65, 1979).

    Args:
        predictions: of one split.
        columns: by column name, N values in the order of ``predictions``; None, NaN and "" are unknown. Numbers with
            more than 8 different values are cut into thirds.
        operating_point: thresholds for every binary and multilabel target.
        config: replicates (also of the tests), confidence, seed, ``subgroup_min_patients``.

    Raises:
        EvaluationError: a column of another length, with more than 30 different texts, or without a known value.

    Example:
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 1, 0, 1])}, {"covid": np.array([0.1, 0.9, 0.8, 0.4])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob)
        >>> point = OperatingPoint({"covid": (0.5,)}, "stated")
        >>> (sex,) = evaluate_subgroups(predictions, {"sex": ["F", "F", "M", "M"]}, operating_point=point)
        >>> [(one.value, one.is_small, one.figures["covid"]["accuracy"].value) for one in sex.subgroups]
        [('F', True, 1.0), ('M', True, 0.0)]
    """
    settings = config or EvaluationConfig()
    found = [
        _column(predictions, name, _checked(values, predictions, name), point=operating_point, settings=settings)
        for name, values in columns.items()
    ]
    return _corrected(found)


def _checked(values: Sequence[Any], predictions: Predictions, column: str) -> Names:
    if len(values) != predictions.n:
        raise EvaluationError(
            f"Expected {predictions.n} values of {column!r}, one for each sample. Received: {len(values)}.", key=column
        )
    names = group_values(values, column=column)
    if predictions.n and not (names != "").any():
        raise EvaluationError(f"The column {column!r} has no known value in these samples. Name another.", key=column)
    return names


def _column(
    predictions: Predictions, column: str, names: Names, *, point: OperatingPoint, settings: EvaluationConfig
) -> SubgroupColumn:
    is_known = np.any([predictions.labelled(target) for target in predictions.targets], axis=0)
    bootstrap = Bootstrap.of(settings)
    groups = [
        _subgroup(predictions, value, is_known & (names == value), point=point, settings=settings)
        for value in np.unique(names[is_known & (names != "")])
    ]
    large = [one.value for one in groups if not one.is_small]
    gaps: list[Gap] = []
    if len(large) > 1:
        rows = np.isin(names, large)
        for target in predictions.targets:
            kept = rows & predictions.labelled(target)
            thresholds = tuple(point.thresholds.get(target.name, ()))
            part = _Grouped(predictions.select(kept), names[kept], target, thresholds=thresholds)
            gaps += part.gaps(bootstrap)
    n_unknown = int((is_known & (names == "")).sum())
    warnings = _warnings(groups, gaps, n_unknown=n_unknown, settings=settings)
    return SubgroupColumn(column, tuple(groups), n_unknown, tuple(gaps), warnings)


def _subgroup(
    predictions: Predictions,
    value: str,
    rows: BoolArray,
    *,
    point: OperatingPoint,
    settings: EvaluationConfig,
) -> Subgroup:
    part, figures = predictions.select(rows), {}
    for target in part.targets:
        thresholds = tuple(point.thresholds.get(target.name, ()))
        labelled = part.select(part.labelled(target))
        figures[target.name] = figures_of(labelled, target, thresholds=thresholds, settings=settings)
    patients = patient_units(part.patient_id)[1]
    return Subgroup(str(value), part.n, patients, patients < settings.subgroup_min_patients, figures)


class _Grouped:
    """Labelled samples of one target in G subgroups that are large enough."""

    def __init__(self, part: Predictions, names: Names, target: Target, *, thresholds: tuple[float, ...]) -> None:
        self._target = target
        self._values, group = np.unique(names, return_inverse=True)
        self._unit, self._units = patient_units(part.patient_id)
        self._whole = measures_of(part, target, thresholds=thresholds)
        self._parts: list[tuple[Measures, IntArray]] = []
        self._member = np.zeros((self._values.size, self._units), dtype=np.bool_)
        for g in range(self._values.size):
            rows = group == g
            one = part.select(rows)
            _, first = np.unique(patient_units(one.patient_id)[0], return_index=True)
            measures = measures_of(one, target, thresholds=thresholds, averaged=self._whole.averaged)
            self._parts.append((measures, self._unit[rows][first]))
            self._member[g, self._unit[rows]] = True

    def gaps(self, bootstrap: Bootstrap) -> list[Gap]:
        """Test every figure of ``TESTED``; none where fewer than two subgroups define it."""
        point = self._values_by_group(np.ones((1, self._units)))
        draws = draw_counts(self._units, replicates=bootstrap.replicates, samples=self._unit.size, seed=bootstrap.seed)
        drawn = _joined([self._values_by_group(counts) for counts in draws])
        is_permuted = bool((self._member.sum(axis=0) == 1).all())
        null = _joined(list(self._permuted(bootstrap))) if is_permuted else None
        found = []
        for name in TESTED[self._target.kind]:
            centred = drawn[name] - point[name] if null is None else null[name]
            gap = self._gap(name, point[name][0], drawn[name], centred, bootstrap)
            if gap is not None:
                found.append(replace(gap, test="permutation" if is_permuted else "bootstrap"))
        return found

    def _values_by_group(self, counts: FloatArray) -> dict[str, FloatArray]:
        """By figure name, (R, G)."""
        parts = [measures.values(counts[:, units]) for measures, units in self._parts]
        return {name: np.stack([part[name] for part in parts], axis=1) for name in TESTED[self._target.kind]}

    def _permuted(self, bootstrap: Bootstrap) -> Iterator[dict[str, FloatArray]]:
        """By figure name, (r, G) figures of subgroups that are drawn anew, as large as they are."""
        rng = np.random.default_rng(bootstrap.seed)
        own = self._member.argmax(axis=0)
        size = max(1, (1 << 19) // max(self._unit.size, 1))
        for start in range(0, bootstrap.replicates, size):
            rows = min(size, bootstrap.replicates - start)
            drawn = rng.permuted(np.tile(own, (rows, 1)), axis=1)
            parts = [self._whole.values((drawn == g).astype(np.float64)) for g in range(self._values.size)]
            yield {name: np.stack([part[name] for part in parts], axis=1) for name in TESTED[self._target.kind]}

    def _gap(
        self, name: str, point: FloatArray, drawn: FloatArray, null: FloatArray, bootstrap: Bootstrap
    ) -> Gap | None:
        defined = np.flatnonzero(~np.isnan(point))
        if defined.size < 2:
            return None
        high, low = defined[np.argmax(point[defined])], defined[np.argmin(point[defined])]
        gap = float(point[high] - point[low])
        null = null[:, defined][~np.isnan(null[:, defined]).any(axis=1)]
        p = (1 + int((np.ptp(null, axis=1) >= gap - 1e-12).sum())) / (1 + len(null)) if len(null) else np.nan
        ends = simultaneous_interval(point[defined], drawn[:, defined], confidence=bootstrap.confidence)
        reason = "" if np.isfinite(ends[0]) else "no interval: undefined in most replicates"
        difference = Figure(gap, *ends, self._unit.size, reason)
        highest, lowest = str(self._values[high]), str(self._values[low])
        return Gap(self._target.name, name, highest, lowest, difference, p, p)


def _joined(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def simultaneous_interval(point: FloatArray, drawn: FloatArray, *, confidence: float) -> tuple[float, float]:
    """Interval of the largest difference of G figures that holds although it was picked as the largest.

    Every pair of groups gets the interval "difference ± c standard errors" with the one c for which all of them hold
    together with the stated confidence, from the largest studentised deviation in each replicate (the bootstrap form of
    Tukey's method: Hsu, Multiple Comparisons, 1996, ch. 5; Efron and Tibshirani 1993, ch. 12.5). Whichever pair is then
    looked at, its interval keeps its level. With two groups nothing was picked, and it is that of the one pair.

    Args:
        point: (G,) float64, without NaN.
        drawn: (R, G) float64, the figures of replicates; NaN where undefined.
        confidence: e.g. 0.95.

    Returns:
        Low and high; NaN where most replicates lack one of the figures.

    Example:
        >>> drawn = np.random.default_rng(0).normal([0.9, 0.7, 0.8], 0.01, (2000, 3))
        >>> low, high = simultaneous_interval(np.array([0.9, 0.7, 0.8]), drawn, confidence=0.95)
        >>> round(low, 2), round(high, 2)  # wider than 1.96 standard errors of one difference, 0.028
        (0.17, 0.23)
    """
    kept = drawn[~np.isnan(drawn).any(axis=1)]
    if len(kept) < 2 or 2 * len(kept) < len(drawn):
        return float("nan"), float("nan")
    first, second = np.triu_indices(point.size, 1)
    moved = (kept[:, first] - kept[:, second]) - (point[first] - point[second])
    error = moved.std(axis=0, ddof=1)
    largest = np.max(np.abs(moved) / np.where(error > 0, error, np.inf), axis=1)
    gap = np.abs(point[first] - point[second])
    pair = int(np.argmax(gap))
    half = float(np.quantile(largest, confidence)) * float(error[pair])
    return float(gap[pair]) - half, float(gap[pair]) + half


def _corrected(columns: list[SubgroupColumn]) -> tuple[SubgroupColumn, ...]:
    gaps = [gap for column in columns for gap in column.gaps]
    corrected = iter(holm({k: gap.p for k, gap in enumerate(gaps)}).values())
    return tuple(
        replace(column, gaps=tuple(replace(gap, p_holm=next(corrected)) for gap in column.gaps)) for column in columns
    )


def _warnings(
    groups: list[Subgroup], gaps: list[Gap], *, n_unknown: int, settings: EvaluationConfig
) -> tuple[str, ...]:
    told = []
    small = [one for one in groups if one.is_small]
    if small:
        named = ", ".join(f"{one.value} ({one.n_patients})" for one in small)
        told.append(f"Fewer than {settings.subgroup_min_patients} patients, not tested: {named}.")
    if len(groups) - len(small) < 2:
        told.append("Fewer than two subgroups are large enough: nothing to compare.")
    if n_unknown:
        told.append(f"{n_unknown} labelled samples have no value and are in no subgroup.")
    if any(gap.test == "bootstrap" for gap in gaps):
        told.append("Patients have images in several subgroups: gaps are tested by a bootstrap, not a permutation.")
    return tuple(told)
