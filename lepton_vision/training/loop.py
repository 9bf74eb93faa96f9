"""Training loop: ``fit_model``, from loaders to weights."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lepton_vision.config import Config
from lepton_vision.errors import TrainingError
from lepton_vision.models.device import OWN_RANDOM_STATE, choose_device, choose_precision, suited_format
from lepton_vision.models.heads import value_scales
from lepton_vision.models.machine_errors import explain_machine_errors
from lepton_vision.models.norms import fold_running_norms
from lepton_vision.training.batch_norms import check_batch_norms
from lepton_vision.training.checkpoint import Best, CheckpointFolder, Origin
from lepton_vision.training.distributed import World, join_world, local_device
from lepton_vision.training.features import FixedStages, UpperPart, check_cached
from lepton_vision.training.interrupt import explain_full_memory, listen_for_interrupt
from lepton_vision.training.label_figures import class_weights, set_scales
from lepton_vision.training.losses import LossWeights
from lepton_vision.training.monitor import direction, is_kept, undefined_monitor_error
from lepton_vision.training.optim import WeightAverage, check_frozen, frozen_stages, make_optimizer, standardise_heads
from lepton_vision.training.own_parts import OwnParts, make_own_optimizer, peak_rate, wants_stop
from lepton_vision.training.run import FitResult, Run, UnreadStep
from lepton_vision.training.runlog import RunFolder, hold_run
from lepton_vision.training.step import Stepper, seed_step, take_step
from lepton_vision.types.figure import Better
from lepton_vision.types.held import Held

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from lepton_vision.models.assemble import AnyNetwork
    from lepton_vision.types import Batch

Validate = Callable[["AnyNetwork"], Mapping[str, float]]
Log = Callable[[dict[str, Any]], None]

_LOGGER = logging.getLogger(__name__)
# Below it, channels last, the gradient of a strided 1 x 1 convolution overwrites memory on a CPU (torch 2.14.1).
_NARROW = 8
# On an accelerator, reading a figure waits for the queue to drain: losses are looked at every so many steps.
_STEPS_BETWEEN_READS = 20
_SMALLEST_SCALE = 1.0  # GradScaler starts at 65536: below this the gradients themselves are broken


def fit_model(
    model: AnyNetwork,
    train_loader: DataLoader[Batch],
    config: Config,
    *,
    validate: Validate,
    watched: Mapping[str, Better] | None = None,
    run_dir: str | Path,
    resume: bool = False,
    device: str = "auto",
    log: Log | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    data_fingerprint: str = "",
    cache_dir: Path | None = None,
    started: Callable[[], None] | None = None,
    own: OwnParts | None = None,
) -> FitResult:
    """Train ``model`` and return the weights of its best epoch, or of the last one (``train.keep``).

    On the CPU the same seed gives the same weights bit by bit, also for a run that was killed and resumed. Global
    random state is left as it was. With ``torchrun`` every process calls this with its own loader; process 0
    validates and writes.

    Args:
        model: trained in place; ends with the weights of the last step, not those of the result.
        train_loader: from ``make_loader(..., training=True)``; its data set gives the labels for balanced weights.
        config: ``train`` section and ``targets`` are used.
        validate: gets the network (the averaged one where averaging is on) in evaluation mode after each epoch and
            returns figures named like ``config.train.monitor``; any, or none, where the last epoch is kept.
        watched: by name, which way is better of the figures that ``validate`` gives and that may be the monitor.
        run_dir: gets config.yaml, environment.json, metrics.jsonl, tensorboard/ and checkpoints/ (the last two), after
            all checks; held by this run alone.
        resume: go on from the checkpoint; where there is none, the run starts from its beginning.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        log: called with each epoch's row in process 0, after it was written to ``metrics.jsonl``.
        progress: called with epoch, epochs, step and steps (of the whole run), loss, images_per_s while training.
        data_fingerprint: of the manifest; a resumed run must have the same.
        cache_dir: folder for what fixed stages give (``train.cache_features``); None keeps it in memory only.
        started: called in process 0 once all checks have passed, before anything is written; not for a finished run.
        own: loss, optimiser, schedule and look at each epoch in place of ours.

    Returns:
        Weights and figures of the epoch that is kept.

    Raises:
        ConfigError: the run folder holds a run and ``resume`` is False; resumed with another configuration; unknown
            ``monitor``; contradicting keys.
        OutputError: another process writes to the run folder, or it cannot be written.
        TrainingError: the loss is not finite; nothing to learn from; ``monitor`` undefined after every epoch; the disk,
            or the memory of the GPU, is full; an own part gives what it must not.
        KeyboardInterrupt: Ctrl-C, after the step was finished and written down.
    """
    own = OwnParts() if own is None else own
    check_cached(config.train)
    own.check(config)
    better: Better = "neither" if config.train.keep == "last" else direction(config.train.monitor, watched or {})
    chosen = choose_device(device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explain_machine_errors(TrainingError, further=" Go on with resume (--resume)."))
        stack.enter_context(explain_full_memory(config.train, chosen))
        world = stack.enter_context(join_world(chosen))
        stack.enter_context(_leave_global_state(world.device))
        stop = stack.enter_context(listen_for_interrupt())
        check_frozen(model, config.train)
        check_batch_norms(model, config, samples=len(train_loader.sampler))  # type: ignore[arg-type]
        stack.enter_context(hold_run(run_dir))
        folder, shaping = CheckpointFolder(Path(run_dir)), own.shaping(config.train)
        origin = Origin(config, data_fingerprint, world.size, shaping)
        set_scales(model, train_loader)
        classes = class_weights(train_loader, config, config.targets or model.targets)
        stepper = make_stepper(model, config, world=world, class_weights=classes, own=own)
        run = Run(config, stepper, train_loader, folder, origin, stop, progress, cache_dir, own, better)
        was_resumed = _restore(run, resume=resume)
        logs = [] if log is None else [log]
        _check_start(run)
        if world.is_main and not run.position.is_finished:
            if started is not None:
                started()
            facts = {"device": world.device.type, "precision": stepper.precision, "processes": world.size}
            written = stack.enter_context(RunFolder(Path(run_dir), config, facts=facts, resume=was_resumed))
            logs.insert(0, written.log)
        while not run.position.is_finished:
            _train_epoch(run)
            _finish_epoch(run, validate, logs=logs)
        return _result(run)


def make_stepper(
    model: AnyNetwork,
    config: Config,
    *,
    world: World,
    class_weights: Mapping[str, Tensor] | None = None,
    own: OwnParts | None = None,
) -> Stepper:
    """Put the model on its device and gather what a step needs.

    Args:
        model: moved in place; every process gets the weights of process 0.
        config: ``train`` section and ``targets``.
        world: from ``join_world``.
        class_weights: by target name, see ``LossWeights.classes``.
        own: loss and optimiser of the caller.
    """
    own = OwnParts() if own is None else own
    train = config.train
    if config.model.width < _NARROW:
        train = train.model_copy(update={"channels_last": False})
    standardise_heads(model, config)
    model.to(world.device)
    if train.channels_last:
        model.to(memory_format=suited_format(model.dims + 2))
    world.broadcast(model)
    precision = choose_precision(train.precision, world.device)
    deviations = {name: scale.deviation for name, scale in value_scales(model)}
    weights = LossWeights(train.target_weights, class_weights or {}, deviations, train.label_smoothing)
    if config.segmentation is not None:
        weights = replace(weights, mask=config.segmentation.weight, mask_loss=config.segmentation.loss)
    if own.optimizer is None:
        optimizer: torch.optim.Optimizer = make_optimizer(model, train, device=world.device)
    else:
        optimizer = make_own_optimizer(own.optimizer, model, config=train)
    return Stepper(
        model=model,
        trained=UpperPart(model, train.freeze_stages) if train.cache_features else model,
        config=train,
        targets=config.targets or model.targets,
        weights=weights.to(world.device),
        world=world,
        precision=precision,
        optimizer=optimizer,
        peak=train.lr if own.optimizer is None else peak_rate(optimizer),
        own_loss=own.loss,
        scaler=torch.amp.GradScaler(world.device.type) if precision == "fp16" else None,
        average=WeightAverage(model, train.ema_decay) if train.ema_decay else None,
    )


def _restore(run: Run, *, resume: bool) -> bool:
    """Load the checkpoint if asked to; then whether one was there."""
    if run.stepper.world.is_main:
        run.folder.remove_leftovers()
    if not resume:
        run.folder.refuse_if_used()
    found = run.folder.read(run.origin) if resume else None
    run.stepper.world.barrier()  # nobody writes before everybody has looked
    if found is not None and run.stepper.world.is_main:
        run.folder.drop_damaged()
    if found is None:
        if resume:
            _LOGGER.info("No checkpoint to resume from: training starts from the beginning.")
        return False
    run.position, parts = found
    if not run.position.is_finished:
        run.stepper.load_parts(parts)
    return True


def _check_start(run: Run) -> None:
    """Find out before the first epoch, not after it, what would stop the run."""
    if len(run.loader) == 0:
        raise TrainingError("Expected at least one training batch. Received: none. Check the train split.")
    run.stepper.world.check_same(len(run.loader), what="training batches")
    train = run.config.train
    if train.cache_features and not run.position.is_finished:
        stepper = run.stepper
        fixed = FixedStages(run.config, device=stepper.world.device, precision=stepper.precision, folder=run.cache_dir)
        run.loader = fixed.loader(stepper.model, run.loader)


def _train_epoch(run: Run) -> None:
    """Take the steps of one epoch that are not done yet."""
    position, stepper, train = run.position, run.stepper, run.config.train
    forward = stepper.freeze(frozen_stages(train, position.epoch))
    run.loader.sampler.set_epoch(position.epoch)
    run.loader.sampler.start_at(position.samples)
    reads_each_step = stepper.world.device.type == "cpu" or train.checkpoint_seconds == 0
    unread: list[UnreadStep] = []
    run.restart_clock()
    for batches in _groups(run):
        seed_step(train, epoch=position.epoch, step=position.step, rank=stepper.world.rank)
        rate = run.rate(run.updates)
        loss, norm = take_step(stepper, batches, forward=forward, rate=rate)
        images = sum(len(batch.images) for batch in batches)
        unread.append(UnreadStep(position.step, images, rate, loss, norm))
        position.step += 1
        position.samples += images
        if reads_each_step or len(unread) == _STEPS_BETWEEN_READS:
            _read(run, unread)
            _save_or_stop(run)
    _read(run, unread)
    _save_or_stop(run)


def _groups(run: Run) -> Iterator[list[Batch]]:
    """Batches of one optimiser step at a time; the last group of an epoch may be smaller."""
    iterator = iter(run.loader)
    while True:
        try:
            group = list(itertools.islice(iterator, run.config.train.accumulate_steps))
        except RuntimeError:
            if run.stop.is_set:  # Ctrl-C reaches the loader's workers too, and they end at once
                return
            raise
        if not group:
            return
        yield group


def _read(run: Run, unread: list[UnreadStep]) -> None:
    """Fetch losses from the device, refuse what is not finite, and report.

    Raises:
        TrainingError: a loss or gradient is not finite (with fp16: although the loss was hardly scaled any more).
    """
    if not unread:
        return
    position, scaler = run.position, run.stepper.scaler
    own = torch.stack([torch.stack((step.loss, step.norm)) for step in unread])
    figures = run.stepper.world.mean(own).tolist()  # so that all processes see the same, and decide alike
    for step, (loss, norm) in zip(unread, figures, strict=True):
        if math.isfinite(loss) and math.isfinite(norm):
            position.loss_sum += loss * step.images
            position.images += step.images
        elif scaler is not None and scaler.get_scale() >= _SMALLEST_SCALE:
            position.skipped += 1
        else:
            raise TrainingError(
                f"The {'gradient' if math.isfinite(loss) else 'loss'} is not finite in epoch {position.epoch} "
                f"(from 0), step {step.step}, at learning rate {step.rate:.3g}. Lower train.lr, set "
                "train.clip_norm, or train in fp32 (train.precision=fp32), in a new run folder. The last checkpoint "
                "holds the state before."
            )
    run.keep_time()
    if run.progress is not None and run.stepper.world.is_main:
        run.progress(
            {
                "epoch": position.epoch,
                "epochs": run.config.train.epochs,
                "step": run.updates,
                "steps": run.config.train.epochs * run.steps,
                "loss": position.loss_sum / max(1, position.images),
                "images_per_s": position.samples * run.stepper.world.size / max(1e-9, position.epoch_seconds),
            }
        )
    unread.clear()


def _save_or_stop(run: Run) -> None:
    """Write a checkpoint when it is time; stop where the user asked for it in any process.

    Raises:
        KeyboardInterrupt: asked to stop; the checkpoint is written.
    """
    is_stopping = run.stepper.world.any(run.stop.is_set)
    if is_stopping or time.monotonic() - run.written >= run.config.train.checkpoint_seconds:
        run.save()
    if is_stopping:
        raise KeyboardInterrupt


def _finish_epoch(run: Run, validate: Validate, *, logs: Iterable[Log]) -> None:
    """Validate, keep the weights if they are the ones to keep, write the row, and decide whether to go on."""
    position, stepper, train = run.position, run.stepper, run.config.train
    figures = _validated(run, validate)
    if is_kept(position, figures, train=train, better=run.better, warns=stepper.world.is_main):
        position.best = Best(position.epoch, figures, fold_running_norms(_copy_state(stepper.validated)))
    row = {
        "epoch": position.epoch,
        "updates": run.updates,
        "lr": run.rate(run.updates - 1),
        "train_loss": position.loss_sum / position.images if position.images else math.nan,
        **figures,
        "images_per_s": position.samples * stepper.world.size / max(1e-9, position.epoch_seconds),
        "seconds": position.seconds,
        "skipped_steps": position.skipped,
    }
    position.history.append(row)
    if stepper.world.is_main:
        for log in logs:
            log(row)
    is_stopped = stepper.world.any(stepper.world.is_main and wants_stop(run.own.on_epoch, row))
    position.start_next_epoch()
    is_stopped |= bool(train.patience and position.stale >= train.patience)
    position.is_finished = is_stopped or position.epoch == train.epochs
    if position.is_finished:
        run.save()
    _save_or_stop(run)


def _validated(run: Run, validate: Validate) -> dict[str, float]:
    """Figures of the network that would be kept, from process 0.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the loader's workers; the checkpoint is written.
    """
    figures: dict[str, float] = {}
    run.stepper.world.broadcast(run.stepper.validated)  # norm layers have seen other images in each process
    if run.stepper.world.is_main:
        try:
            figures = {name: float(value) for name, value in validate(run.stepper.validated).items()}
        except RuntimeError:
            if not run.stop.is_set:
                raise
            run.save()
            raise KeyboardInterrupt from None
    run.restart_clock()
    return run.stepper.world.share(figures)


def _copy_state(model: AnyNetwork) -> dict[str, Tensor]:
    return {name: x.detach().to("cpu", copy=True).contiguous() for name, x in model.state_dict().items()}


def _result(run: Run) -> FitResult:
    best, stepper = run.position.best, run.stepper
    if best is None and run.position.history:
        raise undefined_monitor_error(run.config.train.monitor)
    if best is None:
        raise TrainingError("The checkpoint holds no finished epoch. Remove it to start again.", path=run.folder.last)
    history, device = tuple(run.position.history), stepper.world.device.type
    return FitResult(best.state, best.epoch, best.figures, history, run.position.seconds, device, stepper.precision)


@contextlib.contextmanager
def _leave_global_state(device: torch.device) -> Iterator[None]:
    """Give random state and cuDNN's setting back as they were, once no thread trains any more."""
    places = [local_device(device).index] if device.type == "cuda" else []
    kernels = _MEASURED_KERNELS if device.type == "cuda" else contextlib.nullcontext()
    with kernels, OWN_RANDOM_STATE, torch.random.fork_rng(devices=places):
        yield


def _measure_kernels() -> Callable[[], None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    return lambda: setattr(torch.backends.cudnn, "benchmark", before)


_MEASURED_KERNELS = Held(_measure_kernels)
