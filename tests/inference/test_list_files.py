"""List of input files: every file once, in a fixed order, nothing hidden and nothing lost."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from lepton_vision.inference.samples import list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.dcm", "a/1.dcm", "a/3.png", ".hidden/4.dcm", "a/.DS_Store", "out/part-000000.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_folders_are_walked_in_order_without_hidden_files_and_the_output(folder: Path) -> None:
    found = list_files(folder, leave_out=folder / "out")
    assert [path.relative_to(folder).as_posix() for path in found] == ["a/1.dcm", "a/3.png", "b/2.dcm"]


def test_a_file_named_twice_counts_once_and_a_missing_one_stays(folder: Path) -> None:
    found = list_files([folder / "a" / "1.dcm", folder / "a", folder / "b" / ".." / "a" / "1.dcm", folder / "gone.dcm"])
    assert [path.name for path in found] == ["1.dcm", "3.png", "gone.dcm"]


def test_the_list_is_a_sequence_of_paths_with_any_name(tmp_path: Path) -> None:
    names = sorted([os.fsdecode(b"bad-\xff.dcm"), "Müller.dcm", "plain.dcm"])
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = list_files(tmp_path)
    assert list(found) == [tmp_path / name for name in names]
    assert (len(found), found[-1], found[1:]) == (3, tmp_path / names[2], [tmp_path / name for name in names[1:]])
    assert tmp_path / names[1] in found
    with pytest.raises(IndexError):
        found[3]


def test_a_folder_inside_another_does_not_repeat_its_files(folder: Path) -> None:
    found = list_files([folder / "b", folder], leave_out=folder / "out")
    assert [path.relative_to(folder).as_posix() for path in found] == ["b/2.dcm", "a/1.dcm", "a/3.png"]


def test_a_long_list_is_small(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:06d}.dcm").touch()
    list_files(tmp_path)
    tracemalloc.start()
    found = list_files(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    for path in found:
        path.as_posix()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    per_file = len(str(tmp_path)) + 60  # a Path object alone takes 300 bytes and more
    assert held < 2000 * per_file
    assert after - held < 2000 * 10  # and looking at a path keeps nothing


def test_several_folders_are_left_out(folder: Path) -> None:
    (folder / "masks").mkdir()
    (folder / "masks" / "1.png").write_bytes(b"")
    found = list_files(folder, leave_out=[folder / "out", folder / "masks"])
    assert {path.parent.name for path in found}.isdisjoint({"out", "masks"})
    assert len(found) == len(list_files(folder, leave_out=folder / "out")) - 1


def test_masks_of_a_folder_are_no_images_and_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("images/c.png", "masks/c.png"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"x")
    found = list_files(folder, leave_out=folder / "out")
    assert [path.name for path in found] == ["1.dcm", "3.png", "2.dcm", "c.png"]
    assert "1 files are masks of images by their names" in caplog.text
    assert len(list_files(folder, leave_out=folder / "out", include=["mask_file"])) == 5
    assert len(list_files(folder / "masks")) == 1
