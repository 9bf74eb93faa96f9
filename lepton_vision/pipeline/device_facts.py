"""Device, number formats and engines that ``auto`` takes on this machine. Loads torch."""

from __future__ import annotations

from typing import Any

import torch

from lepton_vision.models.device import choose_device, choose_precision, decision_precision, has_fast_bf16


def device_facts() -> dict[str, Any]:
    """Return what torch finds here, which device and precision "auto" takes, and why."""
    device = choose_device("auto")
    facts: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device.type}
    if device.type == "cuda":
        facts["gpus"] = [_gpu(index) for index in range(torch.cuda.device_count())]
    facts["precision"] = choose_precision("auto", device)
    facts["precision_why"] = _why(device)
    facts["scoring_precision"] = decision_precision("auto", device, has_runtimes=True)
    if facts["scoring_precision"] != facts["precision"]:
        facts["scoring_precision_why"] = "images are scored on a CPU as other runtimes compute"
    return facts


def _gpu(index: int) -> str:
    found = torch.cuda.get_device_properties(index)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"


def _why(device: torch.device) -> str:
    if device.type == "cpu":
        return f"this CPU multiplies bf16 {'in hardware' if has_fast_bf16() else 'by emulation alone'}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"compute capability {major}.{minor}; bf16 from 8.0 on"
    return "MPS computes in float32"
