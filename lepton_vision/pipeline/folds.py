"""Repetition of a study over seeds and over patient-grouped folds, with pooled held-out predictions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.own_figures import Brought
from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.files import new_results
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest, split_manifest
from lepton_vision.manifest.class_counts import has_contrast
from lepton_vision.manifest.labels import require_labels
from lepton_vision.manifest.series import scan_settings
from lepton_vision.manifest.split import fold_split
from lepton_vision.models import Bundle
from lepton_vision.pipeline import SplitResult, fit, run_study
from lepton_vision.pipeline.case_points import stated_point
from lepton_vision.pipeline.classes import check_test, validation_rows
from lepton_vision.pipeline.facts import count_split, data_flow
from lepton_vision.pipeline.masks import evaluate_mask_parts, mask_figures
from lepton_vision.pipeline.prepare import cache_folder, scan_source, with_targets
from lepton_vision.pipeline.results import Model, write_results
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.ledger import Ledger, names_of
from lepton_vision.training.checkpoint import CheckpointFolder
from lepton_vision.training.own_parts import Loss, MakeOptimizer, OnEpoch, Schedule
from lepton_vision.training.runlog import hold_run
from lepton_vision.types import Progress

_LOGGER = logging.getLogger(__name__)
_FEW = 100  # replicates of a bootstrap whose intervals nobody sees


def run_seeds(
    config: Config,
    source: str | Path,
    *,
    run_dir: str | Path,
    seeds: list[int],
    labels: str | Path | None = None,
    patient_from: str | None = None,
    folds: int = 0,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: Schedule | None = None,
    on_epoch: OnEpoch | None = None,
    augment: Any = None,
    figures: Brought | None = None,
) -> dict[str, Any]:
    """Run a study, or a cross-validation, once per seed; one seed trains and splits by it everywhere.

    The last six are parts of your own, see ``fit``: each training gets them, and own figures are given of what is
    held out, too.

    Returns:
        Per seed the figures of the first target and of the masks and where the page is; mean and standard deviation
        over the seeds of the AUROC (of a number R²) and of each structure's Dice, by image and, of slices of volumes,
        by volume.
    """
    run_dir = Path(run_dir)
    how: dict[str, Any] = {"folds": folds, "resume": resume, "device": device, "progress": progress}
    own: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "schedule": schedule, "on_epoch": on_epoch}
    own |= {"augment": augment, "figures": figures}
    with hold_run(run_dir, is_shared=True):
        told: dict[str, Any] = {"labels": labels, "patient_from": patient_from, "progress": progress}
        manifest = scan_source(source, **told, **scan_settings(config))
        config = with_targets(config, manifest)
        rows = _run_each(config, manifest, seeds, run_dir=run_dir, own=own, **how)
    facts: dict[str, Any] = {"seeds": rows, "n_seeds": len(rows)}
    if config.targets:
        figure = config.targets[0].summed_up_by
        facts |= _spread([row[figure]["value"] for row in rows.values()], figure)
    masks = [row["masks"] for row in rows.values() if "masks" in row]
    volumes = [part["by_volume"] for part in masks if "by_volume" in part]
    for name in config.segmentation.names if config.segmentation is not None else ():
        for unit, parts in (("dice", masks), ("dice_by_volume", volumes)):
            dice = [part["structures"][name]["dice"]["value"] for part in parts]
            facts |= _spread(dice, f"{unit}_{name}") if dice else {}
    return facts


def _run_each(
    config: Config,
    manifest: Manifest,
    seeds: Sequence[int],
    *,
    run_dir: Path,
    own: Mapping[str, Any],
    folds: int,
    resume: bool,
    device: str,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    """Result of each seed, by seed."""
    cache_dir, rows = cache_folder(config, run_dir), {}
    seeded_by = {seed: config.override(f"train.seed={seed}", f"split.seed={seed}") for seed in seeds}
    for seed, seeded in seeded_by.items() if len(seeds) > 1 else ():
        _check_seed(seeded, manifest, folds=folds, run_dir=run_dir / f"seed-{seed}", resume=resume)
    for seed, seeded in seeded_by.items():
        started, folder = time.perf_counter(), run_dir / f"seed-{seed}"
        shared: dict[str, Any] = {"run_dir": folder, "resume": resume, "device": device, "cache_dir": cache_dir}
        if folds > 1:
            crossed = cross_validate(seeded, manifest, folds=folds, progress=progress, **own, **shared)
            result, row = crossed.pooled, crossed.to_dict()
        else:
            study = run_study(seeded, manifest, progress=progress, **own, **shared)
            result, row = study.test, {"bundle": str(study.folder)}
        row = _row(result, config) | row
        rows[str(seed)] = row | {"seconds": round(time.perf_counter() - started, 1)}
    return rows


def _check_seed(config: Config, manifest: Manifest, *, folds: int, run_dir: Path, resume: bool) -> None:
    """Say before the first seed is trained what a later one would be refused for."""
    folders = [run_dir / f"fold-{fold}" for fold in range(folds)] if folds > 1 else [run_dir]
    _check_used(folders, resume=resume)
    if folds > 1:
        _plan(config, manifest, folds=folds)
        return
    part = split_manifest(manifest, config.split, targets=config.targets)
    check_test(config, part)
    require_labels(part.subset("train"), config.targets, split="train")
    validation_rows(config, part)


def _check_used(folders: Sequence[Path], *, resume: bool) -> None:
    for folder in folders if not resume else ():
        CheckpointFolder(folder).refuse_if_used()


def _row(result: SplitResult, config: Config) -> dict[str, Any]:
    """Figures of the first target, and of the masks."""
    row: dict[str, Any] = {}
    if result.evaluation is not None:
        row = {name: one.to_dict() for name, one in result.evaluation.figures[config.targets[0].name].items()}
        row |= {key: value for key, value in result.evaluation.provenance.items() if key == "unknown_patient"}
    if result.masks is not None and result.mask_report is not None:
        row["masks"] = mask_figures(result.masks, result.mask_report)
    return row | {"report": str(result.report)}


def _spread(values: list[float | None], name: str) -> dict[str, float | None]:
    """Mean and standard deviation over the seeds; None where the figure is undefined."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {f"{name}_mean": None, f"{name}_sd": None}
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return {f"{name}_mean": float(np.mean(known)), f"{name}_sd": spread}


