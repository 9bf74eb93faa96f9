"""Paired comparison of two models: differences with intervals, tests and non-inferiority."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.evaluation.classes.figure_table import names_for, spec_of
from lepton_vision.evaluation.classes.non_inferiority import Verdict, check_margins, judge_margin
from lepton_vision.evaluation.classes.own_figures import Brought, OwnFigures, own_facts, specs_of, take_figures
from lepton_vision.evaluation.classes.paired_figures import PairedFigure, paired_figures
from lepton_vision.evaluation.classes.units import Aggregation, aggregate, count_unknown, joined_by
from lepton_vision.evaluation.statistics.intervals import Bootstrap, patient_units
from lepton_vision.evaluation.statistics.paired_tests import holm
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.paired_cases import align, record_looks
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, Result, Table, Target
from lepton_vision.types.figure import FigureSpec


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one figure between two models.

    Attributes:
        a: figure of the first model.
        b: figure of the second.
        figure: b - a with its paired interval, n and caveats.
        p_value: two-sided, of no difference; NaN where there is none.
        test: "delong" or "obuchowski" (AUROC), "mcnemar_exact" or "obuchowski_1998" (proportions), "bootstrap".
        p_adjusted: after Holm over the endpoints; NaN for a figure that is none.
        margin: of non-inferiority, or None.
        is_non_inferior: whether the interval of b - a excludes a loss of ``margin`` or more, and of a proportion also
            the exact test; None without a margin, and where the cases cannot tell (``no_verdict``).
        p_non_inferior: one-sided P of a loss of ``margin`` or more: of a proportion that of
            ``paired_intervals.non_inferiority_p``, of other figures the share of such replicates, against which BCa
            moves the interval a little; NaN without a verdict.
        no_verdict: why a margin is not judged: too few patients, or no interval; "" where it is.
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
    no_verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined number becomes None."""
        numbers = {"a": self.a, "b": self.b, "p_value": self.p_value, "p_adjusted": self.p_adjusted}
        plain: dict[str, Any] = {key: None if np.isnan(x) else float(x) for key, x in numbers.items()}
        plain |= {"difference": self.figure.to_dict(), "test": self.test}
        if self.margin is not None:
            p = None if np.isnan(self.p_non_inferior) else self.p_non_inferior
            plain |= {"margin": self.margin, "is_non_inferior": self.is_non_inferior, "p_non_inferior": p}
        if self.no_verdict:
            plain["no_verdict"] = self.no_verdict
        return plain


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """Result of ``compare``; every difference is of the second model less the first.

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
        own_figures: by name, descriptions of the figures that the caller brought.
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
    own_figures: Mapping[str, FigureSpec] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: undefined numbers are None."""
        targets = {
            target.name: {
                "kind": target.kind,
                **({"unit": target.unit} if target.unit else {}),
                "endpoints": list(self.endpoints[target.name]),
                "figures": {name: one.to_dict() for name, one in self.differences[target.name].items()},
            }
            for target in self.targets
        }
        points = {f"operating_point_{k}": one.to_dict() for k, one in zip("ab", self.operating_points, strict=True)}
        plain = self._plain("split", "n", "n_patients", "confidence") | points
        return plain | {"targets": targets, "provenance": dict(self.provenance)} | own_facts(self.own_figures)

    def _tables(self) -> Iterator[Table]:
        unknown = self.provenance.get("unknown_patient")
        yield Table(
            f"Comparison · split {self.split or 'unknown'} · {self.n} cases of {self.n_patients} patients "
            f"· {self.confidence:.0%} intervals{f' · {unknown} cases name no patient' if unknown else ''}"
        )
        head = ("figure", "a", "b", "b − a", "P", "P (Holm)", "test", "n")
        for target in self.targets:
            rows = [_row(name, one) for name, one in self.differences[target.name].items()]
            unit = f", {target.unit}" if target.unit else ""
            yield Table(f"{target.name} ({target.kind}{unit})", rows, head)


