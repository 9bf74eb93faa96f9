"""Conversion of networks to plain graphs for other runtimes: one tensor in, one tensor out per target."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lepton_vision.errors import ConfigError
from lepton_vision.inference.probabilities import answers_of
from lepton_vision.models.bundle import Bundle

OPSET = 17
FEATURES = "pooled features"  # no target has a blank in its name


class LogitGraph(nn.Module):
    """Images (B, C, H, W) float32, normalised, to logits: (B, 1) or (B, K) for each target in order.

    Args:
        bundle: of images.
        gives_features: the pooled features (B, F) come last.
    """

    def __init__(self, bundle: Bundle, *, gives_features: bool = False) -> None:
        super().__init__()
        check_is_plain(bundle)
        self.gives_features = gives_features
        self.network, self.names = bundle.network(), [target.name for target in bundle.targets]
        self.network.gives_masks = False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        found = self.network(images)
        logits = tuple(found.logits[name] for name in self.names)
        return (*logits, found.features) if self.gives_features else logits


class ProbabilityGraph(nn.Module):
    """Pixels (B, C, H, W) float32 from 0 to 65535 to probabilities, or values, (B, 1) or (B, K) for each target.

    The logits that they are made of come after them, then the pooled features; ``names`` are those of all outputs.

    Args:
        bundle: of images.
        scale: one figure per channel.
        shift: one figure per channel, subtracted after scaling.
        gives_features: the pooled features (B, F) come last.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, bundle: Bundle, *, scale: Sequence[float], shift: Sequence[float], gives_features: bool = False
    ) -> None:
        super().__init__()
        self.logits, self.targets = LogitGraph(bundle, gives_features=gives_features), bundle.targets
        names = self.logits.names
        self.names = [*names, *map(logit_output, names), *([FEATURES] if gives_features else [])]
        self.temperatures = [bundle.temperature(target.name) for target in bundle.targets]
        self.register_buffer("scale", torch.tensor(list(scale)).reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(list(shift)).reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalise, run the network, divide by the temperature; then softmax or sigmoid."""
        # The clamp changes no pixel; without it OpenVINO takes conversion and scale for those of 16-bit weights.
        found = self.logits(pixels.clamp(0, 65535) * self.scale - self.shift)
        logits = found[: len(self.targets)]
        probabilities = (
            answers_of(one, target, t) for one, t, target in zip(logits, self.temperatures, self.targets, strict=True)
        )
        return (*probabilities, *found)


def logit_output(target: str) -> str:
    """Name of the output with the logits of a target."""
    return f"{target}_logits"


def check_is_plain(bundle: Bundle) -> None:
    """Refuse bundles that are no graph from images to classes.

    Raises:
        ConfigError: volumes, no targets, or classes seen in regions of a predicted mask.
    """
    roi = bundle.config.segmentation is not None and bundle.config.segmentation.mode == "roi"
    if bundle.config.is_volume or not bundle.targets or roi:
        raise ConfigError(
            "Expected a bundle of 2-D images with targets that does not cut regions of interest. Received: "
            f"{'volumes' if bundle.config.is_volume else 'regions of interest' if roi else 'no targets'}. "
            "Use the engine torch, which runs every bundle.",
            key="engine",
        )


@contextlib.contextmanager
def quiet_trace() -> Iterator[None]:
    """Leave out what tracing warns of: its own age, and the checks of shapes in ``Network``, which are constant."""
    with warnings.catch_warnings(), torch.no_grad():
        traced = torch.jit.TracerWarning  # type: ignore[attr-defined]
        for kind in (FutureWarning, DeprecationWarning, traced):
            warnings.simplefilter("ignore", kind)
        yield


def example_images(bundle: Bundle, *, count: int = 2) -> Tensor:
    """Black images, (count, C, H, W) float32."""
    return torch.zeros(count, bundle.channels, *bundle.config.preprocess.size)


def to_onnx(graph: nn.Module, example: Tensor, *, outputs: Sequence[str]) -> bytes:
    """Return a graph as ONNX: input ``images``, outputs by name, the batch dynamic."""
    file = io.BytesIO()
    axes = {name: {0: "batch"} for name in ("images", *outputs)}
    with quiet_trace():
        torch.onnx.export(
            graph.eval(),
            (example,),
            file,  # type: ignore[arg-type]  # a buffer is taken without dynamo
            dynamo=False,  # the newer way needs a further package
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    return file.getvalue()
