"""Confidence intervals: patient bootstrap (BCa and percentile), Wilson and Clopper–Pearson."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.statistics.ranking import IntArray
from lepton_vision.types import Figure, FloatArray, Interval

_CHUNK = 1 << 19  # cells of a (replicates, samples) array worked on at once: 4 MB, so that it stays in the cache
_NOTED = 0.05  # share of undefined replicates from which the figure says so
_WITHHELD = 0.50  # … and from which there is no interval
_NO_WIDTH = 1e-12  # replicates that differ by rounding only are the same
_DRAWN = 1 << 14  # patients drawn at once: their counts stay in the fastest cache
# More patients are left out in so many random groups. A sum over a group has the third moment of its patients, so that
# the acceleration stays the same but for noise of about 0.6 / groups: here below 1 % of an interval's half width.
LARGEST_JACKKNIFE = 400
_LARGEST_BIAS = 1.0  # normal quantiles; replicates that lie further off are biased beyond what BCa can correct

IntervalMethod = Literal["percentile", "bca"]
BOOTSTRAPS = frozenset(("percentile", "bca"))


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
    """Settings of the bootstrap.

    Attributes:
        replicates: number of resamples.
        confidence: e.g. 0.95.
        seed: of the resampling.
        method: "bca" (bias-corrected and accelerated), or "percentile".
    """

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0
    method: IntervalMethod = "bca"

    @classmethod
    def of(cls, settings: EvaluationConfig) -> Bootstrap:
        """Take it from the configuration."""
        return cls(settings.replicates, settings.confidence, settings.seed, settings.interval)

    @property
    def name(self) -> str:
        """In words, for provenance."""
        return f"{'BCa' if self.method == 'bca' else self.method} bootstrap over patients"


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


def clopper_pearson(
    successes: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Exact interval of proportions (Clopper and Pearson, Biometrika 26:404, 1934); NaN where ``n`` is zero.

    ``successes`` and ``n`` may be fractions: the effective numbers of a clustered sample (Korn and Graubard, Survey
    Methodology 24:193, 1998).

    Example:
        >>> low, high = clopper_pearson([8], [10])
        >>> round(float(low[0]), 3), round(float(high[0]), 3)
        (0.444, 0.975)
    """
    count, size = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    tail, failed = (1.0 - confidence) / 2, size - count
    with np.errstate(invalid="ignore"):
        low = np.where(count > 0, betaincinv(count.clip(1e-300), failed + 1, tail), 0.0)
        high = np.where(failed > 0, betaincinv(count + 1, failed.clip(1e-300), 1.0 - tail), 1.0)
    unknown = size == 0
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def effective_size(successes: FloatArray, sizes: FloatArray) -> float:
    """Effective number of independent samples of a clustered proportion: n over the design effect.

    The variance between patients of the ratio estimate, over that of as many independent samples (Rao and Scott,
    Biometrics 48:577, 1992); at most n. Where every patient has one sample it is n. Where the proportion is 0 or 1 the
    samples say nothing about the design effect, and the number of patients is taken.

    Args:
        successes: (U,) float64 by patient.
        sizes: (U,) float64 samples in the denominator by patient; patients without any are left out.
    """
    kept = sizes > 0
    hits, m = successes[kept], sizes[kept]
    n, units = float(m.sum()), int(kept.sum())
    if not n:
        return 0.0
    share = float(hits.sum()) / n
    if units == n or units < 2 or share in (0.0, 1.0):
        return float(units)
    variance = units / (units - 1) * float(((hits - share * m) ** 2).sum()) / n**2
    independent = share * (1.0 - share) / (n - 1.0)
    return n / max(variance / independent, 1.0)


def clustered_proportion(successes: FloatArray, sizes: FloatArray, *, confidence: float) -> tuple[Interval, ...]:
    """Wilson's and Clopper–Pearson's interval of a proportion at the effective number of samples.

    Args:
        successes: (U,) float64 by patient.
        sizes: (U,) float64 samples in the denominator by patient.
        confidence: e.g. 0.95.

    Returns:
        Two intervals; none where the denominator is empty.
    """
    n = float(sizes.sum())
    if not n:
        return ()
    share, size = float(successes.sum()) / n, effective_size(successes, sizes)
    found = []
    for method, interval in (("wilson", wilson), ("clopper_pearson", clopper_pearson)):
        low, high = interval(share * size, size, confidence=confidence)
        found.append(Interval(method, float(low), float(high)))
    return tuple(found)


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
        counts, step = np.empty((rows, units)), max(1, _DRAWN // max(units, 1))
        for row in range(0, rows, step):
            part = counts[row : row + step]
            drawn = rng.integers(units, size=part.shape) + np.arange(len(part))[:, None] * units
            part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape)
        yield counts


