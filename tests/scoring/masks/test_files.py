"""A written mask has every voxel where its image has it, as SimpleITK, nibabel and Pillow read it back."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from PIL import Image as Pillow

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.readers import read_image, read_series, reorient
from lepton_vision.scoring import export_mask, write_mask
from lepton_vision.types import Geometry, Image
from tests.scoring.dicom_series import AXIAL, OBLIQUE, random_labels, write_enhanced, write_series

NAMES = ("a", "b", "c")
OBLIQUE_AFFINE = np.array([[0.0, -1.6, 0.0, 30.0], [0.3, 0.0, -1.6, -20.0], [0.4, 0.0, 1.2, 5.0], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def _quiet_oracle() -> None:
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()


def labels_for(image: Image, seed: int = 0) -> npt.NDArray[np.uint8]:
    return random_labels(*image.pixels.shape[1:], seed=seed)


def by_itk(folder: Path) -> SimpleITK.Image:
    """The series in the order that GDCM finds."""
    (uid,) = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def some_voxels(size: tuple[int, ...], count: int = 200) -> Iterator[tuple[int, ...]]:
    """Indices of all corners, and others at random."""
    yield from product(*((0, n - 1) for n in size))
    rng = np.random.default_rng(0)
    yield from (tuple(int(rng.integers(0, n)) for n in size) for _ in range(count))


def assert_on_source(mask: Path, source: SimpleITK.Image, labels_of: Any) -> None:
    """Each voxel of the source finds its label in the mask, at the same place in the patient."""
    written = SimpleITK.ReadImage(str(mask))
    values, expected = SimpleITK.GetArrayFromImage(written), labels_of(SimpleITK.GetArrayFromImage(source))
    assert values.size == expected.size
    assert values.any()
    for index in some_voxels(source.GetSize()):
        place = source.TransformIndexToPhysicalPoint(index)
        there = written.TransformPhysicalPointToContinuousIndex(place)
        np.testing.assert_allclose(there, np.rint(there), atol=1e-2)
        found = tuple(round(part) for part in there)
        assert all(0 <= part < size for part, size in zip(found, written.GetSize(), strict=True))
        assert values[found[::-1]] == expected[index[::-1]]


@pytest.mark.parametrize("ways", [AXIAL, OBLIQUE, -OBLIQUE, AXIAL[::-1]], ids=["axial", "oblique", "turned", "swapped"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("axes", ["", "RAS", "PSL"])
def test_nifti_of_a_series(tmp_path: Path, ways: npt.NDArray[Any], order: int, axes: str) -> None:
    folder = write_series(tmp_path / "ct", [2.5 * k for k in range(6)][::order], ways=ways)
    image = read_image(folder)
    image = reorient(image, axes) if axes else image
    labels = image.pixels[0].astype(np.uint8)  # the pixels of these series are labels
    mask = write_mask(labels, tmp_path / "m.nii.gz", image=image, structures=NAMES)
    assert_on_source(mask, by_itk(folder), lambda values: values)
    loaded = nibabel.load(mask)
    assert loaded.get_data_dtype() == np.uint8
    assert (int(loaded.header["qform_code"]), int(loaded.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(loaded.get_qform(), loaded.get_sform(), atol=1e-4)
    assert image.geometry is not None
    for index in some_voxels(labels.shape, 20):  # LPS to RAS: x and y change sign
        ras = loaded.affine @ [*index[::-1], 1]
        np.testing.assert_allclose(ras, image.geometry.affine @ [*index, 1] * [-1, -1, 1, 1], atol=1e-4)
    again = read_image(mask)
    np.testing.assert_array_equal(again.pixels[0], labels)


def test_nifti_of_a_real_series(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mr-dicom-t1-pddl" / "dicoms"
    image = read_image(folder)
    labels = (image.pixels[0].astype(np.int64) * 7 % 11 % 4).astype(np.uint8)
    mask = write_mask(labels, tmp_path / "m.nii.gz", image=image, structures=NAMES, source=folder)
    assert_on_source(mask, by_itk(folder), lambda values: values.astype(np.int64) * 7 % 11 % 4)
    turned = reorient(image, "RAS")
    labels = (turned.pixels[0].astype(np.int64) * 7 % 11 % 4).astype(np.uint8)
    mask = write_mask(labels, tmp_path / "t.nii", image=turned, structures=NAMES)
    assert_on_source(mask, by_itk(folder), lambda values: values.astype(np.int64) * 7 % 11 % 4)


def nifti(path: Path, values: npt.NDArray[Any], *, kind: type = nibabel.Nifti1Image, **forms: Any) -> Path:
    image = kind(values, None)
    image.header.set_xyzt_units(forms.get("unit", "mm"))
    for name in ("sform", "qform"):
        affine = forms.get(name)
        getattr(image, f"set_{name}")(affine, code=0 if affine is None else forms.get("code", 2))
    image.to_filename(path)
    return path


SHEARED = np.array([[1.0, 0.4, 0, 3], [0, 1, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
THIRDS = np.array([[-1 / 3, 0, 0, 100 / 7], [0, 0, 0.7, -1 / 9], [0, 1.1, 0, 1e-3], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    "forms",
    [
        {"sform": OBLIQUE_AFFINE},
        {"qform": OBLIQUE_AFFINE},
        {"sform": THIRDS, "code": 4},
        {"sform": OBLIQUE_AFFINE, "unit": "meter"},
        {"sform": SHEARED},
        {},
        {"sform": THIRDS, "qform": OBLIQUE_AFFINE},
        {"sform": THIRDS, "kind": nibabel.Nifti2Image},
    ],
    ids=["sform", "qform", "thirds", "meter", "sheared", "none", "both", "nifti2"],
)
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 1), (5, 4, 1), (5, 4)])
def test_a_nifti_source_gets_its_own_affine_shape_and_axes(
    tmp_path: Path, forms: dict[str, Any], shape: tuple[int, ...]
) -> None:
    values = random_labels(*shape)
    source = nifti(tmp_path / "s.nii.gz", values.astype(np.float32) * 10, **forms)
    image = read_image(source)
    labels = (image.pixels[0] / 10).astype(np.uint8)
    mask = write_mask(labels, tmp_path / "m.nii.gz", image=image, structures=NAMES, source=source)
    first, second = nibabel.load(source), nibabel.load(mask)
    assert type(second) is type(first)
    np.testing.assert_array_equal(np.asarray(second.dataobj), values)
    np.testing.assert_array_equal(second.affine, first.affine)
    for name in ("sform_code", "qform_code", "pixdim", "xyzt_units", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(second.header[name], first.header[name])
    again = read_image(mask)
    assert again.geometry == image.geometry
    if image.geometry is not None and image.is_volume:
        turned = reorient(image, "LPS")
        labels = (turned.pixels[0] / 10).astype(np.uint8)
        write_mask(labels, mask, image=turned, structures=NAMES, source=source)
        np.testing.assert_array_equal(np.asarray(nibabel.load(mask).dataobj), values)


def test_nifti_data_set(shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "data" / "msd-hippocampus").rglob("*.nii*"))[::40]
    assert len(files) >= 5
    for source in files:
        image = read_image(source)
        labels = (image.pixels[0].astype(np.int64) * 7 % 11 % 4).astype(np.uint8)
        for given in (None, source):
            mask = write_mask(labels, tmp_path / "m.nii.gz", image=image, structures=NAMES, source=given)
            other = SimpleITK.ReadImage(str(source))
            assert_on_source(mask, other, lambda values: values.astype(np.int64) * 7 % 11 % 4)
            np.testing.assert_array_equal(nibabel.load(mask).affine, nibabel.load(source).affine)
            assert nibabel.load(mask).shape == nibabel.load(source).shape


def test_nifti_of_a_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", [0, 2.5], ways=OBLIQUE, SliceThickness=2.0)
    source = next(folder.iterdir())
    image = read_image(source)
    mask = write_mask(image.pixels[0].astype(np.uint8), tmp_path / "m.nii", image=image, structures=NAMES)
    assert_on_source(mask, SimpleITK.ReadImage(str(source)), lambda values: values)
    loaded = nibabel.load(mask)
    assert loaded.shape == (8, 7, 1)
    assert loaded.header.get_zooms() == pytest.approx((0.5, 0.75, 2.0))
    assert np.linalg.det(loaded.affine[:3, :3]) > 0
    volume = write_series(tmp_path / "v", [0, 2.5, 5.0])
    nifti_source = write_mask(
        labels_for(read_image(volume)), tmp_path / "v.nii", image=read_image(volume), structures=NAMES
    )
    frame = read_image(nifti_source, frame=1)
    labels = frame.pixels[0].astype(np.uint8)
    mask = write_mask(labels, tmp_path / "f.nii", image=frame, structures=NAMES, source=nifti_source)
    np.testing.assert_array_equal(np.asarray(nibabel.load(mask).dataobj)[:, :, 0], labels.T)
    np.testing.assert_allclose(
        nibabel.load(mask).affine @ [1, 2, 0, 1], nibabel.load(nifti_source).affine @ [1, 2, 1, 1], atol=1e-4
    )


@pytest.mark.parametrize("spacing", [(0.5, 0.7), (2.0, 0.5, 0.7)])
def test_without_a_place_the_affine_is_the_spacing_and_the_codes_say_so(
    tmp_path: Path, spacing: tuple[float, ...]
) -> None:
    shape = (3, 4, 5)[-len(spacing) :]
    image = Image(np.zeros((1, *shape), np.float32), spacing_mm=spacing)
    labels = labels_for(image)
    loaded = nibabel.load(write_mask(labels, tmp_path / "m.nii.gz", image=image, structures=NAMES))
    assert (int(loaded.header["qform_code"]), int(loaded.header["sform_code"])) == (0, 0)
    steps = (*spacing[::-1], 1.0)[:3]
    np.testing.assert_allclose(loaded.header.get_sform(), np.diag([*steps, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(loaded.header.get_zooms(), steps, rtol=1e-6)
    again = read_image(tmp_path / "m.nii.gz")
    assert again.geometry is None
    np.testing.assert_allclose(again.spacing_mm, spacing, rtol=1e-6)
    np.testing.assert_array_equal(again.pixels[0], labels)
    itk = SimpleITK.ReadImage(str(tmp_path / "m.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk).squeeze(), labels)


def test_png_comes_back_as_it_was(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 6, 9), np.float32))
    names = tuple(f"s{k}" for k in range(255))
    labels = np.random.default_rng(0).integers(0, 256, (6, 9)).astype(np.uint8)
    path = write_mask(labels, tmp_path / "m.png", image=image, structures=names)
    with Pillow.open(path) as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), labels)
    np.testing.assert_array_equal(read_image(path).pixels[0], labels)


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 3, 4, 5), np.float32), spacing_mm=(1.0, 1.0, 1.0))
    labels = labels_for(image)
    first = write_mask(labels, tmp_path / "a.nii.gz", image=image, structures=NAMES)
    second = write_mask(labels, tmp_path / "b.nii.gz", image=image, structures=NAMES)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4)  # no time of writing (RFC 1952)
    plain = write_mask(labels, tmp_path / "a.nii", image=image, structures=NAMES)
    assert gzip.decompress(first.read_bytes()) == plain.read_bytes()


PLACED = Image(
    np.zeros((1, 3, 4, 5), np.float32),
    spacing_mm=(2.0, 1.0, 1.0),
    geometry=Geometry((0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (2.0, 1.0, 1.0)),
)
GOOD = random_labels(3, 4, 5)


@pytest.mark.parametrize(
    ("name", "changes", "part"),
    [
        ("m.png", {}, "A PNG holds one slice"),
        ("m.jpg", {}, "Expected a mask file that ends in .png, .nii.gz, .nii, .dcm. Received: .jpg."),
        ("mask", {}, "Received: no suffix."),
        ("none/m.nii", {}, "folder of the mask file"),
        ("m.dcm", {}, "Received: no source"),
        ("m.nii", {"labels": GOOD[:2]}, r"Expected labels of the image's shape (3, 4, 5). Received: (2, 4, 5)"),
        ("m.nii", {"labels": GOOD[0]}, "Received: (4, 5)"),
        ("m.nii", {"labels": GOOD.astype(np.float32)}, "Received: float32"),
        ("m.nii", {"labels": GOOD > 1}, "Received: bool"),
        ("m.nii", {"labels": GOOD.tolist()}, "Received: list"),
        ("m.nii", {"structures": ("a", "b")}, "Expected labels from 0 to 2"),
        ("m.nii", {"structures": ()}, "Received: 0, 0 of them"),
        ("m.nii", {"structures": ("a", "b", " ")}, "ordered tuple of names"),
        ("m.nii", {"structures": tuple(map(str, range(256)))}, "Expected 1 to 255"),
        ("m.nii", {"image": replace(PLACED, geometry=None, spacing_mm=None)}, "Received: neither"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, changes: dict[str, Any], part: str
) -> None:
    given = {"labels": GOOD, "image": PLACED, "structures": NAMES} | changes
    with pytest.raises(ScoringError) as caught:
        write_mask(given.pop("labels"), tmp_path / name, **given)
    assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_nifti_source_that_the_image_was_not_read_from_is_refused(tmp_path: Path) -> None:
    moved = OBLIQUE_AFFINE.copy()
    moved[0, 3] += 0.4
    source = nifti(tmp_path / "s.nii", random_labels(5, 4, 3), sform=OBLIQUE_AFFINE)
    other = nifti(tmp_path / "o.nii", random_labels(5, 4, 3), sform=moved)
    placeless = nifti(tmp_path / "p.nii", random_labels(5, 4, 3))
    image = read_image(source)
    for given, part in ((other, "position (by 0.400 mm"), (placeless, "place where the source has none")):
        with pytest.raises(ScoringError) as caught:
            write_mask(labels_for(image), tmp_path / "m.nii", image=image, structures=NAMES, source=given)
        assert part in str(caught.value)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.nii"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mask(GOOD, path, image=PLACED, structures=NAMES)
    assert [file.name for file in tmp_path.iterdir()] == ["m.nii"]
    assert path.read_bytes() == b"old"


def export(mask: Path, out: Path, source: Path, **options: Any) -> Any:
    return export_mask(mask, out, source=source, **{"structures": {"a": [1], "b": [2], "c": [3]}, **options})


def test_a_mask_of_another_axis_order_is_turned_onto_its_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", [2.5 * k for k in range(5)], ways=OBLIQUE)
    for axes in ("LPS", "RAS", "SAL"):
        image = reorient(read_image(folder), axes)
        mask = write_mask(image.pixels[0].astype(np.uint8), tmp_path / "m.nii.gz", image=image, structures=NAMES)
        result = export(mask, tmp_path / "m.dcm", folder)
        again = export(tmp_path / "m.nii.gz", tmp_path / "again.nii", folder)
        assert_on_source(again.path, by_itk(folder), lambda values: values)
        counts = np.bincount(image.pixels.astype(int).ravel())
        assert result.to_dict()["labels"] == {"a": 1, "b": 2, "c": 3}
        assert list(result.voxels.values()) == counts[1:].tolist()
        straight = write_mask(
            read_image(folder).pixels[0].astype(np.uint8),
            tmp_path / "s.dcm",
            image=read_image(folder),
            structures=NAMES,
            source=folder,
        )
        assert straight.read_bytes() == result.path.read_bytes()


def test_a_mask_that_simpleitk_wrote_lies_on_its_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", [2.5 * k for k in range(5)], ways=OBLIQUE)
    SimpleITK.WriteImage(by_itk(folder), str(tmp_path / "m.nii.gz"))
    for suffix in (".nii.gz", ".dcm"):
        export(tmp_path / "m.nii.gz", tmp_path / f"o{suffix}", folder)
    assert_on_source(tmp_path / "o.nii.gz", by_itk(folder), lambda values: values)


def test_values_become_labels_in_the_order_of_the_names(tmp_path: Path) -> None:
    values = np.array([[0, 4, 2], [1, 1, 0]], np.uint8)
    for name in ("m.png", "s.png"):
        Pillow.fromarray(values).save(tmp_path / name)
    structures = {"core": [4], "rest": [1, 2]}
    result = export(tmp_path / "m.png", tmp_path / "o.png", tmp_path / "s.png", structures=structures)
    np.testing.assert_array_equal(read_image(result.path).pixels[0], [[0, 1, 2], [2, 2, 0]])
    assert result.to_dict() == {
        "mask": str(tmp_path / "o.png"),
        "labels": {"core": 1, "rest": 2},
        "voxels": {"core": 1, "rest": 3},
    }


def test_png_and_npz_masks_take_the_order_of_the_image(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", range(4))
    image = read_image(folder)
    np.savez(tmp_path / "m.npz", mask=image.pixels.astype(np.uint8))
    export(tmp_path / "m.npz", tmp_path / "o.nii", folder)
    assert_on_source(tmp_path / "o.nii", by_itk(folder), lambda values: values)
    single = next(folder.iterdir())
    Pillow.fromarray(read_image(single).pixels[0].astype(np.uint8)).save(tmp_path / "m.png")
    export(tmp_path / "m.png", tmp_path / "s.nii", single)
    assert_on_source(tmp_path / "s.nii", SimpleITK.ReadImage(str(single)), lambda values: values)


def test_one_series_of_several_and_an_enhanced_file(tmp_path: Path) -> None:
    first = write_series(tmp_path / "all" / "a", range(4))
    write_series(tmp_path / "all" / "b", range(5))
    image = read_image(first)
    mask = write_mask(image.pixels[0].astype(np.uint8), tmp_path / "m.nii", image=image, structures=NAMES)
    with pytest.raises(ReadError, match="Expected one series"):
        export(mask, tmp_path / "o.dcm", tmp_path / "all")
    export(mask, tmp_path / "o.dcm", tmp_path / "all", series=image.series_id)
    export(mask, tmp_path / "p.dcm", first)
    assert (tmp_path / "o.dcm").read_bytes() == (tmp_path / "p.dcm").read_bytes()
    source = write_enhanced(tmp_path / "e.dcm", [6.0, 3.0, 0.0])
    image = read_series(source)
    mask = write_mask(image.pixels[0].astype(np.uint8), tmp_path / "m.nii", image=image, structures=NAMES)
    export(mask, tmp_path / "e-seg.dcm", source)
    read = read_image(source)
    write_mask(read.pixels[0].astype(np.uint8), tmp_path / "d.dcm", image=read, structures=NAMES, source=source)
    assert (tmp_path / "e-seg.dcm").read_bytes() == (tmp_path / "d.dcm").read_bytes()


def changed_affine(**changes: Any) -> npt.NDArray[np.float64]:
    affine = OBLIQUE_AFFINE.copy()
    if "shift" in changes:
        affine[:3, 3] += changes["shift"]
    if "scale" in changes:
        affine[:3, 0] *= changes["scale"]
    if "degrees" in changes:
        a = np.radians(changes["degrees"])
        affine[:3, :3] = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] @ affine[:3, :3]
    return affine


@pytest.mark.parametrize(
    ("shape", "forms", "part"),
    [
        ((5, 4, 4), {"sform": OBLIQUE_AFFINE}, "differs in shape (4 x 4 x 5 for 3 x 4 x 5)"),
        ((5, 4, 3), {"sform": changed_affine(shift=[0.0, 0.0, 0.2])}, "differs in position (by 0.200 mm"),
        ((5, 4, 3), {"sform": changed_affine(shift=[0.0, -2.0, 0.0])}, "differs in position (by 2.000 mm"),
        (
            (5, 4, 3),
            {"sform": changed_affine(scale=1.1)},
            "differs in spacing (2 x 1.6 x 0.55 mm for 2 x 1.6 x 0.5 mm)",
        ),
        ((5, 4, 3), {"sform": changed_affine(degrees=3.0)}, "differs in orientation (by 0.302 mm, 0.604 voxels)"),
        ((5, 4, 3), {"sform": changed_affine(scale=-1.0)}, "differs in position"),
        ((5, 4, 3), {}, "Expected a mask that says where it lies"),
        ((5, 4, 1), {"sform": OBLIQUE_AFFINE}, "Expected a mask of 3 axes. Received: one of 2."),
    ],
)
def test_a_mask_on_another_grid_is_refused_and_the_message_says_in_what(
    tmp_path: Path, shape: tuple[int, ...], forms: dict[str, Any], part: str
) -> None:
    source = nifti(tmp_path / "s.nii", random_labels(5, 4, 3), sform=OBLIQUE_AFFINE)
    mask = nifti(tmp_path / "m.nii", random_labels(*shape), **forms)
    with pytest.raises(ScoringError) as caught:
        export(mask, tmp_path / "o.nii", source)
    assert part in str(caught.value)
    assert not (tmp_path / "o.nii").exists()


@pytest.mark.parametrize("affine", [changed_affine(shift=[0.0, 0.0, 0.02]), changed_affine(scale=1.00001)])
def test_rounding_of_headers_is_no_other_grid(tmp_path: Path, affine: npt.NDArray[np.float64]) -> None:
    source = nifti(tmp_path / "s.nii", random_labels(5, 4, 3), sform=OBLIQUE_AFFINE)
    mask = nifti(tmp_path / "m.nii", random_labels(5, 4, 3), sform=affine)
    export(mask, tmp_path / "o.nii", source)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "o.nii").affine, nibabel.load(source).affine)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "o.nii").dataobj), random_labels(5, 4, 3))


def test_without_any_place_shape_and_spacing_decide(tmp_path: Path) -> None:
    source = nifti(tmp_path / "s.nii", random_labels(5, 4, 3))
    same = nifti(tmp_path / "m.nii", random_labels(5, 4, 3, seed=1))
    export(same, tmp_path / "o.nii", source)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "o.nii").dataobj), random_labels(5, 4, 3, seed=1))
    wrong = nifti(tmp_path / "w.nii", random_labels(4, 5, 3))
    with pytest.raises(ScoringError, match=r"shape of its source, 3 x 4 x 5\. Received: 3 x 5 x 4"):
        export(wrong, tmp_path / "o.nii", source)
    stretched = nifti(tmp_path / "z.nii", random_labels(5, 4, 3), sform=np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(ScoringError, match=r"spacing of its source, 1 x 1 x 1 mm\. Received: 2 x 1 x 1 mm"):
        export(stretched, tmp_path / "o.nii", source)


@pytest.mark.parametrize(
    ("values", "structures", "part"),
    [
        (np.array([[0.0, 0.5]], np.float32), {"a": [1]}, "Received: 0.5, in all 1 voxels without a name"),
        (np.array([[1.0, 7.0]], np.float32), {"a": [1]}, "Received: 7"),
        (np.array([[1.0, 2.0]], np.float32), {"a": [1, 2], "b": [2]}, "cannot overlap"),
        (np.array([[1.0, 0.0]], np.float32), {"a": [1], "b": [0]}, "0 under none"),
    ],
)
def test_values_without_a_name_or_with_two_are_refused(
    tmp_path: Path, values: npt.NDArray[Any], structures: dict[str, list[int]], part: str
) -> None:
    mask = nifti(tmp_path / "m.nii", values)
    with pytest.raises(ScoringError) as caught:
        export(mask, tmp_path / "o.nii", mask, structures=structures)
    assert part in str(caught.value)


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    Pillow.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(tmp_path / "m.png")
    with pytest.raises(ScoringError, match="Received: 3 channels"):
        export(tmp_path / "m.png", tmp_path / "o.png", tmp_path / "m.png")


def test_the_mask_of_a_file_of_components_lies_on_its_grid_without_them(tmp_path: Path) -> None:
    affine = np.array([[0.0, -2.0, 0.0, 5.0], [1.0, 0.0, 0.0, 6.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    source = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.stack([labels, labels], axis=-1).astype(np.int16), affine), source)
    image = read_image(source, member="t1,t2")
    parts = {"image": image, "source": source, "structures": ("a", "b")}
    write_mask(image.pixels[0].astype(np.uint8), tmp_path / "mask.nii.gz", **parts)
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), labels)
    assert np.allclose(mask.affine, affine)
