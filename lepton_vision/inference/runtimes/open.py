"""Opening of exported files with the runtime that their suffix names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lepton_vision.errors import ConfigError
from lepton_vision.inference.runtimes.exported import Exported
from lepton_vision.inference.runtimes.graphs import FEATURES, logit_output
from lepton_vision.models.bundle import Bundle
from lepton_vision.transforms.preprocess import normalisation
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.types import ModelOutput

SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


def is_exported(engine: str) -> bool:
    """Whether the name of an engine is a file that ``export`` writes."""
    return Path(engine).suffix in SUFFIXES


def open_exported(path: Path, *, streams: int = 1) -> Exported:
    """Load a file with the runtime that its suffix names, for ``streams`` calls at once.

    Raises:
        ConfigError: no file of this name, one that the runtime cannot read, or the runtime is not installed.
    """
    to = SUFFIXES[path.suffix]
    if to == "onnx":
        from lepton_vision.inference.runtimes.onnx import open_onnx as open_file
    else:
        from lepton_vision.inference.runtimes.openvino import open_openvino as open_file
    try:
        return open_file(path, streams=streams)
    except Exception as error:  # each runtime has errors of its own, and their text holds the path
        raise ConfigError(
            f"Expected a file that 'lepton-vision export' wrote. Received: one that {to} cannot read "
            f"({type(error).__name__}). Export the bundle again.",
            path=path,
            key="engine",
        ) from None


class ExportedNetwork:
    """The logits of a bundle, and its features where the file gives them, by a file that was exported from it.

    Raises:
        ConfigError: see ``open_exported``; or the file is that of another bundle.
    """

    def __init__(self, path: Path, bundle: Bundle, *, streams: int) -> None:
        exported = open_exported(path, streams=streams)
        facts = exported.facts
        if facts.get("bundle_id") != bundle.bundle_id:
            raise ConfigError(
                f"Expected a file exported from bundle {bundle.bundle_id}. Received: one from "
                f"{facts.get('bundle_id', 'an unknown one')}. Export the bundle again.",
                path=path,
                key="engine",
            )
        self.precision: Literal["fp32", "int8"] = "int8" if "int8" in facts else "fp32"
        weights = path.with_suffix(".bin") if path.suffix == ".xml" else path
        mark = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        self.name = f"{exported.runtime} cpu {self.precision} {mark}"
        self._run, self._names = exported.run, [target.name for target in bundle.targets]
        config = bundle.config.preprocess
        self._scale, self._shift = map(torch.from_numpy, normalisation(config.mean, config.std))

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run (B, C, H, W) float32, normalised; the file takes them as the uint16 that they were before."""
        return self.run_pixels(((images + self._shift) / self._scale).round().clamp(0, LEVELS).numpy().astype("uint16"))

    def run_pixels(self, pixels: UInt16Pixels) -> ModelOutput:
        """Run (B, C, H, W) uint16."""
        found = self._run(pixels)
        features = torch.from_numpy(found[FEATURES]) if FEATURES in found else None  # a file of an earlier export
        logits = {name: torch.from_numpy(found[logit_output(name)]) for name in self._names}
        return ModelOutput(logits, features=features)
