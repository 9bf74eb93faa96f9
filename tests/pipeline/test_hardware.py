"""Hardware and folders of this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from lepton_vision.pipeline import hardware


def test_memory_and_cores_are_those_of_the_system() -> None:
    total, free = hardware.memory_gb()
    assert 0 < free <= total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 + 0.1
    assert 1 <= hardware.cores() <= (os.cpu_count() or 1)
    assert hardware.processor()


def test_a_container_limits_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    assert hardware.cores() == 1
    assert hardware.memory_gb() == (0.25, 0.125)
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert hardware.memory_gb()[0] > 0.25


def test_room_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    assert hardware.existing(deep) == tmp_path
    assert hardware.free_gb(deep) > 0
    assert hardware.is_writable(deep)
    assert hardware.size_gb(deep) == 0
    (tmp_path / "f").write_bytes(bytes(2**20))
    assert math.isclose(hardware.size_gb(tmp_path), 2**-10)


def test_a_shown_path_names_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/jane")
    monkeypatch.delenv("TMPDIR", raising=False)
    shown = {
        "/home/jane/.cache/x": "~/.cache/x",
        "/home/jane": "~",
        "/scratch/jane/x": "$XDG_CACHE_HOME/x",
        "/tmp": "/tmp",
        "/data/jane/x": "…/x",
        "/home/janet/x": "…/x",
    }
    assert {place: hardware.shown_path(Path(place)) for place in shown} == shown
