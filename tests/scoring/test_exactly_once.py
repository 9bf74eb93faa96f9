"""Scoring under ``kill -9``: each input has one row in the end, equal to that of an undisturbed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.scoring.bundles import image_bundle, same_rows
from tests.scoring.test_sink import open_sink, row

ROOT = Path(__file__).resolve().parents[2]

DYING = """
import os, pathlib, signal, sys
from lepton_vision import files
from lepton_vision.scoring.sink import ShardSink
from tests.scoring.test_sink import open_sink, row
folder, step = pathlib.Path(sys.argv[1]), sys.argv[2]
sink = open_sink(folder)
sink.append([row(1)])
sink.flush()
sink.append([row(2)])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
original, calls = os.fsync, []
def fsync(descriptor):
    calls.append(1)
    if step == "half" or (step == "before the sync" and len(calls) == 1):
        if step == "half":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die()
    if step == "after the rename" and len(calls) == 2:  # the sync of the folder
        die()
    original(descriptor)
    if step == "after the sync":
        die()
files.os.fsync = fsync
sink.flush()
"""


@pytest.mark.parametrize("step", ["half", "before the sync", "after the sync", "after the rename"])
def test_a_kill_in_any_step_of_a_shard_leaves_it_whole_or_absent(tmp_path: Path, step: str) -> None:
    command = [sys.executable, "-c", DYING, str(tmp_path), step]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.tmp"))) == (step != "after the rename")
    expected = [1, 2] if step == "after the rename" else [1]
    sink = open_sink(tmp_path)
    assert sink.known_inputs.ids.tolist() == expected
    sink.append([row(number) for number in (2, 3) if number not in expected])
    sink.flush()
    sink.close()
    assert sorted(pd.read_parquet(tmp_path)["path_id"]) == [f"{number:016x}" for number in (1, 2, 3)]
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing() -> None:
    command = [sys.executable, "-W", "ignore", "scripts/chaos_score.py", "--kills", "50", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["lost"], found["twice"], found["changed"]) == (240, 0, 0, 0)
    assert sum(found["kills"].values()) == 50
    assert found["kills"]["between shards"] > 0


@pytest.mark.slow
def test_a_process_that_started_cold_is_killed_and_goes_on(tmp_path: Path) -> None:
    inbox, rng = tmp_path / "in", np.random.default_rng(0)
    inbox.mkdir()
    for number in range(400):
        cv2.imwrite(str(inbox / f"{number:03d}.png"), rng.integers(0, 255, (64, 64), dtype=np.uint8))
    image_bundle("segmentation=null").save(tmp_path / "bundle")
    command = [sys.executable, "-W", "ignore", "-m", "lepton_vision.cli", "score", "--bundle", str(tmp_path / "bundle")]
    command += ["--input", str(inbox), "--batch-size", "2", "--shard-rows", "4", "--engine", "torch", "--output"]
    killed = subprocess.Popen([*command, str(tmp_path / "parts")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "parts").glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert 0 < len(pd.read_parquet(tmp_path / "parts")) < 400
    for name in ("parts", "whole"):
        subprocess.run([*command, str(tmp_path / name)], check=True, capture_output=True)
    same_rows(tmp_path / "whole", tmp_path / "parts")
    assert len(pd.read_parquet(tmp_path / "parts")) == 400
