"""Command-line tests of ``export-mask``."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from lepton_vision.readers import read_image

from .conftest import run_cli, run_json

pytestmark = pytest.mark.slow

REAL = "mr-dicom-t1-pddl"


@pytest.fixture
def drawn(shared: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A real series, and a mask on its grid as another tool would write it: RAS axes."""
    folder = shared / "data" / REAL / "dicoms"
    geometry = read_image(folder).geometry
    assert geometry is not None
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine[:, [2, 1, 0, 3]]
    labels = np.zeros((274, 384, 96), np.uint8)
    labels[100:110, 200:220, 30:33], labels[5, 7, 90] = 1, 4
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, affine))
    turned.to_filename(tmp_path / "mask.nii.gz")
    return folder, tmp_path / "mask.nii.gz"


def test_to_dicom_and_back_to_nifti(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    folder, mask = drawn
    options = ("--source", folder, "--structures", "lesion=4,organ=1")
    codes = ("--code", "organ=12738006,SCT,Brain", "--category", "organ=123037004,SCT,Anatomical Structure")
    printed = run_json("export-mask", mask, *options, *codes, "--out", tmp_path / "m.dcm", "--bundle-id", "abc")
    assert printed == {
        "mask": str(tmp_path / "m.dcm"),
        "labels": {"lesion": 1, "organ": 2},
        "voxels": {"lesion": 1, "organ": 600},
    }
    dataset = pydicom.dcmread(tmp_path / "m.dcm")
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["lesion", "organ"]
    assert dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Brain"
    assert dataset.NumberOfFrames == 4
    run_json("export-mask", mask, *options, "--out", tmp_path / "m.nii.gz")
    values = read_image(tmp_path / "m.nii.gz").pixels[0]
    assert values[90, 7, 5] == 1
    assert (values[30:33, 200:220, 100:110] == 2).all()
    assert (values > 0).sum() == 601


def test_people_read_what_was_written(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    folder, mask = drawn
    done = run_cli(
        *("export-mask", mask, "--source", folder, "--structures", "organ=1,lesion=4", "--out", tmp_path / "m.nii")
    )
    assert done.returncode == 0, done.stderr
    assert "organ" in done.stdout
    assert "600" in done.stdout


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--structures", "organ=1"), "Received: 4, in all 1 voxels without a name"),
        (("--structures", "organ"), "name=value"),
        (("--structures", "organ=1,lesion=4", "--code", "organ=Brain"), "--code takes name=value,scheme,meaning"),
        (("--structures", "organ=1,lesion=4", "--code", "spleen=1,SCT,Spleen"), "'spleen'"),
        (("--structures", "organ=1,lesion=4", "--algorithm-type", "automatc"), "automatic"),
        (("--structures", "organ=1,lesion=4", "--series", "0000"), "Received: another"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    drawn: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    folder, mask = drawn
    done = run_cli("export-mask", mask, "--source", folder, "--out", tmp_path / "m.dcm", *options)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert part in done.stderr
    assert not (tmp_path / "m.dcm").exists()


def test_another_grid_is_refused(drawn: tuple[Path, Path], tmp_path: Path) -> None:
    folder, mask = drawn
    image = nibabel.load(mask)
    affine = image.affine.copy()
    affine[:3, 3] += 1.0
    nibabel.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(mask)
    done = run_cli("export-mask", mask, "--source", folder, "--out", tmp_path / "m.dcm", "--structures", "a=1,b=4")
    assert done.returncode == 2
    assert "differs in position (by 1.732 mm" in done.stderr
    assert json.dumps(str(tmp_path))[1:-1] not in done.stderr
