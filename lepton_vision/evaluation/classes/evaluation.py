"""Evaluation of a classifier: figures with intervals at a stated operating point, curves, worst cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import EvaluationConfig, PreprocessConfig
from lepton_vision.evaluation.classes.analyses import Analyses
from lepton_vision.evaluation.classes.cases import WorstCase, unsure_cases, worst_cases
from lepton_vision.evaluation.classes.curves import ClassCurves, class_curves
from lepton_vision.evaluation.classes.many_classes import SHOWN, are_many
from lepton_vision.evaluation.classes.own_figures import Brought, own_facts, specs_of, take_figures
from lepton_vision.evaluation.classes.units import Aggregation, aggregate, count_unknown, join_values, joined_by
from lepton_vision.evaluation.statistics.bands import curve_bands
from lepton_vision.evaluation.statistics.expected import Expected, expected_at
from lepton_vision.evaluation.statistics.intervals import Bootstrap, patient_units
from lepton_vision.evaluation.values.points import ValuePoints, value_points
from lepton_vision.predictions.answer_sets import Rule
from lepton_vision.predictions.ledger import names_of
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Result, Table, Target, figures_table
from lepton_vision.types.figure import FigureSpec
from lepton_vision.types.target import are_called

if TYPE_CHECKING:
    from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.classes.analysis import analyze
from lepton_vision.evaluation.classes.figures import figures_of, thresholds_of

CountArray = npt.NDArray[np.int64]
Found = TypeVar("Found")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation(Result):
    """Result of ``evaluate``. Every figure holds at ``operating_point`` and on ``split``.

    Attributes:
        targets: what was predicted.
        operating_point: where probabilities became decisions.
        split: "train", "val", "test", or None where it is not known.
        n: cases with a label for at least one target: images, or units of ``provenance["unit"]``.
        n_patients: patients among them; an unknown patient id counts as a patient of its own.
        n_unlabelled: by target name, samples left out because the label is unknown.
        n_failed: samples that could not be read, and are in no figure.
        figures: by target name and figure name. Binary: ``figure_table.BINARY``, those at a stated prevalence where
            the configuration states one. Multilabel: the same as means over the classes, ``<figure>_micro`` and
            ``<figure>_weighted`` (``class_measures.AVERAGED``), and ``<figure>_<class>``. Multiclass: auroc and
            average_precision (one class against the rest, mean), accuracy, balanced_accuracy, mcc, log_loss, brier,
            f1_macro …, ``_micro``, ``_weighted`` and ``auroc_<class>`` …. Ordinal: kappa_quadratic and class_error
            beside these. Regression: mae, rmse, bias, limit_low and limit_high (of agreement), in the unit of the
            target, r2, pearson, spearman and concordance (Lin's). A figure carries its bootstrap interval, and others
            in ``Figure.others``: DeLong's (or Obuchowski's) of an AUROC, see ``AurocCovariance.intervals``, Wilson's
            and Clopper–Pearson's of proportions.
        curves: by target name, one ClassCurves for the positive class of a binary target, none for a number, K
            otherwise.
        confusion: by target name, counts, rows truth, columns decision: (2, 2) for binary, (K, K) for multiclass
            and ordinal, (K, 2, 2) for multilabel, (0, 0) for a number; all 0 for a class without an operating point.
        worst: by target name, decisions that were wrong, the most wrong first; of a number the largest errors.
        unsure: by target name, decisions nearest to the threshold, right or wrong, the nearest first.
        confidence: of the intervals, e.g. 0.95.
        preprocess: how the pixels were prepared, or None.
        provenance: plain facts: bundle id, method and number of the replicates, seed, unit of analysis, what further
            figures hold at, and under ``unknown_patient`` how many cases name no patient, where there are some.
        analyses: calibration, net benefit, prediction sets, abstention, subgroups, comparison with another site.
        own_figures: by name, descriptions of the figures that the caller brought.
        points: by name of a target that is a number, true and predicted values; they are in no JSON.
    """

    targets: tuple[Target, ...]
    operating_point: OperatingPoint
    split: str | None
    n: int
    n_patients: int
    n_unlabelled: Mapping[str, int]
    n_failed: int
    figures: Mapping[str, Mapping[str, Figure]]
    curves: Mapping[str, tuple[ClassCurves, ...]]
    confusion: Mapping[str, CountArray]
    worst: Mapping[str, tuple[WorstCase, ...]]
    unsure: Mapping[str, tuple[WorstCase, ...]] = field(default_factory=dict)
    confidence: float = 0.95
    preprocess: PreprocessConfig | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    analyses: Analyses = field(default_factory=Analyses)
    own_figures: Mapping[str, FigureSpec] = field(default_factory=dict)
    points: Mapping[str, ValuePoints] = field(default_factory=dict)

    def expected(self, target: Target) -> tuple[Expected, ...]:
        """Expected figures of the operating point on as many cases as these, from validation."""
        if not target.is_yes_no or self.split == self.operating_point.chosen_on:
            return ()
        counts = self.confusion[target.name].reshape(-1, 2, 2).sum(axis=2).tolist()
        new = {
            name: (positives, negatives) for name, (negatives, positives) in zip(target.answers, counts, strict=True)
        }
        return expected_at(self.operating_point, target, new=new, confidence=self.confidence)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: undefined numbers are None, and no path of a file is in it."""
        targets = {
            target.name: {
                "kind": target.kind,
                "classes": list(target.classes),
                **({"unit": target.unit} if target.unit else {}),
                "n_unlabelled": self.n_unlabelled[target.name],
                "figures": {name: figure.to_dict() for name, figure in self.figures[target.name].items()},
                "confusion": self.confusion[target.name].tolist(),
                "curves": [curves.to_dict() for curves in self.curves[target.name]],
                "worst": [case.to_dict() for case in self.worst[target.name]],
                "unsure": [case.to_dict() for case in self.unsure.get(target.name, ())],
                "expected": [one._asdict() for one in self.expected(target)],
            }
            for target in self.targets
        }
        return {
            **self._plain("split", "n", "n_patients", "n_failed", "confidence", "operating_point"),
            "targets": targets,
            "preprocess": None if self.preprocess is None else self.preprocess.model_dump(mode="json"),
            "provenance": dict(self.provenance),
            "analyses": self.analyses.to_dict(),
            **own_facts(self.own_figures),
        }

    def _tables(self) -> Iterator[Table]:
        cases = {"study": "studies", "series": "series"}.get(unit := self.provenance.get("unit", "image"), f"{unit}s")
        is_decided = not all(target.is_value for target in self.targets)
        point = f" · operating point {self.operating_point.criterion}" if is_decided else ""
        yield Table(
            f"Evaluation · split {self.split or 'unknown'} · {self.n} {cases} of {self.n_patients} patients{point}"
            f" · {self.confidence:.0%} intervals"
        )
        for target in self.targets:
            unit = f", {target.unit}" if target.unit else ""
            yield figures_table(f"{target.name} ({target.kind}{unit})", self.figures[target.name])


