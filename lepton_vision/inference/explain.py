"""Grad-CAM heat maps of the evidence for a class (Selvaraju et al., ICCV 2017, arXiv:1610.02391)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_vision.errors import ConfigError, InvalidValueError, LeptonError, ReadError, nearest
from lepton_vision.files import write_atomic
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.preprocessing import Preprocessing
from lepton_vision.models.assemble import AnyNetwork
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import choose_device, full_precision, true_float32
from lepton_vision.models.network import Network
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.types import CaseKey, Displayed, Image, ModelOutput, Pixels, SampleAddress, Table, Target

_BATCH = 8
RgbPixels = npt.NDArray[np.uint8]
_STRONGEST = 0.6  # opacity of the largest value: the image shows through


@dataclass(frozen=True, eq=False)
class Explanation(Displayed):
    """Where the evidence for one class lies in one image.

    Attributes:
        target: name of the target.
        class_name: the class that was asked for; "" of a number.
        probability: of that class, calibrated; of a number its value.
        heat: (H, W) float32, 0 or more, not scaled: maps of one model and class may be compared.
        pixels: (C, H, W) uint16, the image as the network sees it.
    """

    target: str
    class_name: str
    probability: float
    heat: Pixels
    pixels: UInt16Pixels

    @property
    def picture(self) -> RgbPixels:
        """(H, W, 3) uint8: the image with the heat laid over it in red."""
        return overlay(self.heat, self.pixels)

    def save(self, path: str | Path) -> Path:
        """Write the picture as PNG; it shows the pixels of a patient.

        Raises:
            InvalidValueError: another suffix.
            OutputError: it cannot be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise InvalidValueError(f"Expected a name that ends in .png. Received: {Path(path).suffix!r}.", key="path")
        write_atomic(path, self._repr_png_())
        return Path(path)

    def _repr_png_(self) -> bytes:
        from PIL import Image as Picture

        buffer = BytesIO()
        Picture.fromarray(self.picture).save(buffer, format="png")
        return buffer.getvalue()

    def _tables(self) -> list[Table]:
        size = " x ".join(map(str, self.heat.shape))
        said = (
            f" {self.class_name}, probability {self.probability:.3f}" if self.class_name else f" {self.probability:.4g}"
        )
        return [Table(f"Grad-CAM of {self.target}{said}, {size}")]


