"""Preprocessing of a model as a callable, from an image to what its network takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lepton_vision.config import Config
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.views import view_of
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What ``predict`` does before the network.

    Attributes:
        config: of the model; its preprocess and volume sections count.
    """

    config: Config

    def __call__(self, image: Image | str | Path) -> Tensor:
        """Return (N, C, H, W) or (N, C, D, H, W) float32, normalised: one for each frame of the image, or one volume.

        Args:
            image: as ``read_image`` gives it, or its file.

        Raises:
            ReadError: it cannot be read, or has the wrong axes, channels, units or no spacing.
        """
        pixels = self.pixels(image)
        return torch.from_numpy(to_input(pixels, self.config.preprocess, axes=pixels.ndim - 2))

    def pixels(self, image: Image | str | Path) -> UInt16Pixels:
        """Return (N, C, H, W) or (N, C, D, H, W) uint16: the same before it is normalised."""
        view = view_of(self.config)
        parts = view.parts(image if isinstance(image, Image) else read_image(image))
        return np.stack([view.plain(view.prepare(part).pixels) for part in parts])
