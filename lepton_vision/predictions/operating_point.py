"""Operating point: the threshold that turns a probability into a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lepton_vision.types.result import Plain


@dataclass(frozen=True, slots=True)
class PointFigures(Plain):
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
class OperatingPoint(Plain):
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
