"""Mask transforms: values, fit, augmentation, the way back, and batches of a loader."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from lepton_vision.config import Config, SegmentationConfig
from lepton_vision.config.sections import AugmentConfig, PreprocessConfig
from lepton_vision.errors import ConfigError, LabelError, ReadError
from lepton_vision.manifest import Manifest
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.augment import build_augment
from lepton_vision.transforms.grid import plane_grid, restore_mask
from lepton_vision.transforms.laterality import has_side_words
from lepton_vision.transforms.masks import fit_plane, overlap_counts, to_structures
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.resize import LEVELS
from lepton_vision.types import UNKNOWN, Image

TWO = SegmentationConfig(structures={"a": (1,), "b": (2, 5)})
FITS = ("pad", "stretch", "crop")


def blob(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """An asymmetric mask of two structures with smooth borders."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.where(smooth > 0.05, 1, np.where(smooth < -0.08, 2, 0)).astype(np.uint8)


def test_values_become_structures() -> None:
    values = np.array([[0, 1, 2], [5, 255, 0]], np.uint8)
    assert to_structures(values, TWO).tolist() == [[0, 1, 2], [2, 255, 0]]
    expected = r"value 3, of which nothing is stated. Expected: 1 a, 2\+5 b, 0 background, 255 unknown\."
    with pytest.raises(ReadError, match=expected) as caught:
        to_structures(np.array([[3]], np.uint8), TWO)
    assert caught.value.reason == "mask_values"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"structures": {"a": 255}}, [0, 9, 9, 1]),  # the usual white on black
        ({"structures": {"a": [1, 255]}}, [0, 1, 9, 1]),
        ({"structures": {"a": 1, "b": 7}}, [0, 1, 2, UNKNOWN]),
        ({"structures": {"a": 1}, "unknown": 7}, [0, 1, UNKNOWN, 9]),
        ({"structures": {"a": 7, "b": 255}, "unknown": 1}, [0, UNKNOWN, 1, 2]),
        ({"structures": {"a": 7}, "background": [1, 255]}, [0, 0, 1, 0]),
        ({"structures": {"a": 7}, "unknown": None}, [0, 9, 1, 9]),
    ],
)
def test_what_a_value_is_stands_in_the_configuration(settings: dict[str, object], expected: list[int]) -> None:
    """9: nothing is stated, so that a mask with this value is refused."""
    segmentation = SegmentationConfig.model_validate(settings)
    for value, number in zip((0, 1, 7, 255), expected, strict=True):
        values = np.array([[value]], np.uint8)
        if number == 9:
            with pytest.raises(ReadError, match=f"value {value}, of which nothing is stated"):
                to_structures(values, segmentation)
        else:
            assert to_structures(values, segmentation).tolist() == [[number]]


def test_one_value_cannot_be_two_things() -> None:
    for stated in ({"unknown": 255, "structures": {"a": 255}}, {"background": [2], "structures": {"a": 2}}):
        with pytest.raises(ConfigError, match=r"null|twice"):
            Config.from_dict({"segmentation": stated})
    again = CONFIG.override("segmentation.structures={a: 255}").override("segmentation.structures={a: 1}")
    assert again.segmentation is not None
    assert again.segmentation.unknown_value == 255


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 50), (33, 70), (20, 16)])
def test_a_mask_is_fitted_as_its_image_is(fit: str, height: int, width: int) -> None:
    """A mask of one structure, drawn as a white image, is what preprocessing makes of that image, cut at one half."""
    config = PreprocessConfig(size=(48, 40), fit=fit, windows=("full",))  # type: ignore[arg-type]
    mask = (blob(height, width) == 1).astype(np.uint8)
    image = Image(mask[None] * np.float32(255.0))
    gray = preprocess_image(image, config)[0] / LEVELS
    is_clear = abs(gray - 0.5) > 1e-3
    assert np.array_equal(fit_plane(mask, config)[is_clear], (gray > 0.5)[is_clear])
    assert fit_plane(mask, config).max() == 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(96, 80), (120, 70), (60, 100)])