def _row(name: str, one: Difference) -> list[str]:
    numbers = (one.a, one.b, one.figure, one.p_value, one.p_adjusted)
    shown = [str(x) if isinstance(x, Figure) else "–" if np.isnan(x) else f"{x:.3f}" for x in numbers]
    return [name, *shown, one.test, str(one.figure.n)]


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
    figures: Brought | None = None,
    notes_look: bool = False,
) -> Comparison:
    """Compare two models on the same cases.

    Intervals of b - a come from a bootstrap that draws the same patients for both models; those of proportions are
    Tango's score intervals (``paired_intervals``). P values: of an AUROC of one
    class DeLong's test with the covariance of both scores (Obuchowski's clustered form where patients have several
    images), of proportions McNemar's exact test (``paired_tests.compare_proportions``, which see for clusters), of all
    other figures from the bootstrap. Holm's adjustment is over the endpoints of all targets together. The second model
    is non-inferior in a figure where the interval of b - a lies above -margin (below +margin for errors), of few pairs
    an exact test says so too, and the cases are enough to tell (``non_inferiority.judge_margin``).

    Args:
        predictions_a: of the first model.
        predictions_b: of the second: the same images, patients and labels, in any order.
        operating_point: of the first model.
        operating_point_b: of the second; None takes the same.
        endpoints: figures that the adjustment is over; None takes those of ``figure_table`` for each kind.
        margin: largest loss that is no inferiority, above 0: one for all endpoints (of a number those in its unit), or
            by figure.
        config: as for ``evaluate``.
        aggregations: of the first and of the second model, each fitted on validation (``units.fit_aggregation``), where
            ``config.aggregation`` is "learnt".
        figures: own figures by name, as for ``evaluate``. They are endpoints where ``endpoints`` names them.
        notes_look: of a test split, note the look in the ledger of the run that each bundle belongs to.

    Raises:
        EvaluationError: other targets, cases or labels, an endpoint that is no figure, a margin that is not above 0, or
            an own figure that ``evaluate`` would refuse.

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
    own = take_figures(figures, *pair)
    found = {t.name: paired_figures(pair, t, points=points, settings=settings, own=own) for t in targets}
    chosen = {t.name: _endpoints(endpoints, found[t.name], target=t) for t in targets}
    margins = {t.name: check_margins(margin, chosen[t.name], found[t.name], target=t) for t in targets}
    adjusted = holm({f"{t}.{name}": found[t][name].test.p_value for t, names in chosen.items() for name in names})
    is_known = np.any([pair[0].labelled(target) for target in targets], axis=0)
    if notes_look:
        record_looks(predictions_a, predictions_b, figures=chosen)
    return Comparison(
        targets,
        points,
        pair[0].split,
        int(is_known.sum()),
        patient_units(pair[0].patient_id[is_known])[1],
        _judged(found, targets, own=own, adjusted=adjusted, margins=margins, confidence=settings.confidence),
        chosen,
        settings.confidence,
        {
            "bundle_id_a": predictions_a.bundle_id,
            "bundle_id_b": predictions_b.bundle_id,
            "intervals": f"paired {Bootstrap.of(settings).name}; of proportions Tango's score interval",
            "replicates": settings.replicates,
            "seed": settings.seed,
            "unit": settings.unit,
        }
        | ({} if settings.unit == "image" else {"aggregation": joined_by(targets, settings.aggregation)})
        | count_unknown(pair[0].select(is_known)),
        specs_of(own),
    )


def _endpoints(wanted: Sequence[str] | None, figures: Mapping[str, PairedFigure], *, target: Target) -> tuple[str, ...]:
    names = names_for("endpoint", target.kind) if wanted is None else tuple(dict.fromkeys(wanted))
    for name in names:
        if name not in figures:
            raise EvaluationError(
                f"The endpoint {name!r} is no figure of the target {target.name!r}. {nearest(name, list(figures))}",
                key=name,
            )
    return names


def _judged(
    found: Mapping[str, Mapping[str, PairedFigure]],
    targets: Sequence[Target],
    *,
    own: OwnFigures,
    adjusted: Mapping[str, float],
    margins: Mapping[str, Mapping[str, float]],
    confidence: float,
) -> dict[str, dict[str, Difference]]:
    """Every difference with its adjusted P value and whether it is non-inferior."""
    judged: dict[str, dict[str, Difference]] = {}
    for target in targets:
        judged[target.name] = {}
        for name, one in found[target.name].items():
            p_value = adjusted.get(f"{target.name}.{name}", float("nan"))
            margin = margins[target.name].get(name)
            verdict = Verdict(None, float("nan"))
            if margin is not None:
                verdict = judge_margin(
                    one, spec=spec_of(name, target, specs_of(own)), margin=margin, confidence=confidence
                )
            judged[target.name][name] = Difference(
                one.a,
                one.b,
                one.figure,
                *one.test,
                p_value,
                margin,
                verdict.is_non_inferior,
                verdict.p_value,
                verdict.reason,
            )
    return judged
