"""Figures that the caller brings, resampled by patient beside those of the package."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.binary_views import binary_views
from lepton_vision.evaluation.classes.class_measures import MulticlassMeasures, MultilabelMeasures
from lepton_vision.evaluation.classes.figure_table import SPECS, parse_key
from lepton_vision.evaluation.classes.many_classes import ManyClassMeasures
from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.intervals import patient_units
from lepton_vision.evaluation.values.measures import ValueMeasures
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target
from lepton_vision.types.figure import KINDS, Better, FigureFunction, FigureSpec, OwnFigure, Scale

OwnFigures = Mapping[str, OwnFigure]
Brought = Mapping[str, FigureFunction | OwnFigure]
Ours = BinaryMeasures | MulticlassMeasures | ManyClassMeasures | MultilabelMeasures | ValueMeasures


def check_figures(figures: Brought | None, targets: Sequence[Target]) -> dict[str, OwnFigure]:
    """Return the caller's figures by name, a plain function as an ``OwnFigure``.

    Raises:
        EvaluationError: a name that is none, or that a figure of ours has; no function; an unknown direction, scale or
            kind; a figure of no target.
    """
    if figures is not None and not isinstance(figures, Mapping):
        raise EvaluationError(
            f"figures: expected functions by name, such as {{'f2': f}}. Received: {type(figures).__name__}.",
            key="figures",
        )
    found = {name: one if isinstance(one, OwnFigure) else OwnFigure(one) for name, one in (figures or {}).items()}
    for name, one in found.items():
        _check_name(name, targets)
        if not callable(one.function):
            raise _refused(name, "a function f(y_true, y_prob, sample_weight)", type(one.function).__name__)
        for said, known in ((one.better, Better), (one.scale, Scale), *((kind, KINDS) for kind in one.kinds)):
            allowed = known if isinstance(known, tuple) else get_args(known)
            if said not in allowed:
                raise _refused(name, f"one of {', '.join(allowed)}", repr(said))
        if not any(target.is_among(one.kinds) for target in targets):
            raise _refused(name, f"a target that is {' or '.join(one.kinds)}", _named(targets))
    return found


def _named(targets: Sequence[Target]) -> str:
    return ", ".join(f"{one.name} ({one.kind})" for one in targets) or "no target"


def _check_name(name: object, targets: Sequence[Target]) -> None:
    if not (isinstance(name, str) and name.isidentifier()):
        raise EvaluationError(
            f"The name of a figure is letters, digits and underscores. Received: {name!r}.", key="figures"
        )
    taken = name if name in SPECS else next((base for t in targets if (base := parse_key(name, t)[0]) != name), None)
    if taken is not None:
        raise EvaluationError(
            f"figures: {name!r} is the name of a figure of this package ({SPECS[taken].title}). Choose another, such "
            f"as 'own_{name}'.",
            key=name,
        )


def _refused(name: str, expected: str, received: str) -> EvaluationError:
    return EvaluationError(f"figures: {name!r} needs {expected}. Received: {received}.", key=name)


def own_facts(specs: Mapping[str, FigureSpec]) -> dict[str, Any]:
    """Describe them for JSON, under ``own_figures``; nothing where there are none."""
    fields = ("title", "meaning", "better", "scale")
    facts = {name: {key: getattr(spec, key) for key in fields} for name, spec in specs.items()}
    return {"own_figures": facts} if facts else {}


def specs_of(own: OwnFigures) -> dict[str, FigureSpec]:
    """Descriptions by name."""
    return {name: one.spec(name) for name, one in own.items()}


def take_figures(figures: Brought | None, *several: Predictions) -> dict[str, OwnFigure]:
    """Check the caller's figures and compute each once on the labelled samples, before anything that takes time.

    Raises:
        EvaluationError: see ``check_figures``; or one fails, gives no number, or gives NaN although the samples are of
            several classes.
    """
    own = check_figures(figures, several[0].targets)
    for predictions in several if own else ():
        for target in predictions.targets:
            _try(predictions.select(predictions.labelled(target)), target, own)
    return own


def _try(part: Predictions, target: Target, own: OwnFigures) -> None:
    is_varied = target.is_value and bool(part.n) and bool(np.ptp(part.y_true[target.name]) > 0)
    can_be_judged = is_varied or any(not one.missing() for one in binary_views(part, target))
    for name, value in own_values(part, target, own).items():
        if np.isnan(value) and can_be_judged:
            known = " (labels that are unknown are NaN there: leave them out)" if target.has_label_by_class else ""
            raise _refused(name, f"a number from all {part.n} labelled samples of {target.name!r}{known}", "NaN")


def own_values(part: Predictions, target: Target, own: OwnFigures) -> dict[str, float]:
    """Each of them on the labelled samples of a target of its kinds."""
    chosen = {name: one for name, one in own.items() if target.is_among(one.kinds)}
    if not chosen:
        return {}
    samples, weight = _Samples(part, target), np.ones((1, part.n))
    return {name: float(samples.values(name, one, weight)[0]) for name, one in chosen.items()}


class _Samples:
    """Labelled samples of one target as the caller's functions get them, see ``OwnFigure``."""

    def __init__(self, part: Predictions, target: Target) -> None:
        are_indices = not (target.has_label_by_class or target.is_value)
        truth = part.y_true[target.name].astype(np.int64 if are_indices else np.float64)
        prob = part.y_prob[target.name].astype(np.float64)
        truth.flags.writeable = prob.flags.writeable = False
        self._truth, self._prob = truth, prob

    def values(self, name: str, one: OwnFigure, weight: FloatArray) -> FloatArray:
        """(R,) figure for (R, N) weights; NaN without a sample."""
        if not len(self._truth):
            return np.full(len(weight), np.nan)
        weight.flags.writeable = False
        function = _by_position(one.function)
        return np.array([self._value(name, function, row) for row in weight])

    def _value(self, name: str, function: FigureFunction, weight: FloatArray) -> float:
        try:
            said: Any = function(self._truth, self._prob, weight)
        except Exception as error:
            raise EvaluationError(
                f"figures: {name!r} failed with {type(error).__name__}, which stands above, where {(weight > 0).sum()} "
                f"of {weight.size} samples have a weight. It must return a number, or NaN where it is undefined, and "
                "leave its arrays as they are.",
                key=name,
            ) from error
        value = _number(said)
        if value is None or np.isinf(value):
            received = type(said).__name__ if value is None else "infinity"
            raise _refused(name, "to return a finite number, or NaN where it is undefined", received)
        return value


