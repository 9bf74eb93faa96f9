"""SampleDataset and make_loader on real files."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError, LeptonError, ManifestError, ReadError
from lepton_vision.manifest.table import Manifest
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.augment import build_augment
from lepton_vision.transforms.cache import ImageCache
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.transforms.rows import RowTable
from lepton_vision.transforms.sampler import EpochSampler
from lepton_vision.types import Batch, Target

TARGET = Target("finding", "binary", ("0", "1"))


def gathered(batches: list[Batch]) -> tuple[torch.Tensor, list[int], torch.Tensor]:
    images = torch.cat([batch.images for batch in batches])
    index = [int(i) for batch in batches for i in batch.index]
    return images, index, torch.cat([batch.labels["finding"] for batch in batches])


def test_evaluation_order_is_manifest_order_with_labels(manifest: Manifest, config: Config) -> None:
    loader = make_loader(manifest, config)
    batches = list(loader)
    images, index, labels = gathered(batches)
    assert [len(batch.index) for batch in batches] == [4, 4, 2]
    assert index == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert [name for batch in batches for name in batch.image_ids] == [f"id{i}" for i in index]
    np.testing.assert_array_equal(labels.numpy(), [0, np.nan, 0, 0, 1, 0, 1, 0, 1, 0])
    assert images.shape == (10, 1, 32, 32)
    assert images.dtype == torch.float32


def test_pixels_are_those_of_the_file(manifest: Manifest, config: Config) -> None:
    images, index, _ = gathered(list(make_loader(manifest, config)))
    for image, row in zip(images.numpy(), index, strict=True):
        stored = pydicom.dcmread(manifest.locate(row).path).pixel_array.astype(np.float64)
        shown = np.clip((stored - 39.5) / 399 + 0.5, 0, 1).astype(np.float32)
        small = cv2.resize(shown, (32, 27), interpolation=cv2.INTER_AREA)
        expected = np.zeros((32, 32))
        expected[2:29] = small
        assert np.abs(image[0] - (expected - 0.5) / 0.25).max() < 1e-4


def test_a_batch_equals_its_rows_one_by_one(manifest: Manifest, config: Config) -> None:
    dataset = make_loader(manifest, config, training=True).dataset
    assert isinstance(dataset, SampleDataset)
    for keys in ([2, 0, 5], [(2, 11), (0, 12), (5, 2**62)], [(2, 11), 0, 5]):
        together = dataset.batch(keys)
        for place, key in enumerate(keys):
            alone = dataset[key]
            if isinstance(key, int) and any(isinstance(other, tuple) for other in keys):
                torch.testing.assert_close(alone.images[0], together.images[place], atol=1e-6, rtol=0)
            else:
                assert torch.equal(alone.images[0], together.images[place])
            assert alone.image_ids[0] == together.image_ids[place]
    assert not torch.equal(dataset[(2, 11)].images, dataset[2].images)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_training_images_do_not_depend_on_the_number_of_workers(manifest: Manifest, config: Config) -> None:
    seen = []
    for workers in (0, 2):
        loader = make_loader(manifest, config, training=True, workers=workers)
        assert isinstance(loader.sampler, EpochSampler)
        epochs = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            epochs.append(gathered(list(loader)))
        assert not torch.equal(epochs[0][0], epochs[1][0])
        seen.append(epochs)
    for (images, index, _), (others, other_index, _) in zip(*seen, strict=True):
        assert index == other_index
        assert torch.equal(images, others)


def test_training_images_are_the_stored_ones_augmented_and_then_normalised(manifest: Manifest, config: Config) -> None:
    config = config.override("preprocess.mean=[0.4]", "preprocess.std=[0.3]")
    dataset = make_loader(manifest, config, training=True).dataset
    augment = build_augment(config.augment, targets=config.targets)
    keys = [(row, 100 + row) for row in range(len(dataset))]
    wanted = [(augment(dataset.load_row(row), seed) - 0.4) / 0.3 for row, seed in keys]
    np.testing.assert_allclose(dataset.batch(keys).images.numpy(), np.stack(wanted), rtol=0, atol=1e-5)


def test_an_epoch_can_be_resumed_in_the_middle(manifest: Manifest, config: Config) -> None:
    loader = make_loader(manifest, config, training=True)
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(3)
    whole = list(loader)
    assert len(whole) == len(loader) == 2  # the incomplete third batch is left out
    loader.sampler.set_epoch(3)
    loader.sampler.start_at(4)
    rest = list(loader)
    assert len(rest) == 1
    assert torch.equal(rest[0].images, whole[1].images)
    assert torch.equal(rest[0].index, whole[1].index)


def test_a_short_training_set_still_gives_its_one_batch(manifest: Manifest, config: Config) -> None:
    assert [len(batch.index) for batch in make_loader(manifest, config, training=True, batch_size=64)] == [10]


def test_no_global_random_state_is_read_or_changed(manifest: Manifest, config: Config) -> None:
    torch.manual_seed(1)
    before = (torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002
    list(make_loader(manifest, config, training=True))
    list(make_loader(manifest, config))
    after = (torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_processes_of_torchrun_share_the_rows(
    manifest: Manifest, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        loader = make_loader(manifest, config, training=True, batch_size=5)
        rows.append([int(i) for batch in loader for i in batch.index])
        validation = make_loader(manifest, config)
        assert sum(len(batch.index) for batch in validation) == 10
    assert len(rows[0]) == len(rows[1]) == 5
    assert sorted(rows[0] + rows[1]) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_balanced_sampling_reaches_the_loader(manifest: Manifest, config: Config) -> None:
    loader = make_loader(manifest, config.override("train.sampling=balanced"), training=True)
    assert isinstance(loader.sampler, EpochSampler)
    assert loader.sampler.weights is not None
    # 6 rows of class 0, 3 of class 1, one unknown
    assert sorted(set(np.round(loader.sampler.weights, 6))) == [1.5, 2.0, 3.0]


def test_patients_and_length_of_an_epoch_reach_the_loader(manifest: Manifest, config: Config) -> None:
    patients = ["a"] * 7 + ["b"] * 3 + [None]  # row 3 was rejected
    owned = replace(manifest, frame=manifest.frame.assign(patient_id=pd.Series(patients, dtype="string")))
    loader = make_loader(owned, config.override("train.sampling=patients", "train.epoch_samples=12"), training=True)
    assert isinstance(loader.sampler, EpochSampler)
    assert loader.sampler.weights is not None
    np.testing.assert_allclose(loader.sampler.weights, [1 / 6] * 6 + [1 / 3] * 3 + [1])
    assert sum(len(batch.index) for batch in loader) == 12
    assert sum(len(batch.index) for batch in make_loader(owned, config.override("train.epoch_samples=12"))) == 10


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_gives_the_same_images_and_spares_the_files(
    manifest: Manifest, config: Config, tmp_path, workers: int
) -> None:
    plain, _, _ = gathered(list(make_loader(manifest, config)))
    loader = make_loader(manifest, config, cache_dir=tmp_path / "cache", workers=workers)
    first, _, _ = gathered(list(loader))
    dataset = loader.dataset
    assert isinstance(dataset, SampleDataset)
    assert isinstance(dataset.cache, ImageCache)
    assert dataset.cache.pixels.filled == 10  # what the workers wrote is seen here
    for path in manifest.root.iterdir():
        path.rename(path.with_suffix(".gone"))
    second, _, _ = gathered(list(loader))
    assert torch.equal(first, plain)
    assert torch.equal(second, plain)


def test_a_file_that_changes_is_decoded_again(manifest: Manifest, config: Config, tmp_path) -> None:
    before, _, _ = gathered(list(make_loader(manifest, config, cache_dir=tmp_path / "cache")))
    path = manifest.locate(0).path
    header = pydicom.dcmread(path)
    header.WindowCenter = 100
    header.save_as(path)
    after, _, _ = gathered(list(make_loader(manifest, config, cache_dir=tmp_path / "cache")))
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])


def test_no_cache_is_made_when_none_is_wanted(manifest: Manifest, config: Config, tmp_path) -> None:
    for loader in (
        make_loader(manifest, config),
        make_loader(manifest, config.override("cache.max_gb=0"), cache_dir=tmp_path / "cache"),
    ):
        assert isinstance(loader.dataset, SampleDataset)
        assert loader.dataset.cache is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_raises_read_error(manifest: Manifest, config: Config, workers: int) -> None:
    path = manifest.locate(5).path
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ReadError) as caught:
        list(make_loader(manifest, config, workers=workers))
    assert caught.value.reason == "truncated"
    assert caught.value.path == path
    assert str(caught.value).startswith("Row 5 (from 0) of the manifest, id5: ")


def test_a_row_of_a_part_is_named_by_its_number_in_the_whole(manifest: Manifest, config: Config) -> None:
    part = manifest.select([9, 7, 5]).select([True, False, True])
    part.locate(1).path.unlink()
    with pytest.raises(ReadError, match=r"(?m)^Row 5 \(from 0\) of the manifest, id5: .*scan again\.$") as caught:
        list(make_loader(part, config))
    assert part.locate(1).path.name not in str(caught.value)


def test_load_row_gives_stored_pixels_or_the_reason(manifest: Manifest, config: Config) -> None:
    dataset = SampleDataset(manifest, config)
    assert len(dataset) == 10
    pixels = dataset.load_row(3)
    assert (pixels.shape, pixels.dtype) == ((1, 32, 32), np.uint16)
    manifest.locate(int(dataset.rows.index[3])).path.unlink()
    with pytest.raises(ReadError) as caught:
        dataset.load_row(3)
    assert caught.value.reason == "missing"
    with pytest.raises(ReadError) as caught:
        SampleDataset(manifest, config.override("preprocess.missing_window=refuse")).load_row(3)
    assert caught.value.reason == "missing"


def test_a_row_that_needs_a_frame_is_refused_with_its_path(manifest: Manifest, config: Config) -> None:
    path = manifest.locate(0).path
    data = pydicom.dcmread(path)
    data.NumberOfFrames = 2
    data.PixelData = data.PixelData * 2
    data.save_as(path)
    with pytest.raises(ReadError) as caught:
        SampleDataset(manifest, config).load_row(0)
    assert (caught.value.reason, caught.value.path) == ("volume", path)
    table = manifest.frame.assign(frame=1).iloc[[0]]
    framed = Manifest(table, root=manifest.root, label_columns=("finding",))
    assert SampleDataset(framed, config).load_row(0).shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("empty", ManifestError, "at least one usable image"),
        ("rejected", ManifestError, "none of them with status 'ok'"),
        ("column", LabelError, "finding"),
        ("class", LabelError, "2"),
        ("unlabelled", ConfigError, "at least one target"),
        ("batch", ConfigError, "batch_size"),
    ],
)
def test_bad_input_is_one_clear_error(
    manifest: Manifest, config: Config, change: str, error: type[LeptonError], words: str
) -> None:
    table, size = manifest.frame, None
    names: tuple[str, ...] = ("finding",)
    if change == "empty":
        table = table.iloc[:0]
    if change == "rejected":
        table = table.iloc[[3]]
    if change == "column":
        table, names = table.rename(columns={"finding": "findings"}), ("findings",)
    if change == "class":
        table = table.assign(finding=pd.Series([2] * len(table)))
    if change == "unlabelled":
        config, names = config.override("targets=[]"), ()
    if change == "batch":
        size = 0
    broken = Manifest(table, root=manifest.root, label_columns=names)
    with pytest.raises(error, match=words):
        make_loader(broken, config, training=True, batch_size=size)


def test_unlabelled_images_can_be_loaded_for_scoring(manifest: Manifest, config: Config) -> None:
    bare = Manifest(manifest.frame.drop(columns="finding"), root=manifest.root)
    batch = next(iter(make_loader(bare, config.override("targets=[]"))))
    assert batch.labels == {}
    assert batch.images.shape == (4, 1, 32, 32)


def test_targets_are_taken_from_the_manifest_where_clear(manifest: Manifest, config: Config) -> None:
    batch = next(iter(make_loader(manifest, config.override("targets=[]"))))
    assert list(batch.labels) == ["finding"]


def test_a_dataset_can_be_sent_to_a_spawned_worker(manifest: Manifest, config: Config, tmp_path) -> None:
    dataset = make_loader(manifest, config, training=True, cache_dir=tmp_path / "cache").dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[(1, 5)].images, dataset[(1, 5)].images)
    assert len(pickle.dumps(SampleDataset(manifest, config).rows)) < 5000


def test_a_dataset_is_a_sequence(manifest: Manifest, config: Config) -> None:
    dataset = SampleDataset(manifest, config)
    assert [batch.image_ids[0] for batch in dataset][-1] == "id10"
    assert dataset[np.int64(2)].image_ids == ("id2",)
    for row in (-1, 10):
        with pytest.raises(IndexError):
            dataset[row]


def test_a_row_table_of_100_000_rows_stays_small(manifest: Manifest) -> None:
    table = manifest.frame.iloc[np.zeros(100_000, int)].assign(image_id=[f"{i:016x}" for i in range(100_000)])
    rows = RowTable.of(Manifest(table, root=manifest.root, label_columns=("finding",)))
    assert len(pickle.dumps(rows)) < 7_000_000
    assert rows.image_id(99_999) == f"{99_999:016x}"
