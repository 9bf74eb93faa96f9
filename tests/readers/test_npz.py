"""MedMNIST-style npz files: members, positions and refusals."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import probe, read_image
from lepton_vision.readers.npz import npz_members, read_npz_frame, read_npz_table

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save: Callable[..., None] = request.param
    path = tmp_path / "set.npz"
    save(path, train_images=GRAY, test_images=COLOR, train_labels=np.zeros((5, 1)))
    return path


def test_one_image(path: Path) -> None:
    image = read_image(path, member="train_images", frame=3)
    np.testing.assert_array_equal(image.pixels, GRAY[3][None])
    assert (image.value_range, image.source_format) == ((0.0, 255.0), "npz")
    color = read_image(path, member="test_images", frame=1)
    np.testing.assert_array_equal(color.pixels, np.moveaxis(COLOR[1], 2, 0))
    np.testing.assert_array_equal(read_npz_frame(path, "train_images", frame=4), GRAY[4])


def test_ids_are_of_the_values_of_an_entry_wherever_it_lies(path: Path, tmp_path: Path) -> None:
    ids = {read_image(path, member=m, frame=i).image_id for m in ("train_images", "test_images") for i in range(3)}
    assert len(ids) == 6
    np.savez(tmp_path / "one.npz", image=GRAY[2:3])
    assert read_image(tmp_path / "one.npz").image_id == read_image(path, member="train_images", frame=2).image_id
    facts = probe(path, member="train_images")
    assert (facts.frames, facts.rows, facts.columns) == (5, 4, 6)


def test_members(path: Path) -> None:
    assert npz_members(path) == {"train_images": (5, 4, 6), "test_images": (3, 4, 6, 3), "train_labels": (5, 1)}


@pytest.mark.parametrize(
    ("member", "frame", "reason"),
    [(None, 0, "no_frame"), ("nothing", 0, "no_frame"), ("train_images", None, "no_frame"),
     ("train_images", 5, "no_frame"), ("train_images", -1, "no_frame"), ("train_labels", 0, "unsupported")],
)  # fmt: skip
def test_wrong_addresses(path: Path, member: str | None, frame: int | None, reason: str) -> None:
    with pytest.raises(ReadError) as caught:
        read_image(path, member=member, frame=frame)
    assert caught.value.reason == reason


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, train_images=GRAY)
    np.testing.assert_array_equal(read_image(path, frame=0).pixels[0], GRAY[0])
    np.savez_compressed(path, train_images=255 - GRAY, more=GRAY)
    np.testing.assert_array_equal(read_image(path, frame=0, member="train_images").pixels[0], 255 - GRAY[0])


def test_real_numbers_and_column_order(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    values = np.asfortranarray(RNG.normal(size=(3, 4, 6)).astype(np.float32))
    np.savez(path, train_images=values)
    np.testing.assert_array_equal(read_image(path, frame=2).pixels[0], values[2])
    values[1, 0, 0] = np.nan
    np.savez(path, train_images=values, again=GRAY)
    with pytest.raises(ReadError) as caught:
        read_image(path, frame=1, member="train_images")
    assert caught.value.reason == "non_finite"


@pytest.mark.parametrize("kind", ["i1", "u2", "i4", "u4", "i8"])
def test_the_range_holds_the_ends_of_every_type_of_number(tmp_path: Path, kind: str) -> None:
    limits = np.iinfo(kind)
    np.savez(tmp_path / "x.npz", images=np.array([[[limits.min, limits.max]]], dtype=kind))
    image = read_image(tmp_path / "x.npz")
    assert image.value_range == (image.pixels.min(), image.pixels.max())


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_not_taken_for_the_width_of_a_volume(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=RNG.integers(0, 256, (3, 8, 6, channels), dtype=np.uint8))
    for read in (probe, lambda file: read_image(file, frame=0)):
        with pytest.raises(ReadError, match="alpha") as caught:
            read(path)
        assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_flipped_bit_of_an_array_is_corrupt(tmp_path: Path, save: Callable[..., None]) -> None:
    """A stored array is mapped into memory, where nobody compares the checksum of the zip file."""
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16), dtype=np.uint8)
    save(tmp_path / "whole.npz", images=images)
    whole = (tmp_path / "whole.npz").read_bytes()
    for number, place in enumerate(range(400, 5000, 511)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path = tmp_path / f"{number}.npz"
        path.write_bytes(damaged)
        with pytest.raises(ReadError) as caught:
            read_npz_frame(path, "images", frame=0)
        assert caught.value.reason == "corrupt"


def add_array(path: Path, name: str, shape: tuple[int, ...], data: bytes) -> None:
    """An array of bytes whose header says ``shape``, whatever follows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + data)


@pytest.mark.parametrize(
    ("shape", "data", "reason"),
    [
        ((2, 8, 8), bytes(127), "truncated"),  # a byte too few
        ((2000, 64, 64), bytes(64), "truncated"),
        ((2**31, 8, 8), bytes(64), "too_large"),
        ((2**31, 0, 8), b"", "corrupt"),
        ((40_000, 1, 1), bytes(40_000), "too_large"),  # images, for a file of some hundred bytes
    ],
)
def test_an_array_is_what_its_member_can_hold(tmp_path: Path, shape: tuple[int, ...], data: bytes, reason: str) -> None:
    path = tmp_path / "a.npz"
    add_array(path, "train_images", shape, data)
    for call in (lambda: read_image(path, member="train_images", frame=0), lambda: probe(path, member="train_images")):
        with pytest.raises(ReadError) as caught:
            call()
        assert caught.value.reason == reason


def test_labels_are_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    add_array(path, "train_images", (2, 8, 8), bytes(128))
    add_array(path, "train_labels", (2**31,), bytes(2))
    add_array(path, "val_labels", (2, 1), bytes([3, 4]))
    with pytest.raises(ReadError) as caught:
        read_npz_table(path, "train_labels")
    assert caught.value.reason == "too_large"
    assert read_npz_table(path, "val_labels").tolist() == [[3], [4]]