def _number(said: Any) -> float | None:
    """What was returned as a number; None where it is none."""
    if isinstance(said, str | bytes):
        return None
    try:
        return None if np.ndim(said) else float(said)
    except (TypeError, ValueError):
        return None


def _by_position(function: FigureFunction) -> FigureFunction:
    """The function with its weights as third argument, whichever place ``sample_weight`` has in it."""
    try:
        weight = inspect.signature(function).parameters.get("sample_weight")
    except ValueError:  # of a builtin nothing is known
        return function
    if weight is None or weight.kind is inspect.Parameter.POSITIONAL_ONLY:
        return function
    return lambda truth, prob, counts: function(truth, prob, sample_weight=counts)


class WithOwn:
    """Figures of the package, and the caller's beside them, of the same samples under the same weightings.

    An own figure is taken for one that rests on all classes.
    """

    def __init__(self, ours: Ours, own: OwnFigures, *, part: Predictions, target: Target) -> None:
        self.units, self.n, self.averaged = ours.units, ours.n, ours.averaged
        self.means, self.at_edge = ours.means, ours.at_edge
        self.analytic, self.calibration = ours.analytic, ours.calibration
        self._ours, self._own, self._samples = ours, own, _Samples(part, target)
        self._unit = patient_units(part.patient_id)[0]
        self._base = "mae" if target.is_value else "auroc"

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        weight = counts[:, self._unit]
        own = {name: self._samples.values(name, one, weight) for name, one in self._own.items()}
        return self._ours.values(counts) | own

    def size(self, name: str) -> int:
        """Samples in the denominator; all of an own figure."""
        return self.n if name in self._own else self._ours.size(name)

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a proportion; of an own figure nobody knows whether it is one."""
        return None if name in self._own else self._ours.denominator_units(name)

    def fewest(self, name: str) -> int:
        """Patients in the smallest class, or denominator, that a figure rests on."""
        return self._ours.fewest(self._base if name in self._own else name)

    def caveat(self, name: str) -> str:
        """Return what must be said beside a figure."""
        return "" if name in self._own else self._ours.caveat(name)

    def no_interval(self, name: str) -> str:
        """Return why a figure has no bootstrap interval."""
        return "" if name in self._own else self._ours.no_interval(name)

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if name in self._own:
            return "no labelled sample" if not self.n else "the function that was given says NaN"
        return self._ours.reason(name)


ClassMeasures = Ours | WithOwn
"""Figures of one target of any kind."""
