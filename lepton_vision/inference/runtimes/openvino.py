"""OpenVINO models: the doorway to openvino."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lepton_vision.errors import MissingExtraError
from lepton_vision.inference.runtimes.exported import Exported
from lepton_vision.inference.runtimes.graphs import LogitGraph, ProbabilityGraph, example_images, quiet_trace
from lepton_vision.inference.runtimes.no_telemetry import no_telemetry
from lepton_vision.models.bundle import Bundle
from lepton_vision.types import ModelOutput, Pixels

try:
    with no_telemetry():
        import openvino
        import openvino.tools.ovc.convert
except ImportError:
    raise MissingExtraError("openvino", extra="openvino", key="engine") from None

RUNTIME = f"openvino {openvino.__version__.split('-')[0]}"
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoNetwork:
    """The logits and features of a bundle by OpenVINO on the CPU, in fp32 or bf16."""

    def __init__(self, bundle: Bundle, *, precision: str, streams: int) -> None:
        self._names = [target.name for target in bundle.targets]
        model = _convert(LogitGraph(bundle, gives_features=True), bundle)
        self._compiled = _Compiled(model, precision=precision, streams=streams)
        self.name = f"{RUNTIME} cpu {precision}"

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run (B, C, H, W) float32, normalised."""
        *logits, features = map(torch.from_numpy, self._compiled(images.contiguous().numpy()))
        return ModelOutput(dict(zip(self._names, logits, strict=True)), features=features)


def openvino_model(bundle: Bundle, graph: ProbabilityGraph) -> Any:
    """Return a model whose input ``images`` is uint16."""
    model = _convert(graph, bundle)
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u16)
    model = steps.build()
    model.inputs[0].get_tensor().set_names({"images"})
    for output, name in zip(model.outputs, graph.names, strict=True):
        output.get_tensor().set_names({name})
    return model


def save_openvino(model: Any, path: Path, facts: Mapping[str, str]) -> None:
    """Write ``path`` (.xml) with ``facts`` as its metadata, and the weights beside it (.bin)."""
    for key, value in facts.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, path, compress_to_fp16=False)


def open_openvino(path: Path, *, streams: int) -> Exported:
    """Make a file ready to run on uint16 images; layers that are quantised in it run in int8, others in float32."""
    model = openvino.Core().read_model(path)
    names = [output.get_any_name() for output in model.outputs]
    info = {key: str(value.value) for key, value in model.get_rt_info().items() if key.startswith("lepton_vision")}
    compiled = _Compiled(model, precision="fp32", streams=streams)

    def run(images: Any) -> dict[str, Pixels]:
        return dict(zip(names, compiled(images), strict=True))

    return Exported(run, info, RUNTIME)


def _convert(graph: nn.Module, bundle: Bundle) -> Any:
    shape = [-1, bundle.channels, *bundle.config.preprocess.size]
    with quiet_trace():
        return openvino.convert_model(graph.eval(), example_input=example_images(bundle), input=shape)


class _Compiled:
    """A model on the processors, for as many calls at once as it has streams."""

    def __init__(self, model: Any, *, precision: str, streams: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": streams,
        }
        self._model, self._own = openvino.Core().compile_model(model, "CPU", settings), threading.local()

    def __call__(self, images: Any) -> list[Pixels]:
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()  # a request serves one call at a time
        found = self._own.request.infer(images)
        return [found[k].copy() for k in range(len(found))]
