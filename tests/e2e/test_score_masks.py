"""Command-line tests of ``score --masks`` and ``inspect --series``, and a real series scored as one volume."""

from __future__ import annotations

import stat
from pathlib import Path

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest

from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.scoring import score
from tests.scoring.bundles import volume_bundle
from tests.scoring.dicom_series import PATIENT, write_series
from tests.transforms.volumes import write_nifti

from .conftest import run_cli, run_json

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle, and an inbox with a series, one with a gap, and a NIfTI file."""
    volume_bundle().save(tmp_path / "bundle")
    inbox = tmp_path / "inbox"
    write_series(inbox / "ct", [0, 2, 4, 6], RescaleSlope=80, RescaleIntercept=0)
    write_series(inbox / "gap", [0, 2, 6], RescaleSlope=80, RescaleIntercept=0)
    write_nifti(inbox / "a.nii.gz", np.random.default_rng(0).normal(120, 60, (9, 8, 7)).astype(np.float32), np.eye(4))
    return tmp_path


def test_masks_beside_scores(folder: Path) -> None:
    options = ("--bundle", folder / "bundle", "--input", folder / "inbox", "--output", folder / "inbox" / "out")
    options += ("--masks", folder / "inbox" / "masks", "--mask-format", "dicom", "--device", "cpu")
    options += ("--path-map", folder / "map.csv", "--max-failures", "0.5")
    printed = run_json("score", *options)
    assert (printed["rows"], printed["scored"], printed["failed"]) == (3, 2, {"missing_slices": 1})
    assert (printed["masks"], printed["without_mask"]) == (1, {"not_dicom": 1})
    rows = pd.read_parquet(folder / "inbox" / "out")
    written = highdicom.seg.segread(folder / "inbox" / "masks" / rows["mask"].dropna().item())
    assert written.PatientID == PATIENT["PatientID"]
    table = pd.read_csv(folder / "map.csv")
    assert sorted(table.groupby("path_id").size()) == [1, 3, 4]
    assert set(table["path_id"]) == set(rows["path_id"])
    assert stat.S_IMODE((folder / "map.csv").stat().st_mode) == 0o600
    again = run_json("score", *options)
    assert (again["new_rows"], again["rows"], again["masks"]) == (0, 3, 1)


def test_series_of_a_folder_are_a_line_each(folder: Path) -> None:
    printed = run_json("inspect", "--series", folder / "inbox")
    assert printed["other_files"] == 1
    assert {line.get("reason", line.get("size")) for line in printed["series"]} == {"4 x 7 x 8", "missing_slices"}
    done = run_cli("inspect", "--series", folder / "inbox")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "modality: CT" in line]
    assert len(lines) == 2
    assert any("spacing_mm: 2 x 0.75 x 0.5" in line for line in lines)
    assert not [value for value in PATIENT.values() if len(value) > 2 and value in done.stdout]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--mask-format", "png", "--masks", "masks"), "A PNG holds one slice"),
        (("--mask-format", "nrrd", "--masks", "masks"), "--mask-format does not know 'nrrd'"),
        (("--mask-format", "dicom"), "Expected a mask folder"),
        (("--masks", "out/masks"), "not within the output folder"),
    ],
)
def test_wrong_options_are_one_message(folder: Path, options: tuple[str, ...], part: str) -> None:
    given = [str(folder / text) if "masks" in text and not text.startswith("-") else text for text in options]
    done = run_cli(
        "score", "--bundle", folder / "bundle", "--input", folder / "inbox", "--output", folder / "out", *given
    )
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()
    assert not (folder / "masks").exists()


def test_a_real_series_is_one_row_and_its_segmentation_lies_on_it(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mr-dicom-t1-pddl" / "dicoms"
    config = ("volume.spacing_mm=[6, 6, 6]", "volume.patch=[32, 48, 48]", "preprocess.windows=[header]")
    bundle = volume_bundle(*config)
    masks = tmp_path / "masks"
    summary = score(bundle, folder, tmp_path / "out", masks=masks, mask_format="dicom", device="cpu")
    assert (summary.rows, summary.scored, summary.masks, summary.failed) == (1, 1, 1, {})
    row = pd.read_parquet(tmp_path / "out").iloc[0]
    assert np.float32(row["sick_probability"]) == np.float32(predict(bundle, folder, device="cpu").y_prob["sick"][0])
    (found,) = predict_masks(bundle, folder, device="cpu")
    assert isinstance(found, MaskPrediction)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")]
    normal = np.cross(*np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3))
    headers.sort(key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))
    segmentation = highdicom.seg.segread(masks / row["mask"])
    uids = [one.SOPInstanceUID for one in headers]
    back = segmentation.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(back, found.labels)
    steps = np.diff([float(normal @ np.array(one.ImagePositionPatient, float)) for one in headers])
    voxel_ml = float(np.prod(np.array(headers[0].PixelSpacing, float)) * steps.mean()) / 1000
    assert row["box_ml"] == pytest.approx(np.count_nonzero(back == 1) * voxel_ml, rel=1e-4)