def evaluate(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig | None = None,
    aggregation: Aggregation | None = None,
    set_rules: Mapping[str, tuple[Rule, ...]] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    site: Site | None = None,
    figures: Brought | None = None,
    notes_look: bool = False,
) -> Evaluation:
    """Compute every figure with its interval, the curves and the worst cases.

    Samples whose label is unknown are left out and counted. Intervals come from a bootstrap that resamples patients
    (see ``intervals.bootstrap_figures``). A figure that is undefined is NaN and carries the reason. Where
    ``config.unit`` is not "image", images are joined first (``units.aggregate``), and the operating point is one of
    such units. Nothing is written, unless a look at a test split is to be noted.

    Args:
        predictions: of one split.
        operating_point: chosen on validation (``choose_operating_point``) or stated; thresholds for every binary and
            multilabel target. Positive means probability >= threshold; NaN is no decision.
        config: replicates, confidence, seed, method of the intervals, unit of analysis, what figures hold at.
        aggregation: fitted on validation (``units.fit_aggregation``), where ``config.aggregation`` is "learnt".
        set_rules: of the bundle, fitted on validation; without them there are no sets of answers.
        columns: by column name, N values; figures are given by subgroup too (``subgroups.evaluate_subgroups``).
        site: where the predictions are of another site than the training (``external.compare_external``).
        figures: own figures by name, ``{"f2": f}`` with ``f(y_true, y_prob, sample_weight) -> float`` or an
            ``OwnFigure``, which describes the arrays and can state title, direction, scale and kinds of targets. Each
            has its interval over patients, in subgroups and at another site too, where its gaps are tested.
        notes_look: of the test split of a bundle that belongs to a run, note the look in the ledger of the run
            (``ledger.jsonl``); ``provenance["test_looks"]`` then says how many there were.

    Raises:
        EvaluationError: the operating point lacks a target, or has another number of thresholds than the target; an own
            figure has the name of one of ours, fails, or gives no number.

    Example:
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 0, 1, 1])}, {"covid": np.array([0.1, 0.6, 0.4, 0.8])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob)
        >>> result = evaluate(predictions, operating_point=OperatingPoint({"covid": (0.5,)}, "stated"))
        >>> result.figures["covid"]["auroc"].value
        0.75
    """
    settings, whole = config or EvaluationConfig(), predictions
    if settings.unit != "image":
        site = _site_of_units(site, settings, aggregation=aggregation)
        columns = {name: join_values(one, predictions, unit=settings.unit) for name, one in (columns or {}).items()}
        predictions = aggregate(predictions, unit=settings.unit, method=settings.aggregation, learnt=aggregation)
    targets = predictions.targets
    known = {target.name: predictions.labelled(target) for target in targets}
    is_known = np.any(list(known.values()), axis=0)
    parts = [_Part(predictions.select(known[t.name]), t, thresholds_of(operating_point, t)) for t in targets]
    own = take_figures(figures, predictions)
    found = Evaluation(
        targets=targets,
        operating_point=operating_point,
        split=predictions.split,
        n=int(is_known.sum()),
        n_patients=patient_units(predictions.patient_id[is_known])[1],
        n_unlabelled={name: int((~rows).sum()) for name, rows in known.items()},
        n_failed=len(predictions.failures),
        figures=_by_target(parts, partial(figures_of, settings=settings, own=own)),
        curves=_by_target(parts, partial(_curves, settings=settings)),
        confusion=_by_target(parts, _confusion),
        worst=_by_target(parts, worst_cases),
        unsure=_by_target(parts, unsure_cases),
        confidence=settings.confidence,
        preprocess=predictions.preprocess,
        provenance=_provenance(predictions.select(is_known), settings),
        analyses=analyze(
            predictions,
            operating_point=operating_point,
            config=settings,
            set_rules=set_rules if settings.unit == "image" else None,  # they promise a coverage of images
            columns=columns,
            site=site,
            own=own,
        ),
        own_figures=specs_of(own),
        points={t.name: value_points(predictions, t) for t in targets if t.is_value},
    )
    _warn_of_means(found)
    return _noted(found, whole, is_external=site is not None) if notes_look else found


