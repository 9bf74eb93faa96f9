"""Repetitions in one series become volumes of their own, or are refused with what differs: by hand counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, generate_uid

from lepton_vision.errors import ReadError
from lepton_vision.pipeline.facts import list_series
from lepton_vision.readers import read_image, read_series
from lepton_vision.readers.series_list import describe_found, group_series, read_found

Make = Callable[..., Path]
HEADER = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
MAGNITUDE, PHASE = ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]


@pytest.fixture
def write(make_dicom: Make, tmp_path: Path) -> Callable[..., Path]:
    """Write slices (value, z, elements) and return their folder; a constant slice tells which one it is."""

    def write_slices(slices: list[tuple[int, float, dict[str, Any]]]) -> Path:
        for number, (value, z, elements) in enumerate(slices):
            pixels = np.full((4, 5), value, np.uint16)
            own = {"Modality": "MR", "ImagePositionPatient": [0, 0, z]}
            make_dicom(pixels, name=f"series/{number:03}.dcm", **{**HEADER, **own, **elements})
        return tmp_path / "series"

    (tmp_path / "series").mkdir()
    return write_slices


def volumes(folder: Path) -> dict[str, list[float]]:
    """By suffix, the values of the slices of each volume; read by its files, its id and in the list alike."""
    found, _ = group_series(sorted(folder.iterdir()))
    listed = [line["series"] for line in list_series(folder)["series"]]
    assert listed == [one.member for one in found]
    result = {}
    for one in found:
        image = read_found(one)
        for again in (read_series(folder, series=one.member), read_image(folder, member=one.member)):
            assert np.array_equal(again.pixels, image.pixels)
            assert (again.image_id, again.geometry) == (image.image_id, image.geometry)
        assert image.image_id == one.image_id
        assert describe_found(one).shape == image.pixels.shape[1:]
        result[one.suffix] = image.pixels[0, :, 0, 0].tolist()
    return result


@pytest.mark.parametrize(("keyword", "values", "suffix"), [
    ("AcquisitionNumber", (1, 2), "-acquisition"), ("EchoTime", ("10", "90"), "-echo"),
    ("TriggerTime", ("0", "400"), "-trigger"), ("TemporalPositionIdentifier", (1, 2), "-phase"),
    ("ImageType", (MAGNITUDE, PHASE), "-type"), ("DiffusionBValue", (0.0, 1000.0), "-b"),
    ("InversionTime", ("100", "900"), "-inversion"), ("FlipAngle", ("5", "20"), "-flip"),
])  # fmt: skip
@pytest.mark.parametrize("offset", [0.0, 2.5, 1.3, 0.006])
def test_two_acquisitions_between_each_other_are_two_volumes(
    write: Callable[..., Path], keyword: str, values: tuple[Any, Any], suffix: str, offset: float
) -> None:
    slices = [
        (10 * which + k, 5.0 * k + which * offset, {keyword: values[which]}) for k in range(6) for which in (0, 1)
    ]
    folder = write(slices)
    assert volumes(folder) == {f"{suffix}1": [0, 1, 2, 3, 4, 5], f"{suffix}2": [10, 11, 12, 13, 14, 15]}
    with pytest.raises(ReadError) as caught:
        read_series(folder)
    assert caught.value.reason == "several_volumes"
    assert f"{suffix}2 (6)" in str(caught.value)
    with pytest.raises(ReadError, match="id of a volume that is there"):
        read_series(folder, series=group_series(sorted(folder.iterdir()))[0][0].series_id + "-echo7")
    assert read_series(group_series(sorted(folder.iterdir()))[0][0].files).pixels.shape[1] == 6


@pytest.mark.parametrize("elements", [
    lambda k: {"AcquisitionNumber": k, "TriggerTime": str(17 * k), "AcquisitionTime": f"1010{k:02}"},  # each its own
    lambda k: {"AcquisitionNumber": k // 4},  # a run that goes on where another one ended
    lambda k: {"AcquisitionTime": ("101010", "101020")[k % 2]},  # odd and even slices of one run
    lambda k: {"TriggerTime": str(k % 6)},  # slices of one run are taken at moments of the heart beat
    lambda k: {"EchoTime": ("10", "10.0", "10.00")[k % 3]},
])  # fmt: skip
def test_what_differs_between_the_slices_of_one_volume_does_not_divide_it(
    write: Callable[..., Path], elements: Callable[[int], dict[str, Any]]
) -> None:
    assert volumes(write([(k, 3.0 * k, elements(k)) for k in range(12)])) == {"": list(range(12))}


def test_several_elements_and_the_order_of_visits_tell_volumes_apart(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    slices = [
        (100 * echo + 10 * kind + k, 3.0 * k, {"EchoTime": str(10 + echo), "ImageType": (MAGNITUDE, PHASE)[kind]})
        for k in range(3) for echo in (0, 1) for kind in (0, 1)
    ]  # fmt: skip
    assert volumes(write(slices)) == {
        "-type1-echo1": [0, 1, 2], "-type1-echo2": [100, 101, 102],
        "-type2-echo1": [10, 11, 12], "-type2-echo2": [110, 111, 112],
    }  # fmt: skip
    shutil.rmtree(tmp_path / "series")
    (tmp_path / "series").mkdir()
    visits = [(10 * t + k, 3.0 * k, {"AcquisitionTime": f"10{t:02}{k:02}"}) for t in (1, 0) for k in range(3)]
    assert volumes(write(visits)) == {"-time1": [0, 1, 2], "-time2": [10, 11, 12]}


def clock(second: int) -> str:
    return f"10{second // 60:02}{second % 60:02}"


# Second at which each slice of two or three passes was taken, by pass and place.
_PASSES: dict[str, Callable[[int, int], int]] = {
    "one moment for each pass": lambda which, k: 600 * which,
    "a moment for each slice": lambda which, k: 600 * which + 2 * k,
    "there and back": lambda which, k: 600 * which + 2 * (k if which % 2 == 0 else 9 - k),
    "up one time, up again": lambda which, k: 60 - 20 * which + k,
}


@pytest.mark.parametrize("keyword", ["AcquisitionTime", "ContentTime"])
@pytest.mark.parametrize("times", _PASSES.values(), ids=_PASSES)
@pytest.mark.parametrize(("passes", "offset"), [(2, 2.5), (2, 0.0), (3, 1.5)])
def test_times_tell_the_passes_of_a_ct_apart(
    write: Callable[..., Path], keyword: str, times: Callable[[int, int], int], passes: int, offset: float
) -> None:
    folder = write([
        (10 * which + k, 5.0 * k + which * offset, {"Modality": "CT", keyword: clock(times(which, k))})
        for k in range(6) for which in range(passes)
    ])  # fmt: skip
    found = volumes(folder)
    assert all(name.startswith("-time") for name in found)
    assert sorted(found.values()) == [[10 * which + k for k in range(6)] for which in range(passes)]


# Modality, and second at which each of 12 slices was taken.
_ONE_PASS: dict[str, tuple[str, Callable[[int], int]]] = {
    "up": ("CT", lambda k: k),
    "down": ("CT", lambda k: 100 - k),
    "rotations of four": ("CT", lambda k: k // 4),
    "rotations of four, down": ("CT", lambda k: 100 - k // 4),
    "rotations of two, down": ("CT", lambda k: 100 - k // 2),
    "beds from the other end": ("CT", lambda k: k if k < 6 else 60 + 12 - k),
    "second bed first": ("CT", lambda k: k + (60 if k < 6 else 0)),
    "every other one first": ("MR", lambda k: k // 2 + 600 * (k % 2)),
    "two concatenations": ("MR", lambda k: 600 * (k % 2)),
}


@pytest.mark.parametrize(("modality", "times"), _ONE_PASS.values(), ids=_ONE_PASS)
def test_times_of_one_pass_do_not_divide_it(
    write: Callable[..., Path], modality: str, times: Callable[[int], int]
) -> None:
    elements = [{"Modality": modality, "AcquisitionTime": clock(times(k))} for k in range(12)]
    assert volumes(write([(k, 2.0 * k, elements[k]) for k in range(12)])) == {"": list(range(12))}


@pytest.mark.parametrize(("change", "text"), [
    ({"AcquisitionNumber": 7}, "They differ in acquisition number."),
    ({}, "Nothing in their headers tells them apart."),
])  # fmt: skip
def test_what_leaves_a_doubt_is_refused_with_what_differs(
    write: Callable[..., Path], change: dict[str, Any], text: str
) -> None:
    folder = write(
        [(k, 3.0 * k, {"AcquisitionNumber": 1}) for k in range(4)] + [(9, 6.0, {"AcquisitionNumber": 1} | change)]
    )
    with pytest.raises(ReadError) as caught:
        read_series(folder)
    assert caught.value.reason == "duplicate_position"
    assert text in str(caught.value)
    (found,), _ = group_series(sorted(folder.iterdir()))
    assert describe_found(found).reason == "duplicate_position"


def test_acquisitions_between_each_other_that_are_no_volumes_are_refused(write: Callable[..., Path]) -> None:
    runs = [1, 1, 2, 1, 2, 2, 1, 2]
    folder = write([(k, 3.0 * k, {"AcquisitionNumber": run}) for k, run in enumerate(runs)])
    found, _ = group_series(sorted(folder.iterdir()))
    reasons = {describe_found(one).reason for one in found}
    assert reasons <= {"missing_slices", "mixed_slices", "geometry"}  # two volumes with gaps, or none: never one


@pytest.mark.parametrize("name", ["001 (1).dcm", "copy.dcm"])
def test_a_copy_of_a_slice_is_left_out(write: Callable[..., Path], name: str) -> None:
    folder = write([(k, 3.0 * k, {}) for k in range(4)])
    shutil.copy(folder / "001.dcm", folder / name)
    found = group_series(sorted(folder.iterdir()))[0][0]
    assert [reason for _, reason in found.left_out] == ["copy"]
    assert volumes(folder) == {"": [0, 1, 2, 3]}
    assert list_series(folder)["left_out"] == {"copy": 1}
    again = dcmread(folder / "001.dcm")
    again.ImageComments = "the same pixels, sent once more"
    again.save_as(folder / name)
    assert volumes(folder) == {"": [0, 1, 2, 3]}
    again.PixelData = bytes(len(again.PixelData))
    again.save_as(folder / name)
    with pytest.raises(ReadError) as caught:  # two that claim to be the same, and are not
        read_series(folder)
    assert caught.value.reason == "duplicate_position"


def test_what_has_no_place_beside_slices_is_left_out_and_a_damaged_slice_is_not(
    write: Callable[..., Path], make_dicom: Make
) -> None:
    folder = write([(k, 3.0 * k, {}) for k in range(4)])
    strange = {**HEADER, "PixelSpacing": None, "ImageOrientationPatient": None, "Modality": "MR"}
    make_dicom(np.zeros((9, 9), np.uint8), name="series/screen.dcm", **strange)
    assert volumes(folder) == {"": [0, 1, 2, 3]}
    make_dicom(np.zeros((4, 5), np.uint16), name="series/x.dcm", **HEADER, Modality="MR")
    with pytest.raises(ReadError) as caught:
        read_series(folder)
    assert caught.value.reason == "no_position"


def test_series_of_localizers_or_screens_beside_a_series_do_not_count(
    write: Callable[..., Path], make_dicom: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write([(k, 3.0 * k, {}) for k in range(4)])
    make_dicom(np.zeros((9, 9), np.uint8), name="series/screen.dcm")
    scout = {**HEADER, "SeriesInstanceUID": "1.2.4", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    make_dicom(np.zeros((9, 9), np.uint16), name="series/scout.dcm", ImagePositionPatient=[0, 0, 0], **scout)
    assert read_image(folder).pixels[0, :, 0, 0].tolist() == [0, 1, 2, 3]
    assert "Left out beside the series: localizer: 1, no_position: 1." in caplog.text


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(("macro", "values", "suffix"), [
    (lambda v: {"MREchoSequence": [item(EffectiveEchoTime=v)]}, (10.0, 90.0), "-echo"),
    (lambda v: {"FrameContentSequence": [item(TemporalPositionIndex=v)]}, (1, 2), "-phase"),
    (lambda v: {"MRDiffusionSequence": [item(DiffusionBValue=v)]}, (0.0, 800.0), "-b"),
    (lambda v: {"MRImageFrameTypeSequence": [item(FrameType=v)]}, (MAGNITUDE, PHASE), "-type"),
])  # fmt: skip
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_frames_of_an_enhanced_file_are_divided_too(
    make_dicom: Make, tmp_path: Path, macro: Callable[[Any], dict[str, Any]], values: Any, suffix: str, offset: float
) -> None:
    frames, pixels = [], []
    for k in range(4):
        for which in (0, 1):
            place = item(ImagePositionPatient=[0, 0, 3.0 * k + which * offset])
            frames.append(item(PlanePositionSequence=[place], **macro(values[which])))
            pixels.append(np.full((4, 5), 10 * which + k, np.uint16))
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=3)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    (tmp_path / "e").mkdir()
    make_dicom(
        np.stack(pixels), name="e/e.dcm", SOPClassUID=EnhancedMRImageStorage, Modality="MR",
        SeriesInstanceUID=generate_uid(), PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    assert volumes(tmp_path / "e") == {f"{suffix}1": [0, 1, 2, 3], f"{suffix}2": [10, 11, 12, 13]}
    assert read_image(tmp_path / "e" / "e.dcm").geometry is None  # all frames together are no volume


@pytest.mark.parametrize(("header", "expected"), [
    ({"SpacingBetweenSlices": "5"}, {"-trigger1": [0, 1, 2, 3], "-trigger2": [10, 11, 12, 13]}),
    ({"SliceThickness": "5"}, {"-trigger1": [0, 1, 2, 3], "-trigger2": [10, 11, 12, 13]}),
    ({"SpacingBetweenSlices": "2.5", "SliceThickness": "5"}, {"": [0, 10, 1, 11, 2, 12, 3, 13]}),
])  # fmt: skip
def test_passes_with_a_trigger_time_for_each_slice_are_told_by_the_distance_of_neighbours(
    write: Callable[..., Path], header: dict[str, Any], expected: dict[str, list[float]]
) -> None:
    slices = [
        (10 * which + k, 5.0 * k + 2.5 * which, {"TriggerTime": str(300 * which + 11 * k), **header})
        for which in (0, 1) for k in range(4)
    ]  # fmt: skip
    assert volumes(write(slices)) == expected
