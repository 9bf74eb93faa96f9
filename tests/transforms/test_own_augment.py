"""Own pipelines of albumentations and MONAI: their own results by seed, masks with them, and what they may not do."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pandas as pd
import pytest
import torch
from monai import transforms as M
from monai.transforms import Compose, RandFlip, RandFlipd, RandGaussianNoise, RandRotated, RandScaleIntensityd
from PIL import Image as Picture

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.transforms import own_augment
from lepton_vision.transforms.own_augment import load_pipeline
from lepton_vision.transforms.views import view_of
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
BASE = Config(targets=(SICK,)).override("preprocess.size=[16, 20]", "train.batch_size=4", "train.precision=fp32")
MASKS = BASE.override("segmentation.structures={lesion: 1}")
VOLUMES = BASE.override("volume.view=3d", "volume.patch=[8, 16, 16]", "preprocess.size=[16, 16]")
PIPELINE = A.Compose([A.HorizontalFlip(p=0.5), A.Rotate(limit=30, p=0.7), A.RandomBrightnessContrast(p=0.5)])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> lv.Manifest:
    root, rng = tmp_path_factory.mktemp("own_augment"), np.random.default_rng(0)
    for k in range(8):
        Picture.fromarray(rng.integers(0, 255, (16, 20), np.uint8)).save(root / f"{k}.png")
        Picture.fromarray((rng.random((16, 20)) > 0.7).astype(np.uint8)).save(root / f"m{k}.png")
    names = [f"{k}.png" for k in range(8)]
    table = pd.DataFrame({"path": names, "mask": [f"m{name}" for name in names], "sick": [0, 1] * 4})
    table["split"] = ["train"] * 4 + ["val"] * 4
    table["patient_id"] = range(8)
    return lv.Manifest.from_frame(table, root=root, workers=0)


def test_images_and_masks_are_what_albumentations_gives_for_the_seed(manifest: lv.Manifest) -> None:
    view = view_of(MASKS, targets=MASKS.targets, training=True, augment=PIPELINE)
    image = lv.read_image(manifest.root / "0.png")
    ready = view.prepare(image)
    labels = np.asarray(Picture.open(manifest.root / "m0.png"))
    out, mask = np.empty((1, 16, 20), np.float32), np.full((16, 20), 255, np.uint8)
    changed = 0
    for seed in range(12):
        mask[...] = 255
        view.sample(view.with_mask(ready, labels, image=image), view.draw(seed), out=out, mask=mask)
        PIPELINE.set_random_state(np.random.default_rng(seed), random.Random(seed))
        plain = np.asarray(Picture.open(manifest.root / "0.png"), np.float32)[..., None] / 255
        theirs = PIPELINE(image=plain, mask=labels.copy())
        expected = (np.clip(theirs["image"], 0, 1)[..., 0] - 0.5) / 0.5
        mean, std = MASKS.preprocess.mean[0], MASKS.preprocess.std[0]
        np.testing.assert_allclose(out[0] * std + mean, expected * 0.5 + 0.5, atol=2e-4)
        np.testing.assert_array_equal(mask, theirs["mask"])
        changed += int(not np.array_equal(mask, labels))
    assert changed > 5


def test_what_is_seen_depends_on_the_seed_and_not_on_the_workers(manifest: lv.Manifest) -> None:
    def epoch(workers: int, number: int = 0) -> torch.Tensor:
        loader = lv.make_loader(manifest, MASKS, training=True, workers=workers, augment=PIPELINE)
        loader.sampler.set_epoch(number)
        return torch.cat([torch.cat([batch.images.flatten(), batch.masks.flatten().float()]) for batch in loader])

    state = random.getstate()
    assert torch.equal(epoch(0), epoch(2))
    assert not torch.equal(epoch(0), epoch(0, 1))
    assert random.getstate() == state
    plain = torch.cat([batch.images for batch in lv.make_loader(manifest, MASKS, augment=PIPELINE)])
    assert torch.equal(plain, torch.cat([batch.images for batch in lv.make_loader(manifest, MASKS)]))


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_file_of_albumentations_is_the_pipeline(form: Any, tmp_path: Path, manifest: lv.Manifest) -> None:
    path = tmp_path / f"pipeline.{form}"
    A.save(PIPELINE, str(path), data_format=form)
    config = MASKS.override(f"augment.pipeline={path}")
    pairs = [
        lv.make_loader(manifest, config, training=True),
        lv.make_loader(manifest, MASKS, training=True, augment=PIPELINE),
    ]
    one, other = (torch.cat([batch.images for batch in loader]) for loader in pairs)
    assert torch.equal(one, other)


def test_a_bundle_describes_it_and_a_resumed_run_must_have_it(
    manifest: lv.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BASE.override("train.epochs=1", "model.width=8")
    bundle = lv.fit(config, manifest, run_dir=tmp_path / "run", device="cpu", augment=PIPELINE, progress=False)
    told = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())["provenance"]["augment"]
    names = [one["__class_fullname__"] for one in told["transform"]["transforms"]]
    assert names == ["HorizontalFlip", "Rotate", "RandomBrightnessContrast"]
    assert bundle.provenance["own_parts"][0].startswith("augment (description ")
    more = config.override("train.epochs=2")
    with pytest.raises(ConfigError, match="augment"):
        lv.fit(config, manifest, run_dir=tmp_path / "run", device="cpu", resume=True, progress=False)
    path = tmp_path / "somewhere" / "mine.json"
    path.parent.mkdir()
    A.save(PIPELINE, str(path))
    reads: list[Any] = []
    monkeypatch.setattr(own_augment, "load_pipeline", lambda path: reads.append(path) or load_pipeline(path))
    of_file = lv.fit(
        more.override(f"augment.pipeline={path}"), manifest, run_dir=tmp_path / "file", device="cpu", progress=False
    )
    assert reads == [str(path)]
    assert "somewhere" not in (tmp_path / "file" / "bundle" / "bundle.json").read_text()
    assert of_file.provenance["augment"] == told


def test_pipelines_that_do_not_fit_are_refused(manifest: lv.Manifest, tmp_path: Path) -> None:
    def refused(pipeline: Any, config: Config = BASE) -> str:
        with pytest.raises(ConfigError) as caught:
            lv.make_loader(manifest, config, training=True, augment=pipeline)
        assert caught.value.key == "augment.pipeline"
        return str(caught.value)

    assert "HorizontalFlip exchanges left and right" in refused(
        A.Compose([A.OneOf([A.HorizontalFlip(), A.VerticalFlip()])]),
        BASE.model_copy(update={"targets": (Target("sick", "binary", ("no", "yes"), is_lateral=True),)}),
    )
    sided = BASE.override("segmentation.structures={left_lung: 1}")
    assert "Rotate exchanges" in refused(A.Compose([A.Rotate(limit=180)]), sided)
    lv.make_loader(manifest, sided, training=True, augment=A.Compose([A.Rotate(limit=20), A.VerticalFlip()]))
    assert "Normalize: the configuration normalises" in refused(A.Compose([A.Normalize()]))
    assert "Expected (16, 20, 1) float32" in refused(A.Compose([A.CenterCrop(8, 8)]))
    assert "Expected a pipeline of albumentations" in refused(RandGaussianNoise())
    assert "Received: dict" in refused({"a": 1})
    for text, told in (
        ("{", "no pipeline of albumentations"),
        ('{"transform": {"__class_fullname__": "os.system"}}', "no pi"),
    ):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(ConfigError, match=told):
            lv.make_loader(manifest, BASE.override(f"augment.pipeline={tmp_path / 'p.json'}"), training=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        lv.make_loader(manifest, BASE.override(f"augment.pipeline={tmp_path / 'gone.json'}"), training=True)
    with pytest.raises(ConfigError, match="flip is of the presets"):
        BASE.override("augment.pipeline=a.json", "augment.flip=true")
    with pytest.raises(ConfigError, match="another was given"):
        lv.fit(BASE.override("augment.pipeline=a.json"), manifest, run_dir=tmp_path / "r", augment=PIPELINE)


LATERAL = (Target("sick", "binary", ("no", "yes"), is_lateral=True),)
SIDED = BASE.model_copy(update={"targets": LATERAL})
SIDED_VOLUMES = VOLUMES.model_copy(update={"targets": LATERAL})
KEYS = ["image", "mask"]


class OwnMirror(A.ImageOnlyTransform):
    """A team's own transform, of which no library knows what it does."""

    def apply(self, img: Any, **params: Any) -> Any:
        return img[:, ::-1]