def _warn_of_means(found: Evaluation) -> None:
    """Say once for each target which classes are in no mean of some figure."""
    for target, name in ((one, "balanced_accuracy") for one in found.targets if not one.is_single):
        reason = found.figures[target.name][name].reason
        if reason.startswith("mean of "):
            _LOGGER.warning(
                "Target %r, means over its classes such as %s: %s.", target.name, name, reason.split(";")[0]
            )


def _noted(found: Evaluation, predictions: Predictions, *, is_external: bool) -> Evaluation:
    """The evaluation with the look that it is, where that is one at a test split."""
    ledger, model = predictions.test_ledger, found.provenance["bundle_id"]
    if ledger is None:
        return found
    looks = ledger.record(model, names_of(found.figures), cases=predictions.cases, is_external=is_external)
    return replace(found, provenance={**found.provenance, **looks})


@dataclass(frozen=True, eq=False)
class _Part:
    """The labelled samples of one target, and where their probabilities become decisions."""

    samples: Predictions
    target: Target
    thresholds: tuple[float, ...]


def _by_target(parts: Sequence[_Part], make: Callable[..., Found]) -> dict[str, Found]:
    return {one.target.name: make(one.samples, one.target, thresholds=one.thresholds) for one in parts}


def _site_of_units(site: Site | None, settings: EvaluationConfig, *, aggregation: Aggregation | None) -> Site | None:
    """Join the images of the internal evaluation as those of the new site are joined."""
    if site is None or site.reference is None:
        return site
    joined = aggregate(site.reference, unit=settings.unit, method=settings.aggregation, learnt=aggregation)
    return replace(site, reference=joined)


