"""Series among files: read from their own files as from their folder, and listed by their headers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from lepton_vision.errors import ReadError
from lepton_vision.pipeline.facts import list_series
from lepton_vision.readers import read_image, series
from lepton_vision.readers.series_list import FoundSeries, describe_found, group_series, read_found
from tests.scoring.dicom_series import OBLIQUE, PATIENT, SPACING, header, save, write_enhanced, write_series


def find(folder: Path) -> list[FoundSeries]:
    return group_series(sorted(path for path in folder.rglob("*") if path.is_file()))[0]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series in one folder, one of which reaches into a folder below, and an enhanced file."""
    for number, path in enumerate(sorted(write_series(tmp_path / "a", [0, 2, 4, 6, 8]).iterdir())):
        place = tmp_path / "a" / ("0" if number % 2 else "") / f"first-{number}.dcm"
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
    write_series(tmp_path / "a", [0, 3, 6], ways=OBLIQUE)
    write_enhanced(tmp_path / "e" / "e.dcm", [0, 1, 2, 3])
    return tmp_path


def test_a_series_read_from_its_files_is_that_read_from_its_folder(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(study)
    assert sorted(len(one.files) for one in found) == [1, 3, 5]
    expected = [read_image(one.folder, member=one.series_id) for one in found]
    opened = list[Path]()
    original = series.open_content
    monkeypatch.setattr(series, "open_content", lambda path, **rest: (opened.append(path), original(path, **rest))[1])
    for one, image in zip(found, expected, strict=True):
        opened.clear()
        again = read_found(one)
        assert np.array_equal(again.pixels, image.pixels)
        assert (again.geometry, again.image_id, again.facts) == (image.geometry, image.image_id, image.facts)
        assert set(opened) == set(one.files)  # not those of its neighbours


@pytest.mark.parametrize("bits", [None, 12])
def test_a_damaged_file_beside_the_slices_may_be_one_of_them(study: Path, bits: int | None) -> None:
    damaged = study / "a" / "damaged.dcm"
    damaged.write_bytes(b"")
    if bits is not None:
        save(header(np.zeros((7, 8)), BitsAllocated=bits), damaged)
    (study / "a" / "note.txt").write_text("no slice, whatever happened to it")
    found = find(study)
    for one in found:
        is_beside = one.folder.name == "a"
        assert [path.name for path in one.damaged] == (["damaged.dcm"] if is_beside else [])
        if not is_beside:
            assert read_found(one).pixels.shape[1] == 4
            continue
        with pytest.raises(ReadError) as by_folder:
            read_image(one.folder, member=one.series_id)
        with pytest.raises(ReadError) as by_files:
            read_found(one)
        assert by_files.value.reason == by_folder.value.reason == describe_found(one).reason
        assert describe_found(one).slices in (3, 5)


def test_the_list_says_what_simpleitk_says_and_names_nobody(study: Path) -> None:
    (study / "note.txt").write_text("no image")
    write_series(study / "gap", [0, 1, 4, 5])
    write_series(study / "single", [0])
    listed = list_series(study)
    lines = {line["series"]: line for line in listed["series"]}
    assert (listed["kind"], listed["other_files"], len(lines)) == ("folder", 1, 5)
    assert all(line["modality"] == "CT" for line in lines.values())
    for one in find(study):
        line = lines[one.series_id]
        if one.folder.name in ("gap", "single"):
            wanted = ("missing_slices", 4) if one.folder.name == "gap" else ("one_slice", 1)
            assert (line["reason"], line["slices"]) == wanted
            assert "size" not in line
            continue
        if len(one.files) > 1:
            reader = SimpleITK.ImageSeriesReader()
            names = [str(path) for path in one.files]
            names.sort(key=lambda name: SimpleITK.ReadImage(name).GetOrigin()[2])
            reader.SetFileNames(names)
            volume = reader.Execute()
            assert line["size"] == " x ".join(map(str, volume.GetSize()[::-1]))
            np.testing.assert_allclose([float(mm) for mm in line["spacing_mm"].split(" x ")], volume.GetSpacing()[::-1])
        else:
            assert line["spacing_mm"] == f"1 x {SPACING[0]} x {SPACING[1]}"
        assert "reason" not in line
    text = json.dumps(listed)
    assert not [value for value in PATIENT.values() if len(value) > 2 and value in text]
    assert str(study) not in text


def test_a_list_of_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="Expected a folder"):
        list_series(tmp_path / "gone")
