"""The whole path in one readable file: the only place where all stages meet.

``fit`` trains one model on a split manifest; ``evaluate_bundle`` looks at one split with it; ``run_study`` goes from
files to a report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_vision.case_points import stated_point as stated_point
from lepton_vision.class_study import Scope, check_test, evaluate_classes, settle, subgroup_columns, validation_rows
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ManifestError, TrainingError
from lepton_vision.evaluation import Evaluation
from lepton_vision.evaluation.segmentation import SegmentationEvaluation, overlap_figures
from lepton_vision.evaluation.validation import validation_figures
from lepton_vision.files import write_atomic
from lepton_vision.inference.predictor import examine_network
from lepton_vision.inference.whole_volumes import on_wholes
from lepton_vision.ledger import Ledger
from lepton_vision.manifest import Audit, Manifest, audit_manifest, split_manifest
from lepton_vision.manifest.audit import drop_leaks, warn_of
from lepton_vision.manifest.class_counts import warn_of_classes
from lepton_vision.manifest.labels import infer_targets, require_labels
from lepton_vision.manifest.left_out import with_kinds
from lepton_vision.manifest.lost import warn_lost
from lepton_vision.manifest.mask_values import check_masks
from lepton_vision.manifest.patients import warn_unknown
from lepton_vision.manifest.series import scan_settings, with_repairs
from lepton_vision.mask_study import evaluate_mask_parts
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.device import choose_device, choose_precision
from lepton_vision.models.network import AnyNetwork
from lepton_vision.models.troubles import explain_troubles
from lepton_vision.sections import GapChoice, TiltChoice
from lepton_vision.training import fit_model
from lepton_vision.training.distributed import is_main_process
from lepton_vision.training.features import FixedStages, UpperPart
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.presets import may_flip
from lepton_vision.types import Batch, Progress, Split, short_repr

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from lepton_vision.models.device import Precision

_ALONE = Scope()


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What ``run_study`` made.

    Attributes:
        bundle: the trained model with temperatures and operating point.
        folder: folder of the bundle.
        test: figures and pages on the test split.
        seconds: wall time from the scan to the report.
    """

    bundle: Bundle
    folder: Path
    test: SplitResult
    seconds: float

    __repr__ = short_repr


@explain_troubles(TrainingError, further=" Go on with resume (--resume).")
def fit(
    config: Config,
    manifest: Manifest,
    *,
    run_dir: str | Path,
    resume: bool = False,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    stated: float | None = 0.5,
    progress: Progress | None = None,
) -> Bundle:
    """Train on the train split, choose everything on the val split, and keep the result in ``run_dir/bundle``.

    The test split is not read. The bundle carries the weights of the kept epoch, a calibration for each target and the
    operating point that ``config.evaluation.criterion`` asks for, both from validation. Where there is none, as
    ``split.val`` is 0 and ``train.keep`` last, it has no calibration and decides at the ``stated`` probability.

    Args:
        config: what to train; empty ``targets`` are taken from the manifest where it leaves no doubt.
        manifest: rows with splits (see ``split_manifest``).
        run_dir: folder of the run: configuration, metrics, checkpoints, cache and bundle.
        resume: go on from the last checkpoint.
        device: "auto", "cpu", "cuda", "mps".
        cache_dir: of decoded images and features that runs share; None is the configuration's, or one of this run.
        stated: without validation, the probability that is called positive; None leaves the bundle without a point.
        progress: called with (stage, done, total, note).

    Returns:
        The bundle, also on disk.

    Raises:
        LeakageError: a patient or an image stands in two splits and ``config.audit.on_leakage`` is "stop".
        LabelError: labels outside the classes; a target of one class only in train, or every target in val; masks with
            values of which nothing is stated, or a structure that no mask of train holds.
        ManifestError: no train or no val rows.
        TrainingError: the loss is not finite, there is nothing to resume, or ``train.monitor`` is never defined.
        EvaluationError: calibration or operating point cannot be had on validation; the bundle is kept without them.

    Example:
        >>> bundle = fit(Config(), manifest, run_dir="runs/ct-01")  # doctest: +SKIP
    """
    run_dir, config = Path(run_dir), with_repairs(with_kinds(with_targets(config, manifest), manifest), manifest)
    check_masks(manifest, config.segmentation)
    manifest, audit = check_leakage(config, manifest)
    subgroup_columns(manifest, config.evaluation.subgroups)  # better refused now than after the training
    train = require_labels(manifest.subset("train"), config.targets, split="train")
    val = validation_rows(config, manifest)
    main, lacking = is_main_process(), tuple[str, ...]()
    if main:
        lacking = warn_of_classes(train, val, config.targets)
        run_dir.mkdir(parents=True, exist_ok=True)
        manifest.save(run_dir / "manifest.parquet")
        write_atomic(run_dir / "audit.json", json.dumps(audit.to_dict(), indent=1))
    cache_dir = cache_folder(config, run_dir) if cache_dir is None else Path(cache_dir)
    train_loader = make_loader(train, config, training=True, targets=config.targets, cache_dir=cache_dir)
    val_loader = None if val is None else make_loader(val, config, targets=config.targets, cache_dir=cache_dir)
    chosen = choose_device(device)
    precision = choose_precision(config.train.precision, chosen)
    fixed = FixedStages(config, device=chosen, precision=precision, folder=cache_dir)
    result = fit_model(
        build_model(config),
        train_loader,
        config,
        validate=_validator(config, val_loader, fixed=fixed, device=chosen, precision=precision),
        run_dir=run_dir,
        resume=resume,
        device=device,
        progress=None if progress is None else lambda row: progress("train", row["step"], row["steps"], _note(row)),
        data_fingerprint=manifest.fingerprint,
        cache_dir=cache_dir,
    )
    provenance = {"data_fingerprint": manifest.fingerprint, "kept_epoch": result.epoch, "validation": result.best}
    provenance |= {"not_validated": list(lacking)} if lacking else {}
    bundle = Bundle(config=config, targets=config.targets, state=result.state, provenance=provenance, run_dir=run_dir)
    try:
        bundle = settle(bundle, val, train=train, stated=stated, device=device, cache_dir=cache_dir)
    finally:  # the weights outlive a wish that cannot be fulfilled; another can be chosen for them
        if main:
            bundle.save(run_dir / "bundle")
    return bundle


