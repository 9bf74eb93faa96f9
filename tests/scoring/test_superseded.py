"""Repeated scoring of changed and of failed files: the newest row of each input, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import ReadError
from lepton_vision.models import Bundle
from lepton_vision.scoring import list_run, merge_parts, score, score_on_ray, score_part, superseded
from lepton_vision.scoring.cluster import ray as cluster
from lepton_vision.scoring.inputs.inputs import Input
from tests.scoring.bundles import image_bundle, volume_bundle
from tests.scoring.dicom_series import write_series
from tests.scoring.test_sink import open_sink, row

TEXTS = {"path_id": str, "source_version": str}
ROOT = Path(__file__).resolve().parents[2]
HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 4}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle("segmentation=null")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Eight images, of which number 5 is half there, and a text."""
    rng, folder = np.random.default_rng(0), tmp_path / "inbox"
    folder.mkdir()
    for k in range(8):
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 255, (24, 32)).astype(np.uint8))
    (tmp_path / "whole.png").write_bytes((folder / "5.png").read_bytes())
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


def read(folder: Path, file_format: str = "parquet") -> pd.DataFrame:
    files = sorted(folder.glob(f"part-*.{file_format}"))
    frames = [pd.read_parquet(one) if file_format == "parquet" else pd.read_csv(one, dtype=TEXTS) for one in files]
    return pd.concat(frames).sort_values("path_id", ignore_index=True)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_changed_files_become_new_rows_and_the_others_stay(
    bundle: Bundle, inbox: Path, tmp_path: Path, file_format: Any
) -> None:
    how = HOW | {"file_format": file_format, "shard_rows": 3}
    score(bundle, inbox, tmp_path / "out", **how)
    before = read(tmp_path / "out", file_format)
    assert before["reason"].value_counts().to_dict() == {"truncated": 1, "not_an_image": 1}
    (inbox / "5.png").write_bytes((tmp_path / "whole.png").read_bytes())
    cv2.imwrite(str(inbox / "3.png"), np.zeros((24, 32), np.uint8))
    cv2.imwrite(str(inbox / "9.png"), np.ones((24, 32), np.uint8))
    summary = score(bundle, inbox, tmp_path / "out", **how)
    assert (summary.rows, summary.scored, summary.new_rows, summary.replaced) == (10, 9, 3, 2)
    assert dict(summary.failed) == {"not_an_image": 1}
    after, fresh = read(tmp_path / "out", file_format), tmp_path / "fresh"
    score(bundle, inbox, fresh, **how)
    columns = [name for name in after if name != "seconds"]
    pd.testing.assert_frame_equal(after[columns], read(fresh, file_format)[columns])  # as if nothing had been before
    kept = after[after["source_version"].isin(before["source_version"])].reset_index(drop=True)
    assert len(kept) == 7
    pd.testing.assert_frame_equal(kept, before[before["path_id"].isin(kept["path_id"])].reset_index(drop=True))
    old = read(tmp_path / "out" / "_superseded", file_format)
    assert sorted(old["status"]) == ["failed", "ok"]
    assert not set(old["source_version"]) & set(after["source_version"])
    assert score(bundle, inbox, tmp_path / "out", **how).to_dict().keys().isdisjoint({"replaced_rows"})


