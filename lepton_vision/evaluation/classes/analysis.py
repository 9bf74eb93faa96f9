"""Computation of all analyses that the data of an evaluation allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.classes.abstention import abstentions
from lepton_vision.evaluation.classes.analyses import Analyses
from lepton_vision.evaluation.classes.binary_views import shown_views
from lepton_vision.evaluation.classes.calibration_statistics import calibration_statistics
from lepton_vision.evaluation.classes.conformal import conformal_sets
from lepton_vision.evaluation.classes.decision_curve import decision_curve
from lepton_vision.evaluation.classes.external import Site, compare_external
from lepton_vision.evaluation.classes.many_classes import are_many
from lepton_vision.evaluation.classes.own_figures import OwnFigures
from lepton_vision.evaluation.classes.subgroups import evaluate_subgroups
from lepton_vision.evaluation.statistics.intervals import Bootstrap
from lepton_vision.evaluation.values.intervals import value_intervals
from lepton_vision.predictions.answer_sets import Rule
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions


def analyze(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig,
    set_rules: Mapping[str, tuple[Rule, ...]] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    site: Site | None = None,
    own: OwnFigures | None = None,
) -> Analyses:
    """Compute the analyses of one split.

    Args:
        predictions: of one split.
        operating_point: thresholds for every binary and multilabel target.
        config: replicates, confidence and seed.
        set_rules: of the bundle, by target name; without them there are no sets of answers, nor with many classes
            (``many_classes``), of which the first ones alone are analysed by class.
        columns: by column name, N values: subgroups by them.
        site: where the predictions are of another site.
        own: figures that the caller brings, checked.
    """
    bootstrap = Bootstrap.of(config)
    many = {t.name for t in predictions.targets if t.is_exclusive and are_many(len(t.classes), predictions.n)}
    views = {t.name: shown_views(predictions, t) for t in predictions.targets}
    return Analyses(
        calibration={k: tuple(calibration_statistics(q, bootstrap) for q in asked) for k, asked in views.items()},
        decision_curve={k: tuple(decision_curve(q, bootstrap) for q in asked) for k, asked in views.items()},
        abstention={
            target.name: abstentions(
                predictions, target, thresholds=operating_point.thresholds.get(target.name, ()), bootstrap=bootstrap
            )
            for target in predictions.targets
        },
        conformal={
            target.name: conformal_sets(predictions, target, rules=set_rules[target.name], bootstrap=bootstrap)
            for target in predictions.targets
            if target.name in set_rules and target.name not in many and not target.is_value
        }
        if set_rules
        else None,
        subgroups=evaluate_subgroups(predictions, columns, operating_point=operating_point, config=config, own=own)
        if columns
        else None,
        external=None
        if site is None
        else compare_external(
            predictions, operating_point=operating_point, config=config, reference=site.reference, own=own
        ),
        intervals={
            target.name: value_intervals(predictions, target, rules=set_rules[target.name], bootstrap=bootstrap)
            for target in predictions.targets
            if target.name in set_rules and target.is_value
        }
        if set_rules
        else None,
    )
