"""External validation: loss of performance at another site, and gain from recalibration there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.analyses import External, Recalibration, Shift
from lepton_vision.evaluation.classes.binary_views import BinaryView, shown_views
from lepton_vision.evaluation.classes.calibration_statistics import calibration_statistics
from lepton_vision.evaluation.classes.figures import figures_of, measures_of, same_means
from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.classes.own_figures import OwnFigures
from lepton_vision.evaluation.statistics.differences import difference_figure
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.evaluation.statistics.logistic import fit_lines
from lepton_vision.evaluation.statistics.ranking import ratio
from lepton_vision.predictions.calibration import logits, sigmoid
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target
from lepton_vision.types.id_key import SAME_KEY, are_two_keys

_LOGGER = logging.getLogger(__name__)
FOLDS = 5
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Site:
    """Data of another site than that of the training.

    Attributes:
        reference: predictions of the internal evaluation to compare with, or None.
    """

    reference: Predictions | None = None


def compare_external(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig | None = None,
    reference: Predictions | None = None,
    own: OwnFigures | None = None,
) -> External:
    """Compare a model at another site with its internal evaluation, at the same frozen operating point.

    The patients of the two sites are different ones: each difference has the interval that the two figures' own give
    (``differences.difference_figure``).

    Args:
        predictions: of the new site, with labels.
        operating_point: frozen in the bundle.
        config: replicates, confidence and seed (also of the folds).
        reference: predictions of the internal evaluation, or None to look at the calibration alone.
        own: figures that the caller brings, checked (``own_figures.check_figures``).

    Raises:
        EvaluationError: the reference has other targets, is of another bundle, or shares a sample with the site.

    Example:
        >>> site = compare_external(there, operating_point=point, reference=here)  # doctest: +SKIP
        >>> str(site.shifts["covid"]["auroc"].difference)  # doctest: +SKIP
        '-0.061 [-0.104, -0.019]'
    """
    settings = config or EvaluationConfig()
    bootstrap = Bootstrap.of(settings)
    shifts, told = {}, None
    if reference is not None:
        _check_reference(predictions, reference)
        told = f"{reference.split or 'unknown'} split, n = {reference.n}"
        for target in predictions.targets:
            thresholds = tuple(operating_point.thresholds.get(target.name, ()))
            parts = [one.select(one.labelled(target)) for one in (predictions, reference)]
            shifts[target.name] = _shifts(parts, target, thresholds=thresholds, settings=settings, own=own or {})
    recalibration = {
        target.name: tuple(_recalibration(one, bootstrap) for one in shown_views(predictions, target))
        for target in predictions.targets
    }
    return External(told, shifts, recalibration)


def _check_reference(predictions: Predictions, reference: Predictions) -> None:
    if reference.targets != predictions.targets:
        names = ", ".join(target.name for target in reference.targets)
        raise EvaluationError(f"The reference has other targets: {names}. Give the evaluation of the same bundle.")
    ids = (reference.bundle_id, predictions.bundle_id)
    if None not in ids and ids[0] != ids[1]:
        raise EvaluationError(
            f"The reference is of the bundle {ids[0]}, these predictions are of {ids[1]}. Give the evaluation of the "
            "same bundle.",
            key="reference",
        )
    if are_two_keys(reference.id_key, predictions.id_key):
        _LOGGER.warning(
            "The ids of the reference were made with another key than those of this manifest: nobody can tell whether "
            "images of it stand here too. Is this the internal study? %s, then scan again.",
            SAME_KEY,
        )
    name = predictions.targets[0].name
    _, here, there = np.intersect1d(reference.image_id, predictions.image_id, return_indices=True)
    # Two sites may both have an image "0001", but hardly with the same probability.
    is_equal = reference.y_prob[name][here] == predictions.y_prob[name][there]
    shared = int((is_equal if is_equal.ndim == 1 else is_equal.all(axis=1)).sum())
    if 2 * shared > min(predictions.n, reference.n):
        raise EvaluationError(
            f"{shared} samples stand in the reference and at the new site. Expected different ones. Is the manifest "
            "that of the internal study?",
            key="reference",
        )


def _shifts(
    parts: list[Predictions],
    target: Target,
    *,
    thresholds: tuple[float, ...],
    settings: EvaluationConfig,
    own: OwnFigures,
) -> dict[str, Shift]:
    """``parts``: labelled samples there, and here."""
    averaged = same_means([measures_of(part, target, thresholds=thresholds) for part in parts])
    external, internal = (
        figures_of(part, target, thresholds=thresholds, settings=settings, averaged=averaged, own=own) for part in parts
    )
    return {
        name: Shift(internal[name], figure, difference_figure(figure, internal[name]))
        for name, figure in external.items()
        if name in internal
    }


def _recalibration(view: BinaryView, bootstrap: Bootstrap) -> Recalibration:
    calibration = calibration_statistics(view, bootstrap).figures
    after = recalibrate(view, seed=bootstrap.seed)
    figures = {"in_the_large": calibration["intercept"], "slope": calibration["slope"]}
    return Recalibration(view.class_name, figures | bootstrap_figures(_Gains(view, after), bootstrap))


def recalibrate(view: BinaryView, *, seed: int = 0) -> FloatArray:
    """Recalibrate each patient's probabilities with a line that was fitted to those of other patients.

    logit p' = a + b logit p (Cox, Biometrika 45:562, 1958), five folds of patients, those with a positive sample spread
    evenly.

    Returns:
        (N,) float64 in [0, 1]; NaN everywhere where a line cannot be fitted.
    """
    rng, truth = np.random.default_rng(seed), view.is_positive.astype(np.float64)
    has_positive = np.bincount(view.unit, truth, view.units) > 0
    shuffled = rng.permutation(view.units)
    ordered = shuffled[np.argsort(has_positive[shuffled], kind="stable")]
    fold_of = np.empty(view.units, dtype=np.intp)
    fold_of[ordered] = np.arange(view.units) % FOLDS
    fold, x = fold_of[view.unit], logits(view.prob)
    after = np.full(view.n, np.nan)
    for k in range(FOLDS):
        others = fold != k
        a, b = fit_lines(x[others], np.ones((1, int(others.sum()))), truth[None, others])
        after[~others] = sigmoid(a + b * x[~others])
    return np.full(view.n, np.nan) if np.isnan(after).any() else after


class _Gains:
    """Observed and expected share, and Brier score and log loss before and after."""

    def __init__(self, view: BinaryView, after: FloatArray) -> None:
        self._view, self._after, self.n, self.units = view, after, view.n, view.units
        truth = view.is_positive.astype(np.float64)
        columns = [np.ones(self.n), truth, view.prob]
        for prob in (view.prob, after):
            chance = np.where(view.is_positive, prob, 1.0 - prob).clip(_EPS, 1.0 - _EPS)
            columns += [(prob - truth) ** 2, -np.log(chance)]
        self._sums = unit_sums(np.column_stack(columns), view.unit, units=view.units)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        n, *sums = (counts @ self._sums).T
        observed, expected, *losses = (ratio(one, n) for one in sums)
        figures = {"observed": observed, "expected": expected}
        for k, name in enumerate(("brier", "log_loss")):
            before, after = losses[k], losses[k + 2]
            figures |= {f"{name}_before": before, f"{name}_after": after, f"{name}_gain": before - after}
        return figures

    def size(self, _name: str) -> int:
        """All labelled samples."""
        return self.n

    def denominator_units(self, name: str) -> int | None:
        """Patients behind the observed share."""
        return self.units if name == "observed" else None

    def reason(self, _name: str) -> str:
        """Why a figure is undefined."""
        return self._view.missing() or "no line can be fitted to the other patients of each fold"
