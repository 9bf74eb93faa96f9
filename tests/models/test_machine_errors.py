"""Machine errors of torch and the system, provoked or quoted, and the advice for each."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lepton_vision.errors import MachineError, ReadError, TrainingError
from lepton_vision.models.machine_errors import explain, explain_machine_errors


class Fatal(Dataset[int]):
    """Ends the process that loads from it, as the system does where memory is full."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return row


class Local(Dataset[int]):
    def __init__(self) -> None:
        self.change = lambda row: row

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> int:
        return self.change(row)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_killed_process_that_loads_images() -> None:
    said = pytest.raises(TrainingError, match=r"ended from outside.*train\.workers.*Go on\.")
    with said as caught, explain_machine_errors(TrainingError, further=" Go on."):
        list(DataLoader(Fatal(), num_workers=1))
    assert caught.value.exit_code == 2


def test_what_does_not_pickle() -> None:
    with pytest.raises(MachineError, match=r"does not pickle"), explain_machine_errors():
        pickle.dumps(Local())


@pytest.mark.parametrize(
    "make", [lambda: nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1)), lambda: nn.BatchNorm3d(3)(torch.zeros(1, 3, 1, 1, 1))]
)
def test_a_batch_norm_with_one_value(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MachineError, match=r"model\.norm=instance"), explain_machine_errors():
        make()


def test_memory_of_the_machine() -> None:
    with pytest.raises(MachineError, match=r"memory of this machine"), explain_machine_errors():
        torch.empty(1 << 60, dtype=torch.uint8)


def test_a_state_of_another_network() -> None:
    with pytest.raises(MachineError, match=r"do not fit the network"), explain_machine_errors():
        nn.Linear(2, 2).load_state_dict(nn.Linear(3, 2).state_dict())


def test_a_step_without_a_deterministic_version(deterministic: None) -> None:
    with pytest.raises(MachineError, match=r"warn_only=True"), explain_machine_errors():
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "batch_size"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.93 GB)"), "batch_size"),
        (MemoryError(), "batch_size"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "batch_size"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (
            RuntimeError(
                "unable to open shared memory object </torch_7_1> in read-write mode: Too many open files (24)"
            ),
            "ulimit",
        ),
        (RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"), "--shm-size"),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers "
                "are out of shared memory. Please try to raise your shared memory limit."
            ),
            "--shm-size",
        ),
        (RuntimeError("DataLoader worker (pid(s) 21, 22) exited unexpectedly"), "train.workers"),
        (RuntimeError("CUDA error: device-side assert triggered"), "nvidia-smi"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "build of torch"),
        (AssertionError("Torch not compiled with CUDA enabled"), "device cpu"),
        (NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device."), "FALLBACK"),
        (pickle.PicklingError("Can't pickle <function <lambda>>: attribute lookup failed"), "train.workers=0"),
        (AttributeError("Can't get local object 'main.<locals>.<lambda>'"), "train.workers=0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_has_its_advice(error: Exception, advice: str) -> None:
    assert re.search(advice, explain(error))


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[2]' is invalid"), KeyError("a"), OSError(errno.ENOENT, "gone")]
)
def test_what_is_not_known_passes_as_it_is(error: Exception) -> None:
    assert explain(error) == ""
    with pytest.raises(type(error)), explain_machine_errors():
        raise error


def test_our_own_errors_pass_as_they_are() -> None:
    with pytest.raises(ReadError), explain_machine_errors():
        raise ReadError("Too many open files", reason="missing")
