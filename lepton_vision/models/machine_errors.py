"""Out-of-memory and other machine errors of torch, explained in terms of the configuration."""

from __future__ import annotations

import contextlib
import errno
import pickle
import re
from collections.abc import Iterator

import torch

from lepton_vision.errors import LeptonError, MachineError

ONE_VALUE = (
    "Batch norms cannot learn from one value for each channel, as a batch of one image gives whose last map has one "
    "position. Use train.batch_size=2 or more, more training images, a larger preprocess.size (volume.patch, "
    "volume.window), or model.norm=instance."
)
_FULL = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|ALLOC_FAILED|bad_?alloc",
    re.IGNORECASE,
)
_NUMBERS = {
    errno.EMFILE: "Too many files are open.",
    errno.ENFILE: "Too many files are open on this machine.",
}
_MORE_FILES = "Allow more (ulimit -n 65536), or use fewer processes that load images (train.workers)."
_SAID = (
    (r"received 0 items of ancdata|Too many open files", f"Too many files are open. {_MORE_FILES}"),
    (
        r"(insufficient|out of) shared memory|Bus error|shared memory object|shm_open|"
        r"unable to (write to|mmap|open) .*torch_",
        "The shared memory of this machine (/dev/shm) is full. Give it more (docker run --shm-size 8g), or use "
        "train.workers=0.",
    ),
    (
        r"DataLoader worker .*(is killed by|exited unexpectedly)|DataLoader timed out",
        "A process that loads images was ended from outside, most often by the system as the machine's memory was "
        "full. Use fewer of them (train.workers; 0 loads in the training process) or a smaller train.batch_size.",
    ),
    (r"Expected more than 1 value per channel", ONE_VALUE),
    (
        r"deterministic (implementation|behavior)|use_deterministic_algorithms",
        "torch.use_deterministic_algorithms is on, and torch has no such version of a step of this network here. Turn "
        "it off, or let it warn only (warn_only=True).",
    ),
    (
        r"no kernel image is available|driver version is insufficient|no NVIDIA driver|CUDA-capable device|busy or "
        r"unavailable|invalid device ordinal|Torch not compiled with CUDA",
        "The GPU cannot be used: it is taken, or it, its driver and this build of torch do not fit together. Use the "
        "device cpu, a GPU that is free (CUDA_VISIBLE_DEVICES), or a build of torch for it.",
    ),
    (
        r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|cuDNN error|HIP error|AcceleratorError",
        "The GPU failed in the middle of its work. Start the command again; if it fails at once, try the device cpu "
        "and look at the GPU (nvidia-smi).",
    ),
    (
        r"not (currently )?(implemented|supported) (for|on) the '?(MPS|CUDA|CPU|XPU)|Could not run '.*' with arguments",
        "A step of this network is not there for this device in this build of torch. Use the device cpu (with mps also "
        "PYTORCH_ENABLE_MPS_FALLBACK=1).",
    ),
    (
        r"BackendCompilerFailed|InductorError|torch\._(dynamo|inductor)|CppCompileError|InvalidCxxCompiler|TritonMissing",
        "torch cannot compile the network here: its compiler, or one of C++, is missing. Use train.compile=false, or "
        "the engine torch.",
    ),
    (
        r"Can't pickle|cannot pickle|Can't get local object",
        "A process that loads images cannot be given what it needs (it does not pickle), as functions and classes "
        "defined inside others. Define them in a module, or use train.workers=0.",
    ),
    (
        r"before the current process has finished its bootstrapping",
        "Processes that load images start by importing the script. Put its calls under "
        "`if __name__ == '__main__':`, or use train.workers=0.",
    ),
    (
        r"in loading state_dict|parameter group that doesn't match|loaded state dict",
        "The weights do not fit the network of the configuration. Use the configuration that they were made with, or "
        "start anew in another folder.",
    ),
)


def is_memory_full(error: BaseException) -> bool:
    """Whether there was too little memory, of a GPU or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_FULL.search(str(error)))


def explain(error: BaseException) -> str:
    """Say what went wrong and what to do; "" where nothing is known of it."""
    if is_memory_full(error):
        return (
            "The memory of this machine, or of its GPU, is full. Take fewer images at once (train.batch_size, "
            "batch_size), smaller ones (preprocess.size, volume.patch, volume.window), or fewer processes "
            "(train.workers)."
        )
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return f"{_NUMBERS[error.errno]} {_MORE_FILES}"
    is_of_torch = isinstance(error, RuntimeError | ValueError | OSError | ImportError | NotImplementedError)
    if not (is_of_torch or isinstance(error, pickle.PicklingError | AttributeError | TypeError | AssertionError)):
        return ""
    text = f"{type(error).__module__}.{type(error).__name__}: {error}"
    return next((said for pattern, said in _SAID if re.search(pattern, text)), "")


@contextlib.contextmanager
def explain_machine_errors(kind: type[LeptonError] = MachineError, *, further: str = "") -> Iterator[None]:
    """Raise what is known of torch and the system as a ``kind`` of error that says what to do, then ``further``.

    Raises:
        LeptonError: of the ``kind``.
    """
    try:
        yield
    except LeptonError:
        raise
    except Exception as error:
        said = explain(error)
        if not said:
            raise
        raise kind(f"{said}{further}") from error