def mirrored(image: Any, **_: Any) -> Any:
    return image[:, ::-1].copy()


def inverted(image: Any, **_: Any) -> Any:
    return 1.0 - image


@pytest.mark.parametrize(
    ("step", "is_refused"),
    [
        (A.HorizontalFlip(p=0.01), True),
        (A.Rotate(limit=120, p=0.01), True),
        (A.Rotate(limit=(-91, 0), p=0.01), True),
        (A.Rotate(limit=80, p=1.0), False),
        (A.SafeRotate(limit=(100, 170)), True),
        (A.SafeRotate(limit=20), False),
        (A.Affine(rotate=(0, 180), p=0.01), True),
        (A.Affine(rotate=30, scale=(0.7, 1.3), translate_percent=0.3, shear=15), False),
        (A.D4(), True),
        (A.SquareSymmetry(), True),
        (A.Transpose(p=0.01), True),
        (A.RandomRotate90(p=0.01), True),
        (A.RandomGridShuffle(grid=(2, 2)), True),
        (A.VerticalFlip(), False),
        (A.ElasticTransform(), False),
        (A.RandomResizedCrop((16, 20)), False),
        (A.InvertImg(p=1.0), False),
        (A.Lambda(image=mirrored), True),
        (A.Lambda(image=inverted), False),
        (OwnMirror(p=0.01), True),
    ],
)
def test_images_whose_sides_mean_something_are_not_mirrored_or_turned_over(step: Any, is_refused: bool) -> None:
    nested = A.Compose([A.SomeOf([A.NoOp(), A.Sequential([A.OneOf([A.NoOp(), step])])], n=1)])
    for pipeline in (step, nested):
        view_of(BASE, targets=BASE.targets, training=True, augment=pipeline)
        if not is_refused:
            view_of(SIDED, targets=LATERAL, training=True, augment=pipeline)
            continue
        with pytest.raises(ConfigError, match=f"{type(step).__name__} exchanges left and right"):
            view_of(SIDED, targets=LATERAL, training=True, augment=pipeline)


