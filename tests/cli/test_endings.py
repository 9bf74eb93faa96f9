"""Tests of how commands end: one message, the right exit code, and never a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_vision.cli.options import run_to_end
from lepton_vision.errors import LabelError, LeakageError, ManifestError


def fail(error: BaseException) -> Callable[[], object]:
    def app() -> object:
        raise error

    return app


FULL = OSError(errno.ENOSPC, "No space left on device", "/home/jane/Doe^John.parquet")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ManifestError("No such column.", row=3), 2, "error: No such column. (row 3)"),
        (LeakageError("A patient stands in two splits."), 1, "error: A patient stands in two splits."),
        (FULL, 2, "error: Cannot read or write a .parquet: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "error: Cannot read or write a file or folder: Perm"),
        (MemoryError(), 2, "error: The memory of this machine is full."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), 2, "error: The memory of this"),
        (KeyboardInterrupt(), 130, "interrupted: what was finished is on disk"),
        (SystemExit(130), 130, "interrupted: what was finished is on disk"),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_each_end_has_its_code_and_at_most_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert run_to_end(fail(error)) == code
    told = capsys.readouterr().err
    assert told.startswith(words)
    assert told.count("\n") == bool(words)
    assert "jane" not in told
    assert "Doe" not in told


def test_what_nobody_foresaw_is_one_line_and_a_file_without_values(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def app() -> object:
        try:
            return {}["Doe^John"]
        except KeyError as cause:
            raise ZeroDivisionError("/home/jane/Doe^John.dcm") from cause

    assert run_to_end(app) == 70
    (log,) = tmp_path.iterdir()
    told = capsys.readouterr().err
    assert told.startswith("error: This was not foreseen: ZeroDivisionError.")
    assert str(log) in told
    assert told.count("\n") == 1
    text = log.read_text()
    assert ("ZeroDivisionError" in text, "KeyError" in text, " app" in text) == (True, True, True)
    assert [word for word in ("Doe", "jane", os.sep) if word in told.replace(str(log), "") + text] == []
    assert log.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert run_to_end(app) == 70
    assert "No report could be written" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "code", "words"), [("pipe", 141, ""), ("/dev/full", 2, "No space left on device")])
def test_an_output_that_takes_nothing_more(target: str, code: int, words: str) -> None:
    """A reader that has left is not told of it; a full disk behind ``>`` is said once, not by Python at its end."""
    script = "import sys; from lepton_vision.cli import main; sys.argv[1:] = ['--version']; main()"
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.count("\n") == bool(words)


def test_a_block_to_be_copied_ends_before_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    run_to_end(fail(LabelError("Write:\ntargets:\n  - name: y\n    kind: binary", key="y")))
    assert capsys.readouterr().err.splitlines()[-2:] == ["    kind: binary", "See docs/how-to/label-tables.md."]
    run_to_end(fail(LabelError("No such class.", key="y")))
    assert capsys.readouterr().err == "error: No such class. See docs/how-to/label-tables.md.\n"
