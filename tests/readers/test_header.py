"""DICOM headers equal to those of ``dcmread``, and loader pixels equal to those of ``read_image``."""

from __future__ import annotations

import pickle
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import sniff
from lepton_vision.readers.dicom import file as dicom
from lepton_vision.readers.dicom import scan as dicom_scan
from lepton_vision.readers.dicom.header import open_dicom
from lepton_vision.readers.dicom.scan import scan_dicom
from lepton_vision.readers.image import probe, read_image, read_named, read_pixels
from lepton_vision.readers.limits import Limits, raise_read_errors
from lepton_vision.readers.quiet import quiet

Make = Callable[..., Path]
GRAY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
WINDOW = {"WindowCenter": "40", "WindowWidth": "400"}


def header(path: Path) -> Dataset | None:
    with path.open("rb") as stream:
        head = stream.read(1024)
        stream.seek(0)
        try:
            if sniff(head) != "dicom":
                return None
            with quiet, raise_read_errors("test", reason="corrupt"):
                return open_dicom(stream, head=head, limits=Limits()).dataset
        except ReadError:
            return None


def elements(dataset: Dataset) -> dict[int, str]:
    """All values as pydicom converts them, or the kind of error."""
    found = {}
    for tag in list(dataset.keys()):
        try:
            found[int(tag)] = f"{dataset[tag].VR} {dataset[tag].value}"
        except Exception as error:
            found[int(tag)] = type(error).__name__
    return found


def test_every_element_is_that_of_dcmread() -> None:
    seen = 0
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        found = header(path) if path.is_file() else None
        if found is None:
            continue
        with warnings.catch_warnings(action="ignore"):
            expected = dcmread(path, stop_before_pixels=True, force=True)
            assert elements(found) == elements(expected), path.name
        seen += 1
    assert seen > 100


def test_a_command_set_before_the_data_set_is_read(make_dicom: Make) -> None:
    path = make_dicom(GRAY)
    content = path.read_bytes()
    group_length = struct.unpack_from("<I", content, 140)[0]
    start = 144 + group_length
    command = struct.pack("<HHI", 0x0000, 0x0100, 2) + b"\x01\0"
    path.write_bytes(content[:start] + command + content[start:])
    found = header(path)
    assert found is not None
    assert found.CommandField == 1
    assert (read_image(path).pixels[0] == GRAY).all()


def outcome(read: Callable[[Path], object], path: Path) -> object:
    try:
        image = read(path)
    except ReadError as error:
        return error.reason
    return (image.pixels.tobytes(), image.units, image.value_range, image.modality, pickle.dumps(image.window))


def named(read: Callable[[Path], object], path: Path) -> object:
    """What ``outcome`` tells, and the ids."""
    found = outcome(read, path)
    if isinstance(found, str):
        return found
    image = read(path)
    return found, image.image_id, image.series_id, image.study_id, image.patient_id


def probed(path: Path) -> object:
    try:
        return probe(path)
    except ReadError as error:
        return error.reason


def code(value: str, **elements: object) -> Dataset:
    dataset = Dataset()
    dataset.CodeValue, dataset.CodingSchemeDesignator = value, "SCT"
    for keyword, element in elements.items():
        setattr(dataset, keyword, element)
    return dataset


WHO = {
    "SOPInstanceUID": {},
    "StudyInstanceUID": {"StudyInstanceUID": "1.2.3"},
    "SeriesInstanceUID": {"SeriesInstanceUID": "1.2.4"},
    "PatientID": {"PatientID": "P7"},
    "PatientSex": {"PatientSex": "F"},
    "PatientAge": {"PatientAge": "047Y"},
    "PatientBirthDate": {"PatientBirthDate": "19700101", "StudyDate": "20200101"},
    "StudyDate": {"PatientBirthDate": "19700101", "StudyDate": "20200101"},
    "AcquisitionDate": {"PatientBirthDate": "19700101", "AcquisitionDate": "20200101"},
    "Manufacturer": {"Manufacturer": "Maker"},
    "ManufacturerModelName": {"ManufacturerModelName": "Model"},
    "InstitutionName": {"InstitutionName": "Clinic"},
    "KVP": {"KVP": "120"},
    "SliceThickness": {"SliceThickness": "1.5"},
    "BodyPartExamined": {"BodyPartExamined": "CHEST"},
    "ViewPosition": {"ViewPosition": "AP"},
    "ImageLaterality": {"ImageLaterality": "L"},
    "Laterality": {"Laterality": "R"},
    "BurnedInAnnotation": {"BurnedInAnnotation": "NO"},
    "PixelSpacing": {"PixelSpacing": [0.5, 0.6]},
    "ImagerPixelSpacing": {"ImagerPixelSpacing": [0.5, 0.6]},
    "NominalScannedPixelSpacing": {"NominalScannedPixelSpacing": [0.5, 0.6]},
    "ViewCodeSequence": {"ViewCodeSequence": [code("399368009")]},
    "AnatomicRegionSequence": {"AnatomicRegionSequence": [code("1", AnatomicRegionModifierSequence=[code("7771000")])]},
}


