"""Temperature scaling: one number per target that makes probabilities mean what they say (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.operating_point import refuse_test
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import EXCLUSIVE, FloatArray, Target, TargetKind

BOUNDS = (0.05, 20.0)
# A normal prior on log T around T = 1 with this deviation: it weighs less than a few samples, yet it keeps T finite
# where the classes are separated perfectly and any lower T would fit better.
PRIOR_DEVIATION = 1.0
# float32 probabilities saturate; a logit beyond ±16 carries no information
_SMALLEST = 1e-7


def fit_temperatures(predictions: Predictions) -> dict[str, float]:
    """Fit one temperature per target by maximum likelihood with a weak prior; the ranking of samples is unchanged.

    A multilabel target has one temperature for all its classes. Give predictions of a bundle without temperatures:
    what comes out is relative to the probabilities that go in.

    Args:
        predictions: of the validation split, or of an unknown split.

    Returns:
        By target name, T in ``BOUNDS``: probability = sigmoid(logit / T), or softmax(logits / T).

    Raises:
        EvaluationError: predictions of the test split, or a target without a labelled sample.
    """
    refuse_test(predictions, what="A temperature")
    return {target.name: _fit(predictions, target) for target in predictions.targets}


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
        if kind in EXCLUSIVE:
            return np.asarray(softmax(np.log(values) / temperature, axis=1))
        return np.asarray(expit(logit(values) / temperature))


def _fit(predictions: Predictions, target: Target) -> float:
    nats = _negative_log_likelihood(predictions, target)

    def objective(log_t: float) -> float:
        return nats(float(np.exp(log_t))) + 0.5 * (log_t / PRIOR_DEVIATION) ** 2

    # The likelihood is convex in 1 / T, the sum with the prior need not be in log T: a grid first, then the best cell.
    grid = np.linspace(np.log(BOUNDS[0]), np.log(BOUNDS[1]), 49)
    best = int(np.argmin([objective(float(log_t)) for log_t in grid]))
    cell = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    found = minimize_scalar(objective, bounds=cell, method="bounded", options={"xatol": 1e-6})
    return float(np.clip(np.exp(found.x), *BOUNDS))


def _negative_log_likelihood(predictions: Predictions, target: Target) -> Callable[[float], float]:
    """Return the sum over labelled samples as a function of T."""
    truth, prob = predictions.y_true[target.name], predictions.y_prob[target.name]
    known = ~np.isnan(truth)
    if not known.any():
        raise EvaluationError(
            f"A temperature for {target.name!r} needs labelled samples. Received: none. Turn calibration off "
            "(evaluation.calibrate=false), or give labels.",
            key=target.name,
        )
    truth = truth[known]
    if target.is_exclusive:
        logits, label = np.log(prob[known].clip(_SMALLEST, 1.0)), truth.astype(np.intp)
        rows = np.arange(label.size)
        return lambda t: -float(log_softmax(logits / t, axis=1)[rows, label].sum())
    # of the truth: log p = log sigmoid(±logit / T)
    signed = logit(prob[known].clip(_SMALLEST, 1.0 - _SMALLEST)) * np.where(truth > 0, 1.0, -1.0)
    return lambda t: -float(log_expit(signed / t).sum())
