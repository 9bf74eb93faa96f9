"""Fit, on validation, what makes probabilities mean what they say: temperature, Platt's line or an isotonic one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from lepton_vision.calibrators import SMALLEST, Calibrator, Isotonic, Platt, logits
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.logistic import fit_lines
from lepton_vision.evaluation.operating_point import refuse_test
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import EXCLUSIVE, FloatArray, Target, TargetKind

BOUNDS = (0.05, 20.0)
# A normal prior on log T around T = 1 with this deviation: it weighs less than a few samples, yet it keeps T finite
# where the classes are separated perfectly and any lower T would fit better.
PRIOR_DEVIATION = 1.0


def fit_temperatures(predictions: Predictions) -> dict[str, float]:
    """Fit one temperature per target by maximum likelihood with a weak prior; the ranking of samples is unchanged.

    Guo et al., ICML 2017. A multilabel target has one temperature for all its classes. Give predictions of a bundle
    without temperatures: what comes out is relative to the probabilities that go in.

    Args:
        predictions: of the validation split, or of an unknown split.

    Returns:
        By target name, T in ``BOUNDS``: probability = sigmoid(logit / T), or softmax(logits / T).

    Raises:
        EvaluationError: predictions of the test split, or a target without a labelled sample.
    """
    refuse_test(predictions, what="A temperature")
    return {target.name: _fit(predictions, target) for target in predictions.targets}


def fit_calibrators(
    predictions: Predictions, *, method: Literal["platt", "isotonic"] = "platt"
) -> dict[str, Calibrator]:
    """Fit one map for each output of each target: a class of a multiclass target against the rest.

    Platt's labels are softened as he does, (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so that separated classes have a
    finite line (Platt 1999; Lin, Lin and Weng, Mach Learn 68:267, 2007); a line that would fall becomes level. The
    isotonic line is scikit-learn's, its ends kept n + 2 samples away from certainty: [1 / (n + 2), 1 - 1 / (n + 2)].

    Give predictions of a bundle without calibration: what comes out is relative to the probabilities that go in.

    Args:
        predictions: of the validation split, or of an unknown split.
        method: "platt", or "isotonic", which needs more samples.

    Returns:
        By target name, see ``calibrators.apply_calibrator``.

    Raises:
        EvaluationError: predictions of the test split, an unknown method, or a class without positive or without
            negative samples.

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
    fit = _platt if method == "platt" else _isotonic
    found = {}
    for target in predictions.targets:
        prob = predictions.y_prob[target.name].reshape(predictions.n, target.outputs)
        truth = predictions.y_true[target.name]
        if target.is_exclusive:
            truth = np.where(np.isnan(truth)[:, None], np.nan, truth[:, None] == np.arange(target.outputs))
        truth = truth.reshape(predictions.n, target.outputs)
        names = (target.name,) if target.kind == "binary" else tuple(f"{target.name}/{c}" for c in target.classes)
        maps = [fit(*_known(truth[:, k], prob[:, k], name=name)) for k, name in enumerate(names)]
        found[target.name] = Calibrator(method, tuple(maps))
    return found


def _known(truth: FloatArray, prob: FloatArray, *, name: str) -> tuple[FloatArray, FloatArray]:
    known = ~np.isnan(truth)
    positives = int((truth == 1).sum())
    if not 0 < positives < known.sum():
        raise EvaluationError(
            f"A calibration of {name!r} needs labelled samples of both classes. Received: {positives} positive and "
            f"{int(known.sum()) - positives} negative. Use evaluation.calibration=temperature, or more validation "
            "samples.",
            key=name,
        )
    return truth[known], prob[known]


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
        logits, label = np.log(prob[known].clip(SMALLEST, 1.0)), truth.astype(np.intp)
        rows = np.arange(label.size)
        return lambda t: -float(log_softmax(logits / t, axis=1)[rows, label].sum())
    # of the truth: log p = log sigmoid(±logit / T)
    signed = logit(prob[known].clip(SMALLEST, 1.0 - SMALLEST)) * np.where(truth > 0, 1.0, -1.0)
    return lambda t: -float(log_expit(signed / t).sum())
