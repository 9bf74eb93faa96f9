"""Choice of device and number format, also for machines that are not present."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lepton_vision.errors import ConfigError
from lepton_vision.models import device
from lepton_vision.models.device import autocast, choose_device, choose_precision, fixed_kernels, true_float32

# torch 2.9 to 2.11 say once that the setting of TF32 will have another name; the tests read it under the old one.
pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two CUDA GPUs of the capability that a test sets."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("cpu_only")
def test_auto_without_a_gpu_is_the_cpu_and_an_absent_gpu_is_an_error() -> None:
    assert choose_device("auto") == torch.device("cpu")
    for name, told in (("cuda", "CUDA GPU"), ("cuda:1", "CUDA GPU"), ("mps", "Apple GPU")):
        with pytest.raises(ConfigError, match=f"{told}.*auto"):
            choose_device(name)


def test_auto_takes_cuda_first_then_mps(gpus: pytest.MonkeyPatch) -> None:
    gpus.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="Found: 2"):
        choose_device("cuda:2")
    gpus.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "mps"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "CUDA", "cuda:-1"])
def test_a_device_that_nobody_knows_is_an_error(gpus: pytest.MonkeyPatch, name: str) -> None:
    if name == "cuda:":
        assert choose_device(name.removesuffix(":")).type == "cuda"
        return
    with pytest.raises(ConfigError, match="Expected device auto"):
        choose_device(name)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_generation_of_the_gpu(
    gpus: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    gpus.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
    assert choose_precision("auto", "cuda") == expected
    assert choose_precision("fp16", "cuda") == "fp16"
    if expected == "fp16":
        with pytest.raises(ConfigError, match="no bf16"):
            choose_precision("bf16", "cuda")


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_precision_follows_the_instructions_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, is_fast: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda: is_fast)
    assert choose_precision("auto", "cpu") == expected
    assert choose_precision("bf16", "cpu") == "bf16"  # emulated where it is not fast
    assert choose_precision("auto", "mps") == "fp32"


def test_what_a_cpu_cannot_do_and_what_nobody_knows_are_errors() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision("fp16", "cpu")
    with pytest.raises(ConfigError, match="fp64"):
        choose_precision("fp64", "cpu")


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx2", False)]
)
def test_an_older_torch_is_answered_by_the_kernel(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    monkeypatch.setattr(device, "_cpu_flags", lambda: frozenset(flags.split()))
    assert device.has_fast_bf16.__wrapped__() is expected


def test_autocast_casts_for_bf16_and_leaves_fp32_alone() -> None:
    a = torch.ones(2, 2)
    with autocast("cpu", "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("cpu", "fp32"):
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_on_cuda_is_not_rounded_to_tf32_and_the_setting_comes_back(precision: str) -> None:
    """The setting is there without a GPU too; torch begins with TF32 allowed."""
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32
    with autocast("cuda:0", precision) if precision == "fp32" else true_float32(torch.device("cuda:0")):
        assert not cudnn.allow_tf32
        with true_float32(torch.device("cuda")):
            assert not cudnn.allow_tf32
        assert not cudnn.allow_tf32, "the outer context still holds"
    assert cudnn.allow_tf32
    with autocast("cpu", precision), true_float32(torch.device("cpu")):
        assert cudnn.allow_tf32


def test_threads_that_leave_in_any_order_leave_the_setting_as_it_was() -> None:
    first, second = (true_float32(torch.device("cuda")) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


def test_kernels_are_chosen_by_shape_whatever_the_caller_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with fixed_kernels(torch.device("cuda")):
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
    with fixed_kernels(torch.device("cpu")):
        assert torch.backends.cudnn.benchmark


@pytest.fixture
def apart() -> Iterator[Any]:
    """The setting of convolutions alone, unlike that of recurrent networks."""
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):
        pytest.skip("torch before 2.9 has one setting for all operators")
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = "tf32", "ieee"
    yield cudnn.conv
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


def test_a_caller_who_set_convolutions_apart_is_heard_and_gets_it_back(apart: Any) -> None:
    with pytest.raises(RuntimeError):
        _ = torch.backends.cudnn.allow_tf32
    with true_float32(torch.device("cuda")):
        assert apart.fp32_precision == "ieee"
    assert apart.fp32_precision == "tf32"
