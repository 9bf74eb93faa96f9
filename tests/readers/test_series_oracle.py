"""Real series and NIfTI files: pixels and positions against SimpleITK and nibabel.

SimpleITK inverts MONOCHROME1 and scales 1-bit pixels to 255; no file compared here is MONOCHROME1, and 1-bit
segmentations are compared after division.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import probe, read_image
from lepton_vision.readers.series import read_series
from lepton_vision.types import Image


@pytest.fixture(autouse=True)
def _quiet_oracle() -> None:
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()


def sorted_by_itk(paths: list[Path]) -> SimpleITK.Image:
    """The series as SimpleITK reads it, in GDCM's own order."""
    folder = str(paths[0].parent)
    wanted = {str(path) for path in paths}
    for uid in SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(folder):
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder, uid)
        if set(names) == wanted:
            return SimpleITK.ReadImage(names)
    raise ValueError("GDCM groups these files otherwise")


def assert_equal_places(image: Image, other: SimpleITK.Image) -> None:
    assert image.geometry is not None
    # SimpleITK's matrix has a column per axis, W first.
    direction = np.array(other.GetDirection()).reshape(3, 3).T[::-1]
    np.testing.assert_allclose(image.geometry.direction, direction, rtol=0, atol=1e-6)
    np.testing.assert_allclose(image.geometry.origin_mm, other.GetOrigin(), rtol=0, atol=1e-6)
    # SimpleITK takes the distance along the line of positions, not along the normal: rounded headers differ by 4e-5.
    np.testing.assert_allclose(image.geometry.spacing_mm, other.GetSpacing()[::-1], rtol=0, atol=1e-4)
    assert image.spacing_mm == image.geometry.spacing_mm
    last = [size - 1 for size in other.GetSize()]
    ours = image.geometry.affine @ [*last[::-1], 1]
    np.testing.assert_allclose(ours[:3], other.TransformIndexToPhysicalPoint(last), rtol=0, atol=1e-3)


def assert_equal(image: Image, other: SimpleITK.Image) -> None:
    values: npt.NDArray[np.float32] = SimpleITK.GetArrayFromImage(other).astype(np.float32)
    np.testing.assert_array_equal(image.pixels[0], values)
    assert_equal_places(image, other)


def test_a_real_mr_series(shared: Path) -> None:
    folder = shared / "data" / "mr-dicom-t1-pddl" / "dicoms"
    image = read_image(folder)
    paths = [path for path in sorted(folder.iterdir()) if path.suffix == ".dcm"]
    assert_equal(image, sorted_by_itk(paths))
    assert image.pixels.shape == (1, 96, 384, 274)
    # Without every third slice from 10 to 40: the slices that are there stay as they were, the places as well.
    gone = range(10, 41, 3)
    kept = [path for number, path in enumerate(paths) if number not in gone]
    with pytest.raises(ReadError, match=rf"{len(gone)} missing at {len(gone)} place"):
        read_series(kept)
    filled = read_series(kept, gaps="fill")
    assert filled.geometry is not None
    np.testing.assert_allclose(filled.geometry.affine, image.geometry.affine, atol=1e-6)  # type: ignore[union-attr]
    for number in range(96):
        if number in gone:
            mean = (image.pixels[:, number - 1] + image.pixels[:, number + 1]) / 2
            np.testing.assert_allclose(filled.pixels[:, number], mean, rtol=1e-6)
        else:
            np.testing.assert_array_equal(filled.pixels[:, number], image.pixels[:, number])


