"""Bags of slices from volumes: choice, positions and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.image import read_image
from lepton_vision.readers.orient import reorient
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.grid import choose_slices
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.types import Image, Target
from tests.transforms.volumes import planted_volumes, volume_config

CORE = Target("core", "binary", ("0", "1"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return planted_volumes(tmp_path_factory.mktemp("volumes"), count=4)


def bag_config(*changes: str) -> Config:
    plain = volume_config().model_copy(update={"segmentation": None, "targets": (CORE,)})
    return plain.override("volume.view=slices", "preprocess.size=[10, 14]", *changes)


def test_a_bag_holds_the_slices_from_feet_to_head_and_black_behind(manifest: Manifest) -> None:
    config = bag_config("volume.patch=[20, 1, 1]", "preprocess.windows=[full]")
    batch = next(iter(make_loader(manifest, config)))
    assert batch.images.shape == (2, 1, 20, 10, 14)
    whole = reorient(read_image(manifest.root / manifest.frame["path"][0]), "LPS")
    depth = whole.pixels.shape[1]
    for place in range(depth):
        plane = Image(whole.pixels[:, place], units="US", value_range=whole.value_range)
        expected = preprocess_image(plane, config.preprocess)[0] / 65535.0
        assert np.allclose(batch.images[0, 0, place].numpy() * 0.25 + 0.5, expected, atol=2e-5)
    assert batch.images[0, 0, depth:].unique().tolist() == [-2.0]


def test_of_many_slices_some_are_spread_evenly() -> None:
    assert choose_slices(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert choose_slices(12, 4).tolist() == [1, 4, 7, 10]
    seen = np.array([choose_slices(12, 4, rng=np.random.default_rng(seed)) for seed in range(200)])
    assert (seen // 3 == np.arange(4)).all()
    assert all(set(column) == {3 * k, 3 * k + 1, 3 * k + 2} for k, column in enumerate(seen.T))


def test_training_bags_hang_on_the_seed_and_stay_slices(manifest: Manifest, tmp_path: Path) -> None:
    config = bag_config("volume.patch=[6, 1, 1]", "augment.preset=mr")
    loader = make_loader(manifest, config, training=True, cache_dir=tmp_path)
    sampler: object = loader.sampler
    sampler.set_epoch(0)  # type: ignore[attr-defined]
    first = list(loader)
    sampler.set_epoch(0)  # type: ignore[attr-defined]
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, loader, strict=True))
    assert first[0].images.shape == (2, 1, 6, 10, 14)
    sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert not torch.equal(first[0].images, next(iter(loader)).images)


def test_slices_are_turned_in_their_plane_alone() -> None:
    from lepton_vision.transforms.presets import Preset
    from lepton_vision.transforms.volume_augment import VolumeAugment

    augment = VolumeAugment(Preset(True, rotate=30, scale=0.3, shift=0.2), strength=1.0, flips=True)
    matrices = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        matrix, shift = augment.motion(rng, patch=(6, 10, 14), spacing_mm=None, in_plane=True)
        assert matrix[0].tolist() == [1.0, 0.0, 0.0]
        assert matrix[:, 0].tolist() == [1.0, 0.0, 0.0]
        assert shift[0] == 0.0
        matrices.append(matrix)
    assert np.std([matrix[1, 2] for matrix in matrices]) > 0.1
