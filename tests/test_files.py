"""Atomic writes, safe file names, checksums and locked folders."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lepton_vision.errors import LeptonError, OutputError, ScoringError
from lepton_vision.files import (
    HeldFolder,
    append_whole,
    check_folder,
    check_place,
    file_name,
    is_whole,
    new_results,
    sealed,
    unsealed,
)

HOLD = """
import os, sys, time
from lepton_vision.files import HeldFolder
held = HeldFolder(sys.argv[1], what="run folder", is_shared=len(sys.argv) > 2)
child = os.fork()
if not child:
    time.sleep(60)
print("held", child, flush=True)
time.sleep(60)
"""


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))}


def test_a_seal_tells_every_flipped_bit_and_every_cut(tmp_path: Path) -> None:
    whole, path = sealed(b"weights of a network"), tmp_path / "file"
    assert unsealed(whole) == b"weights of a network"
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        assert unsealed(bytes(damaged)) is None
    for size in range(len(whole)):
        assert unsealed(whole[:size]) is None
    for data, expected in (
        (whole, True),
        (whole[:-1], False),
        (b"", False),
        (b"x" + whole, False),
        (sealed(b""), True),
    ):
        path.write_bytes(data)
        assert is_whole(path) == expected
    large = sealed(np.random.default_rng(0).bytes(2**20 + 17))  # more than one block
    path.write_bytes(large)
    assert is_whole(path)
    path.write_bytes(large[: 2**20] + b"\0" + large[2**20 + 1 :])
    assert not is_whole(path)


def test_a_full_disk_leaves_a_file_that_is_appended_to_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_whole(path, b"one row\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        with pytest.raises(OSError, match="File too large"):
            append_whole(path, b"another row that does not fit\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"one row\n"


def test_a_held_folder_is_refused_with_its_holder_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    with HeldFolder(folder, what="run folder"):
        with pytest.raises(
            ScoringError, match=rf"writing to the run folder .process {os.getpid()} on host {socket.gethostname()}."
        ):
            HeldFolder(folder, what="run folder", error=ScoringError)
        with HeldFolder(folder, what="run folder", may_hold=True):  # of a caller of ours
            (folder / "file").write_bytes(b"")
        with pytest.raises(OutputError):
            HeldFolder(folder, what="run folder")
    with HeldFolder(folder, what="run folder"):
        pass
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_another_thread_does_not_hold_what_a_caller_holds(tmp_path: Path) -> None:
    refused: list[LeptonError] = []

    def hold() -> None:
        try:
            HeldFolder(tmp_path, what="run folder", may_hold=True)
        except OutputError as error:
            refused.append(error)

    with HeldFolder(tmp_path, what="run folder"):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path: Path) -> None:
    with HeldFolder(tmp_path / "a" / "b", what="run folder"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_lock_of_a_killed_process_does_not_block_though_its_child_lives(tmp_path: Path, is_shared: bool) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), *["shared"] * is_shared]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        try:
            with pytest.raises(OutputError, match=f"process {process.pid} on host"):
                HeldFolder(tmp_path, what="run folder")
            HeldFolder(tmp_path, what="run folder", is_shared=True).close() if is_shared else None
            assert (tmp_path / ".lock").exists()
            time.sleep(0.2)  # until the child has let go
            process.kill()
            process.wait()
            (tmp_path / ".figures.json.77.tmp").write_bytes(b"half")
            (tmp_path / ".bundle.0123abcd.tmp").mkdir()
            (tmp_path / ".mine.tmp").write_bytes(b"a user's")
            with HeldFolder(tmp_path, what="run folder"):
                assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mine.tmp"]
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_process_of_another_host_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the file system does not share locks, the record in the folder is all that there is."""
    (tmp_path / ".lock").write_text(json.dumps({"host": "node-7", "process": 12}))
    with HeldFolder(tmp_path, what="run folder"):
        assert "host node-7" in caplog.text
    caplog.clear()
    with HeldFolder(tmp_path, what="run folder"):
        assert not caplog.text


def test_results_stand_together_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    with new_results(out) as stage:
        (stage / "masks").mkdir()
        (stage / "masks" / "a.png").write_bytes(b"1")
        (stage / "figures.json").write_bytes(b"1")
        assert not (out / "figures.json").exists()
    (out / "ledger.jsonl").write_bytes(b"looks")
    before = content(out)
    assert set(before) == {str(out / name) for name in ("masks", "masks/a.png", "figures.json", "ledger.jsonl")}
    with contextlib.suppress(ZeroDivisionError), new_results(out) as stage:
        (stage / "figures.json").write_bytes(b"2")
        raise ZeroDivisionError
    assert content(out) == before
    with pytest.raises(OutputError), new_results(out), new_results(out):
        pass
    with pytest.raises(ZeroDivisionError), new_results(tmp_path / "other"):
        raise ZeroDivisionError
    assert not (tmp_path / "other").exists()


def test_places_that_cannot_be_written_are_told_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "m.parquet", tmp_path / ("x" * 300) / "m.csv", tmp_path / "a\0b" / "m.csv"):
        with pytest.raises(OutputError, match="Cannot write the manifest") as caught:
            check_place(path, what="manifest")
        assert str(tmp_path) not in str(caught.value)
        with pytest.raises(OutputError, match="Cannot write into the results folder"):
            check_folder(path, what="results folder")
        with pytest.raises(OutputError), HeldFolder(path, what="results folder"):
            pass
    with pytest.raises(OutputError, match="Received: a folder"):
        check_place(tmp_path, what="manifest")
    check_place(tmp_path / "new" / "newer" / "m.parquet", what="manifest")
    check_place(tmp_path / "file", what="manifest")
    check_folder(tmp_path / "new", what="results folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        check_folder(tmp_path, what="results folder")
    tmp_path.chmod(0o700)


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