def _validator(
    config: Config,
    val_loader: DataLoader[Batch] | None,
    *,
    fixed: FixedStages,
    device: torch.device,
    precision: Precision,
) -> Callable[[AnyNetwork], dict[str, float]]:
    """What training calls after each epoch; with cached features the fixed stages are not run again."""

    def validate(network: AnyNetwork) -> dict[str, float]:
        if val_loader is None:
            return {}
        is_cached = config.train.cache_features
        seen = UpperPart(network, fixed.count) if is_cached else _on_wholes(network, config, device=device)
        batches = fixed.loader(network, val_loader) if is_cached else val_loader
        found = examine_network(seen, batches, targets=config.targets, device=device, precision=precision)
        figures = {} if found.predictions is None else validation_figures(found.predictions)
        if found.overlap is not None and config.segmentation is not None:
            figures |= overlap_figures(found.overlap, config.segmentation.names)
        return figures

    return validate


def _on_wholes(network: AnyNetwork, config: Config, *, device: torch.device) -> nn.Module:
    """What predicts the batches of a validation loader: whole volumes where masks are compared, or slices stacked."""
    if config.volume is None or not (config.segmentation is not None or config.sees_slabs):
        return network
    return on_wholes(network, config).to(device)


def with_targets(config: Config, manifest: Manifest) -> Config:
    """Return ``config`` with its targets, taken from the manifest where it names neither targets nor structures.

    Raises:
        ConfigError: mirror images are asked for of what is trained without flips, or tells left from right.
    """
    if not config.targets and config.segmentation is None:
        config = config.with_targets(infer_targets(manifest))
    warn_lost(manifest, config.targets)
    if config.model.mirrored and not may_flip(config.augment, targets=config.targets):
        raise ConfigError(
            "model.mirrored: expected a model that is trained with left–right flips. Received: augment without them or "
            "a target that tells left from right. Set model.mirrored=false, or augment.flip=true.",
            key="model.mirrored",
        )
    return config


def check_leakage(config: Config, manifest: Manifest) -> tuple[Manifest, Audit]:
    """Audit the manifest and do what ``config.audit.on_leakage`` says about leaks; say how many name no patient."""
    warn_unknown(manifest.frame)
    audit = audit_manifest(manifest, config)
    warn_of(audit, "narrow_range")
    if config.audit.on_leakage == "drop_train":
        manifest = drop_leaks(manifest, audit)
        audit_manifest(manifest, config).raise_on({"leakage"})
    elif config.audit.on_leakage == "stop":
        audit.raise_on({"leakage"})
    return manifest, audit


def cache_folder(config: Config, run_dir: Path) -> Path | None:
    """Folder of the decoded cache, or None where it is turned off."""
    if config.cache.max_gb <= 0:
        return None
    return Path(config.cache.folder) if config.cache.folder else run_dir / "cache"