def _provenance(predictions: Predictions, settings: EvaluationConfig) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "bundle_id": predictions.bundle_id,
        "intervals": Bootstrap.of(settings).name,
        "replicates": settings.replicates,
        "seed": settings.seed,
        "unit": settings.unit,
        "max_fpr": settings.max_fpr,
    }
    facts |= count_unknown(predictions)
    if settings.unit != "image":
        facts["aggregation"] = joined_by(predictions.targets, settings.aggregation)
    return facts if settings.prevalence is None else facts | {"stated_prevalence": settings.prevalence}


def _curves(
    part: Predictions, target: Target, *, thresholds: tuple[float, ...], settings: EvaluationConfig
) -> tuple[ClassCurves, ...]:
    """One for each answer of a target; of many classes, of the first ones."""
    truth, prob = (
        values.reshape(part.n, target.outputs) if not target.is_exclusive else values
        for values in (part.y_true[target.name], part.y_prob[target.name])
    )
    curves = []
    is_many = target.is_exclusive and are_many(len(target.classes), part.n)
    for k, name in enumerate(target.answers[: SHOWN if is_many else None]):
        known = np.ones(part.n, dtype=np.bool_) if target.is_exclusive else ~np.isnan(truth[:, k])
        is_positive = truth == k if target.is_exclusive else truth[known, k] > 0
        threshold = thresholds[k] if thresholds else None  # NaN is no line to draw, see ``threshold_table``
        one = class_curves(is_positive, prob[known, k], class_name=name, threshold=threshold)
        unit, units = patient_units(part.patient_id[known])
        bands = curve_bands(is_positive, prob[known, k], unit=unit, units=units, bootstrap=Bootstrap.of(settings))
        curves.append(replace(one, bands=bands))
    return tuple(curves)


def _confusion(part: Predictions, target: Target, *, thresholds: tuple[float, ...]) -> CountArray:
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    if target.is_value:
        return np.zeros((0, 0), dtype=np.int64)
    if target.is_binary:
        known = np.full(part.n, not np.isnan(thresholds[0]))
        return _cells(truth[known], are_called(prob, thresholds[0])[known].astype(np.float64), classes=2)
    if target.is_exclusive:
        return _cells(truth, prob.argmax(axis=1).astype(np.float64), classes=len(target.classes))
    called = are_called(prob, np.asarray(thresholds)).astype(np.float64)
    tables = []
    for k in range(len(target.classes)):
        known = ~np.isnan(truth[:, k]) & ~np.isnan(thresholds[k])
        tables.append(_cells(truth[known, k], called[known, k], classes=2))
    return np.stack(tables)


def _cells(truth: FloatArray, called: FloatArray, *, classes: int) -> CountArray:
    cells = np.bincount((truth * classes + called).astype(np.intp), minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)
