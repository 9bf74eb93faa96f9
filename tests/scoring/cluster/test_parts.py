"""Rows of a run in parts, with killed tasks and merges, equal to those of a run on one machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import ConfigError, LeptonError, ScoringError
from lepton_vision.models import Bundle
from lepton_vision.scoring import list_run, merge_parts, score, score_part
from lepton_vision.scoring.inputs.inputs import Inputs
from tests.scoring.bundles import image_bundle, same_rows, volume_bundle
from tests.scoring.dicom_series import write_enhanced, write_series

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 4}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle("segmentation=null")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """40 images, a file of two frames, one that is none."""
    rng, folder = np.random.default_rng(0), tmp_path / "inbox"
    folder.mkdir()
    for k in range(40):
        Image.fromarray(rng.integers(0, 255, (24, 32)).astype(np.uint8)).save(folder / f"{k}.png")
    write_enhanced(folder / "frames.dcm", [0.0, 2.0])
    (folder / "broken.dcm").write_bytes(b"nothing")
    return folder


def whole(bundle: Bundle, inbox: Path, tmp_path: Path) -> Path:
    score(bundle, inbox, tmp_path / "whole", **HOW)
    return tmp_path / "whole"


def test_parts_in_any_order_give_the_rows_of_one_run(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (2, 0, 1):
        done = score_part(bundle, inbox, out, part=part, parts=3, shard_rows=5, **HOW)
        assert done is not None
        assert 0 < done.rows < 43
    told = merge_parts(bundle, out, inputs=list_run(bundle, inbox, out))
    assert (told.rows, told.scored, told.new_rows) == (43, 42, 43)
    same_rows(whole(bundle, inbox, tmp_path), out)
    assert not (out / "_parts").exists()
    assert score_part(bundle, inbox, out, part=0, parts=3, **HOW) is None
    score(bundle, inbox, out, **HOW)  # a plain run goes on with that folder: nothing to do
    assert len(pd.read_parquet(out)) == 43


def test_a_part_that_is_missing_is_told_and_what_is_there_is_merged(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score_part(bundle, inbox, out, part=0, parts=2, **HOW)
    with pytest.raises(ScoringError, match=r"42 inputs\. Received: \d+ without one"):
        merge_parts(bundle, out, inputs=list_run(bundle, inbox, out))
    first = len(pd.read_parquet(out))
    assert 0 < first < 43
    score_part(bundle, inbox, out, part=1, parts=2, **HOW)
    assert merge_parts(bundle, out, inputs=list_run(bundle, inbox, out)).new_rows == 43 - first
    same_rows(whole(bundle, inbox, tmp_path), out)


def test_a_merge_that_was_cut_off_is_repeated_without_a_row_twice(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for part in range(2):
        score_part(bundle, inbox, out, part=part, parts=2, shard_rows=4, **HOW)
    kept = tmp_path / "kept"
    shutil.copytree(out / "_parts", kept)
    merge_parts(bundle, out)
    shutil.copytree(kept, out / "_parts", dirs_exist_ok=True)  # as if it had ended before the parts were removed
    assert merge_parts(bundle, out).new_rows == 0
    same_rows(whole(bundle, inbox, tmp_path), out)


def test_parts_of_other_jobs_are_not_merged(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score_part(bundle, inbox, out, part=0, parts=2, **HOW)
    score_part(bundle, inbox, out, part=1, parts=2, **HOW | {"batch_size": 8})
    with pytest.raises(ScoringError, match="differ in engine"):
        merge_parts(bundle, out)
    with pytest.raises(ScoringError, match="Received: none"):
        merge_parts(bundle, tmp_path / "nothing")
    with pytest.raises(ScoringError, match=r"part from 0 to 1\. Received: 2"):
        score_part(bundle, inbox, out, part=2, parts=2)


def test_no_input_is_told_in_the_same_words_in_parts(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoringError) as whole:
        score(bundle, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ScoringError) as part:
        score_part(bundle, tmp_path / "empty", tmp_path / "out", part=0, parts=2)
    assert str(part.value) == str(whole.value)
    with pytest.raises(ScoringError, match=r"Received: none\. Check the path"):
        list_run(bundle, Inputs.of([]), tmp_path / "out")


def test_a_merge_counts_as_a_run_on_one_machine(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    one = score(bundle, inbox, tmp_path / "one", **HOW)
    for part in range(2):
        score_part(bundle, inbox, tmp_path / "out", part=part, parts=2, **HOW)
    told = merge_parts(bundle, tmp_path / "out")
    plain, merged = one.to_dict(), told.to_dict()
    for name in ("seconds", "images_per_s"):
        plain.pop(name), merged.pop(name)
    assert merged == plain
    assert told.engine == one.engine


def test_series_have_parts_too(tmp_path: Path) -> None:
    bundle = volume_bundle()
    for k in range(3):
        write_series(tmp_path / "inbox" / str(k), [0.0, 2.0, 4.0 + k])
    how = HOW | {"masks": None, "batch_size": 2}
    score(bundle, tmp_path / "inbox", tmp_path / "whole", **how)
    for part in range(2):
        score_part(bundle, tmp_path / "inbox", tmp_path / "out", part=part, parts=2, **how)
    merge_parts(bundle, tmp_path / "out", inputs=list_run(bundle, tmp_path / "inbox", tmp_path / "out"))
    same_rows(tmp_path / "whole", tmp_path / "out")


def slurm(*words: object, task: int = 0) -> subprocess.Popen[bytes]:
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(task)}
    command = [sys.executable, SCRIPTS / "score_slurm.py", *words]
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_an_array_job_survives_the_loss_of_a_task(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    run = (tmp_path / "bundle", tmp_path / "out", inbox)
    lost = slurm(2, *run, task=1)
    while lost.poll() is None and not list(tmp_path.glob("out/_parts/*/_job.json")):
        time.sleep(0.002)
    lost.kill()
    lost.wait()
    assert slurm(2, *run, task=0).wait() == 0
    assert slurm("merge", *run).wait() != 0  # rows are missing, and the scheduler learns of it
    assert slurm(2, *run, task=1).wait() == 0
    assert slurm("merge", *run).wait() == 0
    score(bundle, inbox, tmp_path / "whole", device="cpu", precision="fp32")
    same_rows(tmp_path / "whole", tmp_path / "out")


def kill_one_actor(output: Path, killed: list[int]) -> None:
    """Kill -9 the process of an actor as soon as a shard of some part is on disk."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        if list(output.glob("_parts/*/part-*.parquet")):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::") and "_Actor" in "".join(process.cmdline()):
                        process.send_signal(signal.SIGKILL)
                        killed.append(process.pid)
                        return
                except psutil.Error:
                    continue
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_ray_gives_the_same_rows_and_survives_the_loss_of_a_worker(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from lepton_vision.scoring import Cluster, score_on_ray

    out, killed, told = tmp_path / "out", list[int](), list[tuple[int, int, int]]()
    killer = threading.Thread(target=kill_one_actor, args=(out, killed))
    killer.start()
    where = Cluster(actors=2, inputs_per_part=6)
    summary = score_on_ray(
        bundle, inbox, out, cluster=where, progress=lambda *counts: told.append(counts), shard_rows=1, **HOW
    )
    killer.join()
    assert len(killed) == 1
    assert (summary.rows, summary.failed) == (43, {"not_an_image": 1})
    assert told[-1] == (42, 42, 1)
    same_rows(whole(bundle, inbox, tmp_path), out)
    again = score_on_ray(bundle, inbox, out, cluster=where, **HOW)  # no cluster is started for nothing
    assert (again.rows, again.new_rows) == (43, 0)


def test_the_command_line_hands_a_run_to_ray(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_vision.scoring import Cluster
    from lepton_vision.scoring.cluster import ray as cluster

    asked: list[dict[str, Any]] = []

    def instead(bundle: Bundle, inputs: Any, output: Path, **how: Any) -> Any:
        asked.append(dict(how))
        how.pop("cluster")
        return score(bundle, inputs, output, **how)

    monkeypatch.setattr(cluster, "score_on_ray", instead)
    bundle.save(tmp_path / "bundle")
    words = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--output", tmp_path / "out", "--on", "ray")
    more = (
        "--ray-address",
        "ray://head:10001",
        "--precision",
        "fp32",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--json",
    )
    done = CliRunner().invoke(app, list(map(str, words + more)))
    assert done.exit_code == 0, done.output
    assert asked[0]["cluster"] == Cluster("ray://head:10001")
    assert asked[0]["engine"] == "torch"  # not auto: machines might each choose another
    assert json.loads(done.stdout)["rows"] == 43


def test_an_unknown_place_to_run_is_refused(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    words = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--output", tmp_path / "out", "--on", "rya")
    done = CliRunner().invoke(app, list(map(str, words)))
    assert isinstance(done.exception, LeptonError)
    assert "'rya'" in str(done.exception)


def test_without_ray_its_extra_is_named(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_vision.scoring import score_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[ray\]'"):
        score_on_ray(bundle, inbox, tmp_path / "out", **HOW)
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
