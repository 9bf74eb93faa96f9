"""Assembly of series written by pydicom: the right volume, or the right reason for refusal.

Every voxel holds a linear function of its place in the patient, so that order, flips, geometry and interpolation are
all checked at once: ``affine`` of the volume must give back the value of each voxel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, EnhancedMRImageStorage, generate_uid

from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.readers.image import probe, read_image
from lepton_vision.readers.series import read_series
from lepton_vision.readers.series_list import group_series
from lepton_vision.readers.stack import Plane, stack_planes
from lepton_vision.types import Geometry, Image, Window

Make = Callable[..., Path]
Array = npt.NDArray[np.float64]

AXIAL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
# Oblique: a rotation of 20 degrees about x, then of 30 degrees about z, by numpy alone.
_A, _B = np.radians(20), np.radians(30)
_X = np.array([[1, 0, 0], [0, np.cos(_A), -np.sin(_A)], [0, np.sin(_A), np.cos(_A)]])
_Z = np.array([[np.cos(_B), -np.sin(_B), 0], [np.sin(_B), np.cos(_B), 0], [0, 0, 1]])
OBLIQUE = (_Z @ _X)[:, :2].T
SPACING = (0.5, 0.75)
ORIGIN = np.array([-20.0, 30.0, 100.0])
ROWS, COLUMNS = 7, 9
GRADIENT = np.array([3.0, -5.0, 7.0])  # of the values, per mm


def values_at(points: Array) -> Array:
    """Value at places (..., 3) [mm]."""
    return points @ GRADIENT + 11.0


def slice_values(position: Array, ways: Array, *, rows: int = ROWS, columns: int = COLUMNS) -> Array:
    h, w = np.mgrid[:rows, :columns][..., None]
    return values_at(position + w * SPACING[1] * ways[0] + h * SPACING[0] * ways[1])


def expected(image: Image) -> Array:
    """What every voxel must hold, by the geometry of the volume."""
    assert image.geometry is not None
    indices = np.moveaxis(np.indices((*image.pixels.shape[1:],)), 0, -1)
    places = np.concatenate([indices, np.ones((*indices.shape[:-1], 1))], axis=-1) @ image.geometry.affine.T
    return values_at(places[..., :3])


@pytest.fixture
def write(make_dicom: Make, tmp_path: Path) -> Callable[..., Path]:
    """Write slices at distances along the normal, under shuffled names, and return their folder."""

    def write_slices(
        distances: Sequence[float],
        *,
        ways: Array = AXIAL,
        drift: Sequence[float] = (0.0, 0.0, 0.0),
        changed: dict[int, dict[str, Any]] | None = None,
        **elements: Any,
    ) -> Path:
        folder = tmp_path / "series"
        folder.mkdir(exist_ok=True)
        common = {"SeriesInstanceUID": generate_uid(), "PixelSpacing": list(SPACING), "SliceThickness": 99.0}
        common |= {"Modality": "MR", "ImageOrientationPatient": ways.ravel().tolist()}
        names = np.random.default_rng(len(distances)).permutation(len(distances))
        for number, distance in enumerate(distances):
            position = ORIGIN + distance * np.cross(*ways) + number * np.asarray(drift)
            own = {"ImagePositionPatient": position.tolist(), "InstanceNumber": int(names[number])}
            given_elements = common | own | elements | (changed or {}).get(number, {})
            rows = given_elements.pop("make_rows", ROWS)
            pixels = slice_values(position, ways, rows=rows).astype(np.float32)
            make_dicom(pixels, name=f"series/{names[number]:03}.dcm", **given_elements)
        return folder

    return write_slices


def refused(folder: Path | Sequence[Path], **options: Any) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read_series(folder, **options)
    if isinstance(folder, Path):
        assert caught.value.path is not None
    assert not any(part in str(caught.value) for part in ("Planted", "PLANTED", "series/", ".dcm", "1.2.826"))
    return caught.value


@pytest.mark.parametrize("ways", [AXIAL, OBLIQUE, -OBLIQUE, AXIAL[::-1]], ids=["axial", "oblique", "turned", "swapped"])
def test_slices_are_sorted_by_position_whatever_they_are_called(write: Callable[..., Path], ways: Array) -> None:
    distances = [2.5 * k for k in range(6)]
    image = read_image(write(distances, ways=ways, WindowCenter="40", WindowWidth="400"))
    assert (image.pixels.shape, image.pixels.dtype) == ((1, 6, ROWS, COLUMNS), np.float32)
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    assert image.spacing_mm == pytest.approx((2.5, *SPACING))  # not the slice thickness
    assert image.geometry is not None
    assert image.geometry.spacing_mm == image.spacing_mm
    np.testing.assert_allclose(image.geometry.origin_mm, ORIGIN, atol=1e-9)
    np.testing.assert_allclose(image.geometry.direction, [np.cross(*ways), ways[1], ways[0]], atol=1e-12)
    assert image.window == Window(40, 400)
    assert (image.facts["frames"], image.facts["slices"], image.facts["slices_filled"]) == (6, 6, 0)


def test_ids_are_pseudonymous_and_those_of_the_slices(write: Callable[..., Path], secrets: dict[str, str]) -> None:
    folder = write([0, 1, 2])
    image, facts = read_series(folder), probe(folder / "000.dcm")
    assert (image.series_id, image.study_id is None) == (facts.series_id, False)
    assert image.patient_id == facts.patient_id
    assert image.image_id not in ("", image.series_id, facts.image_id)
    assert read_series(sorted(folder.iterdir())[::-1]).image_id == image.image_id
    assert not any(secret in repr(image) for secret in secrets.values())


def test_each_slice_has_its_own_rescale_and_the_range_of_all(write: Callable[..., Path]) -> None:
    folder = write([0, 1, 2], Modality="CT", RescaleIntercept="0", changed={1: {"RescaleSlope": "2"}})
    image = read_series(folder)
    plain = expected(image)
    np.testing.assert_allclose(image.pixels[0, 1], 2 * plain[1], rtol=1e-6)
    np.testing.assert_allclose(image.pixels[0, ::2], plain[::2], rtol=1e-6)
    assert image.units == "HU"
    assert image.value_range == pytest.approx((image.pixels.min(), image.pixels.max()))


def test_files_beside_the_slices_do_not_count(write: Callable[..., Path]) -> None:
    folder = write([0, 1, 2])
    (folder / "LICENSE").write_text("a letter\n" * 50)
    (folder / ".hidden").write_bytes(b"")
    report = dcmread(folder / "000.dcm")
    del report.FloatPixelData, report.Rows
    report.SOPClassUID = BasicTextSRStorage
    report.save_as(folder / "report.dcm")
    assert read_series(folder).pixels.shape[1] == 3


def test_a_damaged_slice_is_an_error_with_its_path(write: Callable[..., Path]) -> None:
    folder = write([0, 1, 2])
    path = folder / "001.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    error = refused(folder)
    assert (error.reason, error.path) == ("truncated", path)
    path.write_bytes(b"")
    assert refused(folder).reason == "empty"


@pytest.mark.parametrize("distance", [0, 2])
def test_a_slice_that_ends_before_its_pixels_is_no_file_beside_the_others(
    write: Callable[..., Path], distance: int
) -> None:
    folder = write([0, 1, 2])
    (path,) = (one for one in folder.iterdir() if dcmread(one).ImagePositionPatient[2] == ORIGIN[2] + distance)
    cut = dcmread(path)
    del cut.FloatPixelData
    cut.save_as(path)  # at an end of the series no gap would tell
    error = refused(folder)
    assert (error.reason, error.path) == ("truncated", path)
    with pytest.raises(ReadError, match="pixel data of an image, which the header promises"):  # the file alone too
        read_image(path)
    (found,), others = group_series(sorted(folder.iterdir()))
    assert (found.damaged, others) == ((path,), [path])


@pytest.mark.parametrize("element", [b"\x28\x00\x10\x00", b"\x20\x00\x32\x00"], ids=["rows", "position"])
def test_a_slice_that_ends_in_its_header_is_one_too(write: Callable[..., Path], element: bytes) -> None:
    folder = write([0, 1, 2])
    path = folder / "000.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(element)])
    error = refused(folder)
    assert (error.reason, error.path) == ("truncated", path)


def test_nothing_one_slice_and_no_dicom_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").reason == "no_slices"
    assert refused([]).reason == "no_slices"
    assert refused(tmp_path / "nothing").reason == "missing"
    assert refused(write([0])).reason == "one_slice"
    (tmp_path / "letter").write_text("a letter\n" * 50)
    assert refused([tmp_path / "letter"]).reason == "not_an_image"


def test_several_series_are_counted_and_one_can_be_chosen(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write([0, 1, 2])
    (folder / "deeper").mkdir()
    for path in list(folder.glob("*.dcm")):
        path.rename(folder / "deeper" / path.name)
    write([5, 6, 7, 8])
    error = refused(folder)
    assert error.reason == "several_series"
    assert "2 series" in str(error)
    wanted = probe(folder / "000.dcm").series_id
    assert wanted is not None
    assert f"{wanted} (4)" in str(error)
    image = read_series(folder, series=wanted)
    assert (image.series_id, image.pixels.shape[1]) == (wanted, 4)
    assert refused(folder, series="0" * 16).reason == "no_slices"


def test_missing_slices_are_refused_or_interpolated_where_asked(write: Callable[..., Path]) -> None:
    folder = write([0, 2.5, 5, 12.5, 15, 20], ways=OBLIQUE)  # 7.5, 10 and 17.5 are missing
    error = refused(folder)
    assert error.reason == "missing_slices"
    assert "3 missing at 2 place(s)" in str(error)
    image = read_series(folder, gaps="fill")
    assert image.pixels.shape[1] == 9
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    assert (image.facts["slices"], image.facts["slices_filled"]) == (6, 3)
    assert image.spacing_mm == pytest.approx((2.5, *SPACING))


def test_more_slices_are_never_invented_than_there_are(write: Callable[..., Path]) -> None:
    assert refused(write([0, 1, 2, 7]), gaps="fill").reason == "missing_slices"


def test_uneven_steps_that_are_no_gap_are_refused(write: Callable[..., Path]) -> None:
    assert refused(write([0, 1, 2.4, 3.4]), gaps="fill").reason == "geometry"


def test_rounded_positions_are_no_gap(write: Callable[..., Path]) -> None:
    image = read_series(write([0, 0.6, 1.3, 1.9, 2.5]))  # 0.625, 1.25, 1.875
    assert image.spacing_mm == pytest.approx((0.625, *SPACING))


@pytest.mark.parametrize(("distances", "text"), [
    ([0, 0, 2, 2, 4, 4], "each of 3 positions 2 times: time points, echoes"), ([0, 2, 2, 4], "1 of 3 positions more"),
])  # fmt: skip
def test_duplicate_positions_say_what_they_may_be(
    write: Callable[..., Path], distances: list[float], text: str
) -> None:
    error = refused(write(distances))
    assert error.reason == "duplicate_position"
    assert text in str(error)


def test_slices_side_by_side_are_no_volume(write: Callable[..., Path]) -> None:
    assert refused(write([0, 0, 0], drift=(5.0, 0.0, 0.0))).reason == "geometry"


@pytest.mark.parametrize("drift", [(0.0, 0.8, 0.0), (-0.3, -0.9, 0.0), (0.4, 0.0, 0.0)])
def test_a_tilted_gantry_is_refused_or_straightened_where_asked(
    write: Callable[..., Path], drift: tuple[float, float, float]
) -> None:
    folder = write([0, 2, 4, 6, 8], drift=drift)
    error = refused(folder)
    angle = np.degrees(np.arctan(np.hypot(*drift[:2]) / 2))
    assert error.reason == "tilt"
    assert f"{angle:.1f} degrees" in str(error)
    image = read_series(folder, tilt="shear")
    wanted = expected(image)
    rows = ROWS + int(np.ceil(round(abs(drift[1]) * 4 / SPACING[0], 6)))
    columns = COLUMNS + int(np.ceil(round(abs(drift[0]) * 4 / SPACING[1], 6)))
    assert image.pixels.shape == (1, 5, rows, columns)
    smallest = min(float(read_image(path).pixels.min()) for path in folder.iterdir())
    margin = np.isclose(image.pixels[0], image.pixels.min()) & ~np.isclose(wanted, image.pixels.min(), atol=1e-3)
    np.testing.assert_allclose(image.pixels[0][~margin], wanted[~margin], atol=2e-3)
    assert image.pixels.min() >= smallest - 1e-3
    # Each slice keeps its pixels, less one row and one column where it falls between those of the canvas.
    assert ((~margin).sum(axis=(1, 2)) >= (ROWS - 1) * (COLUMNS - 1)).all()
    assert image.facts["tilt_degrees"] == pytest.approx(angle, abs=1e-3)
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.direction[0], [0, 0, 1], atol=1e-12)
    assert image.spacing_mm == pytest.approx((2.0, *SPACING))


def test_a_tilted_series_with_a_gap_needs_both_choices(write: Callable[..., Path]) -> None:
    folder = write([0, 2, 4, 6, 8], drift=(0.0, 0.5, 0.0))
    next(path for path in folder.iterdir() if dcmread(path).ImagePositionPatient[2] == 104.0).unlink()
    assert refused(folder, tilt="shear").reason == "missing_slices"
    assert refused(folder, gaps="fill").reason == "tilt"
    image = read_series(folder, gaps="fill", tilt="shear")
    rows = slice(4, ROWS)  # covered by every slice
    np.testing.assert_allclose(image.pixels[0, :, rows], expected(image)[:, rows], atol=2e-3)


def test_slices_that_wander_are_refused(write: Callable[..., Path]) -> None:
    moved = {2: {"ImagePositionPatient": (ORIGIN + np.array([3.0, 0.0, 4.0])).tolist()}}
    error = refused(write([0, 2, 4, 6], changed=moved), tilt="shear")
    assert error.reason == "geometry"
    assert "straight line" in str(error)


@pytest.mark.parametrize("change", [
    {"make_rows": ROWS + 1}, {"PixelSpacing": [0.5, 0.76]}, {"PhotometricInterpretation": "MONOCHROME1"},
    {"ImageOrientationPatient": [1, 0, 0, 0, 0.99, 0.141]}, {"Modality": "CT"}, {"PatientID": "another"},
    {"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "HU"},
])  # fmt: skip
def test_mixed_slices_are_refused(write: Callable[..., Path], change: dict[str, Any]) -> None:
    assert refused(write([0, 1, 2, 3], changed={2: change})).reason == "mixed_slices"


def test_monochrome1_is_turned_the_same_way_in_every_slice(write: Callable[..., Path]) -> None:
    header = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "MR"}
    assert refused(write([0, 1, 2], **header)).reason == "mixed_slices"  # float slices: a range of its own each


@pytest.mark.parametrize("change", [
    {"ImagePositionPatient": None}, {"ImageOrientationPatient": None}, {"PixelSpacing": None},
    {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
    {"ImagePositionPatient": [0, 0, 1e300]}, {"PixelSpacing": [1e-300, 1e-300]}, {"PixelSpacing": [0, 0]},
    {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
])  # fmt: skip
def test_a_slice_without_a_place_is_never_guessed(write: Callable[..., Path], change: dict[str, Any]) -> None:
    error = refused(write([0, 1, 2, 3], changed={1: change}))
    assert error.reason == "no_position"
    assert "1 of 4 slices" in str(error)


def test_a_distance_at_the_detector_is_none_in_the_patient(write: Callable[..., Path]) -> None:
    assert refused(write([0, 1, 2], PixelSpacing=None, ImagerPixelSpacing=list(SPACING))).reason == "no_position"


def test_a_localizer_among_the_slices_is_left_out_with_a_word(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    folder = write([0, 1, 2, 3], changed={0: scout})
    assert read_series(folder).pixels.shape[1] == 3
    assert "Left out of the series: localizer: 1." in caplog.text
    scout_file = next(path for path in folder.iterdir() if "LOCALIZER" in dcmread(path).get("ImageType", ()))
    slices = [path for path in folder.iterdir() if path != scout_file]
    assert refused([scout_file, slices[0]]).reason == "localizer"  # one slice is no series


def test_an_unknown_choice_is_a_configuration_error(tmp_path: Path) -> None:
    for options in ({"gaps": "skip"}, {"tilt": "yes"}):
        with pytest.raises(ConfigError) as caught:
            read_series(tmp_path, **options)  # type: ignore[arg-type]
        assert caught.value.key == next(iter(options))


def test_the_cap_counts_the_whole_volume(write: Callable[..., Path]) -> None:
    from lepton_vision.readers.limits import Limits

    folder = write([0, 1, 2])
    assert refused(folder, limits=Limits(max_pixels=3 * ROWS * COLUMNS - 1)).reason == "too_large"
    assert read_series(folder, limits=Limits(max_pixels=3 * ROWS * COLUMNS)).is_volume


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(make_dicom: Make, distances: Sequence[float], *, ways: Array = OBLIQUE, name: str = "e.dcm") -> Path:
    """One enhanced MR file, frames in the order given."""
    positions = [ORIGIN + distance * np.cross(*ways) for distance in distances]
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=place.tolist())]) for place in positions]
    measures = item(PixelSpacing=list(SPACING), SliceThickness=99.0, SpacingBetweenSlices=77.0)
    shared = item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[item(ImageOrientationPatient=ways.ravel().tolist())],
    )
    return make_dicom(
        np.stack([slice_values(place, ways) for place in positions]).astype(np.float32),
        name=name, SOPClassUID=EnhancedMRImageStorage, Modality="MR",
        PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip


def test_frames_of_an_enhanced_file_are_sorted_by_the_series_reader(make_dicom: Make) -> None:
    path = enhanced(make_dicom, [5.0, 0.0, 7.5, 2.5])
    image = read_series(path)
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    np.testing.assert_allclose(image.geometry.origin_mm, ORIGIN, atol=1e-9)  # type: ignore[union-attr]
    assert image.spacing_mm == pytest.approx((2.5, *SPACING))  # not Spacing Between Slices
    whole = read_image(path)
    assert whole.geometry is None  # in the file's own order the frames form no regular stack
    one = read_image(path, frame=2)
    assert one.geometry is not None
    np.testing.assert_allclose(one.geometry.origin_mm, ORIGIN + 7.5 * np.cross(*OBLIQUE), atol=1e-9)
    assert one.geometry.spacing_mm == one.spacing_mm == SPACING


@pytest.mark.parametrize("distances", [[0.0, 2.5, 5.0], [5.0, 2.5, 0.0]])
def test_an_enhanced_file_in_order_has_a_geometry_of_its_own(make_dicom: Make, distances: list[float]) -> None:
    image = read_image(enhanced(make_dicom, distances))
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    assert image.spacing_mm == pytest.approx((2.5, *SPACING))


def test_enhanced_files_of_one_series_are_pooled(make_dicom: Make, tmp_path: Path) -> None:
    paths = [enhanced(make_dicom, [6.0, 2.0], name="a.dcm"), enhanced(make_dicom, [4.0, 0.0], name="b.dcm")]
    uid = generate_uid()
    for path in paths:
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = uid
        dataset.save_as(path)
    image = read_series(paths)
    assert image.pixels.shape[1] == 4
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)


@pytest.mark.parametrize(("distances", "text"), [
    ([0, 3, 6, 9, 13.5], "step 4 of 4 (the last) is 4.500 mm, where 3.000 mm is usual"),
    ([0, 3, 6, 9, 10.5], "step 4 of 4 (the last) is 1.500 mm"), ([0, 4.5, 7.5, 10.5, 13.5], "step 1 of 4 is 4.500 mm"),
])  # fmt: skip
def test_an_uneven_step_at_an_end_is_told_and_interpolated_where_asked(
    write: Callable[..., Path], distances: list[float], text: str
) -> None:
    folder = write(distances, ways=OBLIQUE)
    error = refused(folder)
    assert error.reason == "geometry"
    assert text in str(error)
    image = read_series(folder, gaps="fill")
    assert image.spacing_mm == pytest.approx((3.0, *SPACING))
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    inside = int(distances[-1] / 3.0 + 1e-6) + 1 if distances[1] == 3 else 5
    assert image.pixels.shape[1] == inside
    assert image.facts["slices_off_grid"] == 1


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("ways", [OBLIQUE, -OBLIQUE, OBLIQUE[::-1]])
def test_an_oblique_series_of_rounded_orientation_lies_where_its_positions_say(
    write: Callable[..., Path], ways: Array, digits: int
) -> None:
    steps = 3.0 * np.arange(40)
    places = [np.round(ORIGIN + step * np.cross(*ways), 2).tolist() for step in steps]
    changed = {k: {"ImagePositionPatient": place} for k, place in enumerate(places)}
    image = read_series(
        write(steps, ways=ways, changed=changed, ImageOrientationPatient=np.round(ways, digits).ravel().tolist())
    )
    assert image.geometry is not None
    direction = np.asarray(image.geometry.direction)
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(direction[0], np.cross(*ways), atol=2e-4)  # of 0.01 mm over 117 mm
    np.testing.assert_allclose(direction[1:], ways[::-1], atol=10.0**-digits)
    by_positions = np.linalg.norm(np.subtract(places[-1], places[0])) / 39
    assert image.spacing_mm == pytest.approx((by_positions, *SPACING))
    last = image.geometry.plane(39).origin_mm
    np.testing.assert_allclose(last, places[-1], atol=0.02)


def test_a_tilt_that_no_rounding_explains_is_refused(write: Callable[..., Path]) -> None:
    tilted = np.round(OBLIQUE, 2).ravel().tolist()
    error = refused(write([0, 3, 6, 9], ways=OBLIQUE, drift=(0.0, 0.3, 0.0), ImageOrientationPatient=tilted))
    assert error.reason == "tilt"
    assert " mm aside" in str(error)
    assert refused(write([0, 3, 6, 9], drift=(0.0, 0.03, 0.0))).reason == "tilt"  # along the axes nothing is rounded


@pytest.mark.parametrize("degrees", [0, 15])
def test_padding_is_never_mixed_with_tissue(make_dicom: Make, tmp_path: Path, degrees: int) -> None:
    """Tissue of 50 HU and padding of -2000: no repair may give anything else."""
    angle = np.radians(degrees)
    for number, z in enumerate((0.0, 5.0, 10.0, 20.0, 25.0)):
        pixels = np.full((12, 9), 50, np.int16)
        pixels[: 2 + number % 2], pixels[:, -2:] = -2000, -2000
        make_dicom(
            pixels, name=f"{number}.dcm", RescaleSlope="1", RescaleIntercept="0", PixelPaddingValue=-2000,
            SeriesInstanceUID="1.2.3", ImagePositionPatient=[0, 0, z], PixelSpacing=[1, 1],
            ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), np.sin(angle)],
        )  # fmt: skip
    image = read_series(tmp_path, gaps="fill", tilt="shear")
    assert image.facts["slices_filled"] == 1
    assert bool(image.facts["tilt_degrees"]) == bool(degrees)
    assert set(np.unique(image.pixels)) == {-2000.0, 50.0}


def test_repeated_frames_are_refused(make_dicom: Make) -> None:
    assert refused(enhanced(make_dicom, [0, 2, 0, 2])).reason == "duplicate_position"


def test_frames_without_places_are_refused(make_dicom: Make) -> None:
    path = make_dicom(
        np.zeros((3, 4, 4), np.uint8), PixelSpacing=list(SPACING), ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=AXIAL.ravel().tolist(),
    )  # fmt: skip
    assert refused(path).reason == "no_position"
    assert read_image(path).geometry is None


@pytest.mark.parametrize("offsets", [[0, 2.5, 5], [ORIGIN[2], ORIGIN[2] - 2.5, ORIGIN[2] - 5]])
def test_dose_planes_lie_along_the_normal_or_at_their_z(make_dicom: Make, offsets: list[float]) -> None:
    """PS3.3 C.8.8.3.2: offsets from the first plane, or z coordinates where the first one is not 0."""
    ways = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # the normal points to the feet
    pixels = np.stack([slice_values(ORIGIN - [0, 0, distance], ways) for distance in (0, 2.5, 5)])
    path = make_dicom(
        pixels.astype(np.float32), Modality="RTDOSE", PixelSpacing=list(SPACING), GridFrameOffsetVector=offsets,
        ImagePositionPatient=ORIGIN.tolist(), ImageOrientationPatient=ways.ravel().tolist(),
    )  # fmt: skip
    for image in (read_image(path), read_series(path)):
        np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
        assert image.spacing_mm == pytest.approx((2.5, *SPACING))


def test_one_slice_lies_where_its_header_says(make_dicom: Make) -> None:
    pixels = slice_values(ORIGIN, OBLIQUE).astype(np.float32)
    header = {"PixelSpacing": list(SPACING), "ImageOrientationPatient": OBLIQUE.ravel().tolist()}
    image = read_image(make_dicom(pixels, ImagePositionPatient=ORIGIN.tolist(), **header))
    np.testing.assert_allclose(image.pixels[0], expected(image), atol=1e-3)
    assert read_image(make_dicom(pixels, **header)).geometry is None


@given(order=st.permutations(range(7)), missing=st.sets(st.integers(1, 5), max_size=2), step=st.floats(0.01, 20.0))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stack_does_not_depend_on_the_order_of_the_slices(order: list[int], missing: set[int], step: float) -> None:
    # Distances 0 to 6 steps; a lone pair of neighbours always stays, so that the step is known.
    kept = [k for k in order if k not in missing]
    if not any(k + 1 in kept for k in kept):
        return
    ways = (tuple(OBLIQUE[1].tolist()), tuple(OBLIQUE[0].tolist()))
    normal = np.cross(*OBLIQUE)
    planes = [
        Plane(4, 4, position_mm=tuple((ORIGIN + k * step * normal).tolist()), orientation=ways, spacing_mm=(1.0, 1.0))
        for k in kept
    ]
    stack = stack_planes(planes, gaps="fill")
    assert [kept[k] for k in stack.order] == sorted(kept) == list(stack.places)
    assert stack.geometry.spacing_mm[0] == pytest.approx(step, rel=1e-6)


def test_a_plane_of_a_volume_and_bad_geometry() -> None:
    whole = Geometry((1.0, 2.0, 3.0), ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)), (2.0, 0.5, 0.25))
    assert whole.orientation == "RPI"
    assert whole.plane(3) == Geometry((1.0, 2.0, -3.0), whole.direction[1:], (0.5, 0.25))
    np.testing.assert_array_equal(whole.plane(3).affine, whole.affine @ [[0, 0, 3], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    for direction, spacing in (
        (whole.direction[:2], (1.0, 1.0, 1.0)),
        (((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.6, 0.8)), (1.0, 1.0, 1.0)),
        ((whole.direction[0], whole.direction[0], whole.direction[2]), (1.0, 1.0, 1.0)),
        (whole.direction, (1.0, 0.0, 1.0)),
        (whole.direction, (1.0, float("nan"), 1.0)),
    ):
        with pytest.raises(ValueError, match="Expected"):
            Geometry((0.0, 0.0, 0.0), direction, spacing)


def test_inspect_shows_the_facts_of_a_series(write: Callable[..., Path], secrets: dict[str, str]) -> None:
    facts = inspect_path(write([0, 2.5, 5], ways=OBLIQUE))
    assert (facts["kind"], facts["shape"], facts["orientation"]) == ("series", [1, 3, ROWS, COLUMNS], "LPS")
    assert facts["spacing_mm"] == pytest.approx((2.5, *SPACING))
    assert facts["slices"] == 3
    text = json.dumps(facts, default=str)
    assert not any(secret in text for secret in secrets.values())
