"""Real files against an oracle (pydicom unless named): right pixels, or a typed error."""

from __future__ import annotations

import csv
import hashlib
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.uid import RLELossless

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import sniff
from lepton_vision.readers.dicom.decode import read_stored
from lepton_vision.readers.dicom.header import open_dicom
from lepton_vision.readers.dicom.layout import PixelLayout, read_layout
from lepton_vision.readers.image import probe, raw_ids, read_image, read_pixels
from lepton_vision.readers.limits import Limits, raise_read_errors
from lepton_vision.readers.quiet import quiet

# What no decoder of ours reads, and why: pydicom itself fails on each but the last.
REFUSED = {
    "GH1146.dcm": "truncated",  # no byte of pixel data
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "corrupt",
    "genFile.dcm": "corrupt",  # the frame is no JPEG stream
    "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt",
    "MR_truncated.dcm": "truncated",
    "badVR.dcm": "mismatch",  # the data of 15 frames under "1A" frames
    "MR1_JLSL": "decoder_failed",  # CharLS refuses the stream; GDCM reads it, but there is no second try
}
# Decoded by GDCM or SimpleITK and others in a way that pydicom cannot: oracle below.
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
WITHOUT_PYDICOM = {"liver_deflate.dcm", "liver_nonbyte_aligned_deflate.dcm", "liver_nonbyte_aligned_rle.dcm"} | {
    "liver_rle.dcm", "JPEG-lossy.dcm", "JPGExtended.dcm", "MR1_JPLY", "MR2_JPLY", "RG3_JPLY", "XA1_JPLY", "GH340.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
}  # fmt: skip


def stored_values(path: Path) -> tuple[npt.NDArray[Any], PixelLayout]:
    """Stored values before any modality transformation, (F, H, W[, 3])."""
    with quiet, raise_read_errors("test", reason="corrupt"), path.open("rb") as stream:
        head = stream.read(1024)
        stream.seek(0)
        file = open_dicom(stream, head=head, limits=Limits())
        layout = read_layout(file)
        return read_stored(file, layout, wanted=range(layout.frames), limits=Limits())[0], layout


def pydicom_values(path: Path) -> npt.NDArray[Any]:
    with warnings.catch_warnings(action="ignore"):
        dataset = dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
        return dataset.pixel_array


def check_dicom(path: Path) -> str:
    """Compare one file with pydicom; return what happened."""
    try:
        stored, layout = stored_values(path)
    except ReadError as error:
        if error.reason == "no_pixels" or is_without_image(path):
            return "no_pixels"
        if REFUSED.get(path.name) != error.reason:
            raise
        return "refused"
    assert path.name not in REFUSED
    if path.name in WITHOUT_PYDICOM:
        return "other oracle"
    expected = pydicom_values(path)
    np.testing.assert_array_equal(stored if layout.frames > 1 else stored[0], expected, err_msg=path.name)
    return "equal"


def is_without_image(path: Path) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = dcmread(path, force=True)
    except OSError:  # ends within an element
        return False
    return "Rows" not in dataset or not any(keyword in dataset for keyword in PIXEL_KEYWORDS)


def is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return sniff(stream.read(1024)) == "dicom"
    except ReadError:
        return False


def test_files_of_pydicom() -> None:
    files = sorted((Path(pydicom.__file__).parent / "data").rglob("*"))  # get_testdata_files would download more
    seen = Counter(check_dicom(path) for path in files if path.is_file() and is_dicom_file(path))
    assert seen["equal"] >= 60
    for path in files:
        if path.is_file():
            read_or_refuse(path)


