"""ONNX graphs and ONNX Runtime sessions: the doorway to onnx and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lepton_vision.errors import MissingExtraError
from lepton_vision.inference.runtimes.exported import Exported
from lepton_vision.inference.runtimes.graphs import FEATURES, LogitGraph, ProbabilityGraph, example_images, to_onnx
from lepton_vision.inference.runtimes.no_telemetry import no_telemetry
from lepton_vision.models.bundle import Bundle
from lepton_vision.types import ModelOutput, Pixels

try:
    import onnx

    with no_telemetry():
        import onnxruntime
except ImportError as error:
    raise MissingExtraError(error.name or "onnxruntime", extra="onnx", key="engine") from None

RUNTIME = f"onnxruntime {onnxruntime.__version__}"


class OnnxNetwork:
    """The logits and features of a bundle by ONNX Runtime on the CPU, in float32."""

    def __init__(self, bundle: Bundle, *, streams: int) -> None:
        self._names = [target.name for target in bundle.targets]
        graph = LogitGraph(bundle, gives_features=True)
        data = to_onnx(graph, example_images(bundle), outputs=[*self._names, FEATURES])
        self._session = _session(data, streams=streams)
        self.name = f"{RUNTIME} cpu fp32"

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run (B, C, H, W) float32, normalised."""
        *found, features = self._session.run([*self._names, FEATURES], {"images": images.contiguous().numpy()})
        logits = {name: torch.from_numpy(one) for name, one in zip(self._names, found, strict=True)}
        return ModelOutput(logits, features=torch.from_numpy(features))


def onnx_model(bundle: Bundle, graph: ProbabilityGraph) -> onnx.ModelProto:
    """Return a model whose input ``images`` is uint16."""
    model = onnx.load_from_string(to_onnx(graph, example_images(bundle), outputs=graph.names))
    for node in model.graph.node:
        node.input[:] = ["images_float" if name == "images" else name for name in node.input]
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16
    cast = onnx.helper.make_node("Cast", ["images"], ["images_float"], to=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    return model


def onnx_bytes(model: onnx.ModelProto, facts: Mapping[str, str]) -> bytes:
    """Return the bytes of a model with ``facts`` as its metadata."""
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def open_onnx(path: Path, *, streams: int) -> Exported:
    """Make a file ready to run on uint16 images."""
    session = _session(path.read_bytes(), streams=streams)
    names = [output.name for output in session.get_outputs()]

    def run(images: Any) -> dict[str, Pixels]:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return Exported(run, dict(session.get_modelmeta().custom_metadata_map), RUNTIME)


def _session(data: bytes, *, streams: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, torch.get_num_threads() - streams + 1)  # one pool, which each caller joins
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