@dataclass(frozen=True, slots=True)
class CrossResult:
    """Result of a cross-validation.

    Attributes:
        pooled: figures and pages of all held-out images together.
        by_fold: ``figure`` of the first target in each fold, NaN where one class, or value, is held out; empty without
            a target.
        fold_dice: by structure, the mean Dice of each fold's images; empty without masks.
        figure: "auroc", or "r2" of a number.
    """

    pooled: SplitResult
    by_fold: list[float]
    fold_dice: dict[str, list[float]]
    figure: str = "auroc"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        facts: dict[str, Any] = {}
        if self.by_fold:
            facts[f"fold_{self.figure}"] = _rounded(self.by_fold)
            facts[f"fold_mean_{self.figure}"] = _or_none(_mean(self.by_fold))
        if self.fold_dice:
            facts["fold_dice"] = {name: _rounded(dice) for name, dice in self.fold_dice.items()}
        return facts


def cross_validate(
    config: Config,
    manifest: Manifest,
    *,
    folds: int,
    run_dir: str | Path,
    resume: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: Schedule | None = None,
    on_epoch: OnEpoch | None = None,
    augment: Any = None,
    figures: Brought | None = None,
) -> CrossResult:
    """Train once per patient-grouped fold and evaluate the pooled held-out predictions at a threshold of one half.

    Each fold's model is chosen on a part of its own training patients, or, where ``split.val`` is 0 and ``train.keep``
    last, trained on all of them and not chosen at all; the threshold is stated, not chosen, since a point chosen on
    one fold's validation patients would have seen another fold's test patients. Masks are evaluated on the pixels of
    all held-out images.

    The last six are parts of your own, see ``fit``: each fold gets them in turn, and own figures are given of the
    pooled predictions, too.
    """
    run_dir = Path(run_dir)
    config = with_targets(config, manifest)
    if config.evaluation.unit != "image" and config.evaluation.aggregation == "learnt":
        raise ConfigError(
            "A cross-validation has no common validation split to fit a learnt aggregation on. Use mean, max or "
            "noisy_or.",
            key="evaluation.aggregation",
        )
    cache_dir = cache_folder(config, run_dir) if cache_dir is None else cache_dir
    how: dict[str, Any] = {"resume": resume, "device": device, "cache_dir": cache_dir, "progress": progress}
    own: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "schedule": schedule, "on_epoch": on_epoch}
    own |= {"augment": augment, "figures": figures}
    with hold_run(run_dir):
        return _cross_held(config, manifest, folds=folds, run_dir=run_dir, own=own, **how)


