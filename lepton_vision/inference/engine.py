"""Inference engine: a bundle on a device, from images to calibrated probabilities.

Every step of the network has the same shape: a batch that is not full is filled up with black images. Kernels are
chosen by shape, and sums of another kernel differ in their last bits; with one shape an image has the same
probability, bit by bit, whatever it is scored beside, and a resumed run gives what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.errors import ConfigError
from lepton_vision.inference.probabilities import to_probabilities
from lepton_vision.inference.runtimes.open import ExportedNetwork, is_exported
from lepton_vision.models.assemble import AnyNetwork
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import (
    Precision,
    autocast,
    choose_device,
    decision_precision,
    fixed_kernels,
    suited_format,
)
from lepton_vision.models.encoders import fold
from lepton_vision.models.machine_errors import explain_machine_errors
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.types import ModelOutput, Pixels

TORCH_ENGINES = ("torch", "torch-compile")


class Engine:
    """The network of a bundle, ready to predict.

    Args:
        bundle: weights, targets and calibration.
        engine: "torch"; "torch-compile", which takes up to minutes to start and then runs faster; "openvino", "onnx" or
            the name of a file that ``export`` wrote (.xml, .onnx), on the CPU and for images without masks. None is
            compared with torch in float32 here: use ``choice.load_engine``.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto" (see ``device.decision_precision``), "fp32", "bf16" or "fp16".
        batch_size: images per step. Another size may change a probability in its last bits. With ``volume.view`` 2.5d
            a step is one volume, and the network sees so many slices of it at once.
        streams: steps that may run at once on a CPU, called from as many threads (see ``Streams``).

    Attributes:
        number_format: "fp32", "bf16", "fp16", or "int8" for a file with such a network.
        difference: largest difference of a probability from torch in float32 on a calibration batch; None where it was
            not compared.
        streams: steps that may run at once; 1 on a GPU and for "torch-compile".

    Raises:
        ConfigError: an engine, device or precision that is not there, or a batch size below 1.
        BundleError: weights that do not fit their configuration.
        MachineError: the memory is full, or the device fails; in use too.

    Example:
        >>> engine = Engine(Bundle.load("runs/ct-01/bundle"))  # doctest: +SKIP
        >>> engine.probabilities(images)["covid"]  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str = "torch",
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        streams: int = 1,
    ) -> None:
        if min(batch_size, streams) < 1:
            raise ConfigError(
                f"Expected a batch size and streams of at least 1. Received: {batch_size} and {streams}.",
                key="batch_size",
            )
        self.bundle, self.batch_size = bundle, batch_size
        self.samples_per_step, self.streams = batch_size, streams
        self.difference: float | None = None
        self._network: Callable[..., ModelOutput]
        self.number_format: str
        if engine not in TORCH_ENGINES:
            self.device, self.precision = _cpu_only(engine, bundle, device=device, precision=precision)
            made = _other_runtime(engine, bundle, precision=self.precision, streams=streams)
            self._network, self._runtime, self.number_format = made
            return
        self.device = choose_device(device)
        has_runtimes = not bundle.config.is_volume and not bundle.gives_masks
        self.precision = decision_precision(precision, self.device, has_runtimes=has_runtimes)
        self.number_format = self.precision
        if self.device.type != "cpu" or engine != "torch":
            self.streams = 1
        self._runtime = runtime_name(self.device, self.precision, engine=engine)
        with explain_machine_errors():
            network = bundle.network().to(self.device)
        self.device = next(network.parameters()).device  # with its number: another thread has another current GPU
        if self.precision != "fp32":  # float32 is what others are compared with
            for member in network.members:
                fold(member.encoder)
        self._network = network.to(memory_format=suited_format(network.dims + 2))
        if engine == "torch-compile":
            self._network = torch.compile(self._network, dynamic=False)
        if bundle.config.sees_slabs:
            from lepton_vision.inference.whole_volumes import SlicewiseNetwork  # reads tables: not for images

            self._network = SlicewiseNetwork(network, bundle.config, at_once=batch_size).eval()
            self.samples_per_step = 1

    @property
    def torch_network(self) -> AnyNetwork:
        """The network itself, in evaluation mode, of the engine "torch" and a view that it sees whole."""
        network: AnyNetwork = cast(Any, self._network)
        return network

    @property
    def threads(self) -> int:
        """Processors for each of the steps that may run at once."""
        return max(1, torch.get_num_threads() // self.streams)

    @property
    def has_free_threads(self) -> bool:
        """Whether a step may run on any number of processors: torch's may, other runtimes fix it as they load."""
        return self.streams > 1 and isinstance(self._network, torch.nn.Module)

    @property
    def name(self) -> str:
        """What made the probabilities, e.g. "torch 2.14.1 cpu bf16 batch 32"."""
        return f"{self._runtime} batch {self.batch_size}"

    def probabilities(self, images: Pixels | torch.Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """Predict any number of images.

        Args:
            images: (B, C, H, W) float32, or (B, C, D, H, W), normalised by ``to_input``; B may be 0.

        Returns:
            By target name, float32: (B,) probability of the positive class for binary, (B, K) otherwise. Where a
            logit of an image is NaN or infinite, the target is NaN for it; the caller decides what becomes of it.
        """
        return self.examine(images).probabilities

    def examine(self, images: Pixels | torch.Tensor) -> EngineOutput:
        """Predict classes and masks of any number of images in one pass; see ``probabilities``."""
        source = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        return self._examine(len(source), lambda part: self._run_images(source[part]))

    def examine_pixels(self, pixels: UInt16Pixels) -> EngineOutput:
        """As ``examine`` of ``to_input(pixels)``, to the bit and in fewer steps.

        Args:
            pixels: (B, C, H, W) or (B, C, D, H, W) uint16, as ``View.plain`` gives.
        """
        return self._examine(len(pixels), lambda part: self._run_pixels(pixels[part]))

    def _examine(self, count: int, run: Callable[[slice], EngineOutput]) -> EngineOutput:
        """Run steps of at most ``samples_per_step`` images, and join what they give."""
        step = self.samples_per_step
        with explain_machine_errors():
            parts = [run(slice(k, k + step)) for k in range(0, count, step)]
        if not parts:
            shapes = {t.name: t.output_shape(0) for t in self.bundle.targets}
            return EngineOutput({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, None)
        names, masks = parts[0].probabilities, [part.masks for part in parts if part.masks is not None]
        features = [part.features for part in parts if part.features is not None]
        return EngineOutput(
            {name: np.concatenate([part.probabilities[name] for part in parts]) for name in names},
            np.concatenate(masks) if masks else None,
            np.concatenate(features) if features else None,
        )

    def _run_images(self, images: torch.Tensor) -> EngineOutput:
        batch = self._empty(images.shape[1:], count=len(images))
        batch[: len(images)] = images
        return self._run(batch, count=len(images))

    def _empty(self, shape: Sequence[int], *, count: int) -> torch.Tensor:
        """Memory for one step, in which all but the first ``count`` images are black."""
        whole = (self.samples_per_step, *shape)
        batch = torch.empty(
            whole,
            dtype=torch.float32,
            memory_format=suited_format(len(whole)),
            pin_memory=self.device.type == "cuda",  # of the allocator that keeps it until the copy is done
        )
        batch[count:] = 0.0
        return batch

    def _run_pixels(self, pixels: UInt16Pixels) -> EngineOutput:
        if isinstance(self._network, ExportedNetwork):
            whole = np.zeros((self.samples_per_step, *pixels.shape[1:]), np.uint16)
            whole[: len(pixels)] = pixels
            return self._examined(self._network.run_pixels(whole), count=len(pixels))
        batch = self._empty(pixels.shape[1:], count=len(pixels))
        to_input(pixels, self.bundle.config.preprocess, out=batch.numpy()[: len(pixels)], axes=pixels.ndim - 2)
        return self._run(batch, count=len(pixels))

    def _run(self, batch: torch.Tensor, *, count: int) -> EngineOutput:
        """Run one step, of which the first ``count`` images are asked for."""
        try:
            with torch.inference_mode(), autocast(self.device, self.precision), fixed_kernels(self.device):
                output = self._network(batch.to(self.device, non_blocking=True))
            return self._examined(output, count=count)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"The memory of {self.device} is full with {len(batch)} samples of {tuple(batch.shape[1:])} in a step. "
                f"Take a batch size below {self.batch_size}, a GPU that nobody else uses, or the device cpu.",
                key="batch_size",
            ) from error

    def _examined(self, output: ModelOutput, *, count: int) -> EngineOutput:
        """What the network says of the first ``count`` images of a step."""
        bundle = self.bundle
        found = to_probabilities(
            output.logits, bundle.targets, temperatures=bundle.temperatures, calibrators=bundle.calibrators
        )
        for name, values in found.items():  # the sigmoid of an overflow is a certain 1, and no probability
            values[~torch.isfinite(output.logits[name]).all(dim=1).cpu().numpy()] = np.nan
        masks = None
        if output.mask_logits is not None:
            masks = output.mask_logits[:count].softmax(dim=1).cpu().numpy()
        features = None if output.features is None else output.features[:count].float().cpu().numpy()
        return EngineOutput({name: values[:count] for name, values in found.items()}, masks, features)


def _cpu_only(engine: str, bundle: Bundle, *, device: str, precision: str) -> tuple[torch.device, Precision]:
    """Device and number format of a runtime that is not torch."""
    formats = {"openvino": ("auto", "fp32", "bf16"), "onnx": ("auto", "fp32")}
    if is_exported(engine):
        formats, engine = {"of a file": ("auto",)}, "of a file"  # its number format is that in the file
    if engine not in formats:
        raise ConfigError(
            "Expected the engine torch, torch-compile, openvino, onnx, or a file that ends in .onnx or .xml. Received: "
            f"{engine!r}.",
            key="engine",
        )
    if device not in ("auto", "cpu") or precision not in formats[engine] or bundle.gives_masks:
        raise ConfigError(
            f"Expected for the engine {engine} the device cpu, precision {', '.join(formats[engine])} and a bundle "
            f"without masks. Received: {device}, {precision}, masks {'on' if bundle.gives_masks else 'off'}. "
            "Use the engine torch.",
            key="engine",
        )
    return torch.device("cpu"), "bf16" if precision == "bf16" else "fp32"


def _other_runtime(
    engine: str, bundle: Bundle, *, precision: Precision, streams: int
) -> tuple[Callable[..., ModelOutput], str, str]:
    """Load the network into a runtime, whose package is imported only now; return its name and number format too."""
    if is_exported(engine):
        file = ExportedNetwork(Path(engine), bundle, streams=streams)
        return file, file.name, file.precision
    if engine == "openvino":
        from lepton_vision.inference.runtimes.openvino import OpenVinoNetwork

        network = OpenVinoNetwork(bundle, precision=precision, streams=streams)
        return network, network.name, precision
    from lepton_vision.inference.runtimes.onnx import OnnxNetwork

    session = OnnxNetwork(bundle, streams=streams)
    return session, session.name, precision


def runtime_name(device: torch.device, precision: str, *, engine: str = "torch") -> str:
    """What a network runs on, e.g. "torch 2.14.1 cpu bf16"."""
    return f"{engine} {torch.__version__.split('+')[0]} {device.type} {precision}"


class EngineOutput(NamedTuple):
    """What a network says of some images.

    Attributes:
        probabilities: by target name, float32: (B,) for binary, (B, K) otherwise.
        masks: (B, 1 + M, H, W) float32 probabilities of background and structures, or None where none are predicted.
        features: (B, F) float32 pooled features, or None where the runtime does not give them.
    """

    probabilities: dict[str, npt.NDArray[np.float32]]
    masks: Pixels | None
    features: npt.NDArray[np.float32] | None = None
