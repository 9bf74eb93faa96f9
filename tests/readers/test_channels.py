"""Channels of NIfTI volumes, from one file or several: order and values by nibabel."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers.channels import channel_files, first_files, suffixes_of
from lepton_vision.readers.image import probe, read_image
from lepton_vision.readers.nifti import read_nifti_header

RNG = np.random.default_rng(0)


def save(path: Path, voxels: np.ndarray, *, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine), path)
    return path


def truth(path: Path) -> np.ndarray:
    """(C, D, H, W) by nibabel."""
    voxels = np.asarray(nib.load(path).dataobj)
    return voxels.reshape(*voxels.shape[:3], -1).transpose(3, 2, 1, 0)


@pytest.mark.parametrize("shape", [(4, 5, 6, 4), (4, 5, 6, 1, 2), (4, 5, 1, 3)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_components_are_channels_in_their_order(tmp_path: Path, shape: tuple[int, ...], name: str) -> None:
    path = save(tmp_path / name, RNG.integers(-9, 99, shape).astype(np.int16))
    channels = [f"c{number}" for number in range(shape[-1])]
    image = read_image(path, member=",".join(channels))
    wanted = truth(path)
    assert np.array_equal(image.pixels, wanted if shape[2] > 1 else wanted[:, 0])
    assert probe(path, member=",".join(channels)).frames == shape[2]
    assert np.array_equal(read_image(path, member=",".join(channels), frame=0).pixels, wanted[:, 0])
    assert read_nifti_header(path).shape == (shape[2], 5, 4)


@pytest.mark.parametrize(
    ("member", "reason"), [(None, "unsupported"), ("t1,t2", "channels"), ("a,b,c,d,e", "channels")]
)
def test_components_that_nobody_named_are_refused(tmp_path: Path, member: str | None, reason: str) -> None:
    path = save(tmp_path / "a.nii", RNG.random((4, 5, 6, 4)).astype(np.float32))
    for read in (read_image, probe):
        with pytest.raises(ReadError, match=r"volume\.channels.*\(4, 5, 6, 4\)|\(4, 5, 6, 4\).*volume\.channels") as it:
            read(path, member=member)
        assert it.value.reason == reason
    flat = save(tmp_path / "b.nii", np.zeros((4, 5, 6), np.int16))
    with pytest.raises(ReadError, match="2 components t1, t2"):
        read_image(flat, member="t1,t2")


@pytest.mark.parametrize("member", ["_0000,_0001", "t1=_0000,t2=_0001"])
def test_files_of_a_case_are_channels_in_the_order_of_their_endings(tmp_path: Path, member: str) -> None:
    files = [save(tmp_path / f"c1_000{k}.nii.gz", RNG.integers(0, 99, (4, 5, 6)).astype(np.int16)) for k in (0, 1)]
    wanted = np.concatenate([truth(path) for path in files])
    for path in files:
        assert np.array_equal(read_image(path, member=member).pixels, wanted)
    turned = ",".join(reversed(member.split(",")))
    assert np.array_equal(read_image(files[0], member=turned).pixels, wanted[::-1])


def test_a_case_without_a_file_or_on_two_grids_is_refused(tmp_path: Path) -> None:
    first = save(tmp_path / "c1_0000.nii", np.zeros((4, 5, 6), np.int16))
    for member in ("_0000,_0001", "_flair,_t1"):
        with pytest.raises(ReadError, match="Missing") as refused:
            read_image(first, member=member)
        assert refused.value.reason == "missing_channel"
    moved = np.diag([-1.0, -1.0, 2.0, 1.0])
    moved[0, 3] = 0.5
    other = {"affine": moved}
    for voxels, how in ((np.zeros((4, 5, 7), np.int16), {}), (np.zeros((4, 5, 6), np.int16), other)):
        save(tmp_path / "c1_0001.nii", voxels, **how)
        with pytest.raises(ReadError, match="one size and place") as refused:
            read_image(first, member="_0000,_0001")
        assert refused.value.reason == "channel_grid"


def test_a_case_is_listed_once() -> None:
    names = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii", "c.nii", "d_0000.png", "_0000.nii"]
    paths = [Path("x", name) for name in names]
    assert [path.name for path in first_files(paths, ["_0000", "_0001"])] == [
        "a_0000.nii.gz",
        "b_0001.nii",
        "c.nii",
        "d_0000.png",
        "_0000.nii",
    ]
    assert first_files(paths, ["t1", "t2"]) == paths
    assert suffixes_of(["t1", "t2"]) == suffixes_of([]) == ()
    assert channel_files(Path("x/a_t1ce.nii"), ["_t1", "_t1ce"]) == (Path("x/a_t1.nii"), Path("x/a_t1ce.nii"))