def test_a_mask_comes_back_to_its_image(fit: str, height: int, width: int) -> None:
    config = PreprocessConfig(size=(96, 80), fit=fit)  # type: ignore[arg-type]
    mask = blob(height, width)
    prob = np.stack([(fit_plane(mask, config) == k).astype(np.float32) for k in range(3)])
    back = restore_mask(prob[:, None], plane_grid(mask.shape, config))[0]
    seen = np.ones_like(mask, bool)
    if fit == "crop":
        seen[:] = False
        rows, columns = min(height, round(width * 96 / 80)), min(width, round(height * 80 / 96))
        top, left = (height - rows) // 2, (width - columns) // 2
        seen[top : top + rows, left : left + columns] = True
        assert back[~seen].max(initial=0) == 0
    assert (back == mask)[seen].mean() > 0.95
    if mask.shape == config.size:
        assert np.array_equal(back, mask)


def test_unknown_stays_unknown_where_most_of_a_pixel_is() -> None:
    mask = np.array([[255, 255, 1, 1], [255, 0, 1, 0]], np.uint8)
    assert fit_plane(mask, PreprocessConfig(size=(1, 2))).tolist() == [[255, 1]]


@given(seed=st.integers(0, 2**31), preset=st.sampled_from(["light", "xray", "ct", "mr", "photo"]))
@settings(max_examples=40, deadline=None)
def test_augmentation_moves_the_mask_with_the_image(seed: int, preset: str) -> None:
    """Only what moves pixels is on, so that the mask as an image says where the mask must be."""
    augment = build_augment(AugmentConfig(preset=preset, strength=1.5), targets=())
    mask = (blob(64, 48) == 1).astype(np.uint8)
    whole = mask[None].astype(np.float32)
    plain = augment(whole, seed)
    moved = mask.copy()
    assert np.array_equal(augment(whole, seed, mask=moved), plain)  # the mask takes no random numbers
    assert set(np.unique(moved)) <= {0, 1}
    geometric = build_augment(AugmentConfig(preset=preset, strength=1.5), targets=())
    for step in [step for step in geometric._steps if type(step).__name__ not in MOVES]:
        step.p = 0.0  # drawn all the same: every step tosses its coin
    image = geometric(whole, seed)[0]
    still = mask.copy()
    geometric(whole, seed, mask=still)
    is_clear = abs(image - 0.5) > 0.3  # away from the border of the structure, where interpolation decides
    assert (still == (image > 0.5))[is_clear].mean() > 0.995


MOVES = {"HorizontalFlip", "VerticalFlip", "Affine"}


def test_structures_that_tell_sides_are_not_flipped() -> None:
    kidneys = SegmentationConfig(structures={"kidney_L": (1,), "kidney_R": (2,)})
    assert build_augment(AugmentConfig(preset="mr"), targets=(), segmentation=TWO).flips
    assert not build_augment(AugmentConfig(preset="mr"), targets=(), segmentation=kidneys).flips
    assert not has_side_words(("anterior", "posterior"))


