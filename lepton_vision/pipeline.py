"""The whole path in one readable file: the only place where all stages meet.

``fit`` trains one model on a split manifest; ``evaluate_bundle`` looks at one split with it; ``run_study`` goes from
files to a report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lepton_vision.case_points import stated_point as stated_point
from lepton_vision.class_study import (
    Scope,
    check_test,
    evaluate_classes,
    pooled_features,
    settle,
    subgroup_columns,
    validation_rows,
)
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ManifestError, TrainingError
from lepton_vision.evaluation import Evaluation
from lepton_vision.evaluation.segmentation import SegmentationEvaluation
from lepton_vision.evaluation.validation import make_validator
from lepton_vision.files import new_results, write_atomic
from lepton_vision.ledger import Ledger
from lepton_vision.manifest import Audit, Manifest, audit_manifest, split_manifest
from lepton_vision.manifest.audit import drop_leaks, warn_of
from lepton_vision.manifest.class_counts import warn_of_classes
from lepton_vision.manifest.id_keys import origin_of, warn_of_key
from lepton_vision.manifest.labels import infer_targets, require_labels
from lepton_vision.manifest.left_out import with_kinds
from lepton_vision.manifest.lost import warn_lost
from lepton_vision.manifest.mask_values import check_masks
from lepton_vision.manifest.patients import warn_unknown
from lepton_vision.manifest.series import scan_settings, with_repairs
from lepton_vision.mask_study import evaluate_mask_parts
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.bundle_files import is_bundle
from lepton_vision.models.device import choose_device, choose_precision
from lepton_vision.models.troubles import explain_troubles
from lepton_vision.sections import GapChoice, TiltChoice
from lepton_vision.training import fit_model
from lepton_vision.training.checkpoint import check_run
from lepton_vision.training.distributed import is_main_process
from lepton_vision.training.features import FixedStages, check_cached
from lepton_vision.training.runlog import hold_run
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.presets import may_flip
from lepton_vision.types import Progress, Split, short_repr

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
    progress: Progress | bool | None = True,
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
        progress: called with (stage, done, total, note). True shows bars in a terminal, lines in a notebook, and
            nothing elsewhere; False or None shows nothing.

    Returns:
        The bundle, also on disk.

    Raises:
        LeakageError: a patient or an image stands in two splits and ``config.audit.on_leakage`` is "stop".
        LabelError: labels outside the classes; a target of one class only in train, or every target in val; masks with
            values of which nothing is stated, or a structure that no mask of train holds.
        ManifestError: no train or no val rows.
        ConfigError: the run folder holds a run, or one of another configuration or other data; nothing was written.
        OutputError: the run folder cannot be written, or another process writes to it.
        TrainingError: the loss is not finite, no checkpoint is whole, or ``train.monitor`` is never defined.
        EvaluationError: calibration or operating point cannot be had on validation; the bundle is kept without them.

    Example:
        >>> bundle = fit(Config(), manifest, run_dir="runs/ct-01")  # doctest: +SKIP
    """
    from lepton_vision.console import show_progress  # rich: not for who only imports this

    run_dir, config = Path(run_dir), with_repairs(with_kinds(with_targets(config, manifest), manifest), manifest)
    check_cached(config.train)
    check_masks(manifest, config.segmentation)
    manifest, audit = check_leakage(config, manifest)
    subgroup_columns(manifest, config.evaluation.subgroups)  # better refused now than after the training
    train = require_labels(manifest.subset("train"), config.targets, split="train")
    parts = _Parts(manifest, audit, train, validation_rows(config, manifest))
    how: dict[str, Any] = {"resume": resume, "device": device, "stated": stated}
    choose_precision(config.train.precision, choose_device(device))
    main = is_main_process()
    with hold_run(run_dir), show_progress(main and progress is True) as shown:
        how["progress"] = shown if isinstance(progress, bool) else progress if main else None
        cache_dir = cache_folder(config, run_dir) if cache_dir is None else Path(cache_dir)
        return _fit_held(config, parts, run_dir=run_dir, cache_dir=cache_dir, **how)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Rows of a training, checked; ``val`` is None where nothing is chosen."""

    manifest: Manifest
    audit: Audit
    train: Manifest
    val: Manifest | None

    def save(self, run_dir: Path) -> None:
        """Write what the run is trained on, and what was found in it."""
        self.manifest.save(run_dir / "manifest.parquet")
        write_atomic(run_dir / "audit.json", json.dumps(self.audit.to_dict(), indent=1))


def _fit_held(
    config: Config,
    parts: _Parts,
    *,
    run_dir: Path,
    cache_dir: Path | None,
    resume: bool,
    device: str,
    stated: float | None,
    progress: Progress | None,
) -> Bundle:
    """``fit`` in a run folder that nobody else writes to; what is there stays as it is until nothing can refuse."""
    was_finished = check_run(run_dir, config, data=parts.manifest.fingerprint, resume=resume)
    network, main = build_model(config), is_main_process()
    lacking = warn_of_classes(parts.train, parts.val, config.targets) if main else ()
    shared: dict[str, Any] = {"targets": config.targets, "cache_dir": cache_dir}
    train_loader = make_loader(parts.train, config, training=True, **shared)
    val_loader = None if parts.val is None else make_loader(parts.val, config, **shared)
    chosen = choose_device(device)
    precision = choose_precision(config.train.precision, chosen)
    fixed = FixedStages(config, device=chosen, precision=precision, folder=cache_dir)
    result = fit_model(
        network,
        train_loader,
        config,
        validate=make_validator(config, val_loader, fixed=fixed, device=chosen, precision=precision),
        run_dir=run_dir,
        resume=resume,
        device=device,
        progress=None if progress is None else lambda row: progress("train", row["step"], row["steps"], _note(row)),
        data_fingerprint=parts.manifest.fingerprint,
        cache_dir=cache_dir,
        started=lambda: parts.save(run_dir),
    )
    provenance = {**origin_of(parts.manifest), "kept_epoch": result.epoch, "validation": result.best}
    provenance |= {"not_validated": list(lacking)} if lacking else {}
    bundle = Bundle(config=config, targets=config.targets, state=result.state, provenance=provenance, run_dir=run_dir)
    try:
        pooled = partial(pooled_features, config, fixed, train_loader, val_loader, chosen)
        how: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "pooled": pooled, "progress": progress}
        bundle = settle(bundle, parts.val, train=parts.train, stated=stated, **how)
    except BaseException:  # the weights outlive a wish that cannot be fulfilled; another can be chosen for them
        if main and not (was_finished and is_bundle(run_dir / "bundle")):
            bundle.save(run_dir / "bundle")
        raise
    if main:
        if was_finished:  # with other settings of what follows the training
            config.to_yaml(run_dir / "config.yaml")
            parts.save(run_dir)
        bundle.save(run_dir / "bundle")
    return bundle


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

    def moved(self, stage: Path, out: Path) -> SplitResult:
        """The same, whose pages have moved from one folder to another."""
        page, masks = self.report, self.mask_report
        at = None if masks is None else out / masks.relative_to(stage)
        return replace(self, report=out / page.relative_to(stage), mask_report=at)


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
        OutputError: ``out`` cannot be written, or another process writes to it; said before anything is computed.
    """
    part = manifest.subset(split)
    if len(part) == 0:
        raise ManifestError(f"Expected rows in the {split} split. Received: none.", key="split")
    warn_of_key(manifest, {} if scope.is_external else bundle.provenance)
    scope = replace(scope, run_dir=scope.run_dir or Path(out))
    how: dict[str, Any] = {"title": title, "device": device, "progress": progress}
    with ExitStack() as looks, new_results(out) as stage:  # a look is noted once the results have their place
        result: SplitResult | None = None
        if bundle.targets:
            how_seen: dict[str, Any] = {"scope": scope, "cache_dir": cache_dir, "looks": looks}
            found = evaluate_classes(bundle, manifest, part, out=stage, **how_seen, **how)
            result = SplitResult(found[1], found[0])
        if bundle.gives_masks and (result is None or part.frame["mask_values"].notna().any()):
            facts = looks.enter_context(_looking(result, bundle, part, scope=scope))
            masks, page = evaluate_mask_parts([(bundle, part)], out=stage / "masks", split=split, facts=facts, **how)
            whole = SplitResult(page) if result is None else result
            result = replace(whole, masks=masks, mask_report=page)
        if result is None:
            raise ConfigError("Expected a bundle with targets or masks to evaluate. Received: neither.")
        return result.moved(stage, Path(out))


