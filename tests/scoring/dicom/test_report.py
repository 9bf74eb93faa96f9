"""DICOM reports against their rows and source images, as DICOM's own tools read them."""

from __future__ import annotations

import datetime
import shutil
import stat
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from pydicom.sr.codedict import codes

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.scoring.dicom.report import ReportInfo, Statement, write_structured_report
from tests.scoring.dicom_series import PATIENT, header, save, write_enhanced, write_series

COVID = ("840539006", "SCT", "COVID-19")
SAID = (Statement("covid", 0.8125, True, 0.5), Statement("Gefäß", 0.25, False, 0.75), Statement("mass", 0.5, True))
INFO = ReportInfo("b-0123456789ab", codes={"covid": COVID}, criterion="sensitivity >= 0.95 on val")


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    pixels = np.arange(48).reshape(6, 8)
    placed = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    return save(header(pixels, **placed), tmp_path / "slice.dcm")


def complaints(path: Path) -> list[str]:
    """What dciodvfy (David Clunie's validator, Debian package dicom3tools) calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    assert "Comprehensive" in done.stderr + done.stdout
    return [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")]


def test_highdicom_reads_back_what_was_said(slice_file: Path, tmp_path: Path) -> None:
    path = write_structured_report(SAID, tmp_path / "sr.dcm", source=slice_file, info=INFO)
    report, source = srread(path), pydicom.dcmread(slice_file)
    groups = report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["covid", "Gefäß", "mass"]
    assert groups[0].finding_type == highdicom.sr.CodedConcept(*COVID)
    assert groups[1].finding_type.scheme_designator == "99LEPTON"
    for group, said in zip(groups, SAID, strict=True):
        figures = {one.name.meaning: float(one.value) for one in group.get_measurements()}
        wanted = {"Probability": said.probability}
        if said.threshold is not None:
            wanted["Threshold of the operating point"] = said.threshold
        assert figures == wanted
        presence = highdicom.sr.CodedConcept("705057003", "SCT", "Presence")
        (outcome,) = group.get_qualitative_evaluations(presence)
        assert outcome.value.meaning == ("Detected" if said.is_detected else "Not detected")
        (image,) = group.source_images
        assert image.referenced_sop_instance_uid == source.SOPInstanceUID
    texts = set[str]()
    report.walk(lambda _, element: texts.add(str(element.value)))
    assert texts >= {"lepton_vision", f"bundle_id={INFO.bundle_id}", "operating point: sensitivity >= 0.95 on val"}
    assert "Artificial Intelligence" in texts


def test_the_report_belongs_to_the_study_of_its_source_and_to_its_owner_alone(slice_file: Path, tmp_path: Path) -> None:
    path = write_structured_report(SAID, tmp_path / "sr.dcm", source=slice_file, info=INFO)
    report, source = pydicom.dcmread(path), pydicom.dcmread(slice_file)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
        assert str(report[keyword].value) == str(source[keyword].value)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.ConceptNameCodeSequence[0].CodeValue == codes.DCM.ImagingMeasurementReport.value
    assert (report.ContentDate, report.ContentTime) == (PATIENT["StudyDate"], PATIENT["StudyTime"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PATIENT["PatientID"] not in path.name


def test_a_finding_without_an_operating_point_has_a_probability_and_no_outcome(
    slice_file: Path, tmp_path: Path
) -> None:
    said = (Statement("rare", 0.25, None), Statement("covid", 0.75, True, 0.5))
    path = write_structured_report(said, tmp_path / "sr.dcm", source=slice_file, info=INFO)
    assert complaints(path) == []
    rare, covid = srread(path).content.get_image_measurement_groups()
    presence = highdicom.sr.CodedConcept("705057003", "SCT", "Presence")
    assert [float(one.value) for one in rare.get_measurements()] == [0.25]
    assert [len(one.get_qualitative_evaluations(presence)) for one in (rare, covid)] == [0, 1]


def test_the_same_scores_give_the_same_bytes_and_others_another_object(slice_file: Path, tmp_path: Path) -> None:
    def write(name: str, *said: Statement, info: ReportInfo = INFO) -> Path:
        return write_structured_report(said or SAID, tmp_path / name, source=slice_file, info=info)

    one, again = write("1.dcm"), write("2.dcm")
    assert one.read_bytes() == again.read_bytes()
    other = pydicom.dcmread(write("3.dcm", Statement("covid", 0.8, True, 0.5)))
    first = pydicom.dcmread(one)
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID == first.SeriesInstanceUID
    dated = ReportInfo("b-0123456789ab", created=datetime.datetime(2026, 1, 2, 3, 4, 5))
    assert pydicom.dcmread(write("4.dcm", info=dated)).ContentDate == "20260102"


def test_dciodvfy_finds_no_error(slice_file: Path, tmp_path: Path) -> None:
    assert complaints(write_structured_report(SAID, tmp_path / "sr.dcm", source=slice_file, info=INFO)) == []
    series = write_series(tmp_path / "ct", [0.0, 2.0, 4.0])
    path = write_structured_report(SAID[:1], tmp_path / "series.dcm", source=series, info=INFO)
    assert complaints(path) == []
    (group,) = srread(path).content.get_image_measurement_groups()
    wanted = {pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir()}
    assert {image.referenced_sop_instance_uid for image in group.source_images} == wanted


def test_a_frame_of_many_is_named(tmp_path: Path) -> None:
    enhanced = write_enhanced(tmp_path / "enhanced.dcm", [0.0, 2.0, 4.0])
    path = write_structured_report(SAID[:1], tmp_path / "sr.dcm", source=enhanced, info=INFO, frame=2)
    (group,) = srread(path).content.get_image_measurement_groups()
    (image,) = group.source_images
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    assert complaints(path) == []


def test_what_a_report_cannot_say_is_refused(slice_file: Path, tmp_path: Path) -> None:
    for said, info, message in (
        ((), INFO, "at least one finding"),
        (SAID[1:2], INFO, "Received: 'covid'"),
        ((Statement("a\\b", 0.5, True),), ReportInfo("b"), "no backslash"),
        (SAID[:1], ReportInfo("b", codes={"covid": ("1" * 17, "SCT", "x")}), "1 to 16 characters"),
    ):
        with pytest.raises(ScoringError, match=message):
            write_structured_report(said, tmp_path / "sr.dcm", source=slice_file, info=info)
    with pytest.raises(ReadError):
        write_structured_report(SAID, tmp_path / "sr.dcm", source=tmp_path / "none.dcm", info=INFO)
    assert not (tmp_path / "sr.dcm").exists()
