"""Prediction of whole volumes by a 2-D network, slice by slice with neighbouring slices ("2.5-D")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.mirrors import average_mirrored, mirror_sets
from lepton_vision.models.assemble import AnyNetwork
from lepton_vision.models.device import suited_format
from lepton_vision.transforms.slabs import fold_slabs, slab_slices
from lepton_vision.types import ModelOutput


class SlicewiseNetwork(nn.Module):
    """Gives for volumes what its network gives for each of their slices.

    A volume's logits are the mean of its slices', or the largest of each, as ``volume.aggregate`` says; so the sigmoid,
    the temperature and the threshold are of the volume. Its mask logits are those of the slices, stacked. Each volume
    runs by itself: what lies beside it in a batch changes nothing.

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
        logits = {name: self._join([part.logits[name] for part in parts]) for name in parts[0].logits}
        masks = [part.mask_logits for part in parts if part.mask_logits is not None]
        features = [part.features for part in parts if part.features is not None]
        mean = torch.cat(features).float().mean(dim=0) if features else None
        return ModelOutput(logits, torch.cat(masks).movedim(0, 1) if masks else None, mean)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        """(K,) float32 of the slices' (n, K)."""
        slices = torch.cat(list(parts)).float()
        return slices.mean(dim=0) if self.volume.aggregate == "mean" else slices.amax(dim=0)