def _cross_held(
    config: Config,
    manifest: Manifest,
    *,
    folds: int,
    run_dir: Path,
    own: Mapping[str, Any],
    resume: bool,
    device: str,
    cache_dir: Path | None,
    progress: Progress | None,
) -> CrossResult:
    """``cross_validate`` in a run folder that nobody else writes to."""
    held_out: list[tuple[Bundle, Manifest]] = []
    how: dict[str, Any] = {"resume": resume, "device": device, "cache_dir": cache_dir, "stated": None}
    _check_used([run_dir / f"fold-{fold}" for fold in range(folds)], resume=resume)
    for fold, part in enumerate(_plan(config, manifest, folds=folds)):
        told = None if progress is None else _in_fold(progress, fold, folds)
        bundle = fit(config, part, run_dir=run_dir / f"fold-{fold}", progress=told, **own, **how)
        held_out.append((bundle, part.subset("test")))
    shared: dict[str, Any] = {"title": f"{folds}-fold cross-validation", "device": device}
    out = run_dir / "evaluation"
    with ExitStack() as looks, new_results(out) as stage:  # the look is noted once the results have their place
        result, by_fold, dice = None, list[float](), dict[str, list[float]]()
        figure = config.targets[0].summed_up_by if config.targets else "auroc"
        if config.targets:
            found = [
                predict(bundle, part, device=device, cache_dir=cache_dir, progress=None) for bundle, part in held_out
            ]
            places: dict[str, Any] = {"out": stage, "run_dir": run_dir, "looks": looks, "figures": own["figures"]}
            result, by_fold = _pool_classes(found, config, held_out=held_out, manifest=manifest, **places, **shared)
        if held_out[0][0].gives_masks:
            if result is None:
                names = {"masks": held_out[0][0].require_masks().names}
                shared["facts"] = looks.enter_context(_recording_look(held_out, manifest, run_dir, names))
            shared |= {"out": stage / "masks", "progress": progress}
            masks, page = evaluate_mask_parts(held_out, split="test", **shared)
            whole = SplitResult(page) if result is None else result
            result, dice = replace(whole, masks=masks, mask_report=page), _fold_dice(masks, held_out)
        return CrossResult(_certain(result).moved(stage, out), by_fold, dice, figure)


def _plan(config: Config, manifest: Manifest, *, folds: int) -> list[Manifest]:
    """The splits of all folds; what cannot be trained, chosen on or judged is said before the first is trained."""
    parts = []
    for fold in range(folds):
        try:
            part = fold_split(manifest, fold, folds=folds, config=config.split, targets=config.targets)
            validation_rows(config, part)
        except LabelError as error:
            way = " With split.val=0 and train.keep=last no validation is needed." if config.split.val > 0 else ""
            raise LabelError(f"Fold {fold + 1} of {folds}: {error}{way}", key=error.key) from None
        parts.append(part)
    for target in config.targets:
        lone = sum(not has_contrast(part.subset("test").labels(target)) for part in parts)
        if lone:
            _LOGGER.warning(
                "%d of %d folds hold out one %s only of target %r: figures are of all folds together, and those "
                "that compare classes, or correlate, are undefined in such a fold.",
                lone,
                folds,
                "value" if target.is_value else "class",
                target.name,
            )
    return parts


