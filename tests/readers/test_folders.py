"""Walking folders: links, circles and folders that cannot be entered, against what ``find`` and a hand count give."""

from __future__ import annotations

import glob
import os
import subprocess
from pathlib import Path

import pytest

from lepton_vision.readers.folders import match_paths, walk_folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four files; links to a folder outside (twice), to one inside, to a folder above, to nothing and to itself."""
    top = tmp_path / "in"
    for name in ("in/plain.dcm", "in/z/1.dcm", "in/z/y/2.dcm", "archive/p2/a.dcm", "in/.hidden/b.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    links = {"in/a_link": "../archive/p2", "in/b_link": "z", "in/z/loop": "..", "in/z/again": "../../archive/p2"}
    for name, target in (links | {"in/self": "self", "in/broken": "nowhere"}).items():
        (tmp_path / name).symlink_to(target)
    return top


def below(top: Path, paths: list[str]) -> list[str]:
    return [Path(path).relative_to(top).as_posix() for path in paths]


def test_links_are_followed_each_folder_once_by_its_own_name(tree: Path) -> None:
    found = list(walk_folder(tree))
    assert below(tree, found) == ["broken", "plain.dcm", "self", "z/1.dcm", "z/y/2.dcm", "a_link/a.dcm"]
    listed = subprocess.run(
        ["find", "-L", str(tree), "-name", "*.dcm", "-not", "-path", "*/.*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert {os.path.realpath(one) for one in found if one.endswith(".dcm")} == {os.path.realpath(one) for one in listed}


def test_a_link_may_be_the_folder_that_is_named_and_folders_are_left_out_by_any_way(tree: Path) -> None:
    assert below(tree, list(walk_folder(tree / "a_link"))) == ["a_link/a.dcm"]
    left = below(tree, list(walk_folder(tree, leave_out=[tree.parent / "archive" / "p2", tree / "z" / "y"])))
    assert left == ["broken", "plain.dcm", "self", "z/1.dcm"]
    seen: set[tuple[int, int] | str] = set()
    assert len(list(walk_folder(tree / "z", seen=seen))) + len(list(walk_folder(tree, seen=seen))) == 6


def test_a_folder_that_cannot_be_listed_is_given_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(tree / "z" / "y", monkeypatch)
    assert below(tree, list(walk_folder(tree)))[-1] == "z/y"
    told: list[OSError] = []
    assert str(tree / "z" / "y") not in list(walk_folder(tree, on_error=told.append))
    assert [error.filename for error in told] == [str(tree / "z" / "y")]
    assert str(tree / "z" / "y") in match_paths(f"{tree}/**/*.dcm")


def test_patterns_of_any_depth_end_in_circles_and_find_what_glob_finds_without_them(tree: Path) -> None:
    assert below(tree, match_paths(f"{tree}/**/*.dcm")) == ["a_link/a.dcm", "plain.dcm", "z/1.dcm", "z/y/2.dcm"]
    for link in ("z/loop", "z/again", "a_link", "b_link", "self", "broken"):
        (tree / link).unlink()
    for pattern in ("**", "**/*.dcm", "**/y/**", "z/**/*", "*/*.dcm", "**/z", "[yz]/**/2.dcm", "**/q*"):
        expected = [path.rstrip("/") for path in glob.glob(f"{tree}/{pattern}", recursive=True)]  # noqa: PTH207
        assert match_paths(f"{tree}/{pattern}") == sorted(expected), pattern


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse to list a folder: tests may run as a user whom no permission stops."""
    original = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
