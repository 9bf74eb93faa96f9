"""Masks of images and of volumes on their own voxels, and failures with their reasons."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.masks import MaskPrediction, VolumeSegmenter, predict_masks
from lepton_vision.inference.samples import list_volumes
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.assemble import make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.pipeline.masks import evaluate_mask_parts
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.image import read_image
from lepton_vision.transforms import views
from lepton_vision.types import SampleAddress
from tests.manifest.dicom_series import write_series
from tests.transforms.volumes import planted_volumes, volume_config


def flat_bundle(*changes: str) -> Bundle:
    """Random weights, one structure, images of 32 pixels."""
    config = Config().override(
        "preprocess.size=[32, 32]",
        "model.backbone=resnet10",
        "model.width=8",
        "segmentation.structures={square: 7}",
        "segmentation.channels=8",
        "train.batch_size=2",
        *changes,
    )
    torch.manual_seed(0)
    return Bundle(config=config, targets=(), state=make_network(config, targets=()).state_dict())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40), dtype=np.uint8)
        PilImage.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("kind", ["files", "rows"])
def test_an_image_that_does_not_fit_into_memory_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images = folder if kind == "files" else Manifest.scan(folder, workers=0)
    original, seen = views.preprocess_image, list[int]()

    def greedy(image: object, config: object, **how: object) -> object:
        seen.append(len(seen))
        if len(seen) == 2:
            raise MemoryError
        return original(image, config, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "preprocess_image", greedy)
    found = list(predict_masks(flat_bundle(), images, precision="fp32"))
    assert [one.reason if isinstance(one, Failure) else "" for one in found] == ["", "too_large", ""]


@pytest.mark.parametrize("change", ["segmentation.mode=auxiliary", ""])
def test_a_bundle_without_masks_is_refused_in_the_same_words_everywhere(folder: Path, change: str) -> None:
    bundle = flat_bundle("segmentation.mode=auxiliary")
    if not change:
        plain = Config(targets=({"name": "a", "kind": "binary", "classes": ("0", "1")},))  # type: ignore[arg-type]
        plain = plain.override("preprocess.size=[32, 32]", "model.backbone=resnet10", "model.width=8")
        bundle = Bundle(config=plain, targets=plain.targets, state=make_network(plain).state_dict())
    manifest = Manifest.scan(folder, workers=0)
    for refused in (
        lambda: next(predict_masks(bundle, folder)),
        lambda: evaluate_mask_parts([(bundle, manifest)], out=folder / "out"),
        bundle.require_masks,
    ):
        with pytest.raises(ConfigError, match="Expected a bundle that predicts masks") as caught:
            refused()
        assert caught.value.key == "segmentation"
    assert not (folder / "out").exists()
    assert flat_bundle().require_masks().names == ("square",)


def random_bundle(config: Config) -> Bundle:
    """Random weights whose masks are a mixture of all structures."""
    torch.manual_seed(0)
    network = make_network(config, targets=())
    with torch.no_grad():
        weight = network.decoder.last.weight  # type: ignore[union-attr]
        weight.normal_()
        weight -= weight.mean(dim=1, keepdim=True)  # features are positive: no structure wins everywhere
    return Bundle(config=config, targets=(), state=network.state_dict())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return planted_volumes(tmp_path_factory.mktemp("volumes"), count=4)


@pytest.mark.parametrize("spacing", ["null", "[2.0, 0.7, 1.3]"])
def test_a_turned_file_has_the_same_mask_turned(manifest: Manifest, tmp_path: Path, spacing: str) -> None:
    segmenter = VolumeSegmenter(random_bundle(volume_config(f"volume.spacing_mm={spacing}")), precision="fp32")
    plain = nib.load(manifest.root / manifest.frame["path"][0])
    expected = segmenter.mask(read_image(manifest.root / manifest.frame["path"][0])).transpose(2, 1, 0)
    assert expected.shape == plain.shape
    assert len(np.unique(expected)) == 3
    for codes in ("LPS", "SRA", "PIL"):
        way = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(plain.affine), nib.orientations.axcodes2ornt(codes)
        )
        turned = plain.as_reoriented(way)
        nib.save(turned, tmp_path / f"{codes}.nii.gz")
        found = segmenter.mask(read_image(tmp_path / f"{codes}.nii.gz")).transpose(2, 1, 0)
        assert np.array_equal(found, nib.orientations.apply_orientation(expected, way))


def test_rows_and_files_have_the_same_masks_and_failures_their_reasons(manifest: Manifest, tmp_path: Path) -> None:
    bundle = random_bundle(volume_config("volume.mirrored=true"))
    segmenter = VolumeSegmenter(bundle, precision="fp32")
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    rows = list(predict_masks(bundle, manifest, precision="fp32", progress=tell))
    assert told == [(k, 4) for k in range(1, 5)]
    files = list(predict_masks(bundle, manifest.root, precision="fp32", workers=2))
    assert len(rows) == len(files) == 4
    for one, other in zip(rows, files, strict=True):
        assert isinstance(one, MaskPrediction)
        assert isinstance(other, MaskPrediction)
        assert np.array_equal(one.labels, other.labels)
        assert one.labels.shape == one.image.pixels.shape[1:]
        assert np.array_equal(one.labels, segmenter.mask(one.image))
        assert one.address.path.resolve() == other.address.path.resolve()
        assert one.row >= 0
        assert other.row == -1
    assert [one.image_id for one in rows] == list(manifest.frame["image_id"])
    (tmp_path / "text.nii").write_text("no volume")
    write_series(tmp_path / "s", np.random.default_rng(0).integers(0, 100, (4, 9, 8)), patient="a", series="x")
    found = list(predict_masks(bundle, [tmp_path], precision="fp32"))
    assert isinstance(found[0], MaskPrediction)
    assert found[0].labels.shape == (4, 9, 8)
    assert isinstance(found[1], Failure)
    assert found[1].reason == "not_an_image"
    assert [isinstance(one, SampleAddress) and one.member is None for one in list_volumes(tmp_path)] == [False, True]


def test_left_and_right_are_exchanged_where_asked_for_and_allowed(manifest: Manifest) -> None:
    image = read_image(manifest.root / manifest.frame["path"][0])
    plain = VolumeSegmenter(random_bundle(volume_config()), precision="fp32").mask(image)
    both = VolumeSegmenter(random_bundle(volume_config()), precision="fp32", mirrored=(4,)).mask(image)
    told = VolumeSegmenter(random_bundle(volume_config("volume.mirrored=true")), precision="fp32").mask(image)
    assert np.array_equal(told, both)
    assert not np.array_equal(told, plain)
    sided = volume_config("volume.mirrored=true", "segmentation.structures={box_left: 1, box_right: 2}")
    with pytest.raises(ConfigError, match="tell them apart"):
        VolumeSegmenter(random_bundle(sided))


def test_a_bundle_without_masks_is_refused() -> None:
    auxiliary = volume_config("segmentation.mode=auxiliary")
    with pytest.raises(ConfigError, match="predicts masks"):
        VolumeSegmenter(random_bundle(auxiliary))
    flat = random_bundle(volume_config()).config.model_copy(update={"volume": None})
    network = make_network(flat, targets=())
    with pytest.raises(ConfigError, match="volume"):
        VolumeSegmenter(Bundle(config=flat, targets=(), state=network.state_dict()))


def test_a_volume_too_large_for_the_device_is_a_failure_and_the_next_is_predicted(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = VolumeSegmenter.probabilities, list[int]()

    def greedy(self: VolumeSegmenter, pixels: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, pixels)

    monkeypatch.setattr(VolumeSegmenter, "probabilities", greedy)
    found = list(predict_masks(random_bundle(volume_config()), manifest, device="cpu", precision="fp32"))
    assert [isinstance(one, Failure) for one in found] == [False, True, False, False]
    assert found[1] == Failure(manifest.frame["image_id"][1], "too_large")