def _certain(result: SplitResult | None) -> SplitResult:
    if result is None:
        raise ConfigError("Expected targets or structures to cross-validate. Received: neither.", key="targets")
    return result


def _pool_classes(
    found: Sequence[Predictions],
    config: Config,
    *,
    held_out: Sequence[tuple[Bundle, Manifest]],
    manifest: Manifest,
    device: str,
    out: Path,
    run_dir: Path,
    looks: ExitStack,
    title: str,
    figures: Brought | None,
) -> tuple[SplitResult, list[float]]:
    """Evaluate the predictions of all folds together, and the first target's figure in each; note the look."""
    point, first = stated_point(config.targets, threshold=0.5), config.targets[0]
    plain = config.evaluation.model_copy(update={"replicates": _FEW})  # the intervals of single folds are not shown
    alone = [evaluate(part, operating_point=point, config=plain).figures[first.name] for part in found]
    by_fold = [one[first.summed_up_by].value for one in alone]
    pooled = Predictions.concat(found)
    evaluation = evaluate(pooled, operating_point=point, config=config.evaluation, figures=figures)
    flow = data_flow(manifest, config.targets)
    flow["splits"] = {
        f"fold {k + 1}, held out": count_split(part, config.targets, "test") for k, (_, part) in enumerate(held_out)
    }
    models = [Model(bundle, frozenset(part.frame["image_id"].astype(str))) for bundle, part in held_out]
    names, cases = names_of(evaluation.figures), pooled.cases
    facts = looks.enter_context(_recording_look(held_out, manifest, run_dir, names, cases=cases))
    evaluation = replace(evaluation, provenance={**evaluation.provenance, **facts})
    report = write_results(evaluation, pooled, out, title=title, data_flow=flow, models=models, device=device)
    return SplitResult(report, evaluation), by_fold


def _recording_look(
    held_out: Sequence[tuple[Bundle, Manifest]],
    manifest: Manifest,
    folder: Path,
    figures: Mapping[str, Sequence[str]],
    *,
    cases: str = "",
) -> AbstractContextManager[dict[str, Any]]:
    """Each cross-validation is one look at the held-out parts of its folds, noted when its results are written."""
    bundles, command = "+".join(bundle.bundle_id for bundle, _ in held_out), f"run --folds {len(held_out)}"
    return Ledger(folder, manifest.fingerprint, command, id_key=manifest.id_key).recording(
        bundles, figures, cases=cases
    )


def _fold_dice(masks: SegmentationEvaluation, held_out: Sequence[tuple[Bundle, Manifest]]) -> dict[str, list[float]]:
    """Mean Dice of each fold by structure, over the images where it is defined."""
    fold_of = {str(name): fold for fold, (_, part) in enumerate(held_out) for name in part.frame["image_id"]}
    dice: dict[str, list[list[float]]] = {name: [[] for _ in held_out] for name in masks.structures}
    for row in masks.cases:
        dice[row.structure][fold_of[row.image_id]].append(row.figures.dice)
    return {name: [_mean(values) for values in folds] for name, folds in dice.items()}


def _rounded(values: list[float]) -> list[float | None]:
    return [_or_none(round(value, 4)) for value in values]


def _or_none(value: float) -> float | None:
    """A figure for JSON, None where it is undefined."""
    return None if np.isnan(value) else value


def _mean(values: list[float]) -> float:
    """Mean of what is defined; NaN where nothing is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _in_fold(progress: Progress, fold: int, folds: int) -> Progress:
    return lambda stage, done, total, note: progress(stage, done, total, f"fold {fold + 1}/{folds}  {note}")
