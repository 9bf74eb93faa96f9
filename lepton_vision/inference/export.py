"""A bundle as one file for other programs: normalisation, network and temperature in one graph, its facts beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lepton_vision.errors import BundleError, ConfigError
from lepton_vision.files import sync_folder, write_atomic
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.engine_choice import TOLERANCE, calibration_pixels
from lepton_vision.inference.graphs import ProbabilityGraph
from lepton_vision.models.bundle import Bundle
from lepton_vision.transforms.preprocess import LEVELS, to_input
from lepton_vision.types import Pixels

KEY = "lepton_vision"


def export_bundle(bundle: Bundle, path: str | Path, *, to: Literal["onnx", "openvino"]) -> float:
    """Write a bundle of images as ONNX (.onnx) or OpenVINO (.xml, with .bin beside it); compare it before it is there.

    Input ``images``: (B, C, H, W) uint16, 0 black to 65535 white, as ``preprocess_image`` gives; B is free. Outputs by
    target name: (B, 1) or (B, K) float32 probabilities. The metadata ``lepton_vision`` is one JSON object: bundle id,
    classes, operating point, preprocessing. Masks are left out.

    Returns:
        Largest difference of a probability from torch in float32.

    Raises:
        ConfigError: another kind of bundle, calibrators, a suffix that does not fit, or a missing package.
        BundleError: the file gives other probabilities or facts, or cannot be written; nothing stays of it.
    """
    path, suffix = Path(path), {"onnx": ".onnx", "openvino": ".xml"}[to]
    if path.suffix != suffix:
        raise ConfigError(f"Expected a file name that ends in {suffix}. Received: {path.suffix!r}.", key="out")
    if bundle.calibrators:
        raise ConfigError(
            f"Expected calibration by temperature alone. Received: {', '.join(sorted(bundle.calibrators))} corrected "
            "after the network. Export a bundle without calibrators.",
            key="calibrators",
        )
    graph, facts = _graph(bundle), {KEY: json.dumps(describe(bundle), sort_keys=True)}
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            if to == "onnx":
                from lepton_vision.inference.onnx_runtime import onnx_model

                write_atomic(draft, onnx_model(bundle, graph, facts))
            else:
                from lepton_vision.inference.openvino_runtime import save_openvino

                save_openvino(bundle, graph, draft, facts)
            difference = check_export(bundle, draft, to=to)
            for file in sorted(Path(folder).iterdir()):  # .bin before .xml: what names the other comes last
                shutil.move(file, path.with_name(file.name))
    except OSError as error:
        raise BundleError(f"Cannot write the export: {error.strerror}. Name another folder.", path=path) from None
    sync_folder(path.parent)
    return difference


def check_export(bundle: Bundle, path: Path, *, to: Literal["onnx", "openvino"]) -> float:
    """Run a file with its runtime; return the largest difference of a probability from torch in float32.

    Raises:
        BundleError: it is too large, or the metadata are those of another bundle.
    """
    pixels = calibration_pixels(bundle)
    found, facts = _run(path, pixels, to=to)
    true = Engine(bundle, device="cpu", precision="fp32", batch_size=len(pixels)).probabilities(
        to_input(pixels, bundle.config.preprocess)
    )
    difference = max(float(np.abs(found[name].reshape(true[name].shape) - true[name]).max()) for name in true)
    if not difference <= TOLERANCE["fp32"] or json.loads(facts.get(KEY, "null")) != describe(bundle):
        raise BundleError(
            f"Expected probabilities within {TOLERANCE['fp32']:g} of torch and the facts of bundle {bundle.bundle_id}. "
            f"Received: a difference of {difference:.2g}, or other facts. Export the bundle again.",
            path=path,
        )
    return difference


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return what an exported file says of itself, as plain values."""
    plain, point = bundle.config.to_dict(), bundle.operating_point
    described = {
        "bundle_id": bundle.bundle_id,
        "targets": [{"name": t.name, "kind": t.kind, "classes": list(t.classes)} for t in bundle.targets],
        "operating_point": None if point is None else point.to_dict(),
        "preprocess": plain["preprocess"],
        "input": "images: (B, C, H, W) uint16, 0 black to 65535 white",
    }
    again: dict[str, Any] = json.loads(json.dumps(described))
    return again


def _graph(bundle: Bundle) -> ProbabilityGraph:
    config = bundle.config.preprocess
    mean = config.mean if len(config.mean) == len(config.std) else config.mean * len(config.std)
    shift = [m / s for m, s in zip(mean, config.std, strict=True)]
    return ProbabilityGraph(bundle, scale=[1.0 / (LEVELS * s) for s in config.std], shift=shift)


def _run(path: Path, pixels: object, *, to: str) -> tuple[Mapping[str, Pixels], Mapping[str, str]]:
    if to == "onnx":
        from lepton_vision.inference.onnx_runtime import run_onnx

        return run_onnx(path, pixels)
    from lepton_vision.inference.openvino_runtime import run_openvino

    return run_openvino(path, pixels)