def test_overlap_is_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, 4, (5, 6, 7), dtype=np.uint8), rng.integers(0, 4, (5, 6, 7), dtype=np.uint8)
    truth[0, :2] = UNKNOWN
    expected = np.zeros((3, 3), int)
    for a, b in zip(found.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if b != UNKNOWN:
            for k in (1, 2, 3):
                expected[k - 1] += [a == k and b == k, a == k, b == k]
    assert np.array_equal(overlap_counts(found, truth, structures=3), expected)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six images, of which two have no mask."""
    (tmp_path / "masks").mkdir()
    lines = ["file,mask,split"]
    for k in range(6):
        mask = blob(40, 30, seed=k)
        PilImage.fromarray((mask * 100).astype(np.uint8)).save(tmp_path / f"{k}.png")
        if k < 4:
            PilImage.fromarray(np.where(mask == 2, 5, mask).astype(np.uint8)).save(tmp_path / f"masks/{k}.png")
        lines.append(f"{k}.png,{f'masks/{k}.png' if k < 4 else ''},train")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return Manifest.scan(tmp_path, labels=tmp_path / "labels.csv")


CONFIG = Config().override(
    "preprocess.size=[32, 24]", "segmentation.structures={a: 1, b: [2, 5]}", "train.batch_size=3", "augment.preset=mr"
)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_loader_gives_masks_and_marks_absent_ones(
    manifest: Manifest, tmp_path: Path, workers: int, is_cached: bool
) -> None:
    folder = tmp_path / "cache" if is_cached else None
    for _ in range(2 if is_cached else 1):
        batches = list(make_loader(manifest, CONFIG, workers=workers, cache_dir=folder))
    masks = np.concatenate([batch.masks for batch in batches])
    assert masks.dtype == np.uint8
    expected = [fit_plane(blob(40, 30, seed=k), CONFIG.preprocess) for k in range(4)]
    assert np.array_equal(masks[:4], expected)
    assert (masks[4:] == UNKNOWN).all()


def test_training_moves_masks_with_their_images_and_leaves_absent_ones_absent(manifest: Manifest) -> None:
    for workers in (0, 2):
        batches = list(make_loader(manifest, CONFIG, training=True, workers=workers))
        masks = {i: m for b in batches for i, m in zip(b.index.tolist(), b.masks.numpy(), strict=True)}
        assert sorted(i for i, m in masks.items() if (m == UNKNOWN).all()) == [4, 5]
        plain = next(iter(make_loader(manifest, CONFIG, batch_size=6))).masks.numpy()
        assert any(not np.array_equal(masks[i], plain[i]) for i in range(4))
        images = {i: p for b in batches for i, p in zip(b.index.tolist(), b.images.numpy()[:, 0], strict=True)}
        for row in range(4):  # gray follows the mask, whatever the exposure: 0, 100, 200
            means = [images[row][masks[row] == k].mean() for k in range(3) if (masks[row] == k).sum() > 20]
            assert means == sorted(means)


def test_a_changed_mask_file_never_meets_the_old_cache(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    before = next(iter(make_loader(manifest, CONFIG, cache_dir=folder))).masks
    PilImage.fromarray(np.zeros((40, 30), np.uint8)).save(manifest.root / "masks/0.png")
    after = next(iter(make_loader(manifest, CONFIG, cache_dir=folder))).masks
    assert before is not None
    assert after is not None
    assert before[0].max() > 0
    assert after[0].max() == 0
    other = CONFIG.override("segmentation.structures={b: [2, 5], a: 1}")
    swapped = next(iter(make_loader(manifest, other, cache_dir=folder))).masks
    assert swapped is not None
    assert np.array_equal(swapped[1] == 1, before[1] == 2)


def test_a_value_without_a_structure_is_found_before_training(manifest: Manifest) -> None:
    config = CONFIG.override("segmentation.structures={a: 1}")
    with pytest.raises(LabelError, match=r"nothing is stated, the first 5\. Found: 0 in 4 masks") as caught:
        make_loader(manifest, config)
    assert caught.value.row == 0
    assert "{NAME: 5} or, if they are 'a', write segmentation.structures: {a: [1, 5]}" in str(caught.value)
    assert len(make_loader(manifest, config.override("segmentation.background=[5]"), training=True))
    bare = Manifest(manifest.frame.assign(mask_path=None, mask_values=None), manifest.root)
    with pytest.raises(LabelError, match="without any"):
        make_loader(bare, CONFIG)


def test_a_structure_that_no_mask_holds_is_not_trained_on(manifest: Manifest) -> None:
    config = CONFIG.override("segmentation.structures={a: 1, b: 5, c: 9}")
    with pytest.raises(LabelError, match=r"No mask of the train split holds 'c'\. Found: 0 in 4") as caught:
        make_loader(manifest, config, training=True)
    assert caught.value.key == "segmentation.structures"
    assert len(make_loader(manifest, config))  # to be looked at


@pytest.mark.parametrize("is_cached", [False, True])
def test_white_on_black_is_a_structure_when_said(manifest: Manifest, tmp_path: Path, is_cached: bool) -> None:
    """The loader gives the same numbers for masks of 0 and 255 as for those of 0 and 1."""
    found = []
    for value in (1, 255):
        for k in range(4):
            white = (blob(40, 30, seed=k) == 1) * value
            PilImage.fromarray(white.astype(np.uint8)).save(manifest.root / f"masks/{k}.png")
        config = CONFIG.override(f"segmentation.structures={{a: {value}}}")
        again = Manifest.scan(manifest.root, labels=manifest.root / "labels.csv")
        for _ in range(2):
            loader = make_loader(again, config, batch_size=6, cache_dir=tmp_path / "cache" if is_cached else None)
            found.append(next(iter(loader)).masks.numpy())
    assert set(np.unique(found[0][:4])) == {0, 1}
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_training_needs_something_to_learn(tmp_path: Path) -> None:
    PilImage.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    manifest = Manifest(pd.DataFrame({"image_id": ["a"], "path": ["a.png"]}), tmp_path)
    with pytest.raises(ConfigError, match="at least one target or segmentation"):
        make_loader(manifest, Config(), training=True)