def series_of(folder: Path) -> dict[tuple[Path, str | None], list[Path]]:
    groups: dict[tuple[Path, str | None], list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                facts = probe(path)
            except ReadError:
                continue
            if facts.source_format == "dicom" and facts.frames == 1:
                groups[path.parent, facts.series_id].append(path)
    return {key: paths for key, paths in groups.items() if len(paths) > 1}


@pytest.mark.slow
def test_every_series_of_the_corpus(corpus: Path) -> None:
    seen: Counter[str] = Counter()
    for paths in series_of(corpus).values():
        try:
            image = read_series(paths)
        except ReadError as error:
            seen[error.reason] += 1
            continue
        assert_equal(image, sorted_by_itk(paths))
        seen["equal"] += 1
    assert seen["equal"] == 3
    for reason, least in (("missing_slices", 2), ("localizer", 1), ("mixed_slices", 3), ("duplicate_position", 2)):
        assert seen[reason] >= least, reason
    assert seen["no_position"] >= 10
    assert seen["geometry"] == seen["tilt"] == 0


# What SimpleITK 2.5 cannot read at all.
NOT_BY_ITK = ("deflate", "j2k", "liver_nonbyte_aligned_rle", "liver_rle", "fragmented_no_bot_jpeg_ls")


@pytest.mark.slow
def test_every_file_of_several_frames_in_the_corpus(corpus: Path) -> None:
    """In the file's own order as SimpleITK; sorted, the same voxels at the same places."""
    seen: Counter[str] = Counter()
    for path in sorted(corpus.rglob("*.dcm")):
        try:
            if probe(path).frames < 2:
                continue
            volume = read_series(path)
        except ReadError as error:
            seen[error.reason] += 1
            continue
        image = read_image(path)
        if image.geometry is None:
            seen["unordered"] += 1
            continue
        if any(part in path.name for part in NOT_BY_ITK) and not path.name.startswith("CT0012.not_"):
            seen["not by SimpleITK"] += 1
            continue
        other = SimpleITK.ReadImage(str(path))
        if image.modality == "SEG":
            other = SimpleITK.Cast(other, SimpleITK.sitkFloat32) / max(1.0, 255.0 / image.value_range[1])
        if path.name != "rtdose_expb.dcm":  # GDCM reads its 32-bit big-endian pixels in the wrong byte order
            theirs = SimpleITK.GetArrayFromImage(other).astype(np.float32).ravel()
            # Of single bits GDCM unpacks whole bytes: the pixels of a last, part one hold what was in memory.
            whole = theirs.size - (theirs.size % 8 if image.modality == "SEG" else 0)
            np.testing.assert_array_equal(image.pixels[0].ravel()[:whole], theirs[:whole])
        assert_equal_places(image, other)
        assert volume.geometry is not None
        is_turned = not np.allclose(volume.geometry.direction[0], image.geometry.direction[0])
        np.testing.assert_array_equal(volume.pixels, image.pixels[:, ::-1] if is_turned else image.pixels)
        seen["turned" if is_turned else "equal"] += 1
    assert seen["equal"] >= 14
    assert seen["turned"] >= 5
    assert seen["unordered"] == 0
    assert seen["no_position"] >= 30


def test_enhanced_mr_of_the_corpus_with_two_echoes(corpus: Path) -> None:
    path = next(corpus.rglob("IM_0027_fMAP.dcm"))
    with pytest.raises(ReadError, match=r"a series of 2 .*-type1 \(32\), \w+-type2 \(32\)") as caught:
        read_image(path.parent)
    parts = re.findall(r"\w+-type\d", str(caught.value))
    assert [read_image(path.parent, member=part).pixels.shape[1] for part in parts] == [32, 32]


def test_single_slices_lie_where_simpleitk_has_them(corpus: Path) -> None:
    folder = next(corpus.rglob("MR700"))
    seen = 0
    for path in sorted(folder.iterdir()):
        image = read_image(path)
        other = SimpleITK.ReadImage(str(path))
        assert image.geometry is not None
        direction = np.array(other.GetDirection()).reshape(3, 3).T[:2][::-1]
        np.testing.assert_allclose(image.geometry.direction, direction, rtol=0, atol=1e-5)
        np.testing.assert_allclose(image.geometry.origin_mm, other.GetOrigin(), rtol=0, atol=1e-6)
        assert image.geometry.spacing_mm == pytest.approx(other.GetSpacing()[1::-1])
        seen += 1
    assert seen == 7


def test_slices_of_pydicom_itself() -> None:
    """A series that is always there: pydicom ships it."""
    folder = next((Path(pydicom.__file__).parent / "data").rglob("CT5N"))
    paths = sorted(folder.iterdir())
    assert_equal(read_image(folder), sorted_by_itk(paths))


def test_nifti_data_set(shared: Path) -> None:
    files = sorted((shared / "data" / "msd-hippocampus").rglob("*.nii*"))[::25]
    assert len(files) >= 8
    for path in files:
        image = read_image(path)
        assert_equal(image, SimpleITK.ReadImage(str(path)))
        assert image.geometry is not None
        axes = "".join(nibabel.aff2axcodes(nibabel.load(path).affine))
        assert image.geometry.orientation == image.facts["orientation"] == axes
