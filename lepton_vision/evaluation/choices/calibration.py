"""Fitting of probability calibration on validation data: temperature, Platt or isotonic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.choices.operating_point import refuse_test
from lepton_vision.evaluation.statistics.logistic import fit_lines
from lepton_vision.predictions.calibration import SMALLEST, Calibrator, Isotonic, Platt, logits
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target, TargetKind
from lepton_vision.types.kinds import kind_called

BOUNDS = (0.05, 20.0)
# A normal prior on log T around T = 1 with this deviation: it weighs less than a few samples, yet it keeps T finite
# where the classes are separated perfectly and any lower T would fit better.
PRIOR_DEVIATION = 1.0

_LOGGER = logging.getLogger(__name__)
_LACKING = "validation has no samples of both classes for them, so they stay as the network gives them."


def fit_temperatures(predictions: Predictions) -> dict[str, float]:
    """Fit one temperature per target by maximum likelihood with a weak prior; the ranking of samples is unchanged.

    Guo et al., ICML 2017. A multilabel target has one temperature for all its classes. A yes-or-no class without
    positive or without negative samples takes no part, since any certainty would fit it; where no class of a target
    takes part, T is 1 and a warning says so. Give predictions of a bundle without temperatures: what comes out is
    relative to the probabilities that go in.

    Args:
        predictions: of the validation split, or of an unknown split.

    Returns:
        By target name, without numbers, T in ``BOUNDS``: probability = sigmoid(logit / T), or softmax(logits / T).

    Raises:
        EvaluationError: predictions of the test split, or no labelled sample of any target.
    """
    refuse_test(predictions, what="A temperature")
    targets = [target for target in predictions.targets if not target.is_value]
    if targets and not any(predictions.labelled(target).any() for target in targets):
        raise EvaluationError(
            f"A temperature for {targets[0].name!r} needs labelled samples. Received: none. Turn calibration off "
            "(evaluation.calibrate=false), or give labels.",
            key=targets[0].name,
        )
    return {target.name: _fit(predictions, target) for target in targets}


def fit_calibrators(
    predictions: Predictions, *, method: Literal["platt", "isotonic"] = "platt"
) -> dict[str, Calibrator]:
    """Fit one map for each output of each target: a class of a multiclass target against the rest.

    Platt's labels are softened as he does, (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so that separated classes have a
    finite line (Platt 1999; Lin, Lin and Weng, Mach Learn 68:267, 2007); a line that would fall becomes level. The
    isotonic line is scikit-learn's, its ends kept n + 2 samples away from certainty: [1 / (n + 2), 1 - 1 / (n + 2)].

    A class without positive or without negative samples keeps its probabilities, and a warning says so. Give
    predictions of a bundle without calibration: what comes out is relative to the probabilities that go in.

    Args:
        predictions: of the validation split, or of an unknown split.
        method: "platt", or "isotonic", which needs more samples.

    Returns:
        By target name, without numbers, see ``calibration.apply_calibrator``.

    Raises:
        EvaluationError: predictions of the test split, an unknown method, or no class with positive and negative
            samples.

    Example:
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 1, 0, 1])}, {"covid": np.array([0.5, 0.5, 0.5, 0.5])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob, split="val")
        >>> fit_calibrators(predictions, method="isotonic")["covid"].maps
        (Isotonic(before=(0.5,), after=(0.5,)),)
    """
    refuse_test(predictions, what="A calibration")
    if method not in ("platt", "isotonic"):
        raise EvaluationError(f"Expected the method platt or isotonic. Received: {method!r}.", key="calibration")
    targets = [target for target in predictions.targets if not target.is_value]
    samples = {target.name: list(_binary_samples(predictions, target)) for target in targets}
    missing = [one for asked in samples.values() for one in asked if not one.has_both]
    if samples and len(missing) == sum(map(len, samples.values())):
        raise missing[0].problem()
    for one in missing:
        _LOGGER.warning("The probabilities of %r are not calibrated: %s", one.name, _LACKING)
    return {name: Calibrator(method, tuple(one.fit(method) for one in asked)) for name, asked in samples.items()}


@dataclass(frozen=True, eq=False)
class _BinarySamples:
    """Labelled samples of one class, 0 and 1, with their probabilities."""

    name: str
    truth: FloatArray
    prob: FloatArray

    @property
    def has_both(self) -> bool:
        return bool(0 < self.truth.sum() < self.truth.size)

    def problem(self) -> EvaluationError:
        positives = int(self.truth.sum())
        return EvaluationError(
            f"A calibration of {self.name!r} needs labelled samples of both classes. Received: {positives} positive "
            f"and {self.truth.size - positives} negative. Use evaluation.calibration=temperature, or more validation "
            "samples.",
            key=self.name,
        )

    def fit(self, method: Literal["platt", "isotonic"]) -> Platt | Isotonic:
        """Fit the map; one that changes nothing where a class is missing."""
        if method == "platt":
            return _platt(self.truth, self.prob) if self.has_both else Platt(1.0, 0.0)
        return _isotonic(self.truth, self.prob) if self.has_both else Isotonic((0.0, 1.0), (0.0, 1.0))


def _binary_samples(predictions: Predictions, target: Target) -> Iterator[_BinarySamples]:
    truth, prob = predictions.y_true[target.name], predictions.y_prob[target.name].reshape(-1, target.outputs)
    if target.is_exclusive:
        truth = np.where(np.isnan(truth)[:, None], np.nan, truth[:, None] == np.arange(target.outputs))
    names = (target.name,) if target.is_single else tuple(f"{target.name}/{c}" for c in target.classes)
    for name, labels, values in zip(names, truth.reshape(prob.shape).T, prob.T, strict=True):
        known = ~np.isnan(labels)
        yield _BinarySamples(name, labels[known], values[known])


def _platt(truth: FloatArray, prob: FloatArray) -> Platt:
    positives, negatives = float(truth.sum()), float((1 - truth).sum())
    soft = np.where(truth > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))[None]
    (intercept,), (slope,) = fit_lines(logits(prob), np.ones_like(soft), soft)
    if np.isnan(slope) or slope < 0:
        return Platt(0.0, float(logit(soft.mean())))
    return Platt(float(slope), float(intercept))


def _isotonic(truth: FloatArray, prob: FloatArray) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression  # scoring loads this package without it

    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(prob, truth)
    margin = 1.0 / (truth.size + 2)
    after = np.clip(line.y_thresholds_, margin, 1.0 - margin)
    return Isotonic(tuple(line.X_thresholds_.tolist()), tuple(after.tolist()))


def apply_temperature(prob: FloatArray, temperature: float, *, kind: TargetKind) -> FloatArray:
    """Rescale probabilities as the engine rescales logits.

    Args:
        prob: float64 in [0, 1]: any shape for binary and multilabel, (N, K) for multiclass.
        temperature: above 0; larger than 1 makes the model less sure.
        kind: what the probabilities are of.

    Returns:
        Probabilities of the same shape; 0 and 1 stay.

    Example:
        >>> float(apply_temperature(np.array([0.5]), 3.0, kind="binary")[0])
        0.5
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise EvaluationError(f"A temperature must be above 0 and finite. Received: {temperature}.", key="temperature")
    values = np.asarray(prob, dtype=np.float64)
    with np.errstate(divide="ignore"):
        if kind_called(kind).is_exclusive:
            return np.asarray(softmax(np.log(values) / temperature, axis=1))
        return np.asarray(expit(logit(values) / temperature))