@pytest.mark.parametrize(
    ("step", "is_refused"),
    [
        (M.RandFlip(prob=0.01, spatial_axis=2), True),
        (M.RandFlipd(KEYS, prob=0.01), True),
        (M.RandFlipd(KEYS, spatial_axis=[0, 1]), False),
        (M.Flip(spatial_axis=-1), True),
        (M.RandAxisFlip(prob=0.01), True),
        (M.RandAxisFlipd(KEYS), True),
        (M.RandRotate(range_x=1.6, prob=0.01), True),
        (M.RandRotated(KEYS, range_y=(-1.6, 0.0), prob=0.01), True),
        (M.RandRotated(KEYS, range_z=3.0), False),  # around the axis of left and right
        (M.RandRotated(KEYS, range_x=1.2, range_y=1.2, prob=1.0), False),
        (M.Rotated(KEYS, angle=(3.0, 0.0, 0.0)), True),
        (M.RandRotate90(spatial_axes=(1, 2)), True),
        (M.RandRotate90d(KEYS, spatial_axes=(0, 2), prob=0.01), True),
        (M.RandRotate90d(KEYS, spatial_axes=(0, 1)), False),
        (M.RandAffine(rotate_range=2.0, prob=0.01), True),
        (M.RandAffined(KEYS, rotate_range=(0.1, (0.0, 1.7)), prob=0.01), True),
        (M.RandAffined(KEYS, rotate_range=(0.3, 0.3, 2.0), scale_range=(0.2, 0.2, 0.2), translate_range=2), False),
        (M.Rand3DElasticd(KEYS, (1, 2), (2, 3), rotate_range=2.0), True),
        (M.RandZoomd(KEYS, prob=1.0), False),
        (M.RandHistogramShift(prob=1.0), False),
        (M.HistogramNormalize(), False),
        (M.Lambda(lambda pixels: pixels[..., ::-1].copy()), True),
        (M.Lambda(lambda pixels: 1.0 - pixels), False),
    ],
)
def test_volumes_whose_sides_mean_something_are_not_mirrored_or_turned_over(step: Any, is_refused: bool) -> None:
    nested = Compose([M.OneOf([RandGaussianNoise(), M.RandomOrder([step])])])
    for pipeline in (step, nested):
        view_of(VOLUMES, targets=VOLUMES.targets, training=True, augment=pipeline)
        if not is_refused:
            view_of(SIDED_VOLUMES, targets=LATERAL, training=True, augment=pipeline)
            continue
        with pytest.raises(ConfigError, match=f"{type(step).__name__} exchanges left and right"):
            view_of(SIDED_VOLUMES, targets=LATERAL, training=True, augment=pipeline)


