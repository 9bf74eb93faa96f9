"""Device and floating-point precision of a network."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from lepton_vision.errors import ConfigError
from lepton_vision.types.held import Held

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = (8, 0)  # first compute capability whose tensor cores take bf16


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; "auto" is CUDA, then Apple's MPS, then the CPU, whichever is there first.

    Args:
        name: "auto", "cpu", "cuda", "cuda:<index>" or "mps".

    Raises:
        ConfigError: an unknown name, or a device that this machine (or this build of torch) does not have.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"Expected device auto, cpu, cuda, cuda:<index> or mps. Received: {name!r}.", key="device")
    if kind == "mps" and not _has_mps():
        raise ConfigError("Expected an Apple GPU for device 'mps'. Found none. Use device 'auto'.", key="device")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise ConfigError(
                f"Expected a CUDA GPU for device {name!r}. Found: {count}. Use device 'auto', or install a build of "
                "torch for CUDA and its driver.",
                key="device",
            )
    return torch.device(name)


def choose_precision(name: str, device: torch.device | str) -> Precision:
    """Return the number format of the matrix products: "auto" is the fastest that the device does well.

    That is bf16 on CUDA from Ampere on and on CPUs with bf16 instructions, fp16 on older CUDA (training needs a
    ``GradScaler`` then), and fp32 elsewhere, MPS included. "fp32" is float32 on CUDA too, see ``true_float32``.

    Args:
        name: "auto", "fp32", "bf16" or "fp16".
        device: where the network runs.

    Raises:
        ConfigError: an unknown name, or a format that the device cannot do (fp16 on a CPU, bf16 on old CUDA).

    Example:
        >>> choose_precision("fp32", "cpu")
        'fp32'
    """
    device = torch.device(device)
    is_old_cuda = device.type == "cuda" and torch.cuda.get_device_capability(device) < _AMPERE
    if name == "auto":
        if device.type == "cuda":
            return "fp16" if is_old_cuda else "bf16"
        return "bf16" if device.type == "cpu" and has_fast_bf16() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("Expected precision auto, fp32 or bf16 on a CPU. Received: 'fp16'.", key="train.precision")
    if name == "bf16" and is_old_cuda:
        raise ConfigError("This GPU has no bf16 (it is older than Ampere). Use fp16 or fp32.", key="train.precision")
    if name == "fp32":
        return "fp32"
    if name == "bf16":
        return "bf16"
    if name == "fp16":
        return "fp16"
    raise ConfigError(f"Expected precision auto, fp32, bf16 or fp16. Received: {name!r}.", key="train.precision")


def decision_precision(name: str, device: torch.device | str, *, has_runtimes: bool) -> Precision:
    """Return the number format that probabilities and decisions are computed in.

    As ``choose_precision``, but that "auto" is fp32 on a CPU where other runtimes (``has_runtimes``), which compute in
    float32, may score for the same bundle: whatever runs it, a probability is the same to about 1e-6, and so is the
    decision. Models that torch alone can run are computed in the fastest format by all commands.
    """
    is_cpu = torch.device(device).type == "cpu"
    return choose_precision("fp32" if name == "auto" and is_cpu and has_runtimes else name, device)


def autocast(device: torch.device | str, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a network runs with ``precision``: what stays float32 is not rounded to TF32.

    Example:
        >>> with autocast("cpu", "fp32"):
        ...     (torch.ones(1, 2) @ torch.ones(2, 1)).dtype
        torch.float32
    """
    device = torch.device(device)
    if precision == "fp32":
        return true_float32(device)
    cast = torch.autocast(device.type, dtype=_DTYPES[precision])
    return cast if device.type != "cuda" else _together(cast, true_float32(device))


def _forbid_tf32() -> Callable[[], None]:
    cudnn: Any = torch.backends.cudnn
    _hear_of_tf32()
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # the caller has set convolutions apart, as torch allows from 2.9 on
        before = cudnn.conv.fp32_precision
        cudnn.conv.fp32_precision = "ieee"
        return lambda: setattr(cudnn.conv, "fp32_precision", before)
    cudnn.allow_tf32 = False
    return lambda: setattr(cudnn, "allow_tf32", before)


@functools.cache
def _hear_of_tf32() -> None:
    """Let torch say once, to nobody, that this setting will have another name one day (2.9)."""
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32


def _fix_choice() -> Callable[[], None]:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True

    def undo() -> None:
        cudnn.benchmark, cudnn.deterministic = before

    return undo


def _keep_random_state() -> Callable[[], None]:
    state = torch.get_rng_state()
    return lambda: torch.set_rng_state(state)


OWN_RANDOM_STATE = Held(_keep_random_state)
"""torch's random state is put back once no thread is inside; ``fork_rng`` alone puts back what another thread drew."""
_NO_TF32 = Held(_forbid_tf32)
_FIXED_CHOICE = Held(_fix_choice)


def true_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return a context in which convolutions of float32 are that on CUDA; enclose the backward pass too.

    torch lets cuDNN round their inputs to TF32 from Ampere on, which has the 10 bits of fp16.
    """
    return _NO_TF32 if device.type == "cuda" else contextlib.nullcontext()


def fixed_kernels(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the shape alone chooses a kernel on CUDA, and no stopwatch (``cudnn.benchmark``)."""
    return _FIXED_CHOICE if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def _together(*contexts: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for one in contexts:
            stack.enter_context(one)
        yield


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return a context that turns autocast off inside one that has it on."""
    if device.type not in ("cpu", "cuda", "mps"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def suited_format(axes: int) -> torch.memory_format:
    """Return the memory format with channels last for tensors of ``axes`` axes; any other stays as it is.

    Example:
        >>> suited_format(4)
        torch.channels_last
    """
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(axes, torch.preserve_format)


@functools.cache
def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16, AMX, or bf16 of Arm); elsewhere it is emulated."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):  # torch 2.4 lacks the first
        is_supported = getattr(torch.cpu, name, None)
        if is_supported is not None and is_supported():
            return True
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags())


def _cpu_flags() -> frozenset[str]:
    """Instruction sets that Linux names for the first core; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