def _fit(predictions: Predictions, target: Target) -> float:
    nats = _negative_log_likelihood(predictions, target)
    if nats is None:
        _LOGGER.warning("The probabilities of %r are not calibrated: %s", target.name, _LACKING)
        return 1.0

    def objective(log_t: float) -> float:
        return nats(float(np.exp(log_t))) + 0.5 * (log_t / PRIOR_DEVIATION) ** 2

    # The likelihood is convex in 1 / T, the sum with the prior need not be in log T: a grid first, then the best cell.
    grid = np.linspace(np.log(BOUNDS[0]), np.log(BOUNDS[1]), 49)
    best = int(np.argmin([objective(float(log_t)) for log_t in grid]))
    cell = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    found = minimize_scalar(objective, bounds=cell, method="bounded", options={"xatol": 1e-6})
    return float(np.clip(np.exp(found.x), *BOUNDS))


def _negative_log_likelihood(predictions: Predictions, target: Target) -> Callable[[float], float] | None:
    """Return the sum over labelled samples as a function of T; None where no sample takes part."""
    truth, prob = predictions.y_true[target.name], predictions.y_prob[target.name]
    if target.is_exclusive:
        known = ~np.isnan(truth)
        logits, label = np.log(prob[known].clip(SMALLEST, 1.0)), truth[known].astype(np.intp)
        rows = np.arange(label.size)
        return (lambda t: -float(log_softmax(logits / t, axis=1)[rows, label].sum())) if label.size else None
    truth, prob = (values.reshape(predictions.n, target.outputs) for values in (truth, prob))
    has_both = (truth == 1).any(axis=0) & (truth == 0).any(axis=0)
    known = ~np.isnan(truth) & has_both
    # of the truth: log p = log sigmoid(±logit / T)
    signed = logit(prob[known].clip(SMALLEST, 1.0 - SMALLEST)) * np.where(truth[known] > 0, 1.0, -1.0)
    return (lambda t: -float(log_expit(signed / t).sum())) if signed.size else None
