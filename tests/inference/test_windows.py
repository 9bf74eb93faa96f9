"""Whole volumes through a network that sees patches: fits, windows, mirrors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.windows import WindowedNetwork
from lepton_vision.models.assemble import make_network
from lepton_vision.models.network import Network
from lepton_vision.types import ModelOutput, Target
from tests.transforms.volumes import volume_config

SICK = Target("sick", "binary", ("no", "yes"))


def network(config: Config, targets: tuple[Target, ...] = ()) -> Network:
    torch.manual_seed(0)
    return make_network(config, targets=targets).eval()


class Pointwise(nn.Module):
    """Logits that hang on each voxel alone: windows and padding must not change them."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: tuple[Target, ...] = ()
        self.gives_masks = True
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> ModelOutput:
        self.seen.append(tuple(images.shape))
        return ModelOutput({}, torch.cat([images, images**2, 1 - images], dim=1))


@pytest.mark.parametrize("size", [(16, 16, 16), (5, 16, 9), (20, 16, 30), (20, 7, 30), (33, 40, 17)])
@pytest.mark.parametrize("mirrored", [(), (4,), (2, 3, 4)])
def test_what_hangs_on_one_voxel_is_the_same_in_any_window(
    size: tuple[int, int, int], mirrored: tuple[int, ...]
) -> None:
    inner = Pointwise()
    windowed = WindowedNetwork(inner, volume_config(), mirrored=mirrored)  # type: ignore[arg-type]
    images = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    found = windowed(images).mask_logits
    assert torch.allclose(found, torch.cat([images, images**2, 1 - images], dim=1), atol=1e-4)
    assert {shape[2:] for shape in inner.seen} == {(16, 16, 16)}


def test_a_volume_of_the_size_of_a_patch_is_what_the_network_says() -> None:
    config = volume_config()
    model = network(config, (SICK,))
    images = torch.randn(2, 1, 16, 16, 16)
    with torch.inference_mode():
        expected, found = model(images), WindowedNetwork(model, config).eval()(images)
    assert found.mask_logits is not None
    assert torch.allclose(found.mask_logits, expected.mask_logits, atol=1e-5)
    assert torch.allclose(found.logits["sick"], expected.logits["sick"], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((18, 20, 24), {(18, 20, 24)}),
        ((9, 20, 16), {(16, 20, 16)}),
        ((18, 30, 24), {(18, 20, 24)}),
        ((9, 9, 9), {(16,) * 3}),
    ],
)
def test_a_volume_that_fits_into_a_window_is_seen_whole(size: tuple[int, ...], seen: set[tuple[int, ...]]) -> None:
    inner = Pointwise()
    windowed = WindowedNetwork(inner, volume_config("volume.window=[20, 20, 24]"), mirrored=(4,))  # type: ignore[arg-type]
    images = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    found = windowed(images).mask_logits
    assert torch.allclose(found, torch.cat([images, images**2, 1 - images], dim=1), atol=1e-4)
    assert {shape[2:] for shape in inner.seen} == seen
    with pytest.raises(ConfigError, match="smaller than patch"):
        volume_config("volume.window=[20, 20, 12]")


def test_a_smaller_volume_lies_in_black() -> None:
    config = volume_config("preprocess.mean=[0.25]", "preprocess.std=[0.5]")
    model = network(config)
    images = torch.randn(1, 1, 13, 16, 10)
    padded = torch.full((1, 1, 16, 16, 16), -0.5)
    padded[:, :, 2:15, :, 3:13] = images
    with torch.inference_mode():
        expected = model(padded).mask_logits[:, :, 2:15, :, 3:13]
        found = WindowedNetwork(model, config).eval()(images).mask_logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_targets_of_a_large_volume_come_from_its_middle() -> None:
    config = volume_config()
    model = network(config, (SICK,))
    images = torch.randn(1, 1, 20, 16, 24)
    with torch.inference_mode():
        expected = model(images[:, :, 2:18, :, 4:20].contiguous()).logits["sick"]
        output = WindowedNetwork(model, config).eval()(images)
        model.gives_masks = False
        alone = WindowedNetwork(model, config).eval()(images)
    assert torch.allclose(output.logits["sick"], expected, atol=1e-6)
    assert output.mask_logits is not None
    assert output.mask_logits.shape == (1, 3, 20, 16, 24)
    assert alone.mask_logits is None
    assert torch.allclose(alone.logits["sick"], expected, atol=1e-6)


def test_mirrored_views_are_averaged() -> None:
    config = volume_config()
    model = network(config)
    images = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        views = [model(images), model(images.flip(4))]
        found = WindowedNetwork(model, config, mirrored=(4,)).eval()(images).mask_logits
    assert views[0].mask_logits is not None
    assert views[1].mask_logits is not None
    assert torch.allclose(found, (views[0].mask_logits + views[1].mask_logits.flip(4)) / 2, atol=1e-6)


def test_flat_images_and_unknown_axes_are_refused() -> None:
    config = volume_config()
    with pytest.raises(ConfigError, match="volume"):
        WindowedNetwork(network(config), config.model_copy(update={"volume": None}))
    with pytest.raises(ConfigError, match="axes 2, 3 and 4"):
        WindowedNetwork(network(config), config, mirrored=(1,))


def test_monai_is_imported_for_large_volumes_alone() -> None:
    code = """
import sys, torch
from tests.transforms.volumes import volume_config
from lepton_vision.models.assemble import make_network
from lepton_vision.inference.windows import WindowedNetwork
config = volume_config()
windowed = WindowedNetwork(make_network(config, targets=()).eval(), config)
with torch.inference_mode():
    windowed(torch.zeros(1, 1, 9, 16, 16))
print("monai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