def _looking(
    result: SplitResult | None, bundle: Bundle, part: Manifest, *, scope: Scope
) -> AbstractContextManager[dict[str, Any]]:
    """How often the split was looked at: as counted with the classes, or with masks alone, once they are written."""
    if result is not None and result.evaluation is not None:
        known = result.evaluation.provenance
        return nullcontext({key: known[key] for key in ("test_looks", "ledger") if key in known})
    if part.frame["split"].iloc[0] != "test" or bundle.config.segmentation is None:
        return nullcontext({})
    figures = {"masks": list(bundle.config.segmentation.names)}
    ledger = Ledger(Path(scope.run_dir or "."), part.fingerprint, scope.command, id_key=part.id_key)
    return ledger.look(bundle.bundle_id, figures)


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
    with hold_run(run_dir):
        if not isinstance(source, Manifest):
            told: dict[str, Any] = {"labels": labels, "patient_from": patient_from, "progress": progress}
            source = scan_source(source, **told, **scan_settings(config))
        config, manifest = with_targets(config, source), source
        manifest = split_manifest(manifest, config.split, targets=config.targets)
        check_test(config, manifest)
        cache_dir = cache_folder(config, run_dir) if cache_dir is None else cache_dir
        how: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "progress": progress}
        bundle = fit(config, manifest, run_dir=run_dir, resume=resume, **how)
        trained = Manifest.load(run_dir / "manifest.parquet")
        scope, out = Scope(run_dir=run_dir, command="run"), run_dir / "evaluation"
        result = evaluate_bundle(bundle, trained, split="test", out=out, title=title, scope=scope, **how)
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
