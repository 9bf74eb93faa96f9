"""DICOM files: pixels, units, windows and refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lepton_vision.errors import ReadError
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import probe, raw_ids, read_image
from lepton_vision.readers.window import apply_window
from lepton_vision.types import VoiLut, Window

Make = Callable[..., Path]
GRAY = np.arange(6 * 8, dtype=np.int16).reshape(6, 8) - 7


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    assert caught.value.path == path
    return caught.value.reason


def item(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write_plain(file: BinaryIO, dataset: Dataset, *, is_implicit: bool, is_little: bool) -> None:
    """Write the data set alone, in any encoding."""
    plain = Dataset()
    plain.update({element.tag: element for element in dataset})
    stream = DicomFileLike(file)
    stream.is_implicit_VR, stream.is_little_endian = is_implicit, is_little
    write_dataset(stream, plain)


def test_ct_slice_in_hu(make_dicom: Make) -> None:
    path = make_dicom(
        GRAY, RescaleSlope="2.5", RescaleIntercept="-1024", PixelSpacing=["0.5", "0.75"], WindowCenter=["40", "1"],
        WindowWidth=["400", "2"], KVP="120", SliceThickness="5.0",
    )  # fmt: skip
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, (GRAY * 2.5 - 1024)[None].astype(np.float32))
    assert (image.pixels.dtype, image.pixels.flags.c_contiguous) == (np.float32, True)
    assert (image.units, image.modality, image.source_format) == ("HU", "CT", "dicom")
    assert image.spacing_mm == (0.5, 0.75)
    assert image.window == Window(40, 400)
    assert image.value_range == (-32768 * 2.5 - 1024, 32767 * 2.5 - 1024)
    assert image.decoder == f"numpy {np.__version__}"
    assert image.facts["kvp"] == 120.0
    assert image.facts["slice_thickness_mm"] == 5.0
    assert image.facts["spacing_source"] == "PixelSpacing"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_syntaxes_give_the_same_pixels(make_dicom: Make, tmp_path: Path, syntax: str) -> None:
    dataset = dcmread(make_dicom(GRAY))
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "other"
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    np.testing.assert_array_equal(read_image(path).pixels[0], GRAY)


@pytest.mark.parametrize(("dtype", "vr"), [("i2", "OW"), ("u1", "OW"), ("u1", "OB")])
def test_big_endian(make_dicom: Make, tmp_path: Path, dtype: str, vr: str) -> None:
    pixels = np.arange(2 * 3 * 5, dtype=dtype).reshape(2, 3, 5)  # frames of odd length
    dataset = dcmread(make_dicom(pixels))
    data = pixels.astype(f">{dtype}").tobytes()
    if dtype == "u1" and vr == "OW":
        data = np.frombuffer(data, dtype=np.uint16).byteswap().tobytes()
    dataset.PixelData = data
    dataset["PixelData"].VR = vr
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, dataset.file_meta)
        write_plain(file, dataset, is_implicit=False, is_little=False)
    np.testing.assert_array_equal(read_image(path).pixels[0], pixels)
    np.testing.assert_array_equal(read_image(path, frame=1).pixels[0], pixels[1])


def test_bits_above_bits_stored_are_removed(make_dicom: Make) -> None:
    overlay = (np.arange(16, dtype=np.uint16) * 200 | 0xA000).reshape(4, 4)
    path = make_dicom(overlay, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path).pixels[0], overlay & 0x0FFF)
    signed = make_dicom(overlay, BitsStored=12, HighBit=11, PixelRepresentation=1)
    expected = (overlay & 0x0FFF).astype(np.int32)
    np.testing.assert_array_equal(read_image(signed).pixels[0], np.where(expected > 2047, expected - 4096, expected))
    assert read_image(signed).value_range == (-2048.0, 2047.0)
    shifted = make_dicom(overlay, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_image(shifted).pixels[0], overlay >> 4)


def test_twelve_bits_allocated(make_dicom: Make) -> None:
    values = np.array([[0x123, 0xABC, 0xFFF], [0x001, 0x800, 0x7FF]], dtype=np.uint16)
    packed = bytes.fromhex("23c1ab" "ff1f00" "00f87f")  # fmt: skip
    path = make_dicom(values, BitsAllocated=12, BitsStored=12, HighBit=11, PixelData=packed + b"\0")
    np.testing.assert_array_equal(read_image(path).pixels[0], values)


def test_one_bit(make_dicom: Make) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 5), dtype=np.uint8)  # frames do not end at bytes
    packed = np.packbits(bits, bitorder="little").tobytes()
    path = make_dicom(bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    np.testing.assert_array_equal(read_image(path).pixels[0], bits)
    np.testing.assert_array_equal(read_image(path, frame=2).pixels[0], bits[2])


def test_monochrome1_is_turned_with_its_window(make_dicom: Make) -> None:
    stored = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
    header = {"Modality": "DX", "BitsStored": 12, "HighBit": 11, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    plain = read_image(make_dicom(stored, WindowCenter="40", WindowWidth="400", **header))
    turned = read_image(
        make_dicom(
            4095 - stored, PhotometricInterpretation="MONOCHROME1", WindowCenter="2008", WindowWidth="400", **header
        )
    )
    np.testing.assert_array_equal(turned.pixels, plain.pixels)
    assert turned.value_range == plain.value_range
    # black and white of the header's window change places: what it showed white is white
    source = dcmread(make_dicom(4095 - stored, WindowCenter="2008", WindowWidth="400", **header))
    shown = apply_voi_lut(apply_modality_lut(source.pixel_array, source), source)
    shown = 1.0 - (shown - shown.min()) / (shown.max() - shown.min())
    assert isinstance(turned.window, Window)
    np.testing.assert_allclose(apply_window(turned.pixels, turned.window)[0], shown, atol=1e-3)


def test_monochrome1_does_not_turn_hounsfield_units(make_dicom: Make) -> None:
    stored = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
    header = {"Modality": "CT", "BitsStored": 12, "HighBit": 11, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    image = read_image(make_dicom(stored, PhotometricInterpretation="MONOCHROME1", WindowCenter="40", **header))
    assert image.units == "HU"
    np.testing.assert_array_equal(image.pixels[0], stored - 1024.0)


def test_multi_frame(make_dicom: Make) -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
    path = make_dicom(pixels, PixelSpacing=["1", "1"], SpacingBetweenSlices="2.5")
    whole = read_image(path)
    np.testing.assert_array_equal(whole.pixels, pixels[None])
    assert (whole.is_volume, whole.spacing_mm) == (True, (2.5, 1.0, 1.0))
    one = read_image(path, frame=1)
    np.testing.assert_array_equal(one.pixels, pixels[1][None])
    assert (one.image_id, one.spacing_mm) == (f"{whole.image_id}-1", (1.0, 1.0))
    assert reason_of(path, frame=3) == "no_frame"
    assert reason_of(path, frame=-1) == "no_frame"
    assert probe(path).frames == 3


def test_rescale_of_functional_groups(make_dicom: Make) -> None:
    pixels = np.full((2, 2, 2), 10, dtype=np.uint16)
    transform = [
        item(PixelValueTransformationSequence=Sequence([item(RescaleSlope=s, RescaleIntercept=i, RescaleType="US")]))
        for s, i in (("1", "-1024"), ("2", "0"))
    ]
    voi = item(FrameVOILUTSequence=Sequence([item(WindowCenter="5", WindowWidth="9")]))
    measures = item(PixelSpacing=["0.3", "0.4"])
    shared = item(PixelMeasuresSequence=Sequence([measures]), FrameVOILUTSequence=voi.FrameVOILUTSequence)
    path = make_dicom(
        pixels,
        PerFrameFunctionalGroupsSequence=Sequence(transform),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    image = read_image(path)
    assert image.pixels[0, :, 0, 0].tolist() == [-1014.0, 20.0]
    assert image.value_range == (-1024.0, 131070.0)
    assert (image.window, image.units) == (Window(5, 9), "US")
    assert read_image(path, frame=1).spacing_mm == (0.3, 0.4)
    assert image.spacing_mm is None  # nothing says how far the frames are apart


def test_modality_lookup_table(make_dicom: Make) -> None:
    table = item(LUTDescriptor=[4, 2, 16], LUTData=[100, 300, 200, 1000], ModalityLUTType="OD")
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "US"
    stored = np.array([[0, 2, 3], [4, 5, 900]], dtype=np.uint16)
    path = make_dicom(stored, ModalityLUTSequence=Sequence([table]))
    image = read_image(path)
    source = dcmread(path)
    np.testing.assert_array_equal(image.pixels[0], apply_modality_lut(source.pixel_array, source))
    assert (image.units, image.value_range) == ("OD", (100.0, 1000.0))


@pytest.mark.parametrize("as_words", [True, False])
def test_voi_lookup_table_comes_before_the_window(make_dicom: Make, as_words: bool) -> None:
    values = [0, 10, 4000, 4095]
    table = item(LUTDescriptor=[4, 65534, 12])
    table["LUTDescriptor"].VR = "US"
    table.LUTData = np.array(values, dtype="<u2").tobytes() if as_words else values
    table["LUTData"].VR = "OW" if as_words else "US"
    path = make_dicom(
        np.array([[-3, -2, -1], [0, 1, 9]], dtype=np.int16), VOILUTSequence=Sequence([table]), WindowCenter="1",
        WindowWidth="2",
    )  # fmt: skip
    window = read_image(path).window
    assert isinstance(window, VoiLut)
    assert window.first == -2.0
    expected = np.array([[0, 0, 10], [4000, 4095, 4095]]) / 4095
    np.testing.assert_allclose(apply_window(read_image(path).pixels[0], window), expected, atol=1e-7)


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("elements", [{}, {"LUTDescriptor": None}, {"LUTExplanation": "none"}])
def test_an_empty_item_of_a_lookup_table_is_none(make_dicom: Make, keyword: str, elements: dict[str, object]) -> None:
    plain = {"WindowCenter": "7", "WindowWidth": "9", "RescaleSlope": "2", "RescaleIntercept": "-1"}
    image = read_image(make_dicom(GRAY, **{keyword: Sequence([item(**elements)])}, **plain))
    np.testing.assert_array_equal(image.pixels[0], GRAY.astype(np.float32) * 2 - 1)
    assert image.window == Window(7.0, 9.0)


def test_half_a_lookup_table_is_refused(make_dicom: Make) -> None:
    table = item(LUTDescriptor=[4, 0, 16])
    table["LUTDescriptor"].VR = "US"
    with pytest.raises(ReadError) as caught:
        read_image(make_dicom(GRAY, ModalityLUTSequence=Sequence([table])))
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(("width", "function"), [("0", "LINEAR"), ("-5", "SIGMOID"), ("", "LINEAR")])
def test_unusable_window_is_none(make_dicom: Make, width: str, function: str) -> None:
    path = make_dicom(GRAY, WindowCenter="1", WindowWidth=width, VOILUTFunction=function)
    assert read_image(path).window is None


def test_window_function_of_the_header(make_dicom: Make) -> None:
    path = make_dicom(GRAY, WindowCenter="1", WindowWidth="0.5", VOILUTFunction="SIGMOID")
    assert read_image(path).window == Window(1, 0.5, "SIGMOID")


def test_color(make_dicom: Make) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = read_image(make_dicom(pixels))
    np.testing.assert_array_equal(image.pixels, np.moveaxis(pixels, 2, 0))
    assert (image.units, image.value_range, image.window) == ("display", (0.0, 255.0), None)
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).tobytes()
    planar = make_dicom(pixels, PlanarConfiguration=1, PixelData=planes)
    np.testing.assert_array_equal(read_image(planar).pixels, image.pixels)
    ybr = read_image(make_dicom(pixels, PhotometricInterpretation="YBR_FULL")).pixels
    y, _, cr = (np.moveaxis(pixels, 2, 0)).astype(float)
    red = np.clip(y + 1.402 * (cr - 128), 0, 255)  # PS3.3 C.7.6.3.1.2
    np.testing.assert_allclose(ybr[0], red, atol=1.0)


def test_subsampled_color(make_dicom: Make) -> None:
    flat = np.full((2, 4, 3), 128, dtype=np.uint8)
    packed = bytes([50, 60, 128, 128] * 4)  # Y1 Y2 Cb Cr, no color
    image = read_image(make_dicom(flat, PhotometricInterpretation="YBR_FULL_422", PixelData=packed))
    assert image.pixels[:, 0].tolist() == [[50.0, 60.0, 50.0, 60.0]] * 3


def test_palette_becomes_rgb(make_dicom: Make) -> None:
    red, green, blue = (np.array([value, value + 1, 255], dtype="<u2") * 257 for value in (0, 10, 20))
    elements = {}
    for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    path = make_dicom(np.array([[0, 1, 2]], dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR", **elements)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[:, 0], np.stack([red, green, blue]))
    assert image.value_range == (0.0, 65535.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_numbers(make_dicom: Make, dtype: type) -> None:
    pixels = np.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4)
    image = read_image(make_dicom(pixels))
    np.testing.assert_array_equal(image.pixels[0], pixels.astype(np.float32))
    assert image.value_range == (-1.0, 1.0)
    pixels[1, 1] = np.nan
    assert reason_of(make_dicom(pixels)) == "non_finite"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelData": b"\0" * 10}, "truncated"),
        ({"Rows": 4000, "Columns": 4000}, "truncated"),
        ({"RescaleSlope": "0"}, "corrupt"),
        ({"RescaleSlope": "1e39"}, "non_finite"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "corrupt"),
        ({"PhotometricInterpretation": "YBR_FULL", "SamplesPerPixel": 3, "Rows": 2}, "unsupported"),
        ({"PixelData": GRAY.tobytes() * 2}, "mismatch"),
        ({"BitsStored": 17}, "corrupt"),
        ({"BitsAllocated": 24}, "unsupported"),
        ({"PhotometricInterpretation": "RGB"}, "corrupt"),
        ({"SamplesPerPixel": 4}, "unsupported"),
        ({"Rows": 0}, "corrupt"),
    ],
)
def test_damaged_headers(make_dicom: Make, elements: dict[str, object], reason: str) -> None:
    path = make_dicom(GRAY, **elements)
    assert reason_of(path) == reason
    with pytest.raises(ReadError) as caught:  # seen without a look at the pixels
        probe(path)
    assert caught.value.reason == reason


def test_pixel_cap_is_checked_before_memory_is_asked_for(make_dicom: Make) -> None:
    path = make_dicom(GRAY, Rows=65535, Columns=65535)
    assert reason_of(path) == "too_large"


def test_detector_spacing_is_named(make_dicom: Make) -> None:
    image = read_image(make_dicom(GRAY, ImagerPixelSpacing=["0.2", "0.2"]))
    assert (image.spacing_mm, image.facts["spacing_source"]) == ((0.2, 0.2), "ImagerPixelSpacing")


@pytest.mark.parametrize(
    ("elements", "band"),
    [
        ({"PatientAge": "045Y"}, "40-49"),
        ({"PatientAge": "091Y"}, "90+"),
        ({"PatientAge": "018M"}, "0-9"),
        ({"PatientAge": "old", "StudyDate": "20240202"}, "70-79"),  # born 1951-02-03: 72, not yet 73
        ({"PatientBirthDate": ""}, None),
    ],
)
def test_age_bands(make_dicom: Make, elements: dict[str, str], band: str | None) -> None:
    assert probe(make_dicom(GRAY, **elements)).facts["age_band"] == band


def test_probe_agrees_with_read(make_dicom: Make) -> None:
    path = make_dicom(GRAY, PatientSex="F", ViewPosition="PA", Manufacturer="SIEMENS")
    facts, image = probe(path), read_image(path)
    assert (facts.rows, facts.columns, facts.frames) == (6, 8, 1)
    assert (facts.image_id, facts.series_id, facts.study_id, facts.patient_id, facts.modality) == (
        image.image_id, image.series_id, image.study_id, image.patient_id, image.modality,
    )  # fmt: skip
    assert facts.facts.items() <= image.facts.items()
    assert (facts.facts["sex"], facts.facts["view_position"], facts.facts["manufacturer"]) == ("F", "PA", "SIEMENS")
    assert facts.facts["burned_in_annotation"] is None


def test_no_patient_data_in_any_output(make_dicom: Make, secrets: dict[str, str]) -> None:
    path = make_dicom(GRAY, name="Zzyzx Planted.dcm")
    outputs = [repr(read_image(path)), repr(probe(path)), repr(raw_ids(path)), read_image(path)._repr_html_()]
    for elements in ({"PixelData": b""}, {"RescaleSlope": "0"}, {"PhotometricInterpretation": "Planted"}):
        with pytest.raises(ReadError) as caught:
            read_image(make_dicom(GRAY, name="Zzyzx Planted.dcm", **elements))
        outputs.append(str(caught.value))
    for output in outputs:
        assert "planted" not in output.lower()
        assert not re.search(r"(?<![0-9a-f])1951(?![0-9a-f])", output)  # a pseudonym may hold these digits by chance
        assert all(secret not in output for secret in secrets.values())


def test_raw_ids_join_with_pseudonyms(make_dicom: Make, secrets: dict[str, str]) -> None:
    path = make_dicom(GRAY)
    raw, facts = raw_ids(path), probe(path)
    assert raw.patient_id == secrets["PatientID"]
    assert pseudonym("patient", raw.patient_id) == facts.patient_id
    assert pseudonym("image", raw.sop_uid or "") == facts.image_id
    assert pseudonym("site", secrets["InstitutionName"]) == facts.facts["site"]


def test_hostile_uid_is_only_a_name(make_dicom: Make) -> None:
    image = read_image(make_dicom(GRAY, SOPInstanceUID="../../../tmp/evil"))
    assert len(image.image_id) == 16
    assert "/" not in image.image_id


@pytest.mark.parametrize(("magic", "flag"), [(b"MZ", "MZ"), (b"\x7fELF", "ELF"), (b"II*\0\x08", None), (b"", None)])
def test_preambles(make_dicom: Make, magic: bytes, flag: str | None) -> None:
    path = make_dicom(GRAY)
    data = path.read_bytes()
    path.write_bytes(magic.ljust(128, b"\0") + data[128:])
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0], GRAY)
    assert image.facts["preamble"] == flag


@pytest.mark.parametrize("is_implicit", [True, False])
def test_headerless(make_dicom: Make, tmp_path: Path, is_implicit: bool) -> None:
    dataset = dcmread(make_dicom(GRAY))
    path = tmp_path / "headerless"
    with path.open("wb") as file:
        write_plain(file, dataset, is_implicit=is_implicit, is_little=True)
    np.testing.assert_array_equal(read_image(path).pixels[0], GRAY)


def test_importing_and_reading_leave_pydicom_as_it_was(make_dicom: Make) -> None:
    import logging
    import warnings

    from pydicom import config

    logger = logging.getLogger("pydicom")
    before = (config.settings.reading_validation_mode, logger.level, logger.disabled, list(warnings.filters))
    read_image(make_dicom(GRAY))
    after = (config.settings.reading_validation_mode, logger.level, logger.disabled, list(warnings.filters))
    assert after == before
