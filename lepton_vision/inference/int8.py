"""Networks in 8 bits, fitted to images after training: the doorway to nncf."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

from lepton_vision.errors import ConfigError
from lepton_vision.inference.no_telemetry import no_telemetry
from lepton_vision.transforms.preprocess import UInt16Pixels

try:
    with no_telemetry():
        import nncf
except ImportError:
    raise ConfigError(
        "Expected the package nncf for int8. Found: none. Install the extra: pip install 'lepton-vision[int8]'.",
        key="int8",
    ) from None


def quantize(model: Any, samples: Sequence[UInt16Pixels]) -> Any:
    """Return an ONNX or OpenVINO model whose convolutions and products take int8.

    Weights are symmetric per channel, activations per tensor, with the ranges seen on ``samples``; biases are corrected
    for the mean error. Method: Jacob et al., CVPR 2018; bias correction: Nagel et al., ICCV 2019.

    Args:
        model: an onnx.ModelProto or an openvino.Model with the input ``images``, (B, C, H, W) uint16.
        samples: images, (C, H, W) uint16 each.
    """
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        data = nncf.Dataset([{"images": sample[None]} for sample in samples])
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar, which would stand in the way of results
            return nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(samples))
    finally:
        logger.setLevel(level)
