"""Classification part of a study: choices on validation, and evaluation of a split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_vision.config import Config
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import ConfigError, EvaluationError, LabelError, ManifestError, nearest
from lepton_vision.evaluation import Evaluation, evaluate
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.classes.own_figures import Brought
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.labels import require_labels
from lepton_vision.manifest.mask_values import check_monitor
from lepton_vision.models import Bundle
from lepton_vision.pipeline.case_points import case_point, check_cases
from lepton_vision.pipeline.facts import data_flow
from lepton_vision.pipeline.results import Model, write_results
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.ledger import Ledger, names_of
from lepton_vision.types import Progress, Target

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """Extent of an evaluation beyond the figures of one split.

    Attributes:
        by: columns of the manifest for subgroups, beside those of the configuration.
        is_external: the manifest is another site's.
        reference: with ``is_external``, folder of the internal evaluation to compare with.
        run_dir: folder whose ledger notes a look at a test split; None is that of the evaluation.
        command: what the ledger says has looked.
        settings: in place of the bundle's evaluation section; a unit other than the image has an operating point of its
            own, chosen on validation (``case_points.case_point``).
        about: what a human answered about the study (``reporting.about.read_about``).
        figures: own figures by name, as for ``evaluate``.
    """

    by: tuple[str, ...] = ()
    is_external: bool = False
    reference: Path | None = None
    run_dir: Path | None = None
    command: str = "evaluate"
    settings: EvaluationConfig | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    figures: Brought | None = None


def validation_rows(config: Config, manifest: Manifest) -> Manifest | None:
    """Rows that choices are made on; None where nothing is chosen: the last epoch is kept, and none is asked for.

    Raises:
        ManifestError: no such rows, with the setting that does without them.
        LabelError: they have no label, or one class only.
        ConfigError: an aggregation is to be learnt on them.
    """
    val, settings = manifest.subset("val"), config.evaluation
    if len(val) or config.split.val > 0:
        val = require_labels(val, config.targets, split="val")
        check_cases(val, config.targets, settings=settings)
        check_monitor(val, config)
        return val
    if config.train.keep != "last":
        raise ManifestError(
            f"Expected rows in the val split, on which train.keep={config.train.keep} chooses the epoch. Received: "
            "none, as split.val is 0. Set train.keep=last: the last epoch is kept, nothing is calibrated, and "
            "decisions are at a stated probability of 0.5. Or give split.val a share.",
            key="split.val",
        )
    if settings.unit != "image" and settings.aggregation == "learnt":
        raise ConfigError(
            "A learnt aggregation is fitted on validation. Received: split.val 0. Use mean, max or noisy_or.",
            key="evaluation.aggregation",
        )
    return None


def check_test(config: Config, manifest: Manifest) -> None:
    """Say before training what the test split cannot be judged on.

    Raises:
        ManifestError: it has no rows.
        LabelError: there are masks alone to judge, and it has none.
    """
    part = manifest.subset("test")
    if not len(part):
        raise ManifestError(
            "Expected rows in the test split, which `run` judges the model on. Received: none. Give split.test a "
            "share, or use `train`.",
            key="split.test",
        )
    if not config.targets and not part.frame["mask_values"].notna().any():
        raise LabelError(
            f"The test split ({len(part)} images) has no mask, so `run` could not judge the model after training it. "
            "Use `train`, and `score` to write masks.",
            key="segmentation",
        )
    for target in config.targets:
        if np.isnan(part.labels(target)).all():
            _LOGGER.warning("%s", _unjudged(part, target, split="test"))


def _unjudged(part: Manifest, target: Target, *, split: str) -> str:
    return (
        f"The {split} split ({len(part)} images) has no label for target {target.name!r}: it can be "
        "predicted, not judged."
    )


def subgroup_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, pd.Series[Any]]:
    """Return the columns of a manifest by which subgroups are asked for, each once.

    Raises:
        ManifestError: no such column; the nearest one is named.
    """
    table = manifest.frame
    for name in names:
        if name not in table.columns:
            raise ManifestError(f"No column {name!r} for subgroups. {nearest(name, list(table.columns))}", key=name)
    return {name: table[name] for name in dict.fromkeys(names)}


def evaluate_classes(
    bundle: Bundle,
    manifest: Manifest,
    part: Manifest,
    *,
    out: str | Path,
    options: EvaluationOptions,
    looks: ExitStack,
    title: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, Path]:
    """Predict the rows of ``part``, evaluate at the bundle's operating point, write figures and page.

    A look at a test split is noted when ``looks`` is closed without an error.

    Raises:
        ConfigError: the bundle has no operating point, or a reference is given for an internal evaluation.
        ManifestError: a column of subgroups is missing.
        EvaluationError: the reference cannot be read, or does not fit.
    """
    settings = options.settings or bundle.config.evaluation
    for target in bundle.targets:
        if target.columns and set(target.columns) <= set(part.frame) and np.isnan(part.labels(target)).all():
            _LOGGER.warning("%s", _unjudged(part, target, split=str(part.frame["split"].iloc[0])))
    if options.reference is not None and not options.is_external:
        raise ConfigError("A reference belongs to an external evaluation. Add --external.", key="reference")
    columns = subgroup_columns(part, (*settings.subgroups, *options.by))
    site = Site(_read_reference(options.reference)) if options.is_external else None
    val, how = manifest.subset("val"), dict[str, Any](device=device, cache_dir=cache_dir, progress=None)
    point, learnt = case_point(bundle, settings, validation=lambda: predict(bundle, val, **how) if len(val) else None)
    told = None if progress is None else lambda done, total: progress("predict", done, total, "")
    predictions = predict(bundle, part, device=device, cache_dir=cache_dir, progress=told)
    evaluation = evaluate(
        predictions,
        operating_point=point,
        config=settings,
        aggregation=learnt,
        set_rules=bundle.set_rules,
        columns=_aligned(columns, part, predictions),
        site=site,
        figures=options.figures,
    )
    facts = looks.enter_context(
        _recording_look(evaluation, predictions, options=options, manifest=manifest, out=Path(out))
    )
    evaluation = replace(evaluation, provenance={**evaluation.provenance, **facts})
    report = write_results(
        evaluation,
        predictions,
        out,
        title=title,
        data_flow=data_flow(manifest, bundle.targets),
        models=(Model(bundle),),
        device=device,
        about=options.about,
    )
    return evaluation, report


def _recording_look(
    evaluation: Evaluation, predictions: Predictions, *, options: EvaluationOptions, manifest: Manifest, out: Path
) -> AbstractContextManager[Mapping[str, Any]]:
    """Note a look at a test split once its results are written."""
    if predictions.split != "test":
        return nullcontext({})
    is_own = options.run_dir is None
    known: dict[str, Any] = {"makes_folder": is_own, "id_key": manifest.id_key}
    ledger = Ledger(options.run_dir or out, manifest.fingerprint, options.command, **known)
    figures, cases = names_of(evaluation.figures), predictions.cases
    return ledger.recording(predictions.bundle_id, figures, cases=cases, is_external=options.is_external)


def _read_reference(folder: Path | None) -> Predictions | None:
    if folder is None:
        return None
    places = [folder / "predictions.csv", folder / "predictions.parquet"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise EvaluationError(
            "The reference has no predictions.csv. Give the folder that `evaluate` or `run` wrote, e.g. "
            "runs/ct-01/evaluation.",
            path=folder,
            key="reference",
        )
    return Predictions.load(path)


def _aligned(columns: Mapping[str, pd.Series[Any]], part: Manifest, predictions: Predictions) -> dict[str, list[Any]]:
    """Values in the order of the predictions, which lack the rows that could not be read."""
    rows = {str(name): row for row, name in enumerate(part.frame["image_id"])}
    order = [rows[name] for name in predictions.image_id.tolist()]
    return {name: values.iloc[order].tolist() for name, values in columns.items()}
