"""Export of a bundle to one file: normalisation, network and temperature in one graph, with its metadata."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lepton_vision.errors import BundleError, ConfigError, explain_os_error
from lepton_vision.files import check_place, sync_folder, write_atomic
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes.choice import TOLERANCE, calibration_pixels
from lepton_vision.inference.runtimes.exported import KEY
from lepton_vision.inference.runtimes.graphs import ProbabilityGraph
from lepton_vision.inference.runtimes.open import SUFFIXES, open_exported
from lepton_vision.models.bundle import Bundle
from lepton_vision.transforms.preprocess import normalisation, to_input
from lepton_vision.transforms.resize import UInt16Pixels

Runtime = Literal["onnx", "openvino"]


@dataclass(frozen=True, slots=True)
class Int8:
    """Settings of the quantisation of a network to 8 bits.

    Attributes:
        samples: images that show the ranges of the activations, (C, H, W) uint16 each, as ``preprocess_image`` gives.
        judge: takes the draft of the file, returns what the file shall say of its quality, and raises where that does
            not do.
    """

    samples: Sequence[UInt16Pixels]
    judge: Callable[[Path], dict[str, Any]]


def export_bundle(bundle: Bundle, path: str | Path, *, to: Runtime, int8: Int8 | None = None) -> float:
    """Write a bundle of images as ONNX (.onnx) or OpenVINO (.xml, with .bin beside it); compare it before it is there.

    Input ``images``: (B, C, H, W) uint16, 0 black to 65535 white, as ``preprocess_image`` gives; B is free. Outputs by
    target name: (B, 1) or (B, K) float32 probabilities, and ``<target>_logits``, before the temperature; of a float32
    file also ``pooled features``, (B, F), which the novelty of scored rows is made of. The metadata
    ``lepton_vision`` is one JSON object: bundle id, classes, operating point, preprocessing, and the quality of an int8
    network. Masks are left out.

    Args:
        bundle: of images.
        path: file to write.
        to: "onnx" or "openvino".
        int8: None writes float32. See ``int8_study.export_int8``, which fills it in from a labelled manifest.

    Returns:
        Largest difference of a probability from torch in float32 on ``calibration_pixels``.

    Raises:
        ConfigError: another kind of bundle, calibrators, a suffix that does not fit, or a missing package.
        BundleError: the file gives other probabilities or facts, or cannot be written; nothing stays of it.
    """
    path = Path(path)
    check_request(bundle, path, to=to)
    model, facts = _model(bundle, to=to, gives_features=int8 is None), describe(bundle)
    if int8 is not None:
        from lepton_vision.inference.runtimes.int8 import quantize

        model = quantize(model, int8.samples)
    with explain_os_error("write the export", error=BundleError, advice="Name another folder.", path=path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            _save(model, draft, facts if int8 is None else facts | {"int8": {}}, to=to)
            if int8 is not None:
                _save(model, draft, facts | {"int8": int8.judge(draft)}, to=to)
            difference = check_export(bundle, draft)
            for file in sorted(Path(folder).iterdir()):  # .bin before .xml: what names the other comes last
                shutil.move(file, path.with_name(file.name))
    sync_folder(path.parent)
    return difference


def check_request(bundle: Bundle, path: Path, *, to: Runtime) -> None:
    """Refuse what cannot be exported, or not to this place, before any work.

    Raises:
        ConfigError: a suffix that does not fit, or calibrators.
        BundleError: the file cannot be written there.
    """
    check_place(path, what="export", error=BundleError)
    if SUFFIXES.get(path.suffix) != to:
        suffix = next(suffix for suffix, runtime in SUFFIXES.items() if runtime == to)
        raise ConfigError(f"Expected a file name that ends in {suffix}. Received: {path.suffix!r}.", key="out")
    if bundle.calibrators:
        raise ConfigError(
            f"Expected calibration by temperature alone. Received: {', '.join(sorted(bundle.calibrators))} corrected "
            "after the network. Export a bundle without calibrators.",
            key="calibrators",
        )


def check_export(bundle: Bundle, path: Path) -> float:
    """Run a file with its runtime; return the largest difference of a probability from torch in float32.

    Raises:
        BundleError: it is too large, or the metadata are those of another bundle.
    """
    pixels, exported = calibration_pixels(bundle), open_exported(path)
    found = exported.run(pixels)
    true = Engine(bundle, device="cpu", precision="fp32", batch_size=len(pixels)).probabilities(
        to_input(pixels, bundle.config.preprocess)
    )
    difference = max(float(np.abs(found[name].reshape(true[name].shape) - true[name]).max()) for name in true)
    allowed = TOLERANCE["int8" if "int8" in exported.facts else "fp32"]
    if not difference <= allowed or not describe(bundle).items() <= exported.facts.items():
        raise BundleError(
            f"Expected probabilities within {allowed:g} of torch and the facts of bundle {bundle.bundle_id}. "
            f"Received: a difference of {difference:.2g}, or other facts. Export the bundle again.",
            path=path,
        )
    return difference


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return what an exported file says of itself, as plain values."""
    plain, point = bundle.config.to_dict(), bundle.operating_point
    described = {
        "bundle_id": bundle.bundle_id,
        "targets": [
            {"name": t.name, "kind": t.kind, "classes": list(t.classes), **({"unit": t.unit} if t.is_value else {})}
            for t in bundle.targets
        ],
        "operating_point": None if point is None else point.to_dict(),
        "preprocess": plain["preprocess"],
        "input": "images: (B, C, H, W) uint16, 0 black to 65535 white",
    }
    again: dict[str, Any] = json.loads(json.dumps(described))
    return again


def _model(bundle: Bundle, *, to: Runtime, gives_features: bool) -> Any:
    """The graph as the runtime's own object; features of int8 would be compared with a reference in float32."""
    config = bundle.config.preprocess
    scale, shift = (one.ravel().tolist() for one in normalisation(config.mean, config.std))
    graph = ProbabilityGraph(bundle, scale=scale, shift=shift, gives_features=gives_features)
    if to == "onnx":
        from lepton_vision.inference.runtimes.onnx import onnx_model

        return onnx_model(bundle, graph)
    from lepton_vision.inference.runtimes.openvino import openvino_model

    return openvino_model(bundle, graph)


def _save(model: Any, path: Path, facts: dict[str, Any], *, to: Runtime) -> None:
    texts = {KEY: json.dumps(facts, sort_keys=True)}
    if to == "onnx":
        from lepton_vision.inference.runtimes.onnx import onnx_bytes

        write_atomic(path, onnx_bytes(model, texts))
        return
    from lepton_vision.inference.runtimes.openvino import save_openvino

    save_openvino(model, path, texts)
