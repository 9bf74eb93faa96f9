"""The list of inputs: every file once, in one order, nothing hidden, nothing lost."""

from __future__ import annotations

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