def test_planar_configuration_says_nothing_about_a_codestream(tmp_path: Path) -> None:
    """PS3.5 8.2.1: the decoder alone knows how its colors lie."""
    seen, element = set(), b"\x28\0\x06\0US\x02\0"
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm")):
        before, found, after = path.read_bytes().partition(element)
        if not found:
            continue
        images = []
        for planar in (b"\0\0", b"\1\0"):
            (tmp_path / "a.dcm").write_bytes(before + element + planar + after[2:])
            images.append(read_image(tmp_path / "a.dcm"))
        syntax = str(images[0].facts["transfer_syntax"])
        if syntax.startswith("1.2.840.10008.1.2.4") or syntax == RLELossless:
            np.testing.assert_array_equal(images[0].pixels, images[1].pixels, err_msg=path.name)
            seen.add(syntax)
    assert len(seen) >= 4, seen


@pytest.mark.slow
def test_stored_values_of_the_corpus(corpus: Path) -> None:
    files = [path for path in sorted(corpus.rglob("*")) if path.is_file() and is_dicom_file(path)]
    seen = Counter(check_dicom(path) for path in files)
    assert seen["equal"] >= 280
    assert seen["refused"] <= len(REFUSED)


def check_pixels(path: Path) -> None:
    """What a loader reads is what ``read_image`` reads, or refused for the same reason."""
    found = []
    for read in (read_image, read_pixels):
        try:
            image = read(path)
        except ReadError as error:
            found.append(error.reason)
            continue
        facts = (image.units, image.value_range, image.modality, image.source_format, image.decoder)
        found.append((image.pixels.shape, image.pixels.tobytes(), facts, pickle.dumps(image.window)))
    assert found[0] == found[1], path.name


def read_or_refuse(path: Path) -> str:
    """Everything that a user may call, on any file: an answer or a ReadError with its path."""
    if is_dicom_file(path):
        check_pixels(path)
    result = "read"
    for call in (read_image, probe, raw_ids):
        try:
            answer = call(path)
        except ReadError as error:
            if error.path != path or path.name in str(error):
                raise ValueError("a ReadError carries its path, and only there") from error
            result = error.reason if call is read_image else result
        else:
            if call is read_image:
                assert np.isfinite(answer.pixels).all()
                low, high = answer.value_range
                assert low <= answer.pixels.min()
                assert answer.pixels.max() <= high
    return result


@pytest.mark.slow
def test_every_file_of_the_corpus(corpus: Path) -> None:
    seen = Counter(read_or_refuse(path) for path in sorted(corpus.rglob("*")) if path.is_file())
    assert seen["read"] >= 310
    assert seen["decoder_missing"] == 0
    with (corpus / "inventory.csv").open() as table:
        texts = [row["path"] for row in csv.DictReader(table) if "not DICOM (negative case)" in row["notes"]]
    assert len(texts) > 20
    for name in texts:
        with pytest.raises(ReadError) as caught:
            read_image(corpus / name)
        assert caught.value.reason == "not_an_image"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "MR1_JPLY", "XA1_JPLY", "GH340.dcm"])
