"""Selection of decision thresholds on validation data, never on test data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.statistics.ranking import BoolArray, ratio
from lepton_vision.predictions.operating_point import OperatingPoint, PointFigures
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target

_LOGGER = logging.getLogger(__name__)
CriterionKind = Literal["sensitivity", "specificity", "youden", "cost", "ppv"]
_DEFAULTS: dict[str, float] = {"sensitivity": 0.95, "specificity": 0.95, "ppv": 0.5, "cost": 1.0}


@dataclass(frozen=True, slots=True)
class Criterion:
    """Criterion for the choice of an operating point.

    Attributes:
        kind: "sensitivity": the highest threshold that still finds ``value`` of the positives. "specificity": the
            lowest that still clears ``value`` of the negatives. "ppv": the lowest at which ``value`` of the calls are
            right. "youden": the largest sensitivity + specificity - 1 (Youden, Cancer 3:32, 1950). "cost": the
            smallest expected cost, a missed positive costing ``value`` times a false alarm (Metz, Semin Nucl Med
            8:283, 1978). Of equal ones the lower threshold is taken: the higher sensitivity.
        value: of a "sensitivity", "specificity" or "ppv" in (0, 1], of a "cost" above 0; None is 0.95, 0.95, 0.5, 1.
        prevalence: for "ppv" and "cost", share of positives where the model will be used; None is that of validation.

    Raises:
        EvaluationError: an unknown kind, a value or prevalence out of its range or without a meaning for the kind.

    Example:
        >>> str(Criterion("cost", 10, prevalence=0.02))
        'least cost, a miss costs 10 false alarms, prevalence 0.02'
    """

    kind: CriterionKind = "sensitivity"
    value: float | None = None
    prevalence: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("youden", *_DEFAULTS):
            raise EvaluationError(
                f"Expected sensitivity, specificity, youden, cost or ppv. Received: {self.kind!r}.", key="criterion"
            )
        if self.value is None and self.kind != "youden":
            object.__setattr__(self, "value", _DEFAULTS[self.kind])
        highest = np.inf if self.kind == "cost" else 1.0
        if self.value is not None and (self.kind == "youden" or not 0.0 < self.value <= highest):
            expected = {"cost": "cost ratio above 0", "youden": "criterion without a value"}
            wanted = expected.get(self.kind, f"{self.kind} above 0 and at most 1")
            raise EvaluationError(
                f"Expected a {wanted}. Received: {self.value:g}.",
                key=self.kind if self.kind in ("cost", "youden") else f"min_{self.kind}",
            )
        if self.prevalence is not None and (self.kind not in ("ppv", "cost") or not 0.0 < self.prevalence < 1.0):
            raise EvaluationError(
                "A prevalence lies above 0 and below 1, and belongs to the criteria ppv and cost. Received: "
                f"{self.prevalence:g} with {self.kind}.",
                key="prevalence",
            )

    @classmethod
    def of(cls, settings: EvaluationConfig) -> Criterion:
        """The criterion that a configuration names, with the value that belongs to it."""
        values = {
            "sensitivity": settings.min_sensitivity,
            "specificity": settings.min_specificity,
            "ppv": settings.min_ppv,
            "cost": settings.cost_ratio,
        }
        prevalence = settings.prevalence if settings.criterion in ("ppv", "cost") else None
        return cls(settings.criterion, values.get(settings.criterion), prevalence)

    def __str__(self) -> str:
        value = 0.0 if self.value is None else self.value
        words = {
            "youden": "largest sensitivity + specificity - 1 (Youden)",
            "cost": f"least cost, a miss costs {value:g} false alarms",
            "ppv": f"PPV >= {value:g}",
        }
        at = "" if self.prevalence is None else f", prevalence {self.prevalence:g}"
        return words.get(self.kind, f"{self.kind} >= {value:g}") + at


def choose_operating_point(
    predictions: Predictions, *, min_sensitivity: float | None = None, criterion: Criterion | None = None
) -> OperatingPoint:
    """Choose for each class the threshold that fulfils a criterion; without one, a sensitivity of at least 0.95.

    It is placed halfway between the lowest score that must be called positive and the next lower score (0 where there
    is none): the decisions on these samples are those of the highest such threshold, and a score that rounds
    differently on another device does not cross it. Where many scores are equal the sensitivity reached can be well
    above the one asked for. A multiclass target needs no threshold: its largest probability wins.

    Args:
        predictions: of the validation split, or of an unknown split (another tool's table).
        min_sensitivity: above 0, at most 1: short for ``Criterion("sensitivity", min_sensitivity)``.
        criterion: any other wish; excludes ``min_sensitivity``.

    Returns:
        The thresholds with what they give on these samples (``OperatingPoint.figures``).

    Raises:
        EvaluationError: predictions of the test split, a criterion that is out of its range, or not one decision: no
            threshold can be chosen, and no target has exclusive classes.

    Example:
        >>> from lepton_vision.types import Target
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 0, 1, 1])}, {"covid": np.array([0.1, 0.25, 0.75, 0.8])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob, split="val")
        >>> choose_operating_point(predictions).thresholds
        {'covid': (0.5,)}
        >>> choose_operating_point(predictions, criterion=Criterion("youden")).figures["covid"][0].specificity
        1.0
    """
    refuse_test(predictions, what="An operating point")
    if min_sensitivity is not None and criterion is not None:
        raise EvaluationError("Give min_sensitivity or criterion, not both.", key="criterion")
    chosen = Criterion("sensitivity", min_sensitivity) if criterion is None else criterion
    if not isinstance(chosen, Criterion):
        raise EvaluationError(f"Expected Criterion({chosen!r}, …). Received: {chosen!r}.", key="criterion")
    found = {target.name: _choose(predictions, target, criterion=chosen) for target in predictions.targets}
    choices = [one for several in found.values() for one in several]
    problems = [one.problem for one in choices if one.problem is not None]
    if problems and len(problems) == len(choices) and all(target.is_yes_no for target in predictions.targets):
        raise problems[0]
    for problem in problems:
        _LOGGER.warning("%s Scores hold its probability without a decision.", problem)
    is_used = np.any([predictions.labelled(target) for target in predictions.targets], axis=0)
    return OperatingPoint(
        {name: tuple(one.threshold for one in several) for name, several in found.items()},
        str(chosen),
        predictions.split,
        int(is_used.sum()),
        {name: tuple(one.figures for one in several) for name, several in found.items() if several},
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Threshold of one class and what it gives; both NaN where there is a problem."""

    threshold: float
    figures: PointFigures
    problem: EvaluationError | None = None