def leave_out_counts(units: int, *, samples: int, seed: int) -> Iterator[FloatArray]:
    """Yield (r, U) counts that leave out one patient each, or one random group of them above LARGEST_JACKKNIFE."""
    groups = min(units, LARGEST_JACKKNIFE)
    group = np.arange(units) % groups
    if units > groups:
        group = np.random.default_rng(seed).permutation(group)
    size = max(1, _CHUNK // max(units, samples, 1))
    for start in range(0, groups, size):
        left_out = np.arange(start, min(start + size, groups))
        yield (group != left_out[:, None]).astype(np.float64)


def bca_interval(
    value: float, drawn: FloatArray, jackknife: FloatArray, *, confidence: float
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval (Efron, JASA 82:171, 1987; Efron and Tibshirani 1993, 14.3).

    Args:
        value: the figure on the sample.
        drawn: (R,) replicates without NaN.
        jackknife: (U,) figures without one patient, or without one group of patients, each.
        confidence: e.g. 0.95.

    Returns:
        Low and high, or None where it does not exist: more than 84 % of the replicates lie on one side of ``value``
        (the figure is biased, not merely skewed), a figure is undefined or without bound where one of the patients is
        left out, or single patients weigh so much that the correction has no end.
    """
    rounding = 1e-12 * max(1.0, abs(value))  # replicates that equal the value count half on each side
    below = (float((drawn < value - rounding).mean()) + float((drawn <= value + rounding).mean())) / 2
    bias = float(ndtri(below))
    if not abs(bias) <= _LARGEST_BIAS or jackknife.size < 2 or not np.isfinite(jackknife).all():
        return None
    gap = jackknife.mean() - jackknife
    square = float((gap**2).sum())
    acceleration = float((gap**3).sum()) / (6.0 * square**1.5) if square > 0 else 0.0
    tail = max((1.0 - confidence) / 2, 0.5 / drawn.size)  # R replicates have no quantiles farther out
    z = bias + ndtri(np.array([tail, 1.0 - tail]))
    if (acceleration * z >= 1.0).any():
        return None
    levels = ndtr(bias + z / (1.0 - acceleration * z))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def expanded_confidence(confidence: float, units: int, *, freedom: float | None = None) -> float:
    """Confidence at which quantiles of a bootstrap over few patients hold what was asked for.

    Resampling U patients gives a spread that is too small by sqrt((U - 1) / U), and its quantiles know nothing of the
    uncertainty of the spread itself: both as for a mean, whose t interval corrects them (Hesterberg, Am Stat 69:371,
    2015, "expanded percentile interval").

    Args:
        confidence: e.g. 0.95.
        units: number of patients U.
        freedom: degrees of freedom of the spread (``spread_freedom``); None takes those of a mean, U - 1.

    Example:
        >>> [round(expanded_confidence(0.95, units), 4) for units in (20, 100, 100_000)]
        [0.9682, 0.9539, 0.95]
    """
    quantile = float(
        np.sqrt(units / (units - 1)) * stdtrit(units - 1 if freedom is None else freedom, 0.5 + confidence / 2)
    )
    return float(1.0 - 2.0 * ndtr(-quantile))


def spread_freedom(jackknife: FloatArray, *, units: int) -> float:
    """Degrees of freedom of the spread of a figure between patients, 1 to U - 1.

    The spread is a sum of squared influences. Where few patients carry a figure (those with the finding, those with
    many images), the squares differ much, and the spread is known as badly as that of fewer patients: Satterthwaite's
    degrees of freedom, 2 U / (kurtosis - 1), from the influences themselves (Pan and Wall, Stat Med 21:1429, 2002, for
    the variance of clustered data). Normal influences have kurtosis 3 and give U.

    Args:
        jackknife: (G,) figures without one patient, or without one group of patients, each.
        units: number of patients U, at least two.

    Example:
        >>> spread_freedom(np.array([0.0, 1.0, 0.0, 1.0]), units=4), round(spread_freedom(np.eye(9)[0], units=9), 2)
        (3.0, 2.94)
    """
    gap = jackknife - jackknife.mean()
    square = float((gap**2).mean())
    if not square > 0:
        return units - 1.0
    # The excess of a sum over the patients of a group is that of one patient, over their number.
    kurtosis = 3.0 + (float((gap**4).mean()) / square**2 - 3.0) * units / jackknife.size
    return min(max(2.0 * units / max(kurtosis - 1.0, 1e-9), 1.0), units - 1.0)


def draw_figures(measures: Measures, bootstrap: Bootstrap) -> dict[str, FloatArray]:
    """Figures of every replicate, (R,) by name; empty arrays where there is one patient only."""
    if measures.units < 2:
        return {name: np.zeros(0) for name in measures.values(np.ones((1, measures.units)))}
    return _collect(
        measures,
        draw_counts(measures.units, replicates=bootstrap.replicates, samples=measures.n, seed=bootstrap.seed),
    )


def bootstrap_figures(
    measures: Measures, bootstrap: Bootstrap, *, drawn: Mapping[str, FloatArray] | None = None
) -> dict[str, Figure]:
    """Every figure with its interval over resampled patients (Efron and Tibshirani 1993, ch. 13 and 14).

    Patients are drawn, not images: the images of one patient resemble each other, and an interval that takes them
    for independent is too narrow. A replicate in which a figure is undefined (one class only, say) is left out for
    that figure; above 5 % of such replicates ``reason`` says so, above 50 % there is no interval. A figure
    that is the same in every replicate has no interval, but for a proportion, whose interval is Wilson's over the
    patients concerned.
    BCa takes its acceleration from a jackknife over patients, and its levels are expanded where few patients carry a
    figure (``expanded_confidence``, ``spread_freedom``); where it does not exist, the percentiles stand in and
    ``reason`` says so.

    Args:
        measures: what is computed.
        bootstrap: how.
        drawn: what ``draw_figures`` gave; None draws.
    """
    units = measures.units
    point = measures.values(np.ones((1, units)))
    drawn = draw_figures(measures, bootstrap) if drawn is None else drawn
    jackknife = {name: np.zeros(0) for name in point}
    if bootstrap.method == "bca" and units > 1:
        jackknife = _collect(measures, leave_out_counts(units, samples=measures.n, seed=bootstrap.seed))
    return {
        name: _figure(
            name, float(values[0]), drawn=drawn[name], jackknife=jackknife[name], measures=measures, bootstrap=bootstrap
        )
        for name, values in point.items()
    }


def _collect(measures: Measures, draws: Iterator[FloatArray]) -> dict[str, FloatArray]:
    """Figures of all weightings, (R,) by name."""
    parts: dict[str, list[FloatArray]] = {}
    for counts in draws:
        for name, values in measures.values(counts).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _figure(
    name: str,
    value: float,
    *,
    drawn: FloatArray,
    jackknife: FloatArray,
    measures: Measures,
    bootstrap: Bootstrap,
) -> Figure:
    n = measures.size(name)
    if np.isnan(value):
        return Figure(np.nan, np.nan, np.nan, n, measures.reason(name))
    if measures.units < 2:
        return Figure(value, np.nan, np.nan, n, "no interval: one patient only")
    defined = drawn[~np.isnan(drawn)]
    share = 1.0 - defined.size / drawn.size
    if share > _WITHHELD:
        return Figure(value, np.nan, np.nan, n, f"no interval: undefined in {share:.0%} of the replicates")
    if np.ptp(defined) <= _NO_WIDTH * max(1.0, abs(value)):
        patients = measures.denominator_units(name)
        if patients is None or not 0.0 <= value <= 1.0:
            return Figure(value, np.nan, np.nan, n, "no interval: the same in every replicate")
        ends = wilson(value * patients, patients, confidence=bootstrap.confidence)
        return Figure(value, float(ends[0]), float(ends[1]), n, f"Wilson interval over {patients} patients", "wilson")
    tail = (1.0 - bootstrap.confidence) / 2
    low, high = (float(end) for end in np.quantile(defined, [tail, 1.0 - tail]))
    notes = [f"interval from the {1 - share:.0%} of replicates in which it is defined"] if share > _NOTED else []
    method: IntervalMethod = "percentile"
    if bootstrap.method == "bca":
        freedom = spread_freedom(jackknife, units=measures.units)
        expanded = expanded_confidence(bootstrap.confidence, measures.units, freedom=freedom)
        found = bca_interval(value, defined, jackknife, confidence=expanded)
        if found is None:
            notes.append("percentile interval: BCa does not exist for it")
        else:
            method, low, high = "bca", found[0], found[1]
    return Figure(value, low, high, n, "; ".join(notes), method)
