"""Operating point: the threshold that turns a probability into a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class PointFigures:
    """What a threshold gave on the samples that it was chosen on; NaN for a class that has none.

    Attributes:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
        ppv: positive predictive value in [0, 1], at the prevalence of these samples.
        npv: negative predictive value, or None where every sample was called positive.
        n: labelled samples.
        positives: positive ones among them.
    """

    sensitivity: float
    specificity: float
    ppv: float
    npv: float | None
    n: int
    positives: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become decisions; chosen on validation and then frozen.

    Attributes:
        thresholds: by target name: (t,) for binary, K figures for multilabel, () for multiclass (largest probability
            wins). Positive means probability >= threshold. NaN (None in files): there is no decision on that class,
            as validation lacked samples to choose one on.
        criterion: how it was chosen, e.g. "sensitivity >= 0.95".
        chosen_on: split that it was chosen on; None for a threshold stated by hand.
        n: number of labelled samples it was chosen on (0 for one stated by hand).
        figures: by target name, what each threshold gave there; empty for one stated by hand or of an older bundle.
    """

    thresholds: Mapping[str, tuple[float, ...]]
    criterion: str
    chosen_on: str | None = None
    n: int = 0
    figures: Mapping[str, tuple[PointFigures, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        thresholds = {name: [_none_if_nan(one) for one in values] for name, values in self.thresholds.items()}
        plain = {"thresholds": thresholds, "criterion": self.criterion, "chosen_on": self.chosen_on, "n": self.n}
        figures = {
            name: [{key: _none_if_nan(value) for key, value in asdict(one).items()} for one in several]
            for name, several in self.figures.items()
        }
        return plain | {"figures": figures}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Rebuild what ``to_dict`` gave."""
        thresholds = {name: tuple(map(_nan_if_none, ts)) for name, ts in values["thresholds"].items()}
        given, shares = values.get("figures", {}), ("sensitivity", "specificity", "ppv")
        figures = {
            name: tuple(PointFigures(**{**one, **{key: _nan_if_none(one[key]) for key in shares}}) for one in several)
            for name, several in given.items()
        }
        return cls(thresholds, str(values["criterion"]), values.get("chosen_on"), int(values.get("n", 0)), figures)


def _none_if_nan(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else float(value)
