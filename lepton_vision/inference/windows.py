"""A 3-D network on whole volumes: in overlapping windows where they are larger than a patch.

The doorway to MONAI's inferers, which are imported when a volume needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.device import suited_format
from lepton_vision.models.network import Network
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.types import ModelOutput

_AT_ONCE = 4  # windows in one step
_AXES = (2, 3, 4)
LEFT_RIGHT = 4
"""The axis W of volumes along ``volume.AXES``."""


class WindowedNetwork(nn.Module):
    """Gives what its network gives, for volumes of any size.

    A volume that fits into a patch is padded with black to its size and seen at once. Of a larger one, masks are
    predicted in windows of a patch that overlap by ``volume.overlap``, their logits averaged with Gaussian weights
    (MONAI's ``sliding_window_inference``); targets are predicted from the patch in its middle.

    Args:
        network: of three dimensions.
        config: its configuration.
        mirrored: axes (2 D, 3 H, 4 W) along which masks are predicted mirrored too, in every combination, and their
            logits averaged. Leave out W where structures tell left from right.

    Raises:
        ConfigError: the configuration is not of volumes seen in 3-D, or an axis that does not exist.
    """

    def __init__(self, network: Network, config: Config, *, mirrored: Sequence[int] = ()) -> None:
        super().__init__()
        if config.volume is None or config.volume.view != "3d":
            raise ConfigError("Windows need a network on volumes: set volume.view to '3d'.", key="volume.view")
        if not set(mirrored) <= set(_AXES):
            raise ConfigError(f"Volumes have axes 2, 3 and 4. Received: {list(mirrored)}.", key="mirrored")
        self.network, self.targets = network, network.targets
        self.patch, self.overlap = config.volume.patch, config.volume.overlap
        self.mirrors = [axes for count in range(1, len(mirrored) + 1) for axes in combinations(mirrored, count)]
        black = to_input(np.zeros((config.preprocess.channels, 1, 1, 1), np.uint16), config.preprocess, axes=3)
        self.black: Tensor  # (C,): a format of five axes must not meet four
        self.register_buffer("black", torch.from_numpy(black).flatten(), persistent=False)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict volumes (B, C, D, H, W) float32, normalised; mask logits have their size."""
        fits = all(length <= limit for length, limit in zip(images.shape[2:], self.patch, strict=True))
        middle = self._see(images) if fits or self.targets else None
        logits = {} if middle is None else middle.logits
        if not self.network.gives_masks:
            return ModelOutput(logits)
        seen = middle.mask_logits if middle is not None and fits else None
        total = self._masks(images, seen=seen)
        for axes in self.mirrors:
            mirrored = images.flip(axes)
            seen = self._see(mirrored).mask_logits if fits else None
            total = total + self._masks(mirrored, seen=seen).flip(axes)
        return ModelOutput(logits, total / (1 + len(self.mirrors)))

    def _see(self, images: Tensor) -> ModelOutput:
        """Run the network on the patch in the middle, black where the volume does not reach."""
        before = self._margins(images)
        pads = [
            part
            for start, length, limit in zip(before[::-1], images.shape[:1:-1], self.patch[::-1], strict=True)
            for part in (start, limit - length - start)
        ]
        patch = self._pad(images, pads)
        output: ModelOutput = self.network(patch.contiguous(memory_format=suited_format(5)))
        return output

    def _margins(self, images: Tensor) -> list[int]:
        """Voxels before the volume in a patch that has it in its middle, as ``volume_patch.cut_patch`` lays it."""
        pairs = zip(images.shape[2:], self.patch, strict=True)
        return [-math.ceil((length - 1) / 2 - limit / 2) for length, limit in pairs]

    def _masks(self, images: Tensor, *, seen: Tensor | None) -> Tensor:
        """Mask logits (B, 1 + M, D, H, W): cut out of those of the whole patch, or from windows."""
        if seen is not None:
            box = [slice(start, start + n) for start, n in zip(self._margins(images), images.shape[2:], strict=True)]
            return seen[(slice(None), slice(None), *box)]
        from monai.inferers.utils import sliding_window_inference  # takes seconds: not for volumes that fit

        padded, box = self._padded(images)
        found = sliding_window_inference(
            padded, self.patch, _AT_ONCE, self._window, overlap=self.overlap, mode="gaussian"
        )
        if not isinstance(found, Tensor):
            raise TypeError(f"Expected one tensor of mask logits. Received: {type(found).__name__}.")
        return found[(slice(None), slice(None), *box)]

    def _padded(self, images: Tensor) -> tuple[Tensor, list[slice]]:
        """Fill up the axes that are shorter than a patch; and where the volume lies then."""
        pads, box = list[int](), list[slice]()
        for start, length, limit in zip(self._margins(images), images.shape[2:], self.patch, strict=True):
            before, after = (start, limit - length - start) if length < limit else (0, 0)
            pads = [before, after, *pads]
            box.append(slice(before, before + length))
        return self._pad(images, pads), box

    def _pad(self, images: Tensor, pads: list[int]) -> Tensor:
        """Surround with black, W first; a negative number of voxels cuts."""
        if not any(pads):
            return images
        black = self.black.view(1, -1, 1, 1, 1)
        return functional.pad(images - black, pads) + black

    def _window(self, patch: Tensor) -> Tensor:
        masks = self.network(patch.contiguous(memory_format=suited_format(5))).mask_logits
        if not isinstance(masks, Tensor):
            raise ConfigError("Expected a network with a segmentation head. Received: one without.", key="segmentation")
        return masks
