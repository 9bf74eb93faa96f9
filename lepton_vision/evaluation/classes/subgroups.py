"""Subgroup figures by sex, age band, manufacturer, site or any other column, with tests of the gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.analyses import Gap, Subgroup, SubgroupColumn
from lepton_vision.evaluation.classes.figure_table import names_for
from lepton_vision.evaluation.classes.figures import figures_of, measures_of
from lepton_vision.evaluation.classes.grouping import group_values, number_strata, strata_of
from lepton_vision.evaluation.classes.own_figures import ClassMeasures, OwnFigures
from lepton_vision.evaluation.statistics.intervals import Bootstrap, draw_counts, patient_units
from lepton_vision.evaluation.statistics.paired_tests import holm
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Target

Names = npt.NDArray[np.str_]
_TIE = 1e-12  # gaps that differ by rounding only are equal


def evaluate_subgroups(
    predictions: Predictions,
    columns: Mapping[str, Sequence[Any]],
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig | None = None,
    own: OwnFigures | None = None,
) -> tuple[SubgroupColumn, ...]:
    """Compute the figures of every subgroup at the one operating point, and test the largest gap of each figure.

    The interval of a gap is simultaneous over all pairs of subgroups, since the largest was picked
    (``simultaneous_interval``). The test permutes subgroups over patients with the same labels (of numbers: similar
    ones, in tenths): its null hypothesis is that among such patients the subgroup says nothing about the predictions,
    so that subgroups in which the finding is more frequent, or more severe grades are, do not differ by that alone.
    Where patients have images in several
    subgroups they cannot be permuted. P is the larger one of the permutations' and of the interval's, and the interval
    is wide enough for both: it holds 0 where P is above 1 - confidence, and else does not. All gaps of all columns are
    corrected together (Holm, Scand J Stat 6:65, 1979).

    Subgroups with too few patients are marked as small and take no part in the tests. Those with fewer than half as
    many patients of some class, or denominator, that a tested figure rests on are marked too; their gaps are tested.

    Args:
        predictions: of one split.
        columns: by column name, N values in the order of ``predictions``; None, NaN and "" are unknown. Numbers with
            more than 8 different values are cut into thirds.
        operating_point: thresholds for every binary and multilabel target.
        config: replicates (also of the tests), confidence, seed, ``subgroup_min_patients``.
        own: figures that the caller brings, checked (``own_figures.check_figures``); they are tested too.

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
    how: dict[str, Any] = {"point": operating_point, "settings": settings, "own": own or {}}
    found = [_column(predictions, name, _checked(values, predictions, name), **how) for name, values in columns.items()]
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
    predictions: Predictions,
    column: str,
    names: Names,
    *,
    point: OperatingPoint,
    settings: EvaluationConfig,
    own: OwnFigures,
) -> SubgroupColumn:
    is_known = np.any([predictions.labelled(target) for target in predictions.targets], axis=0)
    groups = [
        _subgroup(predictions, value, is_known & (names == value), point=point, settings=settings, own=own)
        for value in np.unique(names[is_known & (names != "")])
    ]
    large = [one.value for one in groups if one.n_patients >= settings.subgroup_min_patients]
    gaps, few = list[Gap](), dict[str, set[str]]()
    for target in predictions.targets if len(large) > 1 else ():
        kept = np.isin(names, large) & predictions.labelled(target)
        thresholds = tuple(point.thresholds.get(target.name, ()))
        part = _Grouped(predictions.select(kept), names[kept], target, thresholds=thresholds, own=own)
        gaps += part.gaps(Bootstrap.of(settings))
        for value, figures in part.few(least=_least(settings)).items():
            few.setdefault(value, set()).update(figures)
    groups = [replace(one, is_small=one.is_small or one.value in few) for one in groups]
    n_unknown = int((is_known & (names == "")).sum())
    warnings = _warnings(groups, gaps, few=few, n_unknown=n_unknown, settings=settings)
    return SubgroupColumn(column, tuple(groups), n_unknown, tuple(gaps), warnings)