def _note(row: Mapping[str, Any]) -> str:
    return f"epoch {row['epoch'] + 1}/{row['epochs']}  loss {row['loss']:.3f}  {row['images_per_s']:.0f} images/s"


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What a bundle gives on one split.

    Attributes:
        report: the page of the classes, or of the masks where there is no target.
        evaluation: figures of the targets; None where there is none.
        masks: figures of the masks; None where there is no true or no predicted mask.
        mask_report: the page of the masks, or None.
    """

    report: Path
    evaluation: Evaluation | None = None
    masks: SegmentationEvaluation | None = None
    mask_report: Path | None = None

    __repr__ = short_repr


def evaluate_bundle(
    bundle: Bundle,
    manifest: Manifest,
    *,
    split: Split,
    out: str | Path,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    title: str | None = None,
    scope: Scope = _ALONE,
) -> SplitResult:
    """Predict one split, evaluate at the bundle's operating point, and write figures, predictions, page and card.

    Masks are evaluated where the model predicts them and rows have true ones; their files and page lie in
    ``out/masks``. ``scope`` asks for subgroups and comparison with another site, names the run whose ledger notes a
    look at the test split, and holds what a human answered about the study.

    Raises:
        ConfigError: the bundle has targets, but no operating point; or a reference without another site.
        ManifestError: the split has no rows, or a column of subgroups is missing.
        LabelError: the model predicts masks alone, and no row has one.
    """
    part = manifest.subset(split)
    if len(part) == 0:
        raise ManifestError(f"Expected rows in the {split} split. Received: none.", key="split")
    result: SplitResult | None = None
    if bundle.targets:
        evaluation, report = evaluate_classes(
            bundle,
            manifest,
            part,
            out=out,
            scope=scope,
            title=title,
            device=device,
            cache_dir=cache_dir,
            progress=progress,
        )
        result = SplitResult(report, evaluation)
    if bundle.gives_masks and (result is None or part.frame["mask_values"].notna().any()):
        looking = _looking(result, bundle, part, folder=scope.run_dir or out, command=scope.command)
        with looking as facts:
            masks, page = evaluate_mask_parts(
                [(bundle, part)],
                out=Path(out) / "masks",
                split=split,
                device=device,
                title=title,
                facts=facts,
                progress=progress,
            )
        whole = SplitResult(page) if result is None else result
        result = replace(whole, masks=masks, mask_report=page)
    if result is None:
        raise ConfigError("Expected a bundle with targets or masks to evaluate. Received: neither.")
    return result


def _looking(
    result: SplitResult | None, bundle: Bundle, part: Manifest, *, folder: str | Path, command: str
) -> AbstractContextManager[dict[str, Any]]:
    """How often the split was looked at: as counted with the classes, or with masks alone, once they are written."""
    if result is not None and result.evaluation is not None:
        known = result.evaluation.provenance
        return nullcontext({key: known[key] for key in ("test_looks", "ledger") if key in known})
    if part.frame["split"].iloc[0] != "test" or bundle.config.segmentation is None:
        return nullcontext({})
    figures = {"masks": list(bundle.config.segmentation.names)}
    return Ledger(Path(folder), part.fingerprint, command, makes_folder=True).look(bundle.bundle_id, figures)


def run_study(
    config: Config,
    source: str | Path | Manifest,
    *,
    run_dir: str | Path,
    labels: str | Path | None = None,
    patient_from: str | None = None,
    resume: bool = False,
    device: str = "auto",
    title: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Go from files and a label table to a bundle and a report: scan, split, audit, train, choose, evaluate once.

    Raises:
        LeptonError: whatever stage cannot go on; what earlier stages wrote stays in ``run_dir``.
    """
    started, run_dir = time.perf_counter(), Path(run_dir)
    if not isinstance(source, Manifest):
        told: dict[str, Any] = {"labels": labels, "patient_from": patient_from, "progress": progress}
        source = scan_source(source, **told, **scan_settings(config))
    config, manifest = with_targets(config, source), source
    manifest = split_manifest(manifest, config.split, targets=config.targets)
    check_test(config, manifest)
    cache_dir = cache_folder(config, run_dir) if cache_dir is None else cache_dir
    bundle = fit(
        config, manifest, run_dir=run_dir, resume=resume, device=device, cache_dir=cache_dir, progress=progress
    )
    trained = Manifest.load(run_dir / "manifest.parquet")
    result = evaluate_bundle(
        bundle,
        trained,
        split="test",
        out=run_dir / "evaluation",
        device=device,
        cache_dir=cache_dir,
        progress=progress,
        title=title,
        scope=Scope(run_dir=run_dir, command="run"),
    )
    return StudyResult(bundle, run_dir / "bundle", result, time.perf_counter() - started)


def scan_source(
    source: str | Path,
    *,
    labels: str | Path | None = None,
    workers: int | None = None,
    volumes: bool = False,
    include: Collection[str] = (),
    channels: Collection[str] = (),
    patient_from: str | None = None,
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
    progress: Progress | None = None,
) -> Manifest:
    """Scan with the pipeline's progress; ``source`` is a folder, an .npz file, or a saved manifest."""
    source = Path(source)
    if source.suffix in (".parquet", ".csv") and source.is_file() and labels is None:
        manifest = Manifest.load(source)
        return manifest if patient_from is None else manifest.with_patients(patient_from)
    told = None if progress is None else lambda done, total: progress("scan", done, total, "")
    how: dict[str, Any] = {"volumes": volumes, "include": include, "channels": channels, "gaps": gaps, "tilt": tilt}
    return Manifest.scan(source, labels=labels, workers=workers, patient_from=patient_from, progress=told, **how)
