"""Training of one model on a split manifest, with everything that is chosen on validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lepton_vision.config import Config
from lepton_vision.errors import TrainingError
from lepton_vision.evaluation.classes.own_figures import Brought, check_figures
from lepton_vision.files import write_atomic
from lepton_vision.manifest import Audit, Manifest, audit_manifest
from lepton_vision.manifest.audit import drop_leaks, warn_of
from lepton_vision.manifest.class_counts import warn_of_classes
from lepton_vision.manifest.id_keys import origin_of
from lepton_vision.manifest.labels import require_labels
from lepton_vision.manifest.mask_values import check_masks
from lepton_vision.manifest.patients import warn_unknown
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.models.bundle_files import is_bundle
from lepton_vision.models.device import choose_device, choose_precision
from lepton_vision.models.machine_errors import explain_machine_errors
from lepton_vision.models.weight_origin import origin_of_weights
from lepton_vision.pipeline.case_points import stated_point as stated_point
from lepton_vision.pipeline.choices import choose_on_validation, pooled_features
from lepton_vision.pipeline.classes import subgroup_columns, validation_rows
from lepton_vision.pipeline.prepare import cache_folder, with_kinds, with_repairs, with_targets
from lepton_vision.pipeline.validation import make_validator, watched_figures
from lepton_vision.training import fit_model
from lepton_vision.training.checkpoint import check_run
from lepton_vision.training.distributed import is_main_process
from lepton_vision.training.features import FixedStages, check_cached
from lepton_vision.training.own_parts import Loss, MakeOptimizer, OnEpoch, OwnParts, Schedule
from lepton_vision.training.runlog import hold_run
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.augment_choice import describe_augment, find_pipeline
from lepton_vision.types import Progress
from lepton_vision.types.figure import Better


@explain_machine_errors(TrainingError, further=" Go on with resume (--resume).")
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
    tune_process: bool = False,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: Schedule | None = None,
    on_epoch: OnEpoch | None = None,
    augment: Any = None,
    figures: Brought | None = None,
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
        tune_process: make training on a CPU faster by a setting of the whole process that cannot be taken back: memory
            that is freed is kept for the next step, see ``keep_freed_memory``. False leaves the process as it is; the
            command line sets it.
        loss: ``f(output, batch) -> Tensor`` in place of ours, the mean over the images of a batch. This and the next
            three are described in ``training.own_parts.OwnParts``; a bundle tells that there were some, but keeps none.
            ``val_loss`` stays the log loss of the labels.
        optimizer: ``f(network) -> torch.optim.Optimizer`` in place of AdamW.
        schedule: ``f(step, steps) -> float`` in place of warm-up and cosine: the share of the peak rate.
        augment: a pipeline of albumentations, or for volumes of monai.transforms, in place of ``config.augment``; see
            ``make_loader``. Its description goes into the bundle.
        on_epoch: ``f(epoch, figures) -> bool | None``, called after each epoch; True ends the training.
        figures: own figures by name, ``{"f2": f}`` with ``f(y_true, y_prob, sample_weight) -> float`` or an
            ``OwnFigure``, as for ``evaluate``: validation gives each as ``val_<name>``, the mean over its targets, and
            ``train.monitor: val_f2`` may choose the epoch by it. ``on_epoch`` and ``metrics.jsonl`` tell it.

    Returns:
        The bundle, also on disk.

    Raises:
        LeakageError: a patient or an image stands in two splits and ``config.audit.on_leakage`` is "stop".
        LabelError: labels outside the classes; a target of one class only in train, or every target in val; masks with
            values of which nothing is stated, or a structure that no mask of train holds.
        ManifestError: no train or no val rows.
        ConfigError: the run folder holds a run, or one of another configuration or other data; nothing was written.
        OutputError: the run folder cannot be written, or another process writes to it.
        TrainingError: the loss is not finite, no checkpoint is whole, ``train.monitor`` is never defined, or a function
            that was given returns what it must not. What it raises itself comes through as it is.
        EvaluationError: calibration or operating point cannot be had on validation; the bundle is kept without them. Or
            an own figure has the name of one of ours, fails, or gives no number.

    Example:
        >>> bundle = fit(Config(), manifest, run_dir="runs/ct-01")  # doctest: +SKIP
        >>> bundle = fit(  # doctest: +SKIP
        ...     Config(),
        ...     manifest,
        ...     run_dir="runs/ct-02",
        ...     loss=lambda output, batch: losses.target_loss(output, batch, target=finding, smoothing=0.1),
        ...     optimizer=lambda network: torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9),
        ...     schedule=lambda step, steps: 1.0 - step / steps,
        ...     on_epoch=lambda epoch, figures: figures["val_auroc"] > 0.99,
        ... )
    """
    from lepton_vision.progress.bars import show_progress  # rich: not for who only imports this

    run_dir, config = Path(run_dir), with_repairs(with_kinds(with_targets(config, manifest), manifest), manifest)
    check_cached(config.train)
    brought = check_figures(figures, config.targets)
    augment = find_pipeline(config, augment)
    own = OwnParts(loss, optimizer, schedule, on_epoch, brought, augment, describe_augment(config, augment))
    own.check(config)
    watched = watched_figures(config, own.figures)
    if tune_process:
        keep_freed_memory()
    check_masks(manifest, config.segmentation)
    manifest, audit = check_leakage(config, manifest)
    subgroup_columns(manifest, config.evaluation.subgroups)  # better refused now than after the training
    train = require_labels(manifest.subset("train"), config.targets, split="train")
    parts = _Parts(manifest, audit, train, validation_rows(config, manifest))
    how: dict[str, Any] = {"resume": resume, "device": device, "stated": stated, "own": own, "watched": watched}
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
    own: OwnParts,
    watched: Mapping[str, Better],
) -> Bundle:
    """``fit`` in a run folder that nobody else writes to; what is there stays as it is until nothing can refuse."""
    shaping = own.shaping(config.train)
    was_finished = check_run(run_dir, config, data=parts.manifest.fingerprint, resume=resume, own=shaping)
    network, main = build_model(config), is_main_process()
    lacking = warn_of_classes(parts.train, parts.val, config.targets) if main else ()
    told = {"initial_weights": origin_of_weights(config, network.members[0].encoder), "not_validated": list(lacking)}
    shared: dict[str, Any] = {"targets": config.targets, "cache_dir": cache_dir}
    train_loader = make_loader(parts.train, config, training=True, augment=own.augment, **shared)
    val_loader = None if parts.val is None else make_loader(parts.val, config, **shared)
    chosen = choose_device(device)
    precision = choose_precision(config.train.precision, chosen)
    fixed = FixedStages(config, device=chosen, precision=precision, folder=cache_dir)
    run: dict[str, Any] = {"run_dir": run_dir, "resume": resume, "device": device, "cache_dir": cache_dir, "own": own}
    result = fit_model(
        network,
        train_loader,
        config,
        validate=make_validator(config, val_loader, fixed=fixed, device=chosen, precision=precision, own=own.figures),
        watched=watched,
        progress=None if progress is None else lambda row: progress("train", row["step"], row["steps"], _note(row)),
        data_fingerprint=parts.manifest.fingerprint,
        started=lambda: parts.save(run_dir),
        **run,
    )
    provenance = {**origin_of(parts.manifest), "kept_epoch": result.epoch, "validation": result.best}
    provenance |= {name: value for name, value in (told | own.told(config.train)).items() if value}
    bundle = Bundle(config=config, targets=config.targets, state=result.state, provenance=provenance, run_dir=run_dir)
    try:
        pooled = partial(pooled_features, config, fixed, train_loader, val_loader, chosen)
        how: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "pooled": pooled, "progress": progress}
        bundle = choose_on_validation(bundle, parts.val, train=parts.train, stated=stated, **how)
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


def check_leakage(config: Config, manifest: Manifest) -> tuple[Manifest, Audit]:
    """Audit the manifest and do what ``config.audit.on_leakage`` says about leaks; say how many name no patient."""
    warn_unknown(manifest.frame)
    audit = audit_manifest(manifest, config)
    warn_of(audit, "narrow_range")
    if config.audit.on_leakage == "drop_train":
        manifest = drop_leaks(manifest, audit)
        audit_manifest(manifest, config).raise_on({"leakage"})
    else:
        is_patient_only = config.audit.on_leakage == "allow"  # images may stand in two splits, patients never
        leaks = tuple(one for one in audit.leaks if one.cause == "patient" or not is_patient_only)
        replace(audit, findings=leaks).raise_on({"leakage"})
    return manifest, audit


def _note(row: Mapping[str, Any]) -> str:
    return f"epoch {row['epoch'] + 1}/{row['epochs']}  loss {row['loss']:.3f}  {row['images_per_s']:.0f} images/s"
