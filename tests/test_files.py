"""Names of files that are made from ids: each stays in its folder, and no two are one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_vision.files import file_name

HOSTILE = [
    "../../../escape", "/etc/passwd", "..", ".", "", ".hidden", "a/b", "a\\b", "C:evil", "nul", "COM1.x", "-rf", "a\0b",
    "a\nb", "x" * 5000, "\ud800", "ends.", "ends ", " starts", "\u202egpj.exe", "a:stream",
]  # fmt: skip


@pytest.mark.parametrize("identifier", ["case-7", "3f2a-0", "Pleural Effusion", "A+B (left)", "Größe_2.5"])
def test_a_plain_identifier_is_its_own_name(identifier: str) -> None:
    assert file_name(identifier) == identifier


@pytest.mark.parametrize("identifier", HOSTILE)
def test_any_other_becomes_a_name_that_stays_in_its_folder(identifier: str, tmp_path: Path) -> None:
    name = file_name(identifier)
    path = tmp_path / f"{name}.png"
    assert path.resolve().parent == tmp_path.resolve()
    path.write_bytes(b"x")
    assert [one.name for one in tmp_path.iterdir()] == [f"{name}.png"]


def test_two_of_them_never_share_one() -> None:
    assert len({file_name(identifier) for identifier in HOSTILE}) == len(HOSTILE)