def volume(seed: int = 0) -> tuple[lv.Image, Any]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((8, 16, 16), np.uint8)
    labels[2:5, 3:9, 1:6] = 1
    return lv.Image(rng.random((1, 8, 16, 16), np.float32), spacing_mm=(1.0, 1.0, 1.0)), labels


def sample(pipeline: Any, seed: int, config: Config = VOLUMES) -> tuple[Any, Any]:
    config = config.override("segmentation.structures={lesion: 1}")
    view = view_of(config, targets=config.targets, training=True, augment=pipeline)
    image, labels = volume()
    ready = view.with_mask(view.prepare(image), labels, image=image)
    out, mask = np.empty((1, 8, 16, 16), np.float32), np.full((8, 16, 16), 255, np.uint8)
    view.sample(ready, view.draw(seed), out=out, mask=mask)
    return out * config.preprocess.std[0] + config.preprocess.mean[0], mask


def test_volumes_and_masks_are_moved_together_by_monai() -> None:
    keys = ["image", "mask"]
    flip = Compose([RandFlipd(keys=keys, prob=1.0, spatial_axis=1)])
    still, labels = sample(Compose([RandScaleIntensityd(keys=["image"], factors=0.5, prob=0.0)]), 3)
    moved, mask = sample(flip, 3)
    np.testing.assert_allclose(moved, still[:, :, ::-1], atol=1e-5)
    np.testing.assert_array_equal(mask, labels[:, ::-1])
    turn = Compose([RandRotated(keys=keys, range_x=0.5, prob=1.0, mode=["bilinear", "nearest"])])
    first, again, other = sample(turn, 5), sample(turn, 5), sample(turn, 6)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert set(np.unique(first[1])) <= {0, 1}


def test_arrays_may_change_values_and_not_move_masks() -> None:
    noisy, mask = sample(RandGaussianNoise(prob=1.0, std=0.1), 3)
    still, labels = sample(RandGaussianNoise(prob=0.0), 3)
    assert np.array_equal(mask, labels)
    assert 0.01 < np.abs(noisy - still).mean() < 0.2
    for pipeline, told in (
        (RandFlip(prob=1.0), "moves images without their masks"),
        (RandFlipd(keys=["image"], prob=1.0), "moves images without their masks"),
        (PIPELINE, "monai.transforms for volumes"),
    ):
        with pytest.raises(ConfigError, match=told):
            sample(pipeline, 0)
    with pytest.raises(ConfigError, match="mode nearest"):
        sample(RandRotated(keys=["image", "mask"], range_x=0.5, prob=1.0, mode="bilinear"), 5)
    sided = VOLUMES.model_copy(update={"targets": (Target("left_knee", "binary", ("no", "yes")),)})
    with pytest.raises(ConfigError, match="exchanges left and right"):
        sample(RandFlipd(keys=["image", "mask"], prob=1.0, spatial_axis=2), 0, sided)
    sample(RandFlipd(keys=["image", "mask"], prob=1.0, spatial_axis=0), 0, sided)


@pytest.mark.parametrize("view", ["2.5d", "slices"])
def test_other_views_of_volumes_take_them_too(view: str) -> None:
    config = VOLUMES.override(f"volume.view={view}")
    if view == "2.5d":
        config = config.override("segmentation.structures={lesion: 1}")
    seen = view_of(config, targets=config.targets, training=True, augment=RandGaussianNoise(prob=1.0, std=0.1))
    image, _ = volume()
    first, second = (np.empty(seen.shape, np.float32) for _ in range(2))
    seen.sample(seen.prepare(image), seen.draw(1), out=first, mask=None)
    seen.sample(seen.prepare(image), seen.draw(1), out=second, mask=None)
    assert np.array_equal(first, second)
    seen.sample(seen.prepare(image), seen.draw(2), out=second, mask=None)
    assert not np.array_equal(first, second)
