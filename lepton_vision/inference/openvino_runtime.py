"""The doorway to openvino."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lepton_vision.errors import ConfigError
from lepton_vision.inference.graphs import LogitGraph, ProbabilityGraph, example_images, quiet_trace
from lepton_vision.models.bundle import Bundle
from lepton_vision.types import ModelOutput, Pixels

try:
    import openvino
except ImportError:
    raise ConfigError(
        "Expected the package openvino. Found: none. Install the extra: pip install 'lepton-vision[openvino]'.",
        key="engine",
    ) from None

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoNetwork:
    """The logits of a bundle by OpenVINO on the CPU, in fp32 or bf16."""

    def __init__(self, bundle: Bundle, *, precision: str) -> None:
        self._names = [target.name for target in bundle.targets]
        self._compiled = _compile(_convert(LogitGraph(bundle), bundle), precision=precision)
        self.name = f"openvino {openvino.__version__.split('-')[0]} cpu {precision}"

    def __call__(self, images: Tensor) -> ModelOutput:
        """Run (B, C, H, W) float32, normalised."""
        found = self._compiled(images.contiguous().numpy())
        return ModelOutput({name: torch.from_numpy(found[k].copy()) for k, name in enumerate(self._names)})


def save_openvino(bundle: Bundle, graph: ProbabilityGraph, path: Path, facts: Mapping[str, str]) -> None:
    """Write ``path`` (.xml) and the weights beside it (.bin); its input ``images`` is uint16."""
    model = _convert(graph, bundle)
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u16)
    model = steps.build()
    model.inputs[0].get_tensor().set_names({"images"})
    for output, target in zip(model.outputs, bundle.targets, strict=True):
        output.get_tensor().set_names({target.name})
    for key, value in facts.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, path, compress_to_fp16=False)


def run_openvino(path: Path, images: object) -> tuple[dict[str, Pixels], dict[str, str]]:
    """Return the outputs of a file by name for uint16 images, and its metadata."""
    model = openvino.Core().read_model(path)
    found = _compile(model, precision="fp32")(images)
    info = {key: str(value.value) for key, value in model.get_rt_info().items() if key.startswith("lepton_vision")}
    return {output.get_any_name(): found[k].copy() for k, output in enumerate(model.outputs)}, info


def _convert(graph: nn.Module, bundle: Bundle) -> Any:
    shape = [-1, bundle.channels, *bundle.config.preprocess.size]
    with quiet_trace():
        return openvino.convert_model(graph.eval(), example_input=example_images(bundle), input=shape)


def _compile(model: Any, *, precision: str) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(model, "CPU", settings)
