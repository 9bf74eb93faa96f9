"""Predictors of whole volumes for networks of patches and of slices: in windows, or slice by slice.

The doorway to MONAI's inferers, which are imported when a volume needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.mirrors import average_mirrored, mirror_sets
from lepton_vision.models.assemble import AnyNetwork
from lepton_vision.models.device import suited_format
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.slabs import fold_slabs, slab_slices
from lepton_vision.types import ModelOutput, Target

_AT_ONCE = 4  # windows in one step


def over_whole_volumes(network: AnyNetwork, config: Config, *, mirrored: Sequence[int] = ()) -> nn.Module:
    """Wrap a network so that it takes volumes (B, C, D, H, W) of any size: in windows, or slice by slice with 2.5d.

    Args:
        network: the bare one.
        config: its configuration, with a section ``volume``.
        mirrored: axes that masks are predicted mirrored along too, see ``mirrors.mirror_sets``.

    Raises:
        ConfigError: ``volume.view`` is "slices", or there is no section ``volume``; an axis that does not exist.
    """
    kind = SlicewiseNetwork if config.sees_slabs else WindowedNetwork
    return kind(network, config, mirrored=mirrored)


class WindowedNetwork(nn.Module):
    """Gives what its network gives, for volumes of any size.

    Axes that are shorter than a patch are filled up with black, as in training. A volume that fits into a window is
    then seen at once. Of a larger one, masks are predicted in windows that overlap by ``volume.overlap``, their logits
    averaged with Gaussian weights (MONAI's ``sliding_window_inference``). Targets are predicted from the patch in the
    middle.

    Args:
        network: of three dimensions.
        config: its configuration.
        mirrored: axes (2 D, 3 H, 4 W) along which masks are predicted mirrored too, in every combination, and their
            logits averaged. Leave out W where structures tell left from right.

    Raises:
        ConfigError: the configuration is not of volumes seen in 3-D, or an axis that does not exist.
    """

    def __init__(self, network: AnyNetwork, config: Config, *, mirrored: Sequence[int] = ()) -> None:
        super().__init__()
        if config.volume is None or config.dims != 3:
            raise ConfigError("Windows need a network on volumes: set volume.view to '3d'.", key="volume.view")
        self.network, self.targets = network, network.targets
        self.patch, self.overlap = config.volume.patch, config.volume.overlap
        self.window = config.volume.window or self.patch
        self.mirrors = mirror_sets(mirrored)
        black = to_input(np.zeros((config.preprocess.channels, 1, 1, 1), np.uint16), config.preprocess, axes=3)
        self.black: Tensor  # (C,): a format of five axes must not meet four
        self.register_buffer("black", torch.from_numpy(black).flatten(), persistent=False)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict volumes (B, C, D, H, W) float32, normalised; mask logits have their size."""
        is_patch = _fits(images, self.patch)
        middle = self._see(images, self.patch) if is_patch or self.targets else None
        logits = {} if middle is None else middle.logits
        if not self.network.gives_masks:
            return ModelOutput(logits)
        total = self._masks(images, seen=middle.mask_logits if middle is not None and is_patch else None)
        return ModelOutput(logits, average_mirrored(total, self._masks, images=images, mirrors=self.mirrors))

    def _masks(self, images: Tensor, *, seen: Tensor | None = None) -> Tensor:
        """Mask logits (B, 1 + M, D, H, W); ``seen`` are those of the filled up volume where they are known."""
        size = [max(length, limit) for length, limit in zip(images.shape[2:], self.patch, strict=True)]
        if seen is None:
            if _fits(images, self.window):
                seen = self._see(images, size).mask_logits
            else:
                seen = self._slide(self._placed(images, size))
        if seen is None:
            raise ConfigError("Expected a network with a segmentation head. Received: one without.", key="segmentation")
        before = _margins(images, size)
        box = [slice(start, start + length) for start, length in zip(before, images.shape[2:], strict=True)]
        return seen[(slice(None), slice(None), *box)]

    def _see(self, images: Tensor, size: Sequence[int]) -> ModelOutput:
        """Run the network on ``size`` voxels around the middle, black where the volume does not reach."""
        placed = self._placed(images, size)
        output: ModelOutput = self.network(placed.contiguous(memory_format=suited_format(5)))
        return output

    def _slide(self, images: Tensor) -> Tensor:
        from monai.inferers.utils import sliding_window_inference  # takes seconds: not for volumes that fit

        # An axis may be shorter than the window: all of it is seen then.
        window = [min(length, limit) for length, limit in zip(images.shape[2:], self.window, strict=True)]
        found = sliding_window_inference(
            images, window, _AT_ONCE, self._window_masks, overlap=self.overlap, mode="gaussian"
        )
        if not isinstance(found, Tensor):
            raise TypeError(f"Expected one tensor of mask logits. Received: {type(found).__name__}.")
        return found

    def _window_masks(self, images: Tensor) -> Tensor:
        masks = self.network(images.contiguous(memory_format=suited_format(5))).mask_logits
        if not isinstance(masks, Tensor):
            raise ConfigError("Expected a network with a segmentation head. Received: one without.", key="segmentation")
        return masks

    def _placed(self, images: Tensor, size: Sequence[int]) -> Tensor:
        """Cut or fill up with black to ``size`` around the middle."""
        pads = list[int]()
        for start, length, wanted in zip(_margins(images, size), images.shape[2:], size, strict=True):
            pads = [start, wanted - length - start, *pads]  # W first
        if not any(pads):
            return images
        black = self.black.view(1, -1, 1, 1, 1)
        return functional.pad(images - black, pads) + black  # a negative pad cuts


def _fits(images: Tensor, limits: Sequence[int]) -> bool:
    return all(length <= limit for length, limit in zip(images.shape[2:], limits, strict=True))


def _margins(images: Tensor, size: Sequence[int]) -> list[int]:
    """Voxels before the volume where it lies in the middle of ``size``, as ``patches.cut_patch`` lays it."""
    pairs = zip(images.shape[2:], size, strict=True)
    return [-math.ceil((length - 1) / 2 - wanted / 2) for length, wanted in pairs]


class SlicewiseNetwork(nn.Module):
    """Gives for volumes what its network gives for each of their slices.

    A volume's logits are the mean of its slices', or the largest of each, as ``volume.aggregate`` says (a number is
    always the mean); so the sigmoid, the temperature and the threshold are of the volume. Its mask logits are those of
    the slices, stacked. Each volume runs by itself: what lies beside it in a batch changes nothing.

    Args:
        network: of two dimensions.
        config: its configuration.
        at_once: slices in one step; None is ``train.batch_size``.
        mirrored: axes (2 D, 3 H, 4 W) along which masks are predicted mirrored too, see ``mirror_sets``.

    Raises:
        ConfigError: the configuration is not of slices with their neighbours, or an axis that does not exist.
    """

    def __init__(
        self, network: AnyNetwork, config: Config, *, at_once: int | None = None, mirrored: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if config.volume is None or not config.sees_slabs:
            raise ConfigError("Expected a network on slices: set volume.view to '2.5d'.", key="volume.view")
        self.network, self.targets, self.volume = network, network.targets, config.volume
        self.at_once = config.train.batch_size if at_once is None else at_once
        self.mirrors = mirror_sets(mirrored)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict volumes (B, C, D, H, W) float32, normalised; mask logits (B, 1 + M, D, H, W)."""
        output = self._see(images)
        if output.mask_logits is None or not self.mirrors:
            return output
        masks = average_mirrored(output.mask_logits, self._masks, images=images, mirrors=self.mirrors)
        return replace(output, mask_logits=masks)

    def _masks(self, images: Tensor) -> Tensor:
        masks = self._see(images).mask_logits
        if masks is None:
            raise ConfigError("Expected a network with a segmentation head. Received: one without.", key="segmentation")
        return masks

    def _see(self, images: Tensor) -> ModelOutput:
        found = [self._see_one(volume) for volume in images]
        logits = {name: torch.stack([one.logits[name] for one in found]) for name in found[0].logits}
        masks = [one.mask_logits for one in found if one.mask_logits is not None]
        features = [one.features for one in found if one.features is not None]
        return ModelOutput(logits, torch.stack(masks) if masks else None, torch.stack(features) if features else None)

    def _see_one(self, volume: Tensor) -> ModelOutput:
        """Logits (K,), mask logits (1 + M, D, H, W) and mean features (F,) of one volume (C, D, H, W)."""
        depth = volume.shape[1]
        places = torch.from_numpy(slab_slices(np.arange(depth), depth, volume=self.volume)).to(volume.device)
        parts: list[ModelOutput] = []
        for near in torch.split(places, self.at_once):
            slabs = fold_slabs(volume[:, near].movedim(0, 1))
            parts.append(self.network(slabs.contiguous(memory_format=suited_format(4))))
        logits = {t.name: self._join([part.logits[t.name] for part in parts], t) for t in self.targets}
        masks = [part.mask_logits for part in parts if part.mask_logits is not None]
        features = [part.features for part in parts if part.features is not None]
        mean = torch.cat(features).float().mean(dim=0) if features else None
        return ModelOutput(logits, torch.cat(masks).movedim(0, 1) if masks else None, mean)

    def _join(self, parts: Sequence[Tensor], target: Target) -> Tensor:
        """(K,) float32 of the slices' (n, K)."""
        slices = torch.cat(list(parts)).float()
        return slices.mean(dim=0) if self.volume.aggregate == "mean" or target.is_value else slices.amax(dim=0)
