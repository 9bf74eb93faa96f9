"""Interruption of a training: Ctrl-C, after which the running step is completed and saved, and full memory."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import torch

from lepton_vision.config.sections import TrainConfig
from lepton_vision.errors import TrainingError
from lepton_vision.models.machine_errors import is_memory_full


@dataclass(slots=True)
class StopRequest:
    """Request of the user to stop."""

    is_set: bool = False


@contextlib.contextmanager
def listen_for_interrupt() -> Iterator[StopRequest]:
    """Turn the first SIGINT into a request to stop; the second one interrupts at once. The handler before is put back.

    Outside the main thread, or where SIGINT is ignored, nothing is changed.
    """
    stop = StopRequest()
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before in (signal.SIG_IGN, None):
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.is_set = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def explain_full_memory(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Say in the terms of the configuration what torch says in those of its allocator.

    Raises:
        TrainingError: the memory of ``device`` is full.
    """
    try:
        yield
    except Exception as error:
        if not is_memory_full(error):
            raise
        size, steps = config.batch_size, config.accumulate_steps
        half, doubled = max(1, size // 2), 2 * steps
        same = f"train.batch_size={half} with train.accumulate_steps={doubled} learns from as many images in a step"
        raise TrainingError(
            f"The memory of {device} is full with train.batch_size={size}, train.accumulate_steps={steps}. Expected "
            f"steps that fit. {same if size > 1 else 'Images of one at a time are too large'}; smaller images "
            "(preprocess.size, volume.patch) or bf16 (train.precision) take less, and so does a GPU that nobody else "
            "uses. Start in a new run folder.",
            key="train.batch_size",
        ) from error
