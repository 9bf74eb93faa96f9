"""DICOM reports of a scoring run: one for each DICOM row, its columns, and no patient data in the table."""

from __future__ import annotations

import shutil
import stat
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from highdicom.sr import srread
from PIL import Image
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.inference.explain import grad_cam
from lepton_vision.models import Bundle
from lepton_vision.readers import read_image
from lepton_vision.readers.limits import DEFAULT_LIMITS
from lepton_vision.scoring import score
from lepton_vision.scoring.dicom.heat_maps import heat_map_bytes
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from tests.scoring.bundles import image_bundle, volume_bundle
from tests.scoring.dicom_series import PATIENT, header, save, write_enhanced, write_series


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "inbox"
    for k in range(2):
        save(header(rng.integers(0, 300, (24, 32))), folder / f"{k}.dcm")
    write_enhanced(folder / "frames.dcm", [0.0, 2.0])
    Image.fromarray(rng.integers(0, 255, (24, 32)).astype(np.uint8)).save(folder / "plain.png")
    (folder / "broken.dcm").write_bytes(b"nothing")
    return folder


def said_of(path: Path) -> dict[str, tuple[float, float | None, str]]:
    """By finding: probability, threshold and outcome, as highdicom reads them."""
    found = {}
    for group in srread(path).content.get_image_measurement_groups():
        figures = {one.name.value: float(one.value) for one in group.get_measurements()}
        outcomes = [one.value.meaning for one in group.get_qualitative_evaluations()]
        outcome = next(one for one in outcomes if one.endswith("etected"))
        found[group.tracking_identifier] = (figures["122157"], figures.get("threshold"), outcome)
    return found


