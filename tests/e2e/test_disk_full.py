"""Commands on a disk that is too small, in a short form of ``scripts/disk_full.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def may_mount() -> bool:
    """Whether a tmpfs can be mounted in a name space of our own."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=8192 tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_full_disk_ends_in_one_message_with_nothing_half_written() -> None:
    if not may_mount():
        pytest.skip("nobody may mount a tmpfs here (unshare -rm)")
    asked = ["--only", "scan,scan csv,audit,evaluate predictions,compare,export-mask", "--shares", "0,0.5"]
    command = [sys.executable, "-W", "ignore", "scripts/disk_full.py", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"runs": 12, "good": 12, "bad": {}}
