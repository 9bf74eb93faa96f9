"""Training under ``kill -9`` and with damaged checkpoints: bit-identical results in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bits() -> None:
    """A short form of ``scripts/chaos_train.py``, which kills fifty times."""
    command = [sys.executable, "-W", "ignore", "scripts/chaos_train.py", "--kills", "6", "--epochs", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert sum(told["kills"].values()) == 6
    assert told["finished"] >= 1
