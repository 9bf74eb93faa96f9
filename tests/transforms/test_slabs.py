"""Slabs of neighbouring slices: choice, order and mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import ConfigError
from lepton_vision.manifest.table import Manifest
from lepton_vision.models import build_model
from lepton_vision.readers.image import read_image
from lepton_vision.readers.orient import reorient
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.transforms.grid import Grid, prepare_mask, restore_mask, restore_share
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.resize import fit_boxes
from lepton_vision.transforms.slabs import slab_slices, structure_numbers
from lepton_vision.transforms.views import SlabView
from lepton_vision.types import UNKNOWN, Image, Target
from tests.transforms.volumes import planted_volumes, volume_config

CORE = Target("core", "binary", ("0", "1"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return planted_volumes(tmp_path_factory.mktemp("volumes"), count=4)


def slab_config(*changes: str) -> Config:
    plain = volume_config("volume.view=2.5d", "preprocess.size=[10, 14]").model_copy(update={"targets": (CORE,)})
    return plain.override("preprocess.windows=[full]", *changes)


def planes_of(manifest: Manifest, row: int, config: Config) -> np.ndarray:
    """(D, height, width) in [0, 1]: each slice as a 2-D image goes through."""
    whole = reorient(read_image(manifest.root / manifest.frame["path"][row]), "LPS")
    images = [
        Image(whole.pixels[:, k], units="US", value_range=whole.value_range) for k in range(whole.pixels.shape[1])
    ]
    return np.stack([preprocess_image(image, config.preprocess)[0] for image in images]) / 65535.0


def test_neighbours_are_counted_in_steps_and_the_border_is_repeated() -> None:
    assert slab_slices(3, 9, volume=VolumeConfig(view="2.5d", context=2)).tolist() == [1, 2, 3, 4, 5]
    assert slab_slices(3, 9, volume=VolumeConfig(view="2.5d", context=1, context_step=3)).tolist() == [0, 3, 6]
    assert slab_slices([0, 8], 9, volume=VolumeConfig(view="2.5d", context=1, context_step=2)).tolist() == [
        [0, 0, 2],
        [6, 8, 8],
    ]
    assert slab_slices(0, 1, volume=VolumeConfig(view="2.5d", context=2)).tolist() == [0] * 5
    assert slab_slices(4, 9, volume=VolumeConfig(view="2.5d", context=0)).tolist() == [4]


@pytest.mark.parametrize("step", [1, 2])
def test_a_training_sample_is_a_slice_between_its_neighbours(manifest: Manifest, step: int) -> None:
    config = slab_config(f"volume.context_step={step}")
    dataset = make_loader(manifest, config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    seen = set()
    for row in range(2):
        planes = planes_of(manifest, row, config)
        truth = reorient(read_image(manifest.root / manifest.frame["mask_path"][row]), "LPS").pixels[0]
        for seed in range(40):
            batch = dataset.batch([(row, seed)])
            assert batch.images.shape == (1, 3, 10, 14)
            assert batch.masks is not None
            assert batch.masks.shape == (1, 10, 14)
            shown = batch.images[0].numpy() * 0.25 + 0.5
            place = int(np.abs(planes - shown[1]).mean(axis=(1, 2)).argmin())
            wanted = [max(0, place - step), place, min(len(planes) - 1, place + step)]
            assert np.allclose(shown, planes[wanted], atol=2e-5)
            assert set(np.unique(batch.masks)) <= set(np.unique(truth[place]).astype(int))
            assert bool((batch.masks > 0).any()) == bool((truth[place] > 0).any())
            seen.add((row, place))
    assert len(seen) > 12


def test_slices_that_hold_a_structure_have_their_share(manifest: Manifest) -> None:
    def share(foreground: float) -> float:
        config = slab_config(f"volume.foreground={foreground}", "volume.patches=100")
        dataset = make_loader(manifest, config, training=True).dataset
        masks = [dataset[(place, place)].masks for place in range(400)]  # type: ignore[index]
        return float(np.mean([bool((mask > 0).any()) for mask in masks]))

    depths = [len(planes_of(manifest, row, slab_config())) for row in range(4)]
    plain = np.mean([6 / depth for depth in depths])  # the box has six slices
    assert share(0.0) == pytest.approx(plain, abs=0.08)
    assert share(0.99) > 0.97
    assert share(0.5) == pytest.approx(0.5 + plain / 2, abs=0.08)


def test_a_slice_has_the_label_that_its_own_mask_gives(manifest: Manifest) -> None:
    """The core fills three slices of the volumes that have it; a target with a column keeps the volume's label."""
    targets = (Target("shows_core", "binary", ("0", "1"), mask_values=(2,)), CORE)
    config = slab_config("volume.foreground=0.0").model_copy(update={"targets": targets})
    dataset = make_loader(manifest, config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    batch = dataset.batch([(row, seed) for row in range(4) for seed in range(30)])
    assert batch.masks is not None
    by_hand = [float((mask == 2).any()) for mask in batch.masks]
    assert batch.labels["shows_core"].tolist() == by_hand
    assert batch.labels["core"].tolist() == [0.0] * 30 + [1.0] * 30 + [0.0] * 30 + [1.0] * 30
    assert 0 < sum(by_hand[30:60]) < 30
    assert sum(by_hand[:30]) == 0
    wholes = make_loader(manifest, config)
    assert [batch.labels["shows_core"].item() for batch in wholes] == [0, 1, 0, 1], "a whole volume keeps its own"


def test_a_slice_of_a_volume_without_a_mask_has_no_label_of_its_own(manifest: Manifest) -> None:
    frame = manifest.frame.copy()
    frame.loc[1, ["mask_path", "mask_values", "mask_hash"]] = None
    config = slab_config().model_copy(update={"targets": (Target("c", "binary", ("0", "1"), mask_values=(2,)),)})
    dataset = make_loader(replace(manifest, frame=frame), config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    assert dataset.batch([(1, 5)]).labels["c"].isnan().all()


def test_a_slice_that_is_known_in_part_is_positive_or_unknown(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Voxels that nobody outlined may hold the structure; what lies beyond a turned image holds none."""
    config = slab_config("volume.foreground=0.0", "augment.preset=mr").model_copy(
        update={"targets": (Target("core", "binary", ("0", "1"), mask_values=(2,)),)}
    )
    dataset = make_loader(manifest, config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    volume, view = dataset.load(1), dataset.view
    assert isinstance(view, SlabView)
    assert view.augment is not None
    assert volume.mask is not None
    mask = np.array(volume.mask)
    mask[::2, 0] = UNKNOWN
    monkeypatch.setattr(dataset, "load", lambda _: volume._replace(mask=mask))
    seen = set()
    for seed in range(40):
        dataset.view = replace(view, augment=None)
        plain = dataset.batch([(1, seed)])
        dataset.view = view
        moved = dataset.batch([(1, seed)])
        assert plain.masks is not None
        assert moved.masks is not None
        is_known = not bool((plain.masks == UNKNOWN).any())
        for batch, masks in ((plain, plain.masks), (moved, moved.masks)):
            label = 1.0 if bool((masks == 2).any()) else 0.0 if is_known else np.nan
            np.testing.assert_equal(batch.labels["core"].item(), label)
            seen.add((str(label), bool((masks == UNKNOWN).any())))
    assert seen >= {("1.0", True), ("0.0", False), ("0.0", True), ("nan", True)}


@pytest.mark.parametrize(("values", "expected"), [((1, 2), (1, 2)), ((2,), (2,)), ((3,), ()), ((2, 9), ())])
def test_a_label_of_no_whole_structures_is_not_taken_from_the_slice(
    values: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    config = slab_config("segmentation.structures={box: 1, core: 2, rest: [3, 4]}")
    assert structure_numbers(Target("t", "binary", ("0", "1"), mask_values=values), config.segmentation) == expected


def test_training_slices_hang_on_the_seed_alone_and_masks_move_along(manifest: Manifest, tmp_path: Path) -> None:
    config = slab_config("augment.preset=mr", "volume.patches=2", "volume.foreground=0.9")
    loader = make_loader(manifest, config, training=True, cache_dir=tmp_path)
    first = list(loader)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, loader, strict=True))
    loader.sampler.set_epoch(1)  # type: ignore[union-attr]
    assert not torch.equal(first[0].images, next(iter(loader)).images)
    dataset, inside, outside = loader.dataset, [], []
    for seed in range(60):
        batch = dataset[(seed % 4, seed)]
        assert batch.masks is not None
        middle = batch.images[0, 1]
        inside += middle[(batch.masks[0] > 0) & (batch.masks[0] != UNKNOWN)].tolist()
        outside += middle[batch.masks[0] == 0].tolist()
    assert np.median(inside) > np.quantile(outside, 0.9)  # the box is bright, wherever it was moved


def test_a_sample_without_a_seed_or_of_validation_is_unmoved(manifest: Manifest) -> None:
    config = slab_config("augment.preset=mr")
    dataset = make_loader(manifest, config, training=True).dataset
    planes = planes_of(manifest, 0, config)
    middle = (len(planes) - 1) // 2
    shown = dataset[0].images[0].numpy() * 0.25 + 0.5
    assert np.allclose(shown, planes[middle - 1 : middle + 2], atol=2e-5)
    batches = list(make_loader(manifest, config, batch_size=3))
    assert len(batches) == 4  # volumes differ in size
    assert np.allclose(batches[0].images[0, 0].numpy() * 0.25 + 0.5, planes, atol=2e-5)
    unmasked = config.model_copy(update={"segmentation": None})
    assert next(iter(make_loader(manifest, unmasked))).images.shape == (1, 1, *planes.shape)


@given(st.integers(0, 2**32), st.sampled_from(["pad", "stretch", "crop"]), st.booleans())
def test_a_mask_comes_back_to_its_voxels(seed: int, fit: str, is_turned: bool) -> None:
    """Slices doubled in size and halved again are what they were; what "crop" cuts off is background."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (3, 4, 6)).astype(np.uint8)
    order, flipped = ((1, 2, 0), (0, 2)) if is_turned else ((0, 1, 2), ())
    d, h, w = (labels.shape[k] for k in order)
    grid = Grid(labels.shape, order, flipped, (d, h, w), fit=fit_boxes((h, w), (2 * h, 2 * w), fit=fit))  # type: ignore[arg-type]
    prepared = prepare_mask(labels, grid)
    assert prepared.shape == (d, 2 * h, 2 * w)
    turned = np.flip(labels, flipped).transpose(order)
    assert np.array_equal(prepared[:, ::2, ::2], turned)
    prob = np.stack([prepared == value for value in range(3)]).astype(np.float32)
    assert np.array_equal(restore_mask(prob, grid), labels)
    shares = [restore_share(share, grid) for share in prob]
    assert np.array_equal(np.argmax(shares, axis=0), labels)


def test_what_a_crop_cuts_off_is_background() -> None:
    grid = Grid((2, 4, 8), (0, 1, 2), (), (2, 4, 8), fit=fit_boxes((4, 8), (4, 4), fit="crop"))
    prob = np.zeros((2, 2, 4, 4), np.float32)
    prob[1] = 1.0
    found = restore_mask(prob, grid)
    assert found.shape == (2, 4, 8)
    assert found[:, :, 2:6].min() == 1
    assert found[:, :, :2].max() == found[:, :, 6:].max() == 0


def test_channels_follow_the_neighbours_and_pretrained_stems_are_adapted(tmp_path: Path) -> None:
    from lepton_vision.models.resnet import ResNet

    rgb = ResNet("resnet18", channels=3)
    path = tmp_path / "rgb.pt"
    torch.save(rgb.state_dict(), path)
    base = Config(targets=(CORE,)).override("volume.view=2.5d", f"model.weights={path}")
    three = build_model(base)
    assert three.channels == 3
    assert torch.equal(three.encoder.stem.conv1.weight, rgb.stem.conv1.weight)
    five = build_model(base.override("volume.context=2"))
    assert five.encoder.stem.conv1.weight.shape[1] == 5
    assert torch.allclose(five.encoder.stem.conv1.weight.sum(1), rgb.stem.conv1.weight.sum(1), atol=1e-5)
    colour = build_model(base.override("preprocess.color=rgb"))
    assert colour.channels == 9
    for slice_ in range(3):  # each slice keeps its colours
        part = colour.encoder.stem.conv1.weight[:, 3 * slice_ : 3 * slice_ + 3]
        assert torch.allclose(part * 3, rgb.stem.conv1.weight, atol=1e-6)


def test_colours_of_a_slice_stay_together() -> None:
    from lepton_vision.transforms.slabs import fold_slabs

    slabs = torch.tensor([[10.0, 11, 12], [20, 21, 22]])[None, :, :, None, None]  # colour by slice
    assert fold_slabs(slabs).flatten().tolist() == [10, 20, 11, 21, 12, 22]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (("volume.context=2", "volume.view=3d"), "context counts with view 2.5d"),
        (("volume.aggregate=max", "volume.view=slices"), "aggregate counts with view 2.5d"),
        (("volume.view=2.5d", "volume.context=-1"), "greater than or equal to 0"),
        (("volume.view=2.5d", "volume.context_step=0"), "greater than or equal to 1"),
        (("volume.view=2.5d", "volume.window=[64, 128, 128]"), "every slice is seen whole"),
        (("volume.view=2.5d", "volume.aggregate=median"), "Did you mean 'mean'"),
        (("volume.view=2.5D",), "Did you mean '2.5d'"),
        (("volume.view=2.5d", "train.cache_features=true"), "not of volumes"),
    ],
)
def test_wrong_settings_are_named(changes: tuple[str, ...], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Config().override(*changes)
