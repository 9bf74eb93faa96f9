"""A DICOM Segmentation overlays its source exactly, as highdicom and SimpleITK read it back.

Most masks here are the pixels of their source: labels, or labels made from them voxel by voxel. So what must lie on a
source file is known from that file alone, whatever order the series was read in.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from lepton_vision._version import __version__
from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.readers import read_image, read_series, reorient
from lepton_vision.readers.image import probe
from lepton_vision.scoring import SegmentationInfo, write_segmentation
from lepton_vision.types import Geometry, Image
from tests.scoring.dicom_series import (
    AXIAL,
    COLUMNS,
    OBLIQUE,
    PATIENT,
    ROWS,
    header,
    random_labels,
    save,
    write_enhanced,
    write_series,
)

NAMES = ("liver", "tumour", "Gefäß 血管")
Labels = npt.NDArray[np.uint8]
LabelsOf = Callable[[npt.NDArray[Any]], Labels]


@pytest.fixture(autouse=True)
def _quiet_oracle() -> None:
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()


def as_labels(values: npt.NDArray[Any]) -> Labels:
    return values.astype(np.uint8)


def scattered(values: npt.NDArray[Any]) -> Labels:
    """Labels 0 to 3 that change from voxel to voxel with the pixel of a real image."""
    return ((values.astype(np.int64) * 7) % 11 % 4).astype(np.uint8)


def write(path: Path, image: Image, source: Any, *, labels_of: LabelsOf = as_labels, **options: Any) -> Path:
    labels = labels_of(image.pixels[0])
    return write_segmentation(labels, path, image=image, source=source, structures=NAMES, **options)


def frames_of(path: Path) -> list[tuple[Any, int, Labels]]:
    """(functional groups, segment number, (H, W) 0 or 1) of each frame, pixels as SimpleITK decodes them.

    SimpleITK refuses frames that all lie at one place: those are pydicom's.
    """
    dataset = pydicom.dcmread(path)
    shared, frames = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    if len({tuple(groups.PlanePositionSequence[0].ImagePositionPatient) for groups in frames}) < min(2, len(frames)):
        pixels = dataset.pixel_array
    else:
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        assert set(np.unique(values)) <= {0, 255}  # SimpleITK scales 1-bit pixels
        pixels = values.reshape(-1, dataset.Rows, dataset.Columns) // 255
    numbers = [(groups if "SegmentIdentificationSequence" in groups else shared) for groups in frames]
    segments = [int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for groups in numbers]
    return list(zip(frames, segments, pixels, strict=True))


def corners(path: Path) -> npt.NDArray[np.float64]:
    """Where SimpleITK has three corners of a single slice."""
    other = SimpleITK.ReadImage(str(path))
    columns, rows, _ = other.GetSize()
    return np.array(
        [other.TransformIndexToPhysicalPoint(index) for index in ((0, 0, 0), (columns - 1, 0, 0), (0, rows - 1, 0))]
    )


def frame_corners(dataset: Any, groups: Any) -> npt.NDArray[np.float64]:
    """The same corners by the functional groups of a frame (PS3.3 C.7.6.2.1.1)."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    ways = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    down, across = (float(step) for step in shared.PixelMeasuresSequence[0].PixelSpacing)
    origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    return np.array(
        [origin, origin + (dataset.Columns - 1) * across * ways[0], origin + (dataset.Rows - 1) * down * ways[1]]
    )