@pytest.mark.parametrize("keyword", sorted(WHO))
def test_every_element_of_ids_and_facts_is_looked_at(
    make_dicom: Make, monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    path = make_dicom(GRAY, **WHO[keyword])
    found = probed(path)
    assert scanned(path)
    assert named(read_named, path) == named(read_image, path)
    with monkeypatch.context() as patch:
        patch.setattr(dicom, "scan_dicom", lambda stream, **_: None)
        assert probed(path) == found
    for name in ("_INSTANCE", "_IDS", "_FACTS"):
        monkeypatch.setattr(dicom_scan, name, getattr(dicom_scan, name) - dicom_scan._tags(keyword))
    assert probed(path) != found
    assert dicom_scan._tags(*WHO) >= dicom_scan._IDS | dicom_scan._FACTS


@pytest.mark.parametrize(
    "text",
    ["P 7 ", "  P7", "a\\b", "\\b", "", " ", "P\t7", "P7\x0b", "P\x007", "^P~|", "Größe", "P\x1b(B7", "7" * 70],
    ids=ascii,
)
@pytest.mark.parametrize("keyword", ["PatientID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_ids_are_those_of_the_text_that_pydicom_reads(make_dicom: Make, keyword: str, text: str) -> None:
    path = make_dicom(GRAY, **{"SeriesInstanceUID": "1.2.4", "PatientID": "P7", keyword: "@" * 10})
    content, value = path.read_bytes(), text.encode("latin-1")
    value += (b" " if keyword == "PatientID" else b"\0") * (len(value) % 2)
    before = content.rindex(b"@" * 10) - 2  # an explicit element of a short length
    path.write_bytes(content[:before] + struct.pack("<H", len(value)) + value + content[before + 12 :])
    assert named(read_named, path) == named(read_image, path)
    assert isinstance(named(read_named, path), tuple)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "WindowCenter"])
def test_an_element_that_cannot_be_converted_fails_where_it_is_asked_for(make_dicom: Make, keyword: str) -> None:
    path = make_dicom(GRAY, **({"RescaleSlope": "1", "RescaleIntercept": "0"} | WINDOW | {keyword: "1234"}))
    content = path.read_bytes()
    assert content.count(b"DS\x04\x001234") == 1
    path.write_bytes(content.replace(b"DS\x04\x001234", b"DS\x04\x00a,b;"))
    assert scanned(path)
    for _ in range(2):  # anew, and as it was kept
        assert outcome(read_pixels, path) == outcome(read_image, path)
        assert named(read_named, path) == named(read_image, path)


def test_a_scanned_header_is_looked_up_as_pydicom_does_it(make_dicom: Make) -> None:
    with make_dicom(GRAY, RescaleSlope="2.5", RescaleIntercept="x" * 0).open("rb") as stream, quiet:
        file = scan_dicom(stream, what="ids")
        assert file is not None
        found = file.dataset
        assert "RescaleSlope" in found
        assert "WindowWidth" not in found
        assert found["RescaleSlope"].value == 2.5
        assert found.get("ExtendedOffsetTable") is None
        with pytest.raises(KeyError):
            found["WindowWidth"]


def test_files_of_other_makers_have_the_ids_and_facts_of_the_whole_header(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [path for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm")) if path.is_file()]
    found = [probed(path) for path in paths]
    assert [probed(path) for path in paths] == found  # from what the first round kept
    plain = [path for path in paths if path.stat().st_size < 300_000]
    assert [named(read_named, path) for path in plain] == [named(read_image, path) for path in plain]
    monkeypatch.setattr(dicom, "scan_dicom", lambda stream, **_: None)
    assert [probed(path) for path in paths] == found
    assert sum(not isinstance(one, str) for one in found) > 40


def test_slices_of_a_series_differ_in_their_ids_alone(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"SeriesInstanceUID": "1.2.4", "StudyInstanceUID": "1.2.3", "PatientID": "P7"}
    one, two = (probe(make_dicom(GRAY, name=name, **same)) for name in ("a.dcm", "b.dcm"))
    assert one.image_id != two.image_id
    assert (one.series_id, one.patient_id, one.facts) == (two.series_id, two.patient_id, two.facts)
    two.facts["sex"] = "F"  # a caller's own copy
    assert probe(make_dicom(GRAY, name="c.dcm", **same)).facts == one.facts
    monkeypatch.setenv("LEPTON_VISION_ID_KEY", "another key, long enough to be one")
    assert probe(make_dicom(GRAY, name="d.dcm", **same)).series_id != one.series_id


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_refused_alike(make_dicom: Make, seed: int) -> None:
    path = make_dicom(GRAY, WindowCenter="40", WindowWidth="400", RescaleSlope="1", RescaleIntercept="-1024")
    content, chance = path.read_bytes(), random.Random(seed)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(min(len(damaged), 900))] = chance.randrange(256)
        path.write_bytes(damaged)
        wanted = outcome(read_image, path)
        assert outcome(read_pixels, path) == outcome(read_named, path) == wanted
        refused += isinstance(wanted, str)
    assert 10 < refused < 100


LUT = Dataset()
LUT.LUTDescriptor, LUT.ModalityLUTType = [4, 0, 16], "US"
LUT.LUTData = np.array([0, 10, 20, 30], np.uint16).tobytes()
FRAME = Dataset()
FRAME.PixelValueTransformationSequence = [Dataset()]
FRAME.PixelValueTransformationSequence[0].RescaleSlope = "3"
FRAME.PixelValueTransformationSequence[0].RescaleIntercept = "7"
# What a header may say of the pixels; and which element, left out, would change the image or refuse it.
PLAIN = {
    "Rows": {},
    "Columns": {},
    "BitsAllocated": {},
    "BitsStored": {"BitsStored": 12, "HighBit": 11},
    "HighBit": {"BitsStored": 10, "HighBit": 13},
    "PixelRepresentation": {"PixelRepresentation": 1},
    "PhotometricInterpretation": {"PhotometricInterpretation": "MONOCHROME1", "Modality": "DX"},
    "RescaleSlope": {"RescaleSlope": "2.5", "RescaleIntercept": "-3"},
    "RescaleIntercept": {"RescaleSlope": "1", "RescaleIntercept": "-1024"},
    "RescaleType": {"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "OD"},
    "WindowCenter": WINDOW,
    "WindowWidth": WINDOW,
    "VOILUTFunction": {**WINDOW, "VOILUTFunction": "SIGMOID"},
    "Modality": {"RescaleIntercept": "-1024"},
    "Units": {"Modality": "PT", "Units": "BQML"},
}


def scanned(path: Path) -> bool:
    with path.open("rb") as stream, quiet:
        return scan_dicom(stream) is not None


@pytest.mark.parametrize("keyword", sorted(PLAIN))
def test_every_element_that_matters_is_looked_at(
    make_dicom: Make, monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    path = make_dicom(GRAY, **PLAIN[keyword])
    wanted = outcome(read_image, path)
    assert scanned(path)
    assert outcome(read_pixels, path) == wanted
    monkeypatch.setattr(dicom_scan, "_WANTED", dicom_scan._WANTED - dicom_scan._tags(keyword))
    assert outcome(read_pixels, path) != wanted


@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"])
def test_so_are_colors_and_frames(make_dicom: Make, monkeypatch: pytest.MonkeyPatch, keyword: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3) if keyword == "NumberOfFrames" else (8, 8, 3))
    path = make_dicom(pixels.astype(np.uint8), PlanarConfiguration=int(keyword == "PlanarConfiguration"))
    wanted = outcome(read_image, path)
    assert scanned(path)
    assert outcome(read_pixels, path) == wanted
    monkeypatch.setattr(dicom_scan, "_WANTED", dicom_scan._WANTED - dicom_scan._tags(keyword))
    assert outcome(read_pixels, path) != wanted


def test_the_wanted_elements_are_those_with_a_test() -> None:
    tested = {*PLAIN, "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"}
    assert dicom_scan._tags(*tested) == dicom_scan._WANTED


@pytest.mark.parametrize(
    "elements",
    [
        {"ModalityLUTSequence": [LUT]},
        {"VOILUTSequence": [LUT]},
        {"SharedFunctionalGroupsSequence": [FRAME]},
        {"PerFrameFunctionalGroupsSequence": [FRAME]},
        {"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "Größe", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientComments": "long " * 20_000},
    ],
    ids=lambda elements: next(iter(elements)),
)
def test_what_is_not_plain_is_left_to_pydicom(make_dicom: Make, elements: dict[str, object]) -> None:
    path = make_dicom(GRAY % 4, **elements)
    wanted = outcome(read_image, path)
    assert isinstance(wanted, tuple)
    assert not scanned(path)
    assert outcome(read_pixels, path) == wanted


def test_a_character_set_that_pydicom_cannot_look_up_is_refused_alike(make_dicom: Make) -> None:
    path = make_dicom(GRAY, SpecificCharacterSet="ISO_IR 100", **WINDOW)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 1\x000", 1))
    with pytest.raises(ValueError, match="null"):
        dcmread(path)
    for read in (read_image, read_pixels, read_named, probe):
        with pytest.raises(ReadError) as refused:
            read(path)
        assert refused.value.reason == "corrupt"


def test_files_that_differ_in_an_element_do_not_share_it(make_dicom: Make) -> None:
    paths = [make_dicom(GRAY, name=f"{k}.dcm", RescaleSlope="1", RescaleIntercept=str(-k)) for k in range(5)]
    for path in paths * 2:
        assert outcome(read_pixels, path) == outcome(read_image, path)


def test_what_a_loader_does_not_ask_for_is_not_looked_up(make_dicom: Make) -> None:
    path = make_dicom(GRAY, PatientID="p", PixelSpacing=[1, 1])
    image = read_pixels(path)
    assert (image.image_id, image.patient_id, image.facts, image.spacing_mm, image.geometry) == (
        "",
        None,
        {},
        None,
        None,
    )
    assert read_image(path).spacing_mm == (1.0, 1.0)