def _choose(predictions: Predictions, target: Target, *, criterion: Criterion) -> list[_Choice]:
    """One for each class; none for exclusive ones."""
    if not target.is_yes_no:
        return []
    truths = predictions.y_true[target.name].reshape(predictions.n, target.outputs).T
    probs = predictions.y_prob[target.name].reshape(predictions.n, target.outputs).T
    names = (target.name,) if target.is_single else tuple(f"{target.name}/{c}" for c in target.classes)
    found = []
    for name, truth, prob in zip(names, truths, probs, strict=True):
        try:
            found.append(_Choice(*_Candidates(truth, prob, name=name).best(criterion)))
        except EvaluationError as error:
            positives, nan = int((truth == 1).sum()), float("nan")
            nothing = PointFigures(nan, nan, nan, None, positives + int((truth == 0).sum()), positives)
            found.append(_Choice(nan, nothing, error))
    return found


def refuse_test(predictions: Predictions, *, what: str) -> None:
    """Raise EvaluationError where a choice would be made on the test split."""
    if predictions.split == "test":
        raise EvaluationError(
            f"{what} is chosen on validation, then frozen. Received: predictions of the test split. "
            'Predict manifest.subset("val") and choose there.',
            key="split",
        )


class _Candidates:
    """Every score as a threshold, in descending order, and what it gives."""

    def __init__(self, truth: FloatArray, prob: FloatArray, *, name: str) -> None:
        self.name = name
        is_positive, scores = truth[~np.isnan(truth)] == 1, prob[~np.isnan(truth)]
        self.positives, self.negatives = int(is_positive.sum()), int((~is_positive).sum())
        if not self.positives or not self.negatives:
            raise EvaluationError(
                f"An operating point for {name!r} needs labelled samples of both classes. Received: {self.positives} "
                f"positive and {self.negatives} negative. Use more validation samples, or state the threshold.",
                key=name,
            )
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        last = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
        self.score = ordered[last]
        self.hits = np.cumsum(is_positive[order])[last].astype(np.float64)
        self.alarms = last + 1.0 - self.hits
        self.sensitivity = self.hits / self.positives
        self.specificity = (self.negatives - self.alarms) / self.negatives

    def best(self, criterion: Criterion) -> tuple[float, PointFigures]:
        """Threshold and what it gives."""
        value = 0.0 if criterion.value is None else criterion.value
        rules: dict[str, Callable[[], int]] = {
            "sensitivity": lambda: int(np.argmax(self.sensitivity >= value)),
            "specificity": lambda: self._lowest(self.specificity, value, criterion),
            "ppv": lambda: self._lowest(self._ppv(criterion.prevalence), value, criterion),
            "youden": lambda: _last(self.sensitivity + self.specificity),
            "cost": lambda: self._cheapest(value, criterion),
        }
        chosen = rules[criterion.kind]()
        lowest = float(self.score[chosen])
        below = float(self.score[chosen + 1]) if chosen + 1 < self.score.size else 0.0
        halfway = (lowest + below) / 2
        return (halfway if halfway > below else lowest), self._figures(chosen)

    def _ppv(self, prevalence: float | None) -> FloatArray:
        """By Bayes' rule at a stated prevalence, or as counted."""
        if prevalence is None:
            return self.hits / (self.hits + self.alarms)
        true, false = prevalence * self.sensitivity, (1 - prevalence) * (1 - self.specificity)
        return ratio(true, true + false)

    def _lowest(self, reached: FloatArray, value: float, criterion: Criterion) -> int:
        fulfilling = np.flatnonzero(reached >= value)
        if not fulfilling.size:
            raise EvaluationError(
                f"No threshold of {self.name!r} fulfils {criterion} on validation. Highest that is reached: "
                f"{np.nanmax(reached):.3f}. Ask for less, or train a better model.",
                key="criterion",
            )
        return int(fulfilling[-1])

    def _cheapest(self, cost_ratio: float, criterion: Criterion) -> int:
        share = self.positives / (self.positives + self.negatives)
        share = share if criterion.prevalence is None else criterion.prevalence
        gain = cost_ratio * share * self.sensitivity - (1 - share) * (1 - self.specificity)
        if gain.max() < 0.0:
            raise EvaluationError(
                f"At {criterion} it is cheaper to call nobody positive than to use any threshold of {self.name!r}. "
                "Check cost ratio and prevalence.",
                key="criterion",
            )
        return _last(gain)

    def _figures(self, chosen: int) -> PointFigures:
        hits, alarms = int(self.hits[chosen]), int(self.alarms[chosen])
        missed, cleared = self.positives - hits, self.negatives - alarms
        return PointFigures(
            sensitivity=hits / self.positives,
            specificity=cleared / self.negatives,
            ppv=hits / (hits + alarms),
            npv=cleared / (cleared + missed) if cleared + missed else None,
            n=self.positives + self.negatives,
            positives=self.positives,
        )


def _last(values: FloatArray) -> int:
    """Position of the last of the largest values; sums that differ by rounding only are equal."""
    is_best: BoolArray = values >= values.max() - 1e-12
    return int(np.flatnonzero(is_best)[-1])
