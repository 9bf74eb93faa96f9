"""State of a training run (position, clock, checkpoint), and its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lepton_vision.config import Config
from lepton_vision.training.checkpoint import CheckpointFolder, Origin, Position
from lepton_vision.training.interrupt import StopRequest
from lepton_vision.training.optim import rate_at
from lepton_vision.training.own_parts import OwnParts, own_share
from lepton_vision.training.step import Stepper
from lepton_vision.types import Displayed, Table
from lepton_vision.types.figure import Better


@dataclass(frozen=True, slots=True)
class FitResult(Displayed):
    """What training gave.

    Attributes:
        state: weights of the epoch that is kept on the CPU (the averaged ones where averaging is on).
        epoch: the epoch that is kept, from 0: the best, or the last.
        best: validation figures of that epoch.
        history: one row per epoch, as in ``metrics.jsonl``.
        seconds: wall time, that of resumed parts included.
        device: where it ran.
        precision: "fp32", "bf16" or "fp16".
    """

    state: dict[str, Tensor] = field(repr=False)
    epoch: int
    best: dict[str, float]
    history: tuple[dict[str, Any], ...] = field(repr=False)
    seconds: float
    device: str
    precision: str

    def _tables(self) -> tuple[Table, ...]:
        rows = {"kept epoch (from 0)": str(self.epoch), "epochs": str(len(self.history))}
        rows |= {"seconds": f"{self.seconds:.1f}"}
        rows |= {name: f"{value:.4f}" for name, value in self.best.items()}
        return (Table(f"Training on {self.device}, {self.precision}", rows.items()),)


@dataclass(frozen=True, slots=True)
class UnreadStep:
    """A step whose figures are still on the device."""

    step: int
    images: int
    rate: float
    loss: Tensor
    norm: Tensor


@dataclass(slots=True)
class Run:
    """What the functions of one run share."""

    config: Config
    stepper: Stepper
    loader: Any
    folder: CheckpointFolder
    origin: Origin
    stop: StopRequest
    progress: Callable[[dict[str, Any]], None] | None
    cache_dir: Path | None = None
    own: OwnParts = field(default_factory=OwnParts)
    better: Better = "higher"
    position: Position = field(default_factory=Position)
    clock: float = field(default_factory=time.monotonic)
    written: float = field(default_factory=time.monotonic)

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.loader) // self.config.train.accumulate_steps)

    @property
    def updates(self) -> int:
        """Optimiser steps done since the beginning."""
        return self.position.epoch * self.steps + self.position.step

    def rate(self, update: int) -> float:
        """Learning rate of an optimiser step, counted from 0 over the whole run."""
        train, steps = self.config.train, self.config.train.epochs * self.steps
        if self.own.schedule is not None:
            return self.stepper.peak * own_share(self.own.schedule, update, steps)
        warmup = round(train.warmup_epochs * self.steps)
        return self.stepper.peak * rate_at(update, steps=steps, warmup=warmup, floor=train.min_lr_scale)

    def restart_clock(self) -> None:
        """Count what passed since the last look for the run, not for the epoch's speed."""
        now = time.monotonic()
        self.position.seconds += now - self.clock
        self.clock = now

    def keep_time(self) -> None:
        """Count what passed since the last look as training."""
        self.position.epoch_seconds += time.monotonic() - self.clock
        self.restart_clock()

    def save(self) -> None:
        """Write the checkpoint, in process 0; a finished run keeps its result only."""
        self.restart_clock()
        if self.stepper.world.is_main:
            self.folder.write(
                self.position, self.origin, parts={} if self.position.is_finished else self.stepper.parts()
            )
        self.written = time.monotonic()
