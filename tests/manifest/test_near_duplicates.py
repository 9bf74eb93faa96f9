"""Hashes and near-duplicates."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_vision.manifest.hashes import perceptual_hash, pixel_hash, thumbnail
from lepton_vision.manifest.near_duplicates import are_same, candidate_pairs, connect


def pixels(seed: int, *, size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.random((12, 12), dtype=np.float32) * 255, (size, size), interpolation=cv2.INTER_CUBIC)[None]


def differing_bits(a: str | None, b: str | None) -> int:
    assert a is not None
    assert b is not None
    return (int(a, 16) ^ int(b, 16)).bit_count()


def small(image: np.ndarray) -> np.ndarray:
    return np.rint(thumbnail(image) * 255).astype(np.uint8)[None]


def test_equal_pixels_have_one_hash_and_a_changed_one_another() -> None:
    image = pixels(0)
    changed = image.copy()
    changed[0, 5, 7] += 1
    assert pixel_hash(image) == pixel_hash(image.copy())
    assert pixel_hash(image) != pixel_hash(changed)
    assert pixel_hash(np.zeros((1, 2, 8), np.float32)) != pixel_hash(np.zeros((1, 4, 4), np.float32))
    assert pixel_hash(np.repeat(image, 3, axis=0)) == pixel_hash(image)  # gray stored as RGB
    assert pixel_hash(-np.zeros((1, 4, 4), np.float32)) == pixel_hash(np.zeros((1, 4, 4), np.float32))


@pytest.mark.parametrize("value", [0.0, -1024.0, 65535.0])
def test_a_constant_image_has_no_perceptual_hash(value: float) -> None:
    assert perceptual_hash(np.full((1, 64, 64), value, np.float32)) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_is_near_and_another_image_is_not(seed: int) -> None:
    image = pixels(seed)
    plain = np.clip(image[0], 0, 255).astype(np.uint8)
    copies = {
        "half": cv2.resize(image[0], (48, 48), interpolation=cv2.INTER_AREA),
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", plain, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE),
        "scaled": image[0] * 3.5 - 1000,
        "noise": image[0] + np.random.default_rng(9).normal(0, 4, image[0].shape).astype(np.float32),
    }
    for name, copy in copies.items():
        copy = np.asarray(copy, np.float32)[None]
        assert differing_bits(perceptual_hash(image), perceptual_hash(copy)) <= 4, name
        assert are_same(small(image), small(copy)).tolist() == [True], name
    other = pixels(seed + 100)
    assert differing_bits(perceptual_hash(image), perceptual_hash(other)) > 8
    assert are_same(small(image), small(other)).tolist() == [False]


def test_a_volume_is_seen_by_its_middle_slice() -> None:
    volume = np.stack([pixels(k)[0] for k in range(5)])[None]
    assert perceptual_hash(volume) == perceptual_hash(volume[:, 2])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 16))
def test_candidate_pairs_are_those_of_a_full_search(seed: int, distance: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, 20, dtype=np.uint64)
    flips = [np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, k + 1, dtype=np.uint64)) for k in range(20)]
    hashes = np.concatenate([base, base ^ np.array(flips, dtype=np.uint64), base[:3]])
    found = [tuple(pair) for pairs in candidate_pairs(hashes, distance=distance) for pair in pairs.tolist()]
    values = hashes.tolist()
    full = [
        (a, b)
        for a in range(len(values))
        for b in range(a + 1, len(values))
        if (values[a] ^ values[b]).bit_count() <= distance
    ]
    assert sorted(found) == full


def test_pairs_connect_to_groups() -> None:
    assert connect([(5, 2), (9, 7), (2, 1), (4, 4)]) == [[1, 2, 5], [4], [7, 9]]


def test_similar_chest_xrays_of_different_patients_are_not_taken_for_one(shared: Path) -> None:
    with np.load(shared / "data" / "medmnist28" / "pneumoniamnist.npz") as arrays:
        images = arrays["val_images"].astype(np.float32)
    hashes = np.array([int(perceptual_hash(image[None]) or "0", 16) for image in images], dtype=np.uint64)
    pairs = np.concatenate(list(candidate_pairs(hashes, distance=8)))
    pairs = np.array([(a, b) for a, b in pairs if not np.array_equal(images[a], images[b])])
    assert len(pairs) > 50  # they do look alike
    small_images = np.stack([small(image[None])[0] for image in images])
    assert not are_same(small_images[pairs[:, 0]], small_images[pairs[:, 1]]).any()
