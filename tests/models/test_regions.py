"""Regions of interest: cut at the same place in every number format."""

from __future__ import annotations

import torch

from lepton_vision.models.regions import crop_to_masks


def test_a_region_is_cut_at_the_same_place_under_autocast() -> None:
    """Coordinates of 8 bits would lie up to half a pixel of 224 beside it."""
    images = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 2, 224, 224)
    masks[:, 1, 20:101, 33:140] = 1.0
    expected = crop_to_masks(images, masks, margin=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = crop_to_masks(images, masks, margin=0.1)
    assert torch.equal(found, expected)