def test_what_pydicom_cannot_equals_the_inventory(corpus: Path, name: str) -> None:
    """Oracle: md5 of SimpleITK's stored values, in the corpus's own inventory."""
    with (corpus / "inventory.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if Path(row["path"]).name == name]
    stored, _ = stored_values(corpus / rows[0]["path"])
    assert hashlib.md5(np.ascontiguousarray(stored[0]).tobytes()).hexdigest() == rows[0]["md5"]


@pytest.mark.slow
@pytest.mark.parametrize(("image", "syntaxes"), [
    ("CT1", "REF RLE JPLL JLSL J2KR"), ("MR1", "REF RLE JPLL J2KR"), ("MR2", "REF RLE JPLL JLSL"),
    ("RG3", "REF RLE JPLL JLSL"), ("XA1", "REF RLE JPLL JLSL J2KR"), ("VL1", "REF RLE J2KR"),
])  # fmt: skip
def test_lossless_twins_are_identical(corpus: Path, image: str, syntaxes: str) -> None:
    paths = [next(iter(corpus.rglob(f"{image}_{syntax}")), None) for syntax in syntaxes.split()]
    found = [read_image(path).pixels for path in paths if path is not None]
    assert len(found) >= 2
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.slow
def test_one_bit_segmentations_are_identical(corpus: Path) -> None:
    """One liver in four encodings; pydicom reads two of them."""
    folder = next(corpus.rglob("liver_rle.dcm")).parent
    for stem in ("liver", "liver_nonbyte_aligned"):
        pixels = [read_image(folder / f"{stem}{end}.dcm").pixels for end in ("_rle", "_deflate", "_j2k")]
        expected = pydicom_values(folder / f"{stem}_j2k.dcm")
        for one in pixels:
            np.testing.assert_array_equal(one[0], expected)


@pytest.mark.slow
def test_enhanced_frames_are_rescaled(corpus: Path) -> None:
    """Nine enhanced files are wrong by about 1024 where only the top level of the header is looked at."""
    seen = 0
    for path in sorted(corpus.rglob("*.dcm")):
        with warnings.catch_warnings(action="ignore"):
            try:
                header = dcmread(path, stop_before_pixels=True)
                groups = header.SharedFunctionalGroupsSequence[0]
                transform = groups.PixelValueTransformationSequence[0]
            except Exception:
                continue
        image = read_image(path)
        expected = pydicom_values(path) * float(transform.RescaleSlope) + float(transform.RescaleIntercept)
        np.testing.assert_allclose(image.pixels[0], expected, rtol=1e-6)
        seen += 1
    assert seen >= 1


def sample(files: list[Path], count: int) -> list[Path]:
    return files[:: max(1, len(files) // count)]


@pytest.mark.parametrize(("folder", "pattern"), [("covid-ct", "*.png"), ("brain-mri-yesno", "*.jp*g")])
def test_raster_data_sets(shared: Path, folder: str, pattern: str) -> None:
    files = sample(sorted((shared / "data" / folder).rglob(pattern)), 12)
    assert files
    for path in files:
        with Pillow.open(path) as picture:
            mode = "L" if picture.mode in ("L", "LA") else "RGB"
            expected = np.asarray(picture.convert(mode))
        pixels = read_image(path).pixels
        np.testing.assert_array_equal(pixels[0] if mode == "L" else np.moveaxis(pixels, 0, 2), expected)


def test_nifti_data_set(shared: Path) -> None:
    files = sample(sorted((shared / "data" / "msd-hippocampus").rglob("*.nii*")), 8)
    assert files
    for path in files:
        expected = nibabel.load(path)
        image = read_image(path)
        np.testing.assert_array_equal(image.pixels[0], expected.get_fdata(dtype=np.float32).transpose(2, 1, 0))
        assert image.spacing_mm == pytest.approx(expected.header.get_zooms()[::-1])


def test_npz_data_set(shared: Path) -> None:
    path = next((shared / "data" / "medmnist28").glob("breast*.npz"))
    expected = np.load(path)
    for member in ("train_images", "test_images"):
        for frame in (0, 7, len(expected[member]) - 1):
            np.testing.assert_array_equal(
                read_image(path, member=member, frame=frame).pixels[0], expected[member][frame]
            )


def test_mr_dicom_series(shared: Path) -> None:
    files = [path for path in sorted((shared / "data" / "mr-dicom-t1-pddl").rglob("*")) if path.is_file()]
    files = [path for path in files if is_dicom_file(path)]
    assert len(files) == 96
    for path in sample(files, 12):
        np.testing.assert_array_equal(stored_values(path)[0][0], pydicom_values(path))
    assert len({probe(path).series_id for path in files}) == 1
    assert len({probe(path).image_id for path in files}) == 96


@pytest.mark.slow
def test_every_file_of_the_data_sets(shared: Path) -> None:
    files = [path for path in sorted((shared / "data").rglob("*")) if path.is_file() and path.suffix != ".npz"]
    seen: Counter[str] = Counter()
    for path in files:
        reason = read_or_refuse(path)
        seen[reason] += 1
        assert reason == "read" or path.suffix in (".csv", ".md", ".json", ".txt", ""), path.name
    assert seen["read"] > 900