def assert_overlays(path: Path, files: Sequence[Path], *, labels_of: LabelsOf = as_labels) -> None:
    """Every voxel of every source file has its label, at its place: by SimpleITK and pydicom, and by highdicom."""
    dataset = pydicom.dcmread(path)
    sources = {str(one.SOPInstanceUID): (file, one) for file in files for one in [pydicom.dcmread(file)]}
    expected = {uid: labels_of(one.pixel_array) for uid, (_, one) in sources.items()}
    found = {uid: np.zeros_like(labels) for uid, labels in expected.items()}
    for groups, segment, frame in frames_of(path):
        uid = str(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        np.testing.assert_allclose(frame_corners(dataset, groups), corners(sources[uid][0]), rtol=0, atol=1e-3)
        assert not (found[uid] * frame).any()
        found[uid] += segment * frame.astype(np.uint8)
    for uid, labels in expected.items():
        np.testing.assert_array_equal(found[uid], labels)
    read_back = highdicom.seg.segread(path).get_pixels_by_source_instance(
        list(expected), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(read_back, np.stack(list(expected.values())))
    referenced = {str(item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence}
    assert referenced == set(sources)


@pytest.mark.parametrize("ways", [AXIAL, OBLIQUE, -OBLIQUE, AXIAL[::-1]], ids=["axial", "oblique", "turned", "swapped"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_mask_lies_on_the_slices_of_its_series(tmp_path: Path, ways: npt.NDArray[Any], order: int) -> None:
    folder = write_series(tmp_path / "ct", [2.5 * k for k in range(6)][::order], ways=ways)
    files = sorted(folder.iterdir())
    path = write(tmp_path / "seg.dcm", read_image(folder), folder)
    assert_overlays(path, files)
    shuffled = [files[k] for k in (3, 0, 5, 2, 4, 1)]
    assert_overlays(write(tmp_path / "b.dcm", read_series(files), shuffled), files)
    measures = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5, abs=1e-6)  # not the thickness, which lies


@pytest.mark.parametrize("axes", ["RAS", "PSL", "AIR"])
def test_a_reoriented_image_has_its_mask_on_the_same_voxels(tmp_path: Path, axes: str) -> None:
    folder = write_series(tmp_path / "ct", range(5), ways=OBLIQUE)
    image = reorient(read_image(folder), axes)
    assert_overlays(write(tmp_path / "seg.dcm", image, folder), sorted(folder.iterdir()))


def test_a_real_oblique_mr_series(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mr-dicom-t1-pddl" / "dicoms"
    path = write(tmp_path / "seg.dcm", read_image(folder), folder, labels_of=scattered)
    assert_overlays(path, sorted(folder.glob("*.dcm")), labels_of=scattered)


@pytest.mark.slow
def test_every_series_of_the_corpus(shared: Path, tmp_path: Path) -> None:
    groups: dict[tuple[Path, str | None], list[Path]] = {}
    if not (shared / "corpus").is_dir():
        pytest.skip("the DICOM corpus is not here: set LEPTON_VISION_DATA to the folder that holds corpus/")
    for file in sorted((shared / "corpus").rglob("*")):
        try:
            facts = probe(file) if file.is_file() else None
        except ReadError:
            continue
        if facts is not None and facts.source_format == "dicom" and facts.frames == 1:
            groups.setdefault((file.parent, facts.series_id), []).append(file)
    seen = 0
    for files in groups.values():
        try:
            image = read_series(files)
        except ReadError:
            continue
        integers = {id(file): pydicom.dcmread(file).pixel_array for file in files}
        slope = {float(pydicom.dcmread(file).get("RescaleSlope", 1)) for file in files}
        offset = {float(pydicom.dcmread(file).get("RescaleIntercept", 0)) for file in files}
        assert len(slope) == len(offset) == 1
        stored = np.rint((image.pixels[0] - offset.pop()) / slope.pop())
        assert {tuple(part.shape) for part in integers.values()} == {stored.shape[1:]}
        path = tmp_path / "seg.dcm"
        write_segmentation(scattered(stored), path, image=image, source=files, structures=NAMES)
        assert_overlays(path, files, labels_of=scattered)
        seen += 1
    assert seen >= 3


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4, 1, 2]], ids=["up", "down", "shuffled"])
def test_an_enhanced_file_of_several_frames(tmp_path: Path, order: list[int]) -> None:
    source = write_enhanced(tmp_path / "ct.dcm", [3.0 * k for k in order], ways=OBLIQUE)
    path = write(tmp_path / "seg.dcm", read_series(source), source)
    stored = pydicom.dcmread(source)
    read_back = highdicom.seg.segread(path).get_pixels_by_source_frame(
        stored.SOPInstanceUID, range(1, 6), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(read_back, stored.pixel_array)
    found = np.zeros_like(stored.pixel_array)
    for groups, segment, frame in frames_of(path):
        number = int(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber) - 1
        place = stored.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        assert groups.PlanePositionSequence[0].ImagePositionPatient == place
        found[number] += segment * frame
    np.testing.assert_array_equal(found, stored.pixel_array)
    if order != [3, 0, 4, 1, 2]:  # else the file's own order is no stack
        in_file_order = write(tmp_path / "again.dcm", read_image(source), source)
        assert in_file_order.read_bytes() == path.read_bytes()


def test_measures_that_each_frame_repeats_count_as_shared(tmp_path: Path) -> None:
    source = write_enhanced(tmp_path / "ct.dcm", [0.0, 3.0, 6.0])
    dataset = pydicom.dcmread(source)
    groups = dataset.SharedFunctionalGroupsSequence[0]
    for macro in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            setattr(frame, macro, groups[macro].value)
        delattr(groups, macro)
    save(dataset, source)
    path = write(tmp_path / "seg.dcm", read_image(source), source)
    read_back = highdicom.seg.segread(path).get_pixels_by_source_frame(
        dataset.SOPInstanceUID, range(1, 4), combine_segments=True
    )
    np.testing.assert_array_equal(read_back, dataset.pixel_array)


@pytest.mark.slow
def test_real_enhanced_files_of_the_corpus(shared: Path, tmp_path: Path) -> None:
    seen = 0
    for source in sorted((shared / "corpus").rglob("*.dcm")):
        try:
            facts = probe(source)
            if facts.frames < 2 or facts.modality not in ("MR", "CT") or facts.frames * facts.rows > 50_000:
                continue
            image = read_image(source)
        except ReadError:
            continue
        if image.geometry is None:
            continue
        labels = random_labels(*image.pixels.shape[1:], seed=seen)
        path = tmp_path / f"{seen}.dcm"
        write_segmentation(labels, path, image=image, source=source, structures=NAMES)
        uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
        numbers = range(1, len(labels) + 1)
        read_back = highdicom.seg.segread(path).get_pixels_by_source_frame(uid, numbers, combine_segments=True)
        np.testing.assert_array_equal(read_back, labels)
        try:
            other = SimpleITK.ReadImage(str(source))
        except RuntimeError:  # it cannot read some of the encodings
            continue
        dataset = pydicom.dcmread(path)
        for groups, segment, frame in frames_of(path):
            number = int(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber) - 1
            np.testing.assert_array_equal(frame == 1, labels[number] == segment)
            place = other.TransformIndexToPhysicalPoint((0, 0, number))
            np.testing.assert_allclose(frame_corners(dataset, groups)[0], place, rtol=0, atol=1e-3)
        seen += 1
    assert seen >= 3


def test_directions_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(4))
    dataset = pydicom.dcmread(folder / "002.dcm")
    dataset.ImageOrientationPatient = [1.0, 0.00001, 0.0, -0.00001, 1.0, 0.0]
    save(dataset, folder / "002.dcm")
    assert_overlays(write(tmp_path / "seg.dcm", read_image(folder), folder), sorted(folder.iterdir()))


def test_a_slice_that_was_turned_is_turned_back(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", [0.0, 2.0], ways=OBLIQUE)
    source = next(folder.iterdir())
    image = read_image(source)
    assert image.geometry is not None
    (down, across), origin = image.geometry.direction, np.asarray(image.geometry.origin_mm)
    last = origin + np.asarray(across) * 0.5 * (COLUMNS - 1)
    back = tuple(-part for part in across)
    geometry = Geometry(tuple(last.tolist()), (back, down), (0.5, 0.75))  # type: ignore[arg-type]
    turned = replace(image, pixels=image.pixels[:, :, ::-1].transpose(0, 2, 1), geometry=geometry)
    assert_overlays(write(tmp_path / "seg.dcm", turned, source), [source])


def test_one_frame_of_a_capture_without_any_place(tmp_path: Path) -> None:
    source = write_enhanced(tmp_path / "sc.dcm", [0.0, 3.0, 6.0], Modality="OT")
    dataset = pydicom.dcmread(source)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    del dataset.FrameOfReferenceUID, dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    save(dataset, source)
    path = write(tmp_path / "seg.dcm", read_image(source, frame=1), source)
    references = [
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for groups in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    assert references == [2, 2, 2]
    found = sum(k * frame for k, frame in enumerate(pydicom.dcmread(path).pixel_array, start=1))
    np.testing.assert_array_equal(found, dataset.pixel_array[1])


def test_a_single_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", [0.0, 2.0, 4.0], ways=OBLIQUE)
    for number, source in enumerate(sorted(folder.iterdir())):
        image = read_image(source)
        assert_overlays(write(tmp_path / f"{number}.dcm", image, source), [source])
        among = write(tmp_path / "among.dcm", image, folder)  # found by its id
        assert_overlays(among, [source])
        one = image.pixels[0].astype(np.uint8) // 3
        path = write_segmentation(one, tmp_path / "one.dcm", image=image, source=source, structures=("a",))
        assert_overlays(path, [source], labels_of=lambda values: as_labels(values) // 3)
        assert SimpleITK.ReadImage(str(path)).GetSize() == (COLUMNS, ROWS, 1)
        measures = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert "SpacingBetweenSlices" not in measures


def test_one_frame_of_an_enhanced_file_is_referred_to_by_its_number(tmp_path: Path) -> None:
    source = write_enhanced(tmp_path / "ct.dcm", [0.0, 3.0, 6.0, 6.0])  # two frames at one place, as echoes are
    stored = pydicom.dcmread(source)
    for number in range(4):
        image = read_image(source, frame=number)
        path = write(tmp_path / "seg.dcm", image, source)
        read_back = highdicom.seg.segread(path).get_pixels_by_source_frame(
            stored.SOPInstanceUID, [number + 1], combine_segments=True
        )
        np.testing.assert_array_equal(read_back[0], stored.pixel_array[number])
        place = stored.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        for groups, _, _ in frames_of(path):
            assert groups.PlanePositionSequence[0].ImagePositionPatient == place


def test_sizes_that_fill_no_byte(tmp_path: Path) -> None:
    """5 x 9 pixels in 1 bit each: frames begin inside bytes, and the last byte and the even length are filled up."""
    for count in (1, 2, 3):
        values = random_labels(5, 9, seed=count) % (count + 1)
        place = {
            "ImagePositionPatient": [0, 0, 0],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
        }
        source = save(header(values, **place), tmp_path / "ct.dcm")
        path = tmp_path / "seg.dcm"
        image = read_image(source)
        write_segmentation(values, path, image=image, source=source, structures=NAMES[:count])
        dataset = pydicom.dcmread(path)
        uid = dataset.SourceImageSequence[0].ReferencedSOPInstanceUID
        read_back = highdicom.seg.segread(path).get_pixels_by_source_instance([uid], combine_segments=True)
        np.testing.assert_array_equal(read_back[0], values)
        assert len(dataset.PixelData) % 2 == 0
        assert (count * 45 + 7) // 8 % 2 == 0 or dataset.PixelData[-1] == 0


@pytest.mark.parametrize("thickness", [None, 2.0])
def test_an_x_ray_without_a_place(tmp_path: Path, thickness: float | None) -> None:
    values = random_labels(ROWS, COLUMNS)
    elements = {"Modality": "DX", "PixelSpacing": [0.2, 0.3], "PatientOrientation": ["L", "F"]}
    dataset = header(values, SOPClassUID=DigitalXRayImageStorageForPresentation, SliceThickness=thickness, **elements)
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    source = save(dataset, tmp_path / "dx.dcm")
    path = write(tmp_path / "seg.dcm", read_image(source), source)
    read_back = highdicom.seg.segread(path).get_pixels_by_source_instance(
        [dataset.SOPInstanceUID], combine_segments=True
    )
    np.testing.assert_array_equal(read_back[0], values)
    written = pydicom.dcmread(path)
    assert written.PatientOrientation == ["L", "F"]
    assert "FrameOfReferenceUID" not in written
    assert ("PixelMeasuresSequence" in written.SharedFunctionalGroupsSequence[0]) == (thickness is not None)


def test_frames_without_a_voxel_are_left_out_and_every_structure_is_described(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(5))
    image = read_image(folder)
    labels = np.zeros(image.pixels.shape[1:], dtype=np.uint8)
    labels[1, 2, 3], labels[1, 0, 0], labels[3, 6, 7] = 1, 3, 3
    path = write_segmentation(labels, tmp_path / "s.dcm", image=image, source=folder, structures=NAMES)
    dataset = pydicom.dcmread(path)
    assert dataset.NumberOfFrames == 3
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == list(NAMES)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    assert (volume.array == 1).sum() == 1
    assert (volume.array == 3).sum() == 2


def test_a_mask_without_any_voxel_is_a_valid_object_with_all_frames(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(5))
    image = read_image(folder)
    labels = np.zeros(image.pixels.shape[1:], dtype=np.uint8)
    path = write_segmentation(labels, tmp_path / "s.dcm", image=image, source=folder, structures=NAMES[:2])
    frames = frames_of(path)
    assert len(frames) == 5 * 2
    assert not any(frame.any() for _, _, frame in frames)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in sorted(folder.iterdir())]
    read_back = highdicom.seg.segread(path).get_pixels_by_source_instance(uids, combine_segments=True)
    assert read_back.shape == (5, ROWS, COLUMNS)
    assert not read_back.any()


def test_what_the_object_says_about_its_origin(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(3))
    codes = {"liver": ("10200004", "SCT", "Liver"), "tumour": ("108369006", "SCT", "Neoplasm")}
    categories = {
        "liver": ("123037004", "SCT", "Anatomical Structure"),
        "tumour": ("49755003", "SCT", "Morphologically Altered Structure"),
    }
    info = SegmentationInfo("0123456789abcdef", codes=codes, categories=categories)
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", read_image(folder), folder, info=info))
    for item, name in zip(dataset.SegmentSequence, NAMES, strict=True):
        kind, category = item.SegmentedPropertyTypeCodeSequence[0], item.SegmentedPropertyCategoryCodeSequence[0]
        tissue = ("85756007", "SCT", "Tissue")
        assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == codes.get(name, tissue)
        assert (category.CodeValue, category.CodingSchemeDesignator, category.CodeMeaning) == categories.get(
            name, tissue
        )
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == ("AUTOMATIC", "lepton_vision")
        assert algorithm.AlgorithmVersion == __version__
        assert algorithm.AlgorithmParameters == "bundle_id=0123456789abcdef"
    assert (dataset.Modality, dataset.SegmentationType, dataset.BitsAllocated) == ("SEG", "BINARY", 1)
    assert (dataset.Manufacturer, dataset.SoftwareVersions) == ("lepton_vision", __version__)
    other = pydicom.dcmread(write(tmp_path / "o.dcm", read_image(folder), folder))
    assert other.SegmentSequence[0].SegmentAlgorithmName == "not stated"
    manual = SegmentationInfo(algorithm_type="MANUAL")
    drawn = pydicom.dcmread(write(tmp_path / "m.dcm", read_image(folder), folder, info=manual)).SegmentSequence[0]
    assert (drawn.SegmentAlgorithmType, "SegmentAlgorithmName" in drawn) == ("MANUAL", False)


def test_it_is_filed_under_its_patient_and_study(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(3))
    first = pydicom.dcmread(next(folder.iterdir()))
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", read_image(folder), folder))
    for keyword in (*PATIENT, "StudyInstanceUID", "FrameOfReferenceUID"):
        if keyword != "InstitutionName":
            assert str(dataset.get(keyword)) == str(first.get(keyword)), keyword
    assert str(dataset.PatientName) == "Zzyzx^Plänted"
    assert dataset.SeriesInstanceUID != first.SeriesInstanceUID


def test_the_same_input_gives_the_same_bytes_and_another_input_another_object(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(3))
    image, files = read_image(folder), sorted(folder.iterdir())
    info = SegmentationInfo("0123456789abcdef")
    first = write(tmp_path / "a.dcm", image, files, info=info)
    again = write(tmp_path / "b.dcm", image, files, info=info)
    assert first.read_bytes() == again.read_bytes()
    moved = write(tmp_path / "m.dcm", image, files[::-1], info=info)
    assert moved.read_bytes() == first.read_bytes()
    a = pydicom.dcmread(first)
    assert (a.ContentDate, a.ContentTime) == ("20200102", "101112")  # of the study: no other date is there
    labels = image.pixels[0].astype(np.uint8)
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 4
    changed = write_segmentation(labels, tmp_path / "c.dcm", image=image, source=files, structures=NAMES, info=info)
    bundle = write(tmp_path / "d.dcm", image, files, info=SegmentationInfo("fedcba9876543210"))
    later = SegmentationInfo("0123456789abcdef", created=datetime.datetime(2030, 1, 2, 3, 4, 5))
    dated = write(tmp_path / "e.dcm", image, files, info=later)
    others = [pydicom.dcmread(path) for path in (changed, bundle, dated)]
    assert len({str(one.SOPInstanceUID) for one in (a, *others)}) == 4
    assert [str(one.SeriesInstanceUID) == str(a.SeriesInstanceUID) for one in others] == [True, False, True]
    assert (others[2].ContentDate, others[2].ContentTime) == ("20300102", "030405.000000")


def test_headers_with_gaps_and_oddities_are_accepted(tmp_path: Path) -> None:
    gone = ("PatientBirthDate", "AccessionNumber", "StudyDate", "StudyTime", "PatientName", "StudyID")
    folder = write_series(tmp_path / "ct", range(3), SliceThickness=None, **dict.fromkeys(gone))
    path = write(tmp_path / "seg.dcm", read_image(folder), folder)
    assert_overlays(path, sorted(folder.iterdir()))
    dataset = pydicom.dcmread(path)
    assert dataset.ContentDate == "19700101"
    assert float(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 1.0
    odd = write_series(tmp_path / "odd", range(3), PatientSex="U", PatientName="No caret at all")
    dataset = pydicom.dcmread(write(tmp_path / "odd.dcm", read_image(odd), odd))
    assert (dataset.PatientSex, dataset.PatientName) == ("", "No caret at all")


def refused(image: Image, source: Any, *, path: Path, labels: Labels | None = None, **options: Any) -> str:
    given = image.pixels[0].astype(np.uint8) if labels is None else labels
    with pytest.raises(ScoringError) as caught:
        write_segmentation(given, path, image=image, source=source, **{"structures": NAMES, **options})
    assert not path.exists()
    assert not any(part in str(caught.value) for part in ("Zzyzx", "PLANTED", "1.2.826", "/"))
    return str(caught.value)


def test_repaired_series_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    gap = write_series(tmp_path / "gap", [0, 1, 2, 4, 5])
    filled = read_series(gap, gaps="fill")
    assert "missing slices filled" in refused(filled, gap, path=path, labels=np.zeros((6, ROWS, COLUMNS), np.uint8))
    tilted = write_series(tmp_path / "tilt", range(5), drift=0.75)
    sheared = read_series(tilted, tilt="shear")
    zeros = np.zeros(sheared.pixels.shape[1:], np.uint8)
    assert "tilted gantry" in refused(sheared, tilted, path=path, labels=zeros)


def test_images_that_are_not_on_the_grid_of_their_source_are_refused(tmp_path: Path) -> None:
    path, folder = tmp_path / "seg.dcm", write_series(tmp_path / "ct", range(5), ways=OBLIQUE)
    image = read_image(folder)
    assert image.geometry is not None
    coarse = replace(
        image, pixels=image.pixels[..., ::2], geometry=replace(image.geometry, spacing_mm=(1.0, 0.75, 1.0))
    )
    assert "shape (5 x 7 x 4 for 5 x 7 x 8)" in refused(coarse, folder, path=path)
    x, y, z = image.geometry.origin_mm
    moved = replace(image, geometry=replace(image.geometry, origin_mm=(x + 0.3, y, z)))
    assert "position (by 0.300 mm" in refused(moved, folder, path=path)
    assert "no geometry" in refused(replace(image, geometry=None), folder, path=path)
    fewer = sorted(folder.iterdir())[:4]
    assert "source" in refused(image, fewer, path=path)


def test_files_of_another_series_are_refused(tmp_path: Path) -> None:
    path, folder = tmp_path / "seg.dcm", write_series(tmp_path / "ct", range(3))
    other = write_series(tmp_path / "other", range(3))
    assert "another series" in refused(read_image(folder), other, path=path)
    one, another = next(folder.iterdir()), next(other.iterdir())
    assert "another series" in refused(read_image(one), another, path=path)
    several = [*folder.iterdir(), *other.iterdir()]
    with pytest.raises(ReadError) as caught:
        write(path, read_image(folder), several)
    assert caught.value.reason == "several_series"
    chosen = write(path, read_image(folder), several, series=read_image(folder).series_id)
    assert_overlays(chosen, sorted(folder.iterdir()))


def test_sources_without_a_frame_of_reference_or_of_several_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    folder = write_series(tmp_path / "ct", range(3), FrameOfReferenceUID=None)
    assert "Frame of Reference" in refused(read_image(folder), folder, path=path)
    single = next(folder.iterdir())
    assert "Frame of Reference" in refused(read_image(single), single, path=path)
    mixed = write_series(tmp_path / "mixed", range(3))
    dataset = pydicom.dcmread(mixed / "000.dcm")
    dataset.FrameOfReferenceUID = "1.2.3.4"
    save(dataset, mixed / "000.dcm")
    assert "one Frame of Reference" in refused(read_image(mixed), mixed, path=path)


def test_several_enhanced_files_and_retired_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    uids = {"SeriesInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.3.5"}
    for number in range(2):
        write_enhanced(tmp_path / f"ct/{number}.dcm", [3.0 * (2 * k + number) for k in range(2)], **uids)
    assert "2 files of frames" in refused(read_image(tmp_path / "ct"), tmp_path / "ct", path=path)
    retired = write_series(tmp_path / "us", range(3), SOPClassUID="1.2.840.10008.5.1.4.1.1.6")
    assert "not retired" in refused(read_image(retired), retired, path=path)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"labels": np.zeros((3, ROWS, COLUMNS - 1), np.uint8)}, "Expected labels of the image's shape"),
        ({"labels": np.zeros((3, ROWS, COLUMNS), np.int64)}, "Received: int64"),
        ({"labels": np.full((3, ROWS, COLUMNS), 4, np.uint8)}, "Received: 4 in 168 voxels"),
        ({"structures": ("a", "a", "b")}, "2 of them different"),
        ({"structures": "abc"}, "ordered tuple of names"),
        ({"structures": ("a", "b", "c" * 65)}, "1 to 64 characters"),
        ({"structures": ("a", "b", "c\\d")}, "backslash"),
        ({"info": SegmentationInfo(codes={"spleen": ("1", "SCT", "Spleen")})}, "'spleen'"),
        ({"info": SegmentationInfo(codes={"liver": ("1", "SCT")})}, "Received: 2 parts"),  # type: ignore[dict-item]
        ({"info": SegmentationInfo(categories={"liver": ("1" * 17, "SCT", "Liver")})}, "1 to 16 characters"),
        ({"info": SegmentationInfo(algorithm_type="automatic")}, "'automatic'"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    folder = write_series(tmp_path / "ct", range(3))
    assert part in refused(read_image(folder), folder, path=tmp_path / "seg.dcm", **options)


def test_a_wrong_suffix_or_folder_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(3))
    assert "ends in .dcm. Received: .nii" in refused(read_image(folder), folder, path=tmp_path / "seg.nii")
    assert "folder of the mask" in refused(read_image(folder), folder, path=tmp_path / "none" / "seg.dcm")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = write_series(tmp_path / "ct", range(3)), tmp_path / "seg.dcm"
    path.write_bytes(b"old")

    def fail(self: Any, file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("pydicom.dataset.Dataset.save_as", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, read_image(folder), folder)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["seg.dcm"]


def test_no_log_or_warning_holds_patient_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = write_series(
        tmp_path / "ct", range(3), PatientName="Zzyzx without carets"
    )  # highdicom warns of such names
    write(tmp_path / "seg.dcm", read_image(folder), folder)
    assert "Zzyzx" not in caplog.text
    assert str(pydicom.dcmread(folder / "000.dcm").SOPInstanceUID)[:20] not in caplog.text
    assert not [warning for warning in recwarn if "Zzyzx" in str(warning.message)]
