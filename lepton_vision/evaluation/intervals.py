"""Intervals: percentile bootstrap over patients, and Wilson's for a proportion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from lepton_vision.evaluation.ranking import IntArray
from lepton_vision.types import Figure, FloatArray

_CHUNK = 1 << 19  # cells of a (replicates, samples) array worked on at once: 4 MB, so that it stays in the cache
_NOTED = 0.05  # share of undefined replicates from which the figure says so
_WITHHELD = 0.50  # … and from which there is no interval


class Measures(Protocol):
    """Figures of one target for many weightings of its patients at once."""

    @property
    def units(self) -> int:
        """Number of sampling units U (patients)."""

    @property
    def n(self) -> int:
        """Number of labelled samples."""

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each, for (R, U) counts of the units; NaN where undefined."""

    def size(self, name: str) -> int:
        """Number of samples behind a figure (its denominator)."""

    def reason(self, name: str) -> str:
        """Why a figure is undefined on all samples."""

    def denominator_units(self, name: str) -> int | None:
        """Number of patients in the denominator of a plain proportion; None for any other figure."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        replicates: number of resamples.
        confidence: e.g. 0.95.
        seed: of the resampling.
    """

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Wilson score interval of proportions (Wilson, JASA 22:209, 1927); NaN where ``n`` is zero.

    Example:
        >>> low, high = wilson([8], [10])
        >>> round(float(low[0]), 3), round(float(high[0]), 3)
        (0.49, 0.943)
    """
    count, size = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = float(ndtri(0.5 + confidence / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = count / size
        center = (share + z**2 / (2 * size)) / (1 + z**2 / size)
        half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
        # The ends are exact at 0 and 1; rounding must not push them beyond the proportion.
        low, high = np.minimum(center - half, share), np.maximum(center + half, share)
    return low.clip(0.0, 1.0), high.clip(0.0, 1.0)


def patient_units(patient_id: npt.NDArray[np.str_]) -> tuple[IntArray, int]:
    """Number the patients: (N,) unit of each sample, and how many; an unknown ("") patient is one of its own."""
    _, unit = np.unique(patient_id, return_inverse=True)
    is_unknown = patient_id == ""
    if is_unknown.any():
        unit = unit.copy()
        unit[is_unknown] = unit.max(initial=0) + 1 + np.arange(int(is_unknown.sum()))
        unit = np.unique(unit, return_inverse=True)[1]
    return unit.astype(np.intp), int(unit.max(initial=-1)) + 1


def draw_counts(units: int, *, replicates: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """Yield (r, U) counts of units drawn with replacement, U for each replicate; the draws depend on the seed alone."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(units, samples, 1))
    for start in range(0, replicates, size):
        rows = min(size, replicates - start)
        drawn = rng.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def bootstrap_figures(measures: Measures, bootstrap: Bootstrap) -> dict[str, Figure]:
    """Every figure with its percentile interval over resampled patients (Efron and Tibshirani 1993, ch. 13).

    Patients are drawn, not images: the images of one patient resemble each other, and an interval that takes them
    for independent is too narrow. A replicate in which a figure is undefined (one class only, say) is left out for
    that figure; above 5 % of such replicates ``reason`` says so, above 50 % there is no interval. Where a proportion
    is 0 or 1 in every replicate, a bootstrap has no width, and the interval is Wilson's over the patients concerned.
    """
    point = measures.values(np.ones((1, measures.units)))
    parts: dict[str, list[FloatArray]] = {name: [] for name in point}
    if measures.units > 1:
        draws = draw_counts(measures.units, replicates=bootstrap.replicates, samples=measures.n, seed=bootstrap.seed)
        for counts in draws:
            for name, values in measures.values(counts).items():
                parts[name].append(values)
    figures = {}
    for name, values in point.items():
        drawn = np.concatenate(parts[name]) if parts[name] else np.zeros(0)
        figures[name] = _figure(name, float(values[0]), drawn=drawn, measures=measures, bootstrap=bootstrap)
    return figures


def _figure(name: str, value: float, *, drawn: FloatArray, measures: Measures, bootstrap: Bootstrap) -> Figure:
    n = measures.size(name)
    if np.isnan(value):
        return Figure(np.nan, np.nan, np.nan, n, measures.reason(name))
    if measures.units < 2:
        return Figure(value, np.nan, np.nan, n, "no interval: one patient only")
    defined = drawn[~np.isnan(drawn)]
    share = 1.0 - defined.size / drawn.size
    if share > _WITHHELD:
        return Figure(value, np.nan, np.nan, n, f"no interval: undefined in {share:.0%} of the replicates")
    if np.ptp(defined) <= 1e-12 and value in (0.0, 1.0):
        patients = measures.denominator_units(name)
        if patients is None:
            return Figure(value, value, value, n, "the same in every replicate: the interval has no width to trust")
        low, high = wilson(value * patients, patients, confidence=bootstrap.confidence)
        return Figure(value, float(low), float(high), n, f"Wilson interval over {patients} patients")
    tail = (1.0 - bootstrap.confidence) / 2
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    note = f"interval from the {1 - share:.0%} of replicates in which it is defined" if share > _NOTED else ""
    return Figure(value, float(low), float(high), n, note)