def test_each_dicom_row_has_a_report_that_says_the_same(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    code = {"sick": ("64572001", "SCT", "Disease")}
    score(bundle, inbox, tmp_path / "out", reports=tmp_path / "sr", report_codes=code, device="cpu")
    rows = pd.read_parquet(tmp_path / "out")
    assert sorted(rows["report_reason"].fillna("").tolist()) == ["", "", "", "", "", "not_dicom"]
    told = rows[rows["report"].notna()]
    assert len(told) == 4
    assert set(told["report"]) == {path.name for path in (tmp_path / "sr").glob("*.dcm")}
    for row in told.to_dict("records"):
        said = said_of(tmp_path / "sr" / row["report"])
        assert set(said) == {"sick", "organ_a", "organ_b", "organ_c"}
        assert said["sick"][0] == pytest.approx(row["sick_probability"], abs=1e-6)
        assert said["sick"][1:] == (row["threshold"], "Detected" if row["sick_positive"] else "Not detected")
        assert said[f"organ_{row['organ_class']}"][2] == "Detected"
        assert sum(outcome == "Detected" for name, (_, _, outcome) in said.items() if name != "sick") == 1
        file = tmp_path / "sr" / row["report"]
        assert pydicom.dcmread(file).PatientID == PATIENT["PatientID"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    table = rows.to_csv()
    assert not any(value in table for value in ("PLANTED", "Zzyzx", "19510203"))


def test_a_repeated_run_gives_the_same_files(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    def run(name: str) -> dict[str, bytes]:
        score(bundle, inbox, tmp_path / name, reports=tmp_path / "sr", device="cpu")
        assert pd.read_parquet(tmp_path / name)["report"].notna().sum() == 4
        return {path.name: path.read_bytes() for path in (tmp_path / "sr").glob("*.dcm")}

    assert run("one") == run("two")


def test_two_files_of_one_image_id_have_one_report(bundle: Bundle, tmp_path: Path) -> None:
    first, second = header(np.arange(48).reshape(6, 8)), header(np.arange(48).reshape(6, 8) * 5)
    second.SOPInstanceUID = first.SOPInstanceUID
    save(first, tmp_path / "inbox" / "1.dcm")
    save(second, tmp_path / "inbox" / "2.dcm")
    score(bundle, tmp_path / "inbox", tmp_path / "out", reports=tmp_path / "sr", device="cpu")
    assert sorted(pd.read_parquet(tmp_path / "out")["report_reason"].fillna("")) == ["", "duplicate"]


def test_a_series_has_one_report(tmp_path: Path) -> None:
    write_series(tmp_path / "inbox", [0.0, 2.0, 4.0])
    score(volume_bundle(), tmp_path / "inbox", tmp_path / "out", reports=tmp_path / "sr", device="cpu")
    (row,) = pd.read_parquet(tmp_path / "out").to_dict("records")
    assert said_of(tmp_path / "sr" / row["report"])["sick"][0] == pytest.approx(row["sick_probability"], abs=1e-6)


def test_what_cannot_be_reported_is_refused_before_anything_is_written(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match="not within the output folder"):
        score(bundle, inbox, tmp_path / "out", reports=tmp_path / "out" / "sr")
    with pytest.raises(ScoringError, match="Received: 'covid'"):
        score(bundle, inbox, tmp_path / "out", reports=tmp_path / "sr", report_codes={"covid": ("1", "SCT", "x")})
    assert not (tmp_path / "out").exists()


def test_the_command_line_writes_reports(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    words = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--output", tmp_path / "out", "--dicom-sr")
    more = (tmp_path / "sr", "--sr-code", "sick=64572001,SCT,Disease", "--max-failures", "0.5", "--json")
    done = CliRunner().invoke(app, list(map(str, words + more)))
    assert done.exit_code == 0, done.output
    path = next((tmp_path / "sr").glob("*.dcm"))
    assert srread(path).content.get_image_measurement_groups()[0].finding_type.value == "64572001"


def test_what_is_detected_has_a_heat_map_of_its_own(inbox: Path, tmp_path: Path) -> None:
    bundle = image_bundle("segmentation=null")
    score(bundle, inbox, tmp_path / "out", reports=tmp_path / "sr", heat_maps=True, device="cpu", precision="fp32")
    rows = pd.read_parquet(tmp_path / "out").dropna(subset=["report"]).to_dict("records")
    wanted = {f"{row['image_id']}.cam-organ_{row['organ_class']}.dcm" for row in rows}
    wanted |= {f"{row['image_id']}.cam-sick.dcm" for row in rows if row["sick_positive"]}
    assert {path.name for path in (tmp_path / "sr").glob("*.cam-*")} == wanted
    row = next(row for row in rows if pd.isna(row["frame"]))
    path = tmp_path / "sr" / f"{row['image_id']}.cam-organ_{row['organ_class']}.dcm"
    capture = pydicom.dcmread(path)
    sources = {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, inbox.glob("[01].dcm"))}
    source = sources[str(capture.SourceImageSequence[0].ReferencedSOPInstanceUID)]
    assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (capture.PatientID, capture.StudyInstanceUID) == (PATIENT["PatientID"], source.StudyInstanceUID)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file = next(file for file in inbox.glob("[01].dcm") if pydicom.dcmread(file) == source)
    seen = preprocess_image(read_image(file), bundle.config.preprocess)
    shown = capture.pixel_array.astype(int)
    heat = grad_cam(
        bundle.network(),
        torch.as_tensor(to_input(seen[None], bundle.config.preprocess)),
        target="organ",
        class_index="abc".index(row["organ_class"]),
    )[0]
    red = shown[..., 0] - shown[..., 1]
    grey = seen[0] / 257.0
    assert np.abs(shown[..., 1] - grey)[heat == 0].max(initial=0) <= 1
    if heat.max() > 0:
        assert red.flat[heat.argmax()] == red.max()
        assert red.max() == pytest.approx(0.6 * 255, abs=1)
    again = score(
        bundle, inbox, tmp_path / "two", reports=tmp_path / "sr", heat_maps=True, device="cpu", precision="fp32"
    )
    assert again.rows == 6
    assert pd.read_parquet(tmp_path / "two")["report"].notna().sum() == 4


@pytest.mark.parametrize("said", ["YES", "NO", None])
def test_a_heat_map_says_of_burned_in_text_what_its_image_says(inbox: Path, tmp_path: Path, said: str | None) -> None:
    source = pydicom.dcmread(next(path for path in sorted(inbox.iterdir()) if path.suffix == ".dcm"))
    if said is None and "BurnedInAnnotation" in source:
        del source.BurnedInAnnotation
    elif said is not None:
        source.BurnedInAnnotation = said
    source.save_as(tmp_path / "source.dcm")
    picture = np.zeros((int(source.Rows), int(source.Columns), 3), np.uint8)
    data = heat_map_bytes(
        picture, finding="sick", bundle_id="b", source=tmp_path / "source.dcm", frame=None, limits=DEFAULT_LIMITS
    )
    assert pydicom.dcmread(BytesIO(data)).get("BurnedInAnnotation") == said


def test_heat_maps_are_refused_where_there_are_none(inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder for reports"):
        score(image_bundle(), inbox, tmp_path / "out", heat_maps=True)
    with pytest.raises(ConfigError, match="whole 2-D images"):
        score(volume_bundle(), inbox, tmp_path / "out", reports=tmp_path / "sr", heat_maps=True)


def test_dciodvfy_finds_no_error_in_a_heat_map(inbox: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    score(image_bundle("segmentation=null"), inbox, tmp_path / "out", reports=tmp_path / "sr", heat_maps=True)
    for path in sorted((tmp_path / "sr").glob("*.cam-*"))[:2]:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
        assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