def _least(settings: EvaluationConfig) -> int:
    """Patients of each class below which a subgroup is marked as small."""
    return -(-settings.subgroup_min_patients // 2)


def _subgroup(
    predictions: Predictions,
    value: str,
    rows: BoolArray,
    *,
    point: OperatingPoint,
    settings: EvaluationConfig,
    own: OwnFigures,
) -> Subgroup:
    part, figures = predictions.select(rows), {}
    for target in part.targets:
        thresholds = tuple(point.thresholds.get(target.name, ()))
        labelled = part.select(part.labelled(target))
        figures[target.name] = figures_of(labelled, target, thresholds=thresholds, settings=settings, own=own)
    patients = patient_units(part.patient_id)[1]
    return Subgroup(str(value), part.n, patients, patients < settings.subgroup_min_patients, figures)


class _Grouped:
    """Labelled samples of one target in G subgroups that are large enough."""

    def __init__(
        self, part: Predictions, names: Names, target: Target, *, thresholds: tuple[float, ...], own: OwnFigures
    ) -> None:
        self._target = target
        self._values, group = np.unique(names, return_inverse=True)
        self._unit, self._units = patient_units(part.patient_id)
        self._whole = measures_of(part, target, thresholds=thresholds, own=own)
        self._parts: list[tuple[ClassMeasures, IntArray]] = []
        self._member = np.zeros((self._values.size, self._units), dtype=np.bool_)
        for g in range(self._values.size):
            rows = group == g
            one = part.select(rows)
            _, first = np.unique(patient_units(one.patient_id)[0], return_index=True)
            measures = measures_of(one, target, thresholds=thresholds, averaged=self._whole.averaged, own=own)
            self._parts.append((measures, self._unit[rows][first]))
            self._member[g, self._unit[rows]] = True
        of_kind = number_strata if target.is_value else strata_of
        self._strata = of_kind(part.y_true[target.name], self._unit, units=self._units)
        brought = [name for name, one in own.items() if target.is_among(one.kinds)]
        self._tested = (*names_for("tested", target.kind), *brought)
        self._fewest = {name: np.array([measures.fewest(name) for measures, _ in self._parts]) for name in self._tested}

    def few(self, *, least: int) -> dict[str, list[str]]:
        """Figures that a subgroup has too few patients of some class for, by its value."""
        found: dict[str, list[str]] = {}
        for name, fewest in self._fewest.items():
            for value in self._values[fewest < least]:
                found.setdefault(str(value), []).append(name)
        return found

    def gaps(self, bootstrap: Bootstrap) -> list[Gap]:
        """Test every figure that is to be tested; none where fewer than two subgroups define it."""
        point = self._values_by_group(np.ones((1, self._units)))
        draws = draw_counts(self._units, replicates=bootstrap.replicates, samples=self._unit.size, seed=bootstrap.seed)
        drawn = _joined([self._values_by_group(counts) for counts in draws])
        is_permuted = bool((self._member.sum(axis=0) == 1).all())
        null = _joined(list(self._permuted(bootstrap))) if is_permuted else None
        found = []
        for name in self._tested:
            kept = np.flatnonzero(~np.isnan(point[name][0]))
            if kept.size > 1:
                shuffled = np.zeros((0, kept.size)) if null is None else null[name][:, kept]
                gap = self._gap(name, point[name][0], drawn[name][:, kept], shuffled, kept=kept, bootstrap=bootstrap)
                found.append(replace(gap, test="bootstrap" if null is None else "permutation"))
        return found

    def _values_by_group(self, counts: FloatArray) -> dict[str, FloatArray]:
        """By figure name, (R, G)."""
        parts = [measures.values(counts[:, units]) for measures, units in self._parts]
        return {name: np.stack([part[name] for part in parts], axis=1) for name in self._tested}

    def _permuted(self, bootstrap: Bootstrap) -> Iterator[dict[str, FloatArray]]:
        """By figure name, (r, G) figures where the patients of each stratum are dealt anew to the subgroups."""
        rng = np.random.default_rng(bootstrap.seed)
        own = self._member.argmax(axis=0)
        places = [np.flatnonzero(self._strata == k) for k in range(int(self._strata.max(initial=-1)) + 1)]
        size = max(1, (1 << 19) // max(self._unit.size, 1))
        for start in range(0, bootstrap.replicates, size):
            rows = min(size, bootstrap.replicates - start)
            drawn = np.empty((rows, own.size), dtype=own.dtype)
            for place in places:
                drawn[:, place] = rng.permuted(np.tile(own[place], (rows, 1)), axis=1)
            parts = [self._whole.values((drawn == g).astype(np.float64)) for g in range(self._values.size)]
            yield {name: np.stack([part[name] for part in parts], axis=1) for name in self._tested}

    def _gap(
        self, name: str, point: FloatArray, drawn: FloatArray, null: FloatArray, *, kept: IntArray, bootstrap: Bootstrap
    ) -> Gap:
        value = point[kept]
        patients = self._fewest[name][kept]
        least = np.array([_least_error(*pair) for pair in zip(value, patients, strict=True)])
        least *= not self._target.is_value  # 0 and 1 are numbers as others are
        spread = np.ptp(null[~np.isnan(null).any(axis=1)], axis=1)
        half, p = gap_test(value, drawn, spread, least=least, confidence=bootstrap.confidence)
        gap = float(np.ptp(value))
        reason = "" if half > 0.0 else "no interval: undefined, or the same, in most replicates"
        ends = (gap - half, gap + half) if half > 0.0 else (np.nan, np.nan)
        difference = Figure(gap, *ends, self._unit.size, reason)
        highest, lowest = (str(self._values[kept[k]]) for k in (np.argmax(value), np.argmin(value)))
        return Gap(self._target.name, name, highest, lowest, difference, p, p)


def _joined(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _least_error(value: float, patients: int) -> float:
    """Standard error that no resampling shows where a figure is 0 or 1: of one success and one failure more.

    Agresti and Caffo, Am Stat 54:280, 2000. The variance of an AUROC is at most that of a proportion of the smaller
    class (Birnbaum and Klose, Ann Math Stat 28:933, 1957).
    """
    if value not in (0.0, 1.0):
        return 0.0
    return float(np.sqrt(patients + 1.0) / (patients + 2.0) / np.sqrt(patients + 2.0))


def gap_test(
    point: FloatArray, drawn: FloatArray, spread: FloatArray, *, least: FloatArray, confidence: float
) -> tuple[float, float]:
    """Half the width of the interval of the largest gap, and its P: two that always agree.

    The interval is "gap ± half". Its half is the larger one of the level's quantile of the permuted gaps (the interval
    of all shifts that the permutation test does not reject) and of the simultaneous critical value times the standard
    error (``simultaneous_interval``); P is the larger one of both tests'. So 0 lies outside exactly where P is at
    most 1 - confidence.

    Args:
        point: (G,) float64, without NaN.
        drawn: (R, G) float64, the figures of replicates; NaN where undefined.
        spread: (P,) float64 largest gap of each permutation; empty where patients cannot be permuted.
        least: (G,) float64 smallest standard error of each figure.
        confidence: e.g. 0.95.

    Returns:
        NaN where most replicates lack one of the figures; a half of 0 where nothing moves.
    """
    gap = float(np.ptp(point))
    critical, error, deviations = _studentised(point, drawn, least=least, confidence=confidence)
    if np.isnan(error):
        return float("nan"), float("nan")
    half, p = critical * error, 1.0
    if error > 0.0:
        p = max(_share_beyond(deviations, gap / error), 2.0 * float(ndtr(-gap / error)))
    if spread.size:
        half = max(half, _critical(spread, gap, confidence=confidence))
        p = max(p, _share_beyond(spread, gap))
    return half + (_TIE if half > 0.0 else 0.0), p


def _share_beyond(drawn: FloatArray, value: float) -> float:
    """Share of the draws that reach a value, one added."""
    return float((1 + int((drawn >= value - _TIE).sum())) / (1 + drawn.size))


def _critical(drawn: FloatArray, value: float, *, confidence: float) -> float:
    """Bound above which ``_share_beyond`` is at most 1 - confidence; ``value`` where the draws are too few."""
    allowed = int((1.0 - confidence) * (1 + drawn.size) + 1e-9) - 1
    return value if allowed < 0 else float(np.sort(drawn)[-1 - allowed])


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
    critical, error, _ = _studentised(point, drawn, least=np.zeros(point.size), confidence=confidence)
    gap, half = float(np.ptp(point)), critical * error
    return gap - half, gap + half


def _studentised(
    point: FloatArray, drawn: FloatArray, *, least: FloatArray, confidence: float
) -> tuple[float, float, FloatArray]:
    """Critical value, standard error of the largest gap, and the largest studentised deviation of each replicate."""
    kept = drawn[~np.isnan(drawn).any(axis=1)]
    if len(kept) < 2 or 2 * len(kept) < len(drawn):
        return float("nan"), float("nan"), np.zeros(0)
    first, second = np.triu_indices(point.size, 1)
    moved = (kept[:, first] - kept[:, second]) - (point[first] - point[second])
    error = moved.std(axis=0, ddof=1)
    largest = np.max(np.abs(moved) / np.where(error > 0, error, np.inf), axis=1)
    pair = int(np.argmax(np.abs(point[first] - point[second])))
    least_of_pair = float(np.hypot(least[first[pair]], least[second[pair]]))
    found = max(float(error[pair]), least_of_pair)
    reached = float(np.ptp(point)) / found if found > 0.0 else 0.0
    critical = max(_critical(largest, reached, confidence=confidence), float(ndtri(0.5 + confidence / 2)))
    return critical, found, largest


def _corrected(columns: list[SubgroupColumn]) -> tuple[SubgroupColumn, ...]:
    gaps = [gap for column in columns for gap in column.gaps]
    corrected = iter(holm({k: gap.p for k, gap in enumerate(gaps)}).values())
    return tuple(
        replace(column, gaps=tuple(replace(gap, p_holm=next(corrected)) for gap in column.gaps)) for column in columns
    )


def _warnings(
    groups: list[Subgroup],
    gaps: list[Gap],
    *,
    few: Mapping[str, set[str]],
    n_unknown: int,
    settings: EvaluationConfig,
) -> tuple[str, ...]:
    told = []
    small = [one for one in groups if one.n_patients < settings.subgroup_min_patients]
    if small:
        named = ", ".join(f"{one.value} ({one.n_patients})" for one in small)
        told.append(f"Fewer than {settings.subgroup_min_patients} patients, not tested: {named}.")
    for value, figures in few.items():
        named = ", ".join(sorted(figures))
        told.append(f"Fewer than {_least(settings)} patients of some class, read with care: {value} ({named}).")
    if len(groups) - len(small) < 2:
        told.append("Fewer than two subgroups are large enough: nothing to compare.")
    if n_unknown:
        told.append(f"{n_unknown} labelled samples have no value and are in no subgroup.")
    if any(gap.test == "bootstrap" for gap in gaps):
        told.append("Patients have images in several subgroups: gaps are tested by a bootstrap, not a permutation.")
    return tuple(told)
