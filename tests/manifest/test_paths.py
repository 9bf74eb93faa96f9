"""Paths of label tables: whole folder names, never another folder's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_vision.errors import ManifestError
from lepton_vision.manifest.paths import match_paths


def matched(files: list[str], texts: list[str], *, root: str = "somewhere/img") -> list[str | None]:
    found = match_paths({name: [row] for row, name in enumerate(files)}, texts, root=Path(root))
    return [files[rows[0]] if rows else None for rows in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x/a0.png", "x/a0.png"),
        ("./x/a0.png", "x/a0.png"),
        ("x\\a0.png", "x/a0.png"),
        ("C:\\data\\x\\a0.png", "x/a0.png"),
        ("/mnt/study/x/a0.png", "x/a0.png"),
        ("a0.png", "x/a0.png"),
        ("a0", "x/a0.png"),
        ("x/a0", "x/a0.png"),
        ("scan", "z/scan.nii.gz"),
        ("z/scan", "z/scan.nii.gz"),
        ("1.2.840.1", "z/1.2.840.1.dcm"),
        ("y/a0.png", None),
        ("data/y/a0.png", None),
        ("xx/a0.png", None),
        ("X/A0.PNG", None),
        ("x/a0.jpg", None),
        ("png", None),
        ("", None),
    ],
)
def test_one_path(text: str, expected: str | None) -> None:
    assert matched(["x/a0.png", "x/a1.png", "z/scan.nii.gz", "z/1.2.840.1.dcm"], [text]) == [expected]


def test_the_same_letters_in_another_form_of_unicode_are_one_name() -> None:
    assert matched(["Mu\u0308ller.png"], ["M\u00fcller.png"]) == ["Mu\u0308ller.png"]


def test_the_name_of_the_scanned_folder_decides_between_folders() -> None:
    files = ["a0.png", "a1.png"]
    assert matched(files, ["x/a0.png", "y/a0.png", "y/a1.png"], root="data/x") == ["a0.png", None, None]
    assert matched(files, ["D:/s/x/a1.png", "/mnt/x/a0.png"], root="data/x") == ["a1.png", "a0.png"]
    deep = ["p1/a.png"]
    assert matched(deep, ["site1/p1/a.png", "site2/p1/a.png"], root="site2") == [None, "p1/a.png"]


def test_a_folder_under_another_name_is_known_where_rows_agree_in_it() -> None:
    assert matched(["a0.png", "a1.png"], ["old/a0.png", "old/a1.png"]) == ["a0.png", "a1.png"]
    with pytest.raises(ManifestError, match=r"Row 1 .* different folders") as caught:
        matched(["a0.png", "a1.png"], ["x/a0.png", "y/a1.png"])
    assert caught.value.row == 1
    with pytest.raises(ManifestError, match="different folders"):
        matched(["p1/a.png"], ["site1/p1/a.png", "site2/p1/a.png"])


def test_a_file_beside_the_folders_is_not_that_of_a_folder() -> None:
    assert matched(["a0.png", "x/a0.png"], ["x/a0.png", "y/a0.png"]) == ["x/a0.png", None]
    assert matched(["a0.png", "x/a0.png"], ["x/a0.png", "a0.png"]) == ["x/a0.png", "a0.png"]


def test_a_row_goes_to_the_longest_path_that_it_ends_with() -> None:
    assert matched(["a.png", "x/a.png"], ["C:/d/x/a.png"]) == ["x/a.png"]


def test_several_files_for_one_row_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"Row 0 .* occurs 2 times"):
        matched(["x/a.png", "y/a.png"], ["a.png"])
    with pytest.raises(ManifestError, match=r"Row 0 .* occurs 2 times"):
        matched(["x/a.png", "x/a.jpg"], ["x/a"])