def explain(
    bundle: Bundle | str | Path,
    image: Image | str | Path,
    *,
    target: str | None = None,
    class_name: str | None = None,
    device: str = "auto",
) -> Explanation:
    """Explain one image by Grad-CAM (see ``grad_cam``): a picture of what speaks for a class.

    Args:
        bundle: a classifier of whole 2-D images, or its folder.
        image: as ``read_image`` gives it, or its file; of one frame.
        target: name of a target; None where the bundle has one.
        class_name: one of its classes; None is the positive class of a binary target, and else the most probable one. A
            number has none: the picture shows what raises its value.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ConfigError: Grad-CAM does not know the network (volumes, regions), or an unknown target or class.
        ReadError: the image cannot be read, or has several frames.

    Example:
        >>> found = explain("runs/ct-01/bundle", "inbox/1.dcm")  # doctest: +SKIP
        >>> found.save("1.png")  # doctest: +SKIP
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if not can_explain(bundle) or not bundle.targets:
        raise ConfigError(
            "Expected a classifier of whole 2-D images. Received: one of volumes, of regions, or without targets.",
            key="bundle",
        )
    names = [one.name for one in bundle.targets]
    if target is None and len(names) > 1:
        raise ConfigError(f"Expected a target. The bundle has {', '.join(names)}.", key="target")
    wanted = _find_target(bundle.targets, names[0] if target is None else target)
    if class_name is not None and class_name not in wanted.classes:
        raise ConfigError(f"Unknown class {class_name!r}. {nearest(class_name, wanted.classes)}", key="class_name")
    pixels = Preprocessing(bundle.config).pixels(image)
    if len(pixels) != 1:
        raise ReadError(
            f"Expected one image. Received: {len(pixels)} frames. Give one of them: read_image(path, frame=0).",
            reason="no_frame",
        )
    engine = Engine(bundle, device=device, batch_size=1)
    prob = engine.examine_pixels(pixels).probabilities[wanted.name][0]
    shares = np.stack([1.0 - prob, prob]) if wanted.is_binary else np.atleast_1d(prob)
    index = 1 if wanted.is_binary else int(np.argmax(shares))
    index = index if class_name is None else wanted.classes.index(class_name)
    images = torch.from_numpy(to_input(pixels, bundle.config.preprocess))
    heat = np.asarray(grad_cam(engine.torch_network, images, target=wanted.name, class_index=index)[0])
    name = "" if wanted.is_value else wanted.classes[index]
    return Explanation(wanted.name, name, float(shares[index]), heat, pixels[0])


def overlay(heat: Pixels, pixels: UInt16Pixels) -> RgbPixels:
    """Lay heat over an image in red, (H, W, 3) uint8; the largest value of a map is the strongest red of all.

    Args:
        heat: (H, W) float32, 0 or more; all 0 leaves the image as it is.
        pixels: (C, H, W) uint16 as the network sees it; of three channels their mean.
    """
    grey = pixels.astype(np.float32).mean(axis=0) / LEVELS
    share = _STRONGEST * heat / max(float(heat.max()), float(np.finfo(np.float32).tiny))
    colours = np.stack([grey + (1.0 - grey) * share, grey * (1.0 - share), grey * (1.0 - share)], axis=-1)
    return np.asarray(np.rint(255.0 * colours), np.uint8)


def can_explain(bundle: Bundle) -> bool:
    """Whether Grad-CAM knows the network: a 2-D classifier of whole images."""
    segmentation = bundle.config.segmentation
    return not bundle.config.is_volume and (segmentation is None or segmentation.mode != "roi")


def explain_samples(
    bundle: Bundle, wanted: Iterable[tuple[CaseKey, SampleAddress]], *, device: str = "auto"
) -> dict[CaseKey, npt.NDArray[np.float32]]:
    """Compute where the evidence for a class lies in each sample (see ``grad_cam``).

    A sample that cannot be read any more has no map. The maps of one class have one scale: they may be compared.

    Args:
        bundle: the model.
        wanted: what to explain, and where its pixels lie.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        By what was asked for, (H, W) float32, 0 or more, as large as the network's input; nothing where Grad-CAM does
        not know the network (volumes, regions of interest).

    Example:
        >>> maps = explain_samples(bundle, [(CaseKey("3f9a", "covid", "COVID"), address)])  # doctest: +SKIP
    """
    if not can_explain(bundle):
        return {}
    targets = {target.name: target for target in bundle.targets}
    groups: dict[tuple[str, str], list[tuple[CaseKey, npt.NDArray[np.uint16]]]] = {}
    for one, address in wanted:
        pixels = _read(address, bundle)
        if pixels is not None:
            groups.setdefault((one.target, one.class_name), []).append((one, pixels))
    network = bundle.network().to(choose_device(device))
    maps: dict[CaseKey, npt.NDArray[np.float32]] = {}
    for (name, class_name), members in groups.items():
        index = targets[name].classes.index(class_name) if class_name else 0
        for start in range(0, len(members), _BATCH):
            part = members[start : start + _BATCH]
            images = to_input(np.stack([pixels for _, pixels in part]), bundle.config.preprocess)
            heat = grad_cam(network, torch.as_tensor(images), target=name, class_index=index)
            maps |= {one: heat[k] for k, (one, _) in enumerate(part)}
    return maps


def _read(address: SampleAddress, bundle: Bundle) -> npt.NDArray[np.uint16] | None:
    """(C, H, W) uint16, or None: a picture that is gone costs its map, not the report."""
    try:
        image = read_image(address.path, frame=address.frame, member=address.member, **address.repairs)
        return preprocess_image(image, bundle.config.preprocess)
    except (LeptonError, OSError, ValueError):
        return None


def grad_cam(
    network: AnyNetwork, images: Tensor, *, target: str, class_index: int | None = None
) -> npt.NDArray[np.float32]:
    """Return heat maps of one class, as large as the images.

    The gradient of the logit with respect to the feature map of the encoder's last stage is averaged over all places:
    the weight of each channel. The map is the ReLU of the weighted sum of the channels, resized bilinearly. It is
    coarse (1/32 of the side with a ResNet's standard stem), says what speaks for the class and not what speaks against
    it, and is no segmentation. Of an ensemble it is the mean of its members' maps, each for the member's own logit.

    The network is used in evaluation mode and left as it was: modes, parameters, their gradients, buffers and hooks.

    Args:
        network: on any device.
        images: (B, C, H, W) float32, normalised (``preprocess.to_input``); moved to the network's device.
        target: name of a target.
        class_index: position among its classes. For a binary target None means 1, the positive class, and 0 is the
            evidence against it (the negated logit); a number has 0, what raises it; the others have no default.

    Returns:
        (B, H, W) float32, 0 or more, not scaled: maps of one network and class may be compared.

    Raises:
        ConfigError: an unknown target or class, images that do not fit the network, a classifier of regions, or
            an encoder whose last stage gives no map of places.

    Example:
        >>> grad_cam(network, batch.images, target="covid").shape  # doctest: +SKIP
        (32, 224, 224)
    """
    if network.segmentation is not None and network.segmentation.mode == "roi":
        raise ConfigError(
            "Grad-CAM shows where in the image a classifier looks; this one (segmentation.mode roi) sees a cut-out.",
            key="segmentation.mode",
        )
    column, sign = _choose_logit(_find_target(network.targets, target), class_index)
    device = next(network.parameters()).device
    # A caller's inference mode or no_grad would leave nothing to differentiate, autocast would round the gradient.
    with torch.inference_mode(False), torch.enable_grad(), full_precision(device), true_float32(device):
        batch = images.detach().clone().to(device=device, dtype=torch.float32)
        with _in_evaluation(network):
            maps = [
                _member_map(member, batch, lambda output: sign * output.logits[target][:, column])
                for member in network.members
            ]
    result: npt.NDArray[np.float32] = torch.stack(maps).mean(dim=0).detach().float().cpu().numpy()
    return result


def _member_map(network: Network, images: Tensor, logit_of: Callable[[ModelOutput], Tensor]) -> Tensor:
    """(B, H, W): map of one network for the logits (B,) that ``logit_of`` takes from its output."""
    last: nn.Module = getattr(network.encoder, "last_map", list(network.encoder_stages().values())[-1])
    with _capture(last) as captured:
        logit = logit_of(network(images))
    is_map = bool(captured) and captured[0].ndim == images.ndim
    gradients = torch.autograd.grad(logit.sum(), captured, allow_unused=True) if is_map else ()
    pairs = zip(captured, gradients, strict=False)
    # An encoder without ``pool`` sees the image once for its mask and once for its classes: one of them has a gradient.
    heats = [_heat(one, gradient, size=images.shape[2:]) for one, gradient in pairs if gradient is not None]
    if not heats:
        raise ConfigError(
            "Grad-CAM needs a last stage of the encoder with a map of places (B, F, H, W). Received: an encoder whose "
            "last stage gives none.",
            key="model.backbone",
        )
    heat, *mirrored = heats
    for one in mirrored:  # a network that sees the mirror image too
        heat = heat + one.flip(-1)
    return heat


def _heat(feature_map: Tensor, gradient: Tensor, *, size: torch.Size) -> Tensor:
    """(B, H, W): the map of evidence, as large as the images."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * feature_map.detach()).sum(dim=1, keepdim=True))
    return F.interpolate(heat, size=size, mode="bilinear", align_corners=False)[:, 0]


def _find_target(targets: Iterable[Target], name: str) -> Target:
    found = {target.name: target for target in targets}
    if name not in found:
        raise ConfigError(f"Unknown target {name!r}. {nearest(name, list(found))}", key="target")
    return found[name]


def _choose_logit(target: Target, class_index: int | None) -> tuple[int, float]:
    """Column of the logits, and 1 or -1."""
    count = 1 if target.is_value else len(target.classes)
    if class_index is None and target.is_single:
        class_index = count - 1
    if class_index is None or not 0 <= class_index < count:
        raise ConfigError(
            f"Expected class_index from 0 to {count - 1} for the target {target.name!r}. Received: {class_index}.",
            key="class_index",
        )
    if target.is_single:
        return 0, 1.0 if class_index == count - 1 else -1.0
    return class_index, 1.0


@contextmanager
def _in_evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module gets its own mode back, as norm layers may be fixed in a network that trains."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _capture(stage: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a stage gives, cut off from what is below: nothing there needs a gradient."""
    captured: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        captured.append(output.detach().requires_grad_())
        return captured[-1]

    hook = stage.register_forward_hook(keep)
    try:
        yield captured
    finally:
        hook.remove()