def test_what_failed_is_scored_again_where_asked(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Input.read

    def absent(self: Input, **how: Any) -> Any:
        if self.path.name in ("2.png", "6.png"):
            raise ReadError("The share is away.", reason="missing")
        return original(self, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Input, "read", absent)
        assert score(bundle, inbox, tmp_path / "out", **HOW).failed == {"missing": 2, "not_an_image": 1, "truncated": 1}
    assert score(bundle, inbox, tmp_path / "out", **HOW).new_rows == 0
    bundle.save(tmp_path / "bundle")
    command = f"score --bundle {tmp_path / 'bundle'} --input {inbox} --output {tmp_path / 'out'} --device cpu --json"
    command += " --precision fp32 --batch-size 4 --engine torch --max-failures 1 --retry-failed"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    rows = read(tmp_path / "out")
    assert rows["path_id"].is_unique
    assert rows["reason"].value_counts().to_dict() == {"not_an_image": 1, "truncated": 1}
    assert len(rows) == 9
    assert len(pd.read_parquet(tmp_path / "out" / "_superseded")) == 4


def test_masks_and_reports_are_those_of_the_newest(tmp_path: Path) -> None:
    bundle = volume_bundle()
    series = write_series(tmp_path / "in", [2.0 * k for k in range(8)])
    places = {"masks": tmp_path / "masks", "reports": tmp_path / "reports"}
    score(bundle, series, tmp_path / "out", **HOW, **places)
    before = {one.name: one.stat().st_ino for folder in places.values() for one in folder.glob("[!._]*")}
    assert len(before) == 2
    os.utime(next(series.glob("*.dcm")), (1, 1))
    assert score(bundle, series, tmp_path / "out", **HOW, **places).masks == 1
    (found,) = read(tmp_path / "out").to_dict("records")
    assert {found["mask"], found["report"]} == set(before)
    after = {one.name: one.stat().st_ino for folder in places.values() for one in folder.glob("[!._]*")}
    assert after.keys() == before.keys()


def test_parts_score_again_too(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(**how: Any) -> int:
        done = [score_part(bundle, inbox, out, part=part, parts=2, **HOW, **how) for part in (1, 0)]
        if any(done):
            merge_parts(bundle, out, inputs=list_run(bundle, inbox, out))
        return sum(one.new_rows for one in done if one is not None)

    assert (run(), run()) == (9, 0)
    (inbox / "5.png").write_bytes((tmp_path / "whole.png").read_bytes())
    assert (run(), run(), run(retry_failed=True)) == (1, 0, 1)
    rows = read(out)
    assert (len(rows), rows["path_id"].is_unique, (rows["status"] == "ok").sum()) == (9, True, 8)


def test_a_cluster_scores_again_too(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(task: Any, where: Any) -> Iterator[dict[str, int]]:
        del where
        yield from (task.run(part) for part in range(task.parts))

    monkeypatch.setattr(cluster, "_run", run_here)  # the same parts, without the seconds that ray takes to start
    out = tmp_path / "out"
    where = cluster.Cluster(inputs_per_part=4)

    def run(**how: Any) -> tuple[int, int]:
        told = score_on_ray(bundle, inbox, out, cluster=where, **HOW, **how)
        return told.new_rows, told.replaced

    assert (run(), run()) == ((9, 0), (0, 0))
    (inbox / "5.png").write_bytes((tmp_path / "whole.png").read_bytes())
    assert (run(), run(), run(retry_failed=True)) == ((1, 1), (0, 0), (1, 1))
    rows = read(out)
    assert (len(rows), rows["path_id"].is_unique, (rows["status"] == "ok").sum()) == (9, True, 8)


DYING = """
import os, pathlib, signal, sys
import numpy as np
from lepton_vision import files
from lepton_vision.scoring import superseded
folder, last = pathlib.Path(sys.argv[1]), int(sys.argv[2])
original, calls = os.fsync, []
def fsync(descriptor):
    calls.append(1)
    if len(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    original(descriptor)
files.os.fsync = fsync
for shard in sorted(folder.glob("part-*")):
    superseded._move(shard, np.array([1, 3], np.uint64))
"""


@pytest.mark.parametrize("step", [1, 3, 4, 7])  # before rows are set aside, before and after they leave, at the end
def test_a_kill_while_rows_are_set_aside_loses_none_and_doubles_none(tmp_path: Path, step: int) -> None:
    sink = open_sink(tmp_path)
    for numbers in ((1, 2), (3,)):
        sink.append([row(number) for number in numbers])
        sink.flush()
    sink.close()
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), str(step)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    for _ in range(2):
        sink = open_sink(tmp_path)  # refuses an input that stands twice
        old = [pd.read_parquet(one) for one in tmp_path.glob("_superseded/part*")]
        assert set(sink.known_inputs.ids.tolist()) | {int(one, 16) for frame in old for one in frame["path_id"]} == {
            1,
            2,
            3,
        }
        for shard in sink.shards():
            superseded._move(shard, np.array([1, 3], np.uint64))
        sink.read_shards()
        assert sink.known_inputs.ids.tolist() == [2]
        sink.close()
    assert sorted(one for frame in old for one in frame["path_id"]) == [f"{number:016x}" for number in (1, 3)]
    assert not list(tmp_path.rglob("*.tmp"))
