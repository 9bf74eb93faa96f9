"""Conversion of logits to calibrated probabilities or values: the only place of sigmoid, softmax and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.predictions.calibration import Calibrator, apply_calibrator
from lepton_vision.types import Target


def to_probabilities(
    logits: Mapping[str, torch.Tensor],
    targets: Sequence[Target],
    *,
    temperatures: Mapping[str, float] | None = None,
    calibrators: Mapping[str, Calibrator] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Divide by the temperature, then sigmoid (yes or no) or softmax (exclusive classes), in float32; then calibrate.

    The logit of a number is its value already, and stays as it is.

    Args:
        logits: by target name, (B, 1) for binary, (B, K) otherwise; any float dtype and device.
        targets: which of them.
        temperatures: by target name; 1 where not named.
        calibrators: by target name; nothing is changed where not named.

    Returns:
        By target name, float32: (B,) of the positive class for binary, (B,) values of a number, (B, K) otherwise.
    """
    result = {}
    for target in targets:
        said = answers_of(logits[target.name].detach().float(), target, (temperatures or {}).get(target.name, 1.0))
        values: npt.NDArray[np.float32] = (said[:, 0] if target.is_single else said).cpu().numpy()
        calibrator = (calibrators or {}).get(target.name)
        if calibrator is not None:
            values = apply_calibrator(values.astype(np.float64), calibrator, kind=target.kind).astype(np.float32)
        result[target.name] = values
    return result


def answers_of(logits: torch.Tensor, target: Target, temperature: float) -> torch.Tensor:
    """(B, K) probabilities of logits, or the values (B, 1) of a number, without calibration."""
    if target.is_value:
        return logits
    scaled = logits / temperature
    return torch.softmax(scaled, dim=1) if target.is_exclusive else torch.sigmoid(scaled)
