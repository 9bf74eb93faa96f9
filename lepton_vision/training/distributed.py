"""Distributed processes started by ``torchrun``, as one value; a single process is a world of one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lepton_vision.errors import ConfigError, LeptonError, TrainingError

T = TypeVar("T")
# The other processes wait here while the first one validates.
_PATIENCE = timedelta(hours=3)
# What is heard of a process that has ended: by gloo, NCCL or the store.
_PEERS = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|^Dist\w*Error")


@dataclass(frozen=True, slots=True)
class World:
    """Rank of this process and number of processes.

    Attributes:
        rank: from 0; process 0 validates and is the only one that writes.
        size: number of processes.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Sum of ``value`` over all processes, on the device; does not wait for what a GPU still does."""
        value = value.to(self.device, non_blocking=True)
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Mean of ``value`` over all processes; of one process it is ``value`` itself."""
        return value if self.size == 1 else self.total(value) / self.size

    def share(self, value: T) -> T:
        """Value of process 0, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        shared: T = box[0]
        return shared

    def any(self, is_set: bool) -> bool:
        """Whether it is so in any process."""
        return is_set if self.size == 1 else bool(self.total(torch.tensor(float(is_set))) > 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def broadcast(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        if self.size > 1:
            for value in module.state_dict().values():
                distributed.broadcast(value, src=0)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Average gradients over the processes; call it anew whenever other parameters are frozen."""
        if self.size == 1:
            return module
        places = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=places)

    def check_same(self, count: int, *, what: str) -> None:
        """Refuse to start where the processes would wait for each other forever.

        Raises:
            TrainingError: another process has another count.
        """
        if self.size == 1:
            return
        counts: list[Any] = [None] * self.size
        distributed.all_gather_object(counts, count)
        if len(set(counts)) > 1:
            raise TrainingError(
                f"Expected the same number of {what} in every process. Received: {counts}. "
                "Make the training loader in each process with make_loader(..., training=True)."
            )


def is_main_process() -> bool:
    """Whether this process writes: the only one, or rank 0 of ``torchrun``."""
    return int(os.environ.get("RANK", "0")) == 0


def local_device(device: torch.device) -> torch.device:
    """Give each process of ``torchrun`` on this machine its own accelerator (LOCAL_RANK), any other its current one."""
    place: int | None = device.index  # torch's own annotation forgets None
    if device.type == "cuda" and place is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda" and place is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def start_group(device: torch.device) -> None:
    """Join the other processes: NCCL between GPUs, where each is told its own, and gloo elsewhere."""
    how: dict[str, Any] = {"backend": "gloo"}
    if device.type == "cuda":
        how = {"backend": "nccl", "device_id": device}
    try:
        distributed.init_process_group(timeout=_PATIENCE, **how)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            f"Cannot join the other processes of this training ({type(error).__name__}). Start it with torchrun, which "
            "says to each where they meet, and each training on a machine with a --master-port of its own; for a "
            "single process unset WORLD_SIZE."
        ) from error


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the other processes of ``torchrun`` (gloo on CPU, NCCL on CUDA) and leave them at the end.

    A process group that stands already is used and left standing. Where one process ends with an error, the others hear
    of it at their next exchange, and end too.

    Raises:
        TrainingError: another process has ended, or the group cannot be joined.
        ConfigError: more processes than GPUs.

    Example:
        >>> with join_world(torch.device("cpu")) as world:
        ...     world.size
        1
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    stands = distributed.is_initialized()
    if size == 1 and not stands:
        yield World(0, 1, device)
        return
    device = local_device(device)
    if device.type == "cuda":
        _check_gpus(device)
        torch.cuda.set_device(device)
    if not stands:
        start_group(device)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), device)
    except Exception as error:
        stands |= device.type == "cuda"  # to leave NCCL's group is to wait for processes that may wait for this one
        if isinstance(error, LeptonError) or not _PEERS.search(f"{type(error).__name__} {error}"):
            raise
        raise TrainingError(
            "Another process of this training has ended, and its own message says why (one without a message was ended "
            "from outside, as where memory is full): all of them end. Mend that, and go on with resume (--resume)."
        ) from error
    finally:
        if not stands:
            distributed.destroy_process_group()


def _check_gpus(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ConfigError(
            f"Expected a GPU for each process of torchrun on this machine. Found: {count}, and one process too many. "
            f"Use --nproc-per-node {count}.",
            key="device",
        )
