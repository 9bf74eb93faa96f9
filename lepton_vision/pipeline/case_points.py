"""Operating points for series, studies or patients, chosen on validation and stored beside those of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ConfigError, LabelError
from lepton_vision.evaluation import Criterion, choose_operating_point
from lepton_vision.evaluation.classes.units import Aggregation, aggregate, fit_aggregation
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.aggregation import CASE_KEY
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target


def check_cases(part: Manifest, targets: Sequence[Target], *, settings: EvaluationConfig) -> None:
    """Refuse, before a long training, rows that cannot be joined to ``settings.unit`` afterwards.

    Raises:
        LabelError: rows without the ids of the unit, or exclusive labels or numbers that differ within a unit.
    """
    if settings.unit == "image":
        return
    column = f"{settings.unit}_id"
    if column not in part.frame or part.frame[column].isna().all():
        raise LabelError(
            f"evaluation.unit is {settings.unit!r}, but no row has a {column}. Choose another unit, or give the ids.",
            key=column,
        )
    for target in targets:
        if not target.is_yes_no:
            labels = part.labels(target)
            by_unit = pd.Series(labels[~np.isnan(labels)]).groupby(part.frame[column].to_numpy()[~np.isnan(labels)])
            conflicts = int((by_unit.nunique() > 1).sum())
            if conflicts:
                raise LabelError(
                    f"Labels of the {target.kind} target {target.name!r} differ within a {settings.unit}. Received: "
                    f"{conflicts} such. Give each {settings.unit} one label, or set evaluation.unit to image.",
                    key=target.name,
                )


def keep_case_point(bundle: Bundle, predictions: Predictions) -> Bundle:
    """Add the operating point (and the learnt aggregation) of the configured unit to the bundle's provenance.

    ``bundle.operating_point`` stays the one of images: scoring decides image by image. Where the unit is the image,
    nothing is added.

    Args:
        bundle: a trained one.
        predictions: of the images of the validation split.
    """
    settings = bundle.config.evaluation
    if settings.unit == "image":
        return bundle
    point, learnt = choose_case_point(predictions, settings)
    facts: dict[str, Any] = {
        "unit": settings.unit,
        "aggregation": settings.aggregation,
        "operating_point": point.to_dict(),
        "learnt": None if learnt is None else learnt.to_dict(),
    }
    return replace(bundle, provenance={**bundle.provenance, CASE_KEY: facts})


def choose_case_point(
    predictions: Predictions, settings: EvaluationConfig
) -> tuple[OperatingPoint, Aggregation | None]:
    """Fit the aggregation where it is learnt, join the images, and choose on the cases."""
    learnt = fit_aggregation(predictions, unit=settings.unit) if settings.aggregation == "learnt" else None
    cases = aggregate(predictions, unit=settings.unit, method=settings.aggregation, learnt=learnt)
    return choose_operating_point(cases, criterion=Criterion.of(settings)), learnt


def case_point(
    bundle: Bundle, settings: EvaluationConfig, *, validation: Callable[[], Predictions | None]
) -> tuple[OperatingPoint, Aggregation | None]:
    """Operating point at which ``settings.unit`` is evaluated: the bundle's, or one chosen now on validation.

    Args:
        bundle: of the model.
        settings: unit and aggregation; may differ from the bundle's configuration.
        validation: predicts the images of the validation split; None where there is none. Called only if needed.

    Raises:
        ConfigError: the bundle has no operating point, or none of this unit and there is no validation split.
    """
    if settings.unit == "image":
        if bundle.operating_point is None:
            raise ConfigError("Expected a bundle with an operating point. Received: none. Choose one on validation.")
        return bundle.operating_point, None
    kept = bundle.provenance.get(CASE_KEY)
    if kept is not None and (kept["unit"], kept["aggregation"]) == (settings.unit, settings.aggregation):
        learnt = None if kept["learnt"] is None else Aggregation.from_dict(kept["learnt"])
        return OperatingPoint.from_dict(kept["operating_point"]), learnt
    predictions = validation()
    point = bundle.operating_point
    if predictions is None and point is not None and point.chosen_on is None and settings.aggregation != "learnt":
        return point, None  # stated for images, as for whatever they make up together
    if predictions is None:
        raise ConfigError(
            f"The bundle has no operating point for the unit {settings.unit!r} with {settings.aggregation!r}. Give a "
            "manifest with a val split, or train with evaluation.unit and evaluation.aggregation set.",
            key="unit",
        )
    return choose_case_point(predictions, settings)


def stated_point(targets: tuple[Target, ...], *, threshold: float) -> OperatingPoint:
    """An operating point that nobody chose: the same threshold everywhere."""
    thresholds: dict[str, tuple[float, ...]] = {target.name: (threshold,) * target.thresholds for target in targets}
    return OperatingPoint(thresholds, f"stated: probability >= {threshold:g}")
