"""Volumes as samples: patches by seed alone, bags of slices, whole volumes for masks, a cache that changes nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError, ManifestError, ReadError
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.image import read_image
from lepton_vision.readers.orient import reorient
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.transforms.grid import choose_slices, preprocess_volume
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import UNKNOWN, Batch, Image, Target
from tests.transforms.volumes import planted_volumes, volume_config, write_nifti

CORE = Target("core", "binary", ("0", "1"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return planted_volumes(tmp_path_factory.mktemp("volumes"))


def same(a: Batch, b: Batch) -> bool:
    assert a.masks is not None
    assert b.masks is not None
    return torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks) and a.image_ids == b.image_ids


def test_whole_volumes_come_one_at_a_time_as_their_files_have_them(manifest: Manifest) -> None:
    config = volume_config()
    loader = make_loader(manifest, config)
    batches = list(loader)
    assert len(batches) == 6
    for row, batch in enumerate(batches):
        image = read_image(manifest.root / manifest.frame["path"][row])
        expected = to_input(preprocess_volume(image, config.preprocess, config.volume), config.preprocess, axes=3)  # type: ignore[arg-type]
        assert torch.equal(batch.images[0], torch.from_numpy(expected))
        stored = read_image(manifest.root / manifest.frame["mask_path"][row])
        from lepton_vision.readers.orient import reorient

        assert batch.masks is not None
        assert np.array_equal(batch.masks[0].numpy(), reorient(stored, "LPS").pixels[0])
        # The box is bright where the mask says so, whatever was turned.
        assert batch.images[0, 0][batch.masks[0] > 0].mean() > batch.images[0, 0][batch.masks[0] == 0].mean() + 0.7


def test_volumes_of_unlike_size_are_padded_to_the_largest(manifest: Manifest) -> None:
    dataset = SampleDataset(manifest, volume_config())
    batch = dataset.batch([0, 1, 2])
    alone = [dataset.batch([row]) for row in range(3)]
    assert batch.images.shape[2:] == tuple(np.max([one.images.shape[2:] for one in alone], axis=0))
    assert batch.masks is not None
    for place, one in enumerate(alone):
        d, h, w = one.images.shape[2:]
        assert torch.equal(batch.images[place, :, :d, :h, :w], one.images[0])
        assert (batch.masks[place, d:] == UNKNOWN).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_training_patches_hang_on_seed_and_epoch_alone(manifest: Manifest, workers: int, tmp_path: Path) -> None:
    config = volume_config("augment.preset=mr", "volume.patches=2", "volume.patch=[8, 10, 12]")

    def epoch(number: int, count: int, cache: Path | None) -> list[Batch]:
        loader = make_loader(manifest, config, training=True, workers=count, cache_dir=cache)
        loader.sampler.set_epoch(number)  # type: ignore[union-attr]
        return list(loader)

    first = epoch(0, 0, None)
    again = epoch(0, workers, tmp_path)
    assert len(first) == 6
    assert all(batch.images.shape == (2, 1, 8, 10, 12) for batch in first)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert all(same(a, b) for a, b in zip(first, epoch(0, workers, tmp_path), strict=True))  # now from the cache
    assert not any(torch.equal(a.images, b.images) for a, b in zip(first, epoch(1, 0, None), strict=True))
    shown = [name for batch in first for name in batch.image_ids]
    assert sorted(shown) == sorted(list(manifest.frame["image_id"]) * 2)


def test_an_epoch_that_was_stopped_goes_on_with_the_same_patches(manifest: Manifest) -> None:
    config = volume_config("augment.preset=mr", "volume.patches=3")
    loader = make_loader(manifest, config, training=True)
    sampler: object = loader.sampler
    sampler.set_epoch(4)  # type: ignore[attr-defined]
    whole = list(loader)
    sampler.set_epoch(4)  # type: ignore[attr-defined]
    sampler.start_at(6)  # type: ignore[attr-defined]
    rest = list(loader)
    assert len(rest) == len(whole) - 3
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_without_masks_a_sample_is_the_middle_of_the_volume(manifest: Manifest) -> None:
    config = volume_config("volume.patch=[8, 20, 8]").model_copy(update={"segmentation": None, "targets": (CORE,)})
    batch = next(iter(make_loader(manifest, config, batch_size=3)))
    assert batch.images.shape == (3, 1, 8, 20, 8)
    assert batch.masks is None
    assert batch.labels["core"].tolist() == [0, 1, 0]
    whole = SampleDataset(manifest, volume_config()).batch([0]).images[0, 0].numpy()
    d, h, w = whole.shape
    top, left, before = (d - 8) // 2, (w - 8) // 2, (20 - h + 1) // 2
    inner = whole[top : top + 8, :, left : left + 8]
    assert np.allclose(batch.images[0, 0, :, before : before + h].numpy(), inner)
    assert batch.images[0, 0, :, :before].unique().tolist() == [-2.0]  # black


def test_labels_count_every_patch(manifest: Manifest) -> None:
    config = volume_config("volume.patches=3").model_copy(update={"targets": (CORE,)})
    dataset = make_loader(manifest, config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    assert len(dataset) == len(dataset.labels("core")) == 18
    labels = [dataset.batch([(k, 5)]).labels["core"].item() for k in range(18)]
    assert labels == dataset.labels("core").tolist()
    assert dataset.source_key(1) == dataset.source_key(7) != dataset.source_key(2)


def test_the_cache_is_shared_and_forgets_what_changed(manifest: Manifest, tmp_path: Path) -> None:
    config = volume_config()
    plain = SampleDataset(manifest, config)
    first = SampleDataset(manifest, config, cache_dir=tmp_path)
    expected = [plain.batch([row]) for row in range(6)]
    assert all(same(first.batch([row]), expected[row]) for row in range(6))
    kept = sorted((tmp_path / "volumes").glob("*.volume"))
    assert len(kept) == 6
    second = pickle.loads(pickle.dumps(SampleDataset(manifest, config, cache_dir=tmp_path)))
    assert isinstance(second.load(0).pixels, np.memmap)
    assert all(same(second.batch([row]), expected[row]) for row in range(6))
    assert sorted((tmp_path / "volumes").glob("*.volume")) == kept
    other = volume_config("preprocess.windows=[full]")
    third = SampleDataset(manifest, other, cache_dir=tmp_path)
    assert not torch.equal(third.batch([0]).images, expected[0].images)


def test_no_flipped_bit_of_a_kept_volume_is_taken_and_it_is_said_once(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, message = volume_config(), "A volume in the cache is damaged: it is prepared anew."
    expected = SampleDataset(manifest, config).batch([0])
    SampleDataset(manifest, config, cache_dir=tmp_path).batch([0])
    for path in sorted((tmp_path / "volumes").iterdir()):
        whole = path.read_bytes()
        for place in (0, 9, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1, None):
            damaged = bytearray(whole)
            if place is None:
                del damaged[200:]
            else:
                damaged[place] ^= 4
            path.write_bytes(damaged)
            caplog.clear()
            for _ in range(2):
                found = SampleDataset(manifest, config, cache_dir=tmp_path).batch([0])
                assert same(found, expected)
            assert caplog.messages == [message]
            assert path.read_bytes() == whole  # made anew


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    manifest = planted_volumes(tmp_path / "v", count=4)
    config = volume_config()
    before = SampleDataset(manifest, config, cache_dir=tmp_path / "c").batch([0])
    path = manifest.root / manifest.frame["path"][0]
    image = read_image(path)
    write_nifti(path, np.zeros(image.pixels.shape[:0:-1], np.float32), np.eye(4))
    os.utime(path, (1, 1))
    after = SampleDataset(manifest, config, cache_dir=tmp_path / "c").batch([0])
    assert not torch.equal(before.images, after.images)


def test_the_cache_is_bounded_and_old_files_make_room(manifest: Manifest, tmp_path: Path) -> None:
    config = volume_config()
    size = SampleDataset(manifest, config).load(0).pixels.nbytes * 2 + 200
    small = config.override(f"cache.max_gb={2.5 * size / 1e9}")
    dataset = SampleDataset(manifest, small, cache_dir=tmp_path)
    for row in range(6):
        dataset.batch([row])
    kept = sorted(tmp_path.rglob("*.volume"))
    assert 1 <= len(kept) <= 3
    assert sum(path.stat().st_size for path in kept) <= 2.5 * size
    for path in kept:
        os.utime(path, (1, 1))
    last = SampleDataset(manifest, small, cache_dir=tmp_path)
    last.batch([5])
    assert not set(kept) <= set(tmp_path.rglob("*.volume"))
    assert SampleDataset(manifest, config.override("cache.max_gb=0"), cache_dir=tmp_path / "none").batch([0])
    assert not list((tmp_path / "none").glob("*"))


def test_a_row_without_a_mask_is_unknown_everywhere(tmp_path: Path) -> None:
    manifest = planted_volumes(tmp_path / "v", count=4)
    frame = manifest.frame.copy()
    frame.loc[0, ["mask_path", "mask_values"]] = None
    part = Manifest(frame, root=manifest.root)
    batch = next(iter(make_loader(part, volume_config())))
    assert batch.masks is not None
    assert (batch.masks == UNKNOWN).all()


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    manifest = planted_volumes(tmp_path / "v", count=4)
    with pytest.raises(LabelError, match="nothing is stated, the first 2"):
        make_loader(manifest, volume_config("segmentation.structures={box: 1}"))
    bare, unlabelled = volume_config().model_copy(update={"segmentation": None}), manifest.frame.drop(columns="core")
    with pytest.raises(ConfigError, match="at least one target or segmentation"):
        make_loader(Manifest(unlabelled, root=manifest.root), bare, training=True)
    with pytest.raises(ManifestError, match="usable volume"):
        SampleDataset(manifest.select(np.zeros(4, bool)), volume_config())
    path = manifest.root / manifest.frame["path"][1]
    path.write_bytes(b"no volume")
    with pytest.raises(ReadError) as caught:
        list(make_loader(manifest, volume_config()))
    assert caught.value.path == path
    assert str(caught.value).startswith(f"Row 1 (from 0) of the manifest, {manifest.frame['image_id'][1]}: ")
    mask = manifest.root / manifest.frame["mask_path"][2]
    mask.unlink()
    part = manifest.select([3, 2])
    with pytest.raises(ReadError, match=rf"^Row 2 .*, {part.frame['image_id'][1]}, its mask: .*scan again"):
        list(make_loader(part, volume_config()))
    with pytest.raises(IndexError):
        SampleDataset(manifest, volume_config()).batch([4])


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
