"""Figures: a value with its confidence interval, and the description of what is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lepton_vision.types.kinds import CLASS_KINDS, TargetKind

Better = Literal["higher", "lower", "neither"]
Scale = Literal["share", "number"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)
_TINY = 0.0005  # what three decimals show as nothing
FigureFunction = Callable[..., float]
"""``f(y_true, y_prob, sample_weight) -> float``, see ``OwnFigure``."""


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """Description of a figure, for whatever computes, shows, compares or watches it.

    Attributes:
        name: key in results.
        title: name in pages.
        meaning: one plain sentence, or "".
        better: which way is better; "neither" of what only describes the sample.
        scale: "share" lies in [0, 1] with 1 the best, and may be drawn on a scale; "number" is anything else.
        kinds: of the targets that have it as a whole, not of single classes alone.
        group: part of a page, and question that it answers: "ranking", "decisions" (undefined without an operating
            point), "probabilities", "error", "agreement", "sample", "own" …
        of_exclusive: its meaning where exactly one class is true, if that is another.
        headline: kinds of targets whose summary opens with it.
        endpoint: kinds of targets for which a comparison of two models adjusts its P value.
        tested: kinds of targets of which subgroups are compared by it.
        is_averaged: of several classes there are ``_micro`` and ``_weighted`` beside the plain mean.
        is_by_class: tables with a row for each class have a column of it.
        has_unit: it is in the unit of the target.
    """

    name: str
    title: str
    meaning: str = ""
    better: Better = "higher"
    scale: Scale = "share"
    kinds: tuple[TargetKind, ...] = CLASS_KINDS
    group: str = "further"
    of_exclusive: str = ""
    headline: tuple[TargetKind, ...] = ()
    endpoint: tuple[TargetKind, ...] = ()
    tested: tuple[TargetKind, ...] = ()
    is_averaged: bool = False
    is_by_class: bool = False
    has_unit: bool = False


@dataclass(frozen=True, slots=True)
class OwnFigure:
    """A figure that the caller brings to ``evaluate``, ``compare`` or ``fit``; a plain function stands for one.

    The function is called as ``f(y_true, y_prob, sample_weight)``, or with ``sample_weight=`` where it has a parameter
    of that name, as scikit-learn's have. It gets the labelled samples of one target, in arrays that it cannot change:

    - binary: ``y_true`` (N,) int64 of 0 and 1, ``y_prob`` (N,) float64, probability of the positive class;
    - multiclass and ordinal: ``y_true`` (N,) int64 class index, ``y_prob`` (N, K) float64, rows that sum to one;
    - multilabel: ``y_true`` (N, K) float64 of 0, 1 and NaN for a label that is unknown, ``y_prob`` (N, K) float64;
    - regression: ``y_true`` and ``y_prob`` (N,) float64, the true and the predicted value;
    - ``sample_weight`` (N,) float64: how often the sample counts. 1 for the samples as they are, then how often its
      patient was drawn in a resample: 0, 1, 2 … A sample of weight 0 is not in the resample.

    It returns one number, NaN where the figure is undefined, always the same for the same arrays, and may be called
    some thousand times. NaN of a resample, a subgroup or an epoch is left out as for our figures; NaN of all samples of
    an evaluation is refused where they are of several classes.

    Attributes:
        function: what computes it.
        title: name in pages; "" takes its key.
        meaning: one plain sentence for pages.
        better: which way is better: for ``train.monitor``, and for a margin of non-inferiority. Of a plain function it
            is taken to be "higher".
        scale: "share" lies in [0, 1] with 1 the best, and is drawn on a scale; "number" is anything else.
        kinds: of the targets that it is computed for.

    Example:
        >>> brier = OwnFigure(lambda y, p, w: ((y - p) ** 2 @ w) / w.sum(), title="Brier score", better="lower")
    """

    function: FigureFunction
    title: str = ""
    meaning: str = ""
    better: Better = "higher"
    scale: Scale = "number"
    kinds: tuple[TargetKind, ...] = KINDS

    def spec(self, name: str) -> FigureSpec:
        """Describe it under its key."""
        title = self.title or name.replace("_", " ")
        return FigureSpec(
            name, title, self.meaning, self.better, self.scale, self.kinds, group="own", tested=self.kinds
        )


def unknown_spec(name: str) -> FigureSpec:
    """Return the description of a figure that no table holds: its own name, and no scale."""
    return FigureSpec(name, name.replace("_", " "), better="neither", scale="number")


def decimals(low: float, high: float, *, least: int = 3) -> int:
    """Decimals that the two ends of an interval need to read differently, 6 at most."""
    return next((k for k in range(least, 7) if f"{low:.{k}f}" != f"{high:.{k}f}"), 6)


def _short(value: float) -> str:
    return f"{value:.3g}" if 0.0 < abs(value) < _TINY else f"{value:.3f}"


class Interval(NamedTuple):
    """An interval of a figure by a stated method."""

    method: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One reported number with its interval.

    Attributes:
        value: the figure; NaN where it is undefined.
        low: lower end of the interval; NaN where undefined.
        high: upper end of the interval; NaN where undefined.
        n: number of labelled samples behind it.
        reason: why it is undefined, or a caveat about its interval; empty where there is nothing to say.
        method: of the interval: "percentile" or "bca" (bootstraps over patients), "wilson" …; empty where unstated.
        others: intervals by other methods: "delong_logit_t" and "delong" or, where patients have several images,
            "obuchowski_logit_t" and "obuchowski" for an AUROC; "wilson" and "clopper_pearson" for a proportion.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""
    method: str = ""
    others: tuple[Interval, ...] = ()

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"undefined ({self.reason})"
        if not self.low < self.high:
            return f"{_short(self.value)} (no interval)"
        if 0.0 < max(abs(self.value), abs(self.low), abs(self.high)) < _TINY:
            return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"
        digits = decimals(self.low, self.high)
        return f"{self.value:.3f} [{self.low:z.{digits}f}, {self.high:z.{digits}f}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined number becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        plain: dict[str, Any] = {key: None if np.isnan(x) else float(x) for key, x in numbers.items()}
        plain["n"] = self.n
        if self.method:
            plain["method"] = self.method
        if self.others:
            plain["intervals"] = {one.method: [float(one.low), float(one.high)] for one in self.others}
        return plain | ({"reason": self.reason} if self.reason else {})
