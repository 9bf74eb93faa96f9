"""Figure: a value with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


def decimals(low: float, high: float, *, least: int = 3) -> int:
    """Decimals that the two ends of an interval need to read differently, 6 at most."""
    return next((k for k in range(least, 7) if f"{low:.{k}f}" != f"{high:.{k}f}"), 6)


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
            return f"{self.value:.3f} (no interval)"
        digits = decimals(self.low, self.high)
        return f"{self.value:.3f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

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
