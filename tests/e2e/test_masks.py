"""Command-line tests of ``evaluate --masks``."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from .conftest import run_cli, run_json

pytestmark = pytest.mark.slow
SET = ("--set", "evaluation.surface_area=true", "--set", "evaluation.replicates=150")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    lines = ["image_id,patient_id,truth,prediction"]
    for number in range(6):
        labels = np.zeros((12, 8, 6), dtype=np.uint8)
        labels[2:6, 2:6, 1:5], labels[7:9, 2:6, 1:5] = 1, 2
        for name, values in (("t", labels), ("p", np.roll(labels, number % 3, axis=1))):
            nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])).to_filename(tmp_path / f"{name}{number}.nii.gz")
        lines.append(f"i{number},p{number // 2},t{number}.nii.gz,p{number}.nii.gz")
    path = tmp_path / "masks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_figures_as_json_and_files(masks: Path, tmp_path: Path) -> None:
    options = ("--masks", masks, "--out", tmp_path / "out", "--structures", "anterior=1,posterior=2")
    printed = run_json("evaluate", *options, "--tolerance-mm", "2", "--lesions", "posterior", *SET)
    assert set(printed["structures"]) == {"anterior", "posterior"}
    assert printed["dice"] == printed["structures"]["anterior"]["dice"]
    assert {"value", "low", "high", "n"} <= set(printed["dice"])
    assert printed["dice"]["value"] == pytest.approx((1 + 0.75 + 0.5) / 3)
    assert printed["structures"]["posterior"]["hd95_mm"]["value"] == 2.0  # median of 0, 2 and 4 mm
    assert printed["structures"]["posterior"]["lesion_sensitivity"]["value"] == 1.0
    assert (printed["n"], printed["n_patients"], printed["n_failed"]) == (6, 3, 0)
    written = json.loads(Path(printed["figures"]).read_text())
    assert written["structures"]["anterior"]["figures"] == printed["structures"]["anterior"]
    assert len(Path(printed["cases"]).read_text().splitlines()) == 13
    page = Path(printed["report"]).read_text(encoding="utf-8")
    assert f"{printed['structures']['posterior']['dice']['value']:.3f}" in page
    assert written["provenance"]["replicates"] == 150
    area = printed["structures"]["posterior"]["surface_dice_area"]
    assert 0.5 < area["low"] < area["value"] < 1.0
    assert "Surface Dice by area at 2 mm" in page
    assert page.count("Masks only: no image was named for this case.") == 2 * 3  # best, median, worst


def test_people_read_a_table_even_where_there_is_no_interval(masks: Path, tmp_path: Path) -> None:
    lines = masks.read_text().splitlines()
    masks.write_text("\n".join(lines[:3]) + "\n")  # one patient: a value without an interval
    done = run_cli("evaluate", "--masks", masks, "--out", tmp_path / "out", "--structures", "a=1,b=2")
    assert done.returncode == 0, done.stderr
    assert "0.875 (no interval: one patient only)  n 2" in done.stdout
    assert sum(line.strip().startswith("dice ") for line in done.stdout.splitlines()) == 2  # one for each structure


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--structures", "anterior=1"), "Received: 2"),
        (("--structures", "anterior"), "name=value"),
        (("--structures", "a=1,b=2", "--lesions", "c"), "Unknown structure 'c'"),
        (("--structures", "a=1,b=2", "--tolerance-mm", "-1"), "tolerance"),
        (("--predictions", "other.csv"), "--masks alone"),
    ],
)
def test_bad_requests_are_one_message(masks: Path, tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    done = run_cli("evaluate", "--masks", masks, "--out", tmp_path / "out", *options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert part in done.stderr
    assert str(tmp_path) not in done.stderr
    assert not (tmp_path / "out").exists()
