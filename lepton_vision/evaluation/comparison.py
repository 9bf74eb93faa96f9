"""Two models on the same cases: the difference of every figure with a paired interval, tests and non-inferiority."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from lepton_vision.config import EvaluationConfig, nearest
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classification import thresholds_of
from lepton_vision.evaluation.delong import auroc_covariance
from lepton_vision.evaluation.intervals import Bootstrap, bootstrap_figures, draw_figures, patient_units
from lepton_vision.evaluation.measures import Extent
from lepton_vision.evaluation.paired_cases import align, note_looks
from lepton_vision.evaluation.paired_tests import PairedTest, compare_draws, compare_proportions, holm
from lepton_vision.evaluation.ranking import BoolArray
from lepton_vision.evaluation.target_measures import ClassMeasures, measures_of, same_means
from lepton_vision.evaluation.units import Aggregation, aggregate, count_unknown
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Interval, OperatingPoint, Target, TargetKind, short_repr

ENDPOINTS: Mapping[TargetKind, tuple[str, ...]] = {
    "binary": ("auroc", "sensitivity", "specificity"),
    "multilabel": ("auroc", "sensitivity", "specificity"),
    "multiclass": ("auroc", "accuracy", "balanced_accuracy"),
    "ordinal": ("kappa_quadratic", "class_error", "auroc"),
}
LOWER_IS_BETTER = ("brier", "log_loss", "ece", "class_error", "lr_negative")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two models.

    Attributes:
        a: figure of the first model.
        b: figure of the second.
        figure: b - a with its paired interval, n and caveats.
        p_value: two-sided, of no difference; NaN where there is none.
        test: "delong" or "obuchowski" (AUROC), "mcnemar_exact" or "obuchowski_1998" (proportions), "bootstrap".
        p_adjusted: after Holm over the endpoints; NaN for a figure that is none.
        margin: of non-inferiority, or None.
        is_non_inferior: whether the interval of b - a excludes a loss of ``margin`` or more; None without a margin or
            an interval.
        p_non_inferior: one-sided P of a loss of ``margin`` or more, the share of such replicates; NaN without a margin.
            ``is_non_inferior`` is by the interval, which BCa moves a little against that share.
    """

    a: float
    b: float
    figure: Figure
    p_value: float
    test: str
    p_adjusted: float = float("nan")
    margin: float | None = None
    is_non_inferior: bool | None = None
    p_non_inferior: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined number becomes None."""
        numbers = {"a": self.a, "b": self.b, "p_value": self.p_value, "p_adjusted": self.p_adjusted}
        plain: dict[str, Any] = {key: None if np.isnan(x) else float(x) for key, x in numbers.items()}
        plain |= {"difference": self.figure.to_dict(), "test": self.test}
        if self.margin is not None:
            p = None if np.isnan(self.p_non_inferior) else self.p_non_inferior
            plain |= {"margin": self.margin, "is_non_inferior": self.is_non_inferior, "p_non_inferior": p}
        return plain


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare`` found; every difference is of the second model less the first.

    Attributes:
        targets: what both predict.
        operating_points: of the first and of the second model.
        split: of the cases, or None where it is not known.
        n: cases with a label for at least one target.
        n_patients: patients among them.
        differences: by target name and figure name.
        endpoints: by target name, the figures that Holm's adjustment is over.
        confidence: of the intervals.
        provenance: plain facts: bundles, method and number of the replicates, seed, unit of analysis.
    """

    targets: tuple[Target, ...]
    operating_points: tuple[OperatingPoint, OperatingPoint]
    split: str | None
    n: int
    n_patients: int
    differences: Mapping[str, Mapping[str, Difference]]
    endpoints: Mapping[str, tuple[str, ...]]
    confidence: float = 0.95
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: undefined numbers are None."""
        targets = {
            target.name: {
                "kind": target.kind,
                "endpoints": list(self.endpoints[target.name]),
                "figures": {name: one.to_dict() for name, one in self.differences[target.name].items()},
            }
            for target in self.targets
        }
        return {
            "split": self.split,
            "n": self.n,
            "n_patients": self.n_patients,
            "confidence": self.confidence,
            "operating_point_a": self.operating_points[0].to_dict(),
            "operating_point_b": self.operating_points[1].to_dict(),
            "targets": targets,
            "provenance": dict(self.provenance),
        }

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        split = escape(str(self.split or "unknown"))
        unknown = self.provenance.get("unknown_patient")
        parts = [
            f"<p>Comparison · split {split} · {self.n} cases of {self.n_patients} patients "
            f"· {self.confidence:.0%} intervals{f' · {unknown} cases name no patient' if unknown else ''}</p>"
        ]
        head = "".join(f"<th>{name}</th>" for name in ("figure", "a", "b", "b − a", "P", "P (Holm)", "test", "n"))
        for target in self.targets:
            rows = "".join(_row(name, one) for name, one in self.differences[target.name].items())
            parts.append(
                f"<table><caption>{escape(target.name)} ({target.kind})</caption><tr>{head}</tr>{rows}</table>"
            )
        return "".join(parts)


def _row(name: str, one: Difference) -> str:
    numbers = (one.a, one.b, one.figure, one.p_value, one.p_adjusted)
    shown = [str(x) if isinstance(x, Figure) else "–" if np.isnan(x) else f"{x:.3f}" for x in numbers]
    shown += [one.test, str(one.figure.n)]
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(x)}</td>' for x in shown)}</tr>"


def compare(
    predictions_a: Predictions,
    predictions_b: Predictions,
    *,
    operating_point: OperatingPoint,
    operating_point_b: OperatingPoint | None = None,
    endpoints: Sequence[str] | None = None,
    margin: float | Mapping[str, float] | None = None,
    config: EvaluationConfig | None = None,
    aggregations: tuple[Aggregation, Aggregation] | None = None,
    notes_look: bool = False,
) -> Comparison:
    """Compare two models on the same cases.

    Intervals of b - a come from a bootstrap that draws the same patients for both models. P values: of an AUROC of one
    class DeLong's test with the covariance of both scores (Obuchowski's clustered form where patients have several
    images), of proportions McNemar's exact test (``paired_tests.compare_proportions``, which see for clusters), of all
    other figures from the bootstrap. Holm's adjustment is over the endpoints of all targets together. The second model
    is non-inferior in a figure where the interval of b - a lies above -margin (below +margin for errors).

    Args:
        predictions_a: of the first model.
        predictions_b: of the second: the same images, patients and labels, in any order.
        operating_point: of the first model.
        operating_point_b: of the second; None takes the same.
        endpoints: figures that the adjustment is over; None takes ``ENDPOINTS`` of each kind.
        margin: largest loss that is no inferiority, above 0: one for all endpoints, or by figure.
        config: as for ``evaluate``.
        aggregations: of the first and of the second model, each fitted on validation (``units.fit_aggregation``), where
            ``config.aggregation`` is "learnt".
        notes_look: of a test split, note the look in the ledger of the run that each bundle belongs to.

    Raises:
        EvaluationError: other targets, cases or labels, an endpoint that is no figure, or a margin that is not above 0.

    Example:
        >>> target, ids = Target("sick", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, point = {"sick": np.array([0, 0, 1, 1])}, OperatingPoint({"sick": (0.5,)}, "stated")
        >>> first = Predictions((target,), ids, ids, ids, truth, {"sick": np.array([0.1, 0.6, 0.4, 0.8])})
        >>> second = Predictions((target,), ids, ids, ids, truth, {"sick": np.array([0.1, 0.2, 0.4, 0.8])})
        >>> found = compare(first, second, operating_point=point)
        >>> found.differences["sick"]["auroc"].figure.value
        0.25
    """
    settings = config or EvaluationConfig()
    pair = predictions_a, align(predictions_a, predictions_b)
    if settings.unit != "image":
        fits = aggregations or (None, None)
        joined = [
            aggregate(one, unit=settings.unit, method=settings.aggregation, learnt=fit)
            for one, fit in zip(pair, fits, strict=True)
        ]
        pair = joined[0], joined[1]
    points = operating_point, operating_point_b or operating_point
    targets = predictions_a.targets
    found = {t.name: _differences(pair, t, points=points, settings=settings) for t in targets}
    chosen = {t.name: _endpoints(endpoints, found[t.name], target=t) for t in targets}
    margins = {t.name: _margins(margin, chosen[t.name], found[t.name]) for t in targets}
    adjusted = holm({f"{t}.{name}": found[t][name][0].p_value for t, names in chosen.items() for name in names})
    is_known = np.any([pair[0].labelled(target) for target in targets], axis=0)
    if notes_look:
        note_looks(predictions_a, predictions_b, figures=chosen)
    return Comparison(
        targets,
        points,
        pair[0].split,
        int(is_known.sum()),
        patient_units(pair[0].patient_id[is_known])[1],
        _judge_all(found, adjusted=adjusted, margins=margins),
        chosen,
        settings.confidence,
        {
            "bundle_id_a": predictions_a.bundle_id,
            "bundle_id_b": predictions_b.bundle_id,
            "intervals": f"paired {Bootstrap.of(settings).name}",
            "replicates": settings.replicates,
            "seed": settings.seed,
            "unit": settings.unit,
        }
        | ({} if settings.unit == "image" else {"aggregation": settings.aggregation})
        | count_unknown(pair[0].select(is_known)),
    )


class _PairedMeasures:
    """Figures of the second model less those of the first, for the same weightings of the patients."""

    def __init__(self, first: ClassMeasures, second: ClassMeasures) -> None:
        self.first, self.second, self.units, self.n = first, second, first.units, first.n

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        a, b = self.first.values(counts), self.second.values(counts)
        return {name: b[name] - a[name] for name in a if not name.startswith("prevalence")}

    def size(self, name: str) -> int:
        return self.first.size(name)

    def denominator_units(self, name: str) -> int | None:
        del name  # a difference of proportions is none
        return None

    def reason(self, name: str) -> str:
        ones = np.ones((1, self.units))
        first = self.first if np.isnan(self.first.values(ones)[name][0]) else self.second
        return first.reason(name)


def _differences(
    pair: tuple[Predictions, Predictions],
    target: Target,
    *,
    points: tuple[OperatingPoint, OperatingPoint],
    settings: EvaluationConfig,
) -> dict[str, tuple[Difference, FloatArray]]:
    """Each figure's difference, and its replicates without NaN."""
    rows, extent = pair[0].labelled(target), Extent(settings.max_fpr, settings.prevalence)
    parts = [one.select(rows) for one in pair]
    limits = [thresholds_of(point, target) for point in points]
    make = [partial(measures_of, p, target, thresholds=t, extent=extent) for p, t in zip(parts, limits, strict=True)]
    averaged = same_means([one() for one in make])
    first, second = (one(averaged=averaged) for one in make)
    measures, bootstrap = _PairedMeasures(first, second), Bootstrap.of(settings)
    drawn = draw_figures(measures, bootstrap)
    ones = np.ones((1, measures.units))
    a, b = first.values(ones), second.values(ones)
    tests, others = _tests(parts, target, limits), dict[str, tuple[Interval, ...]]()
    for name, is_positive, scores in _questions(parts, target):
        test = _auroc_test(is_positive, scores, parts[0], confidence=settings.confidence)
        if test is not None:
            tests[name], others[name] = test
    found = {}
    for name, figure in bootstrap_figures(measures, bootstrap, drawn=drawn).items():
        kept = drawn[name][~np.isnan(drawn[name])]
        test_found = tests.get(name) or compare_draws(kept)
        if np.isnan(figure.value):
            test_found = PairedTest(float("nan"), test_found.method)
        figure = replace(figure, others=others.get(name, ()))
        found[name] = Difference(float(a[name][0]), float(b[name][0]), figure, *test_found), kept
    return found


def _questions(parts: list[Predictions], target: Target) -> Iterator[tuple[str, BoolArray, FloatArray]]:
    """Name of the AUROC, (N,) truth and (N, 2) scores of each binary question; rows without a label are NaN scores."""
    truth = parts[0].y_true[target.name]
    prob = [part.y_prob[target.name] for part in parts]
    if target.kind == "binary":
        yield "auroc", truth > 0, np.column_stack(prob)
        return
    for k, name in enumerate(target.classes):
        is_positive = truth == k if target.is_exclusive else truth[:, k] > 0
        scores = np.column_stack([one[:, k] for one in prob])
        if target.kind == "multilabel":
            scores[np.isnan(truth[:, k])] = np.nan
        yield f"auroc_{name}", is_positive, scores


def _auroc_test(
    is_positive: BoolArray, scores: FloatArray, part: Predictions, *, confidence: float
) -> tuple[PairedTest, tuple[Interval, ...]] | None:
    known = ~np.isnan(scores[:, 0])
    is_positive, scores = is_positive[known], scores[known]
    unit, units = patient_units(part.patient_id[known])
    if is_positive.all() or not is_positive.any():
        return None
    found = auroc_covariance(is_positive, scores, unit=unit)
    contrast = np.array([-1.0, 1.0])
    difference, variance = float(found.auroc @ contrast), float(contrast @ found.covariance @ contrast)
    method = "obuchowski" if units < known.sum() else "delong"
    if np.array_equal(scores[:, 0], scores[:, 1]) or not variance > 0:
        return None
    error = float(np.sqrt(variance))
    half = float(ndtri(0.5 + confidence / 2)) * error
    p_value = float(2.0 * norm.sf(abs(difference) / error))
    return PairedTest(p_value, method), (Interval(method, difference - half, difference + half),)


def _tests(parts: list[Predictions], target: Target, limits: list[tuple[float, ...]]) -> dict[str, PairedTest]:
    """Tests of the proportions whose denominators do not depend on the decisions."""
    truth = parts[0].y_true[target.name]
    unit = patient_units(parts[0].patient_id)[0]
    prob = [part.y_prob[target.name] for part in parts]

    def test(rows: BoolArray, right: list[BoolArray]) -> PairedTest:
        return compare_proportions(right[0][rows], right[1][rows], unit=unit[rows])

    if target.is_exclusive:
        right = [one.argmax(axis=1) == truth for one in prob] if truth.size else [truth > 0] * 2
        found = {"accuracy": test(np.ones(truth.size, dtype=np.bool_), right)}
        return found | {f"sensitivity_{name}": test(truth == k, right) for k, name in enumerate(target.classes)}
    found = {}
    for k, name in enumerate(("",) if target.kind == "binary" else tuple(f"_{c}" for c in target.classes)):
        label = truth if target.kind == "binary" else truth[:, k]
        scores = prob if target.kind == "binary" else [one[:, k] for one in prob]
        right = [(score >= limit[k]) == (label > 0) for score, limit in zip(scores, limits, strict=True)]
        rows = {"sensitivity": label > 0, "specificity": label == 0, "accuracy": ~np.isnan(label)}
        found |= {f"{figure}{name}": test(kept, right) for figure, kept in rows.items()}
    return found


def _endpoints(
    wanted: Sequence[str] | None, figures: Mapping[str, tuple[Difference, FloatArray]], *, target: Target
) -> tuple[str, ...]:
    names = ENDPOINTS[target.kind] if wanted is None else tuple(dict.fromkeys(wanted))
    for name in names:
        if name not in figures:
            raise EvaluationError(
                f"The endpoint {name!r} is no figure of the target {target.name!r}. {nearest(name, list(figures))}",
                key=name,
            )
    return names


def _margins(
    margin: float | Mapping[str, float] | None, endpoints: tuple[str, ...], figures: Mapping[str, Any]
) -> dict[str, float]:
    if margin is None:
        return {}
    margins = dict(margin) if isinstance(margin, Mapping) else dict.fromkeys(endpoints, float(margin))
    for name, value in margins.items():
        if name not in figures:
            raise EvaluationError(f"No figure {name!r} for a margin. {nearest(name, list(figures))}", key=name)
        if not (np.isfinite(value) and value > 0):
            raise EvaluationError(f"A margin of non-inferiority is above 0. Received: {value:g} for {name}.", key=name)
    return margins


def _judge_all(
    found: Mapping[str, Mapping[str, tuple[Difference, FloatArray]]],
    *,
    adjusted: Mapping[str, float],
    margins: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, Difference]]:
    """Add adjusted P values and non-inferiority to every figure."""
    judged: dict[str, dict[str, Difference]] = {}
    for target, figures in found.items():
        judged[target] = {}
        for name, (one, drawn) in figures.items():
            one = replace(one, p_adjusted=adjusted.get(f"{target}.{name}", float("nan")))
            judged[target][name] = _judge(one, drawn, name=name, margin=margins[target].get(name))
    return judged


def _judge(one: Difference, drawn: FloatArray, *, name: str, margin: float | None) -> Difference:
    """Add whether the second model is non-inferior."""
    if margin is None:
        return one
    is_error = name.startswith(LOWER_IS_BETTER)
    gain = -drawn if is_error else drawn
    worst = -one.figure.high if is_error else one.figure.low
    p_value = float("nan") if not gain.size else float(((gain <= -margin).sum() + 1) / (gain.size + 1))
    is_non_inferior = None if np.isnan(worst) else bool(worst > -margin)
    return replace(one, margin=margin, is_non_inferior=is_non_inferior, p_non_inferior=p_value)
