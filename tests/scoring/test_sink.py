"""Shards: whole or absent, each row once, one writer, one job per folder."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lepton_vision import files
from lepton_vision.errors import ScoringError
from lepton_vision.scoring.sink import ShardSink, row_schema
from lepton_vision.types import Target

TARGETS = (Target("finding", "binary", ("no", "yes")), Target("view", "multiclass", ("ap", "pa", "lateral")))
JOB = {"format": "parquet", "bundle_id": "b1", "engine": "torch"}


def row(number: int, *, status: str = "ok") -> dict[str, Any]:
    reason = None if status == "ok" else "truncated"
    return {"path_id": f"p{number}", "status": status, "reason": reason, "finding_probability": 0.1 * number}


def open_sink(folder: Path, *, resume: bool = True, **changes: str) -> ShardSink:
    return ShardSink(folder, row_schema(TARGETS), job={**JOB, **changes}, resume=resume)


def test_the_columns_of_the_contract_are_there() -> None:
    names = row_schema(TARGETS[:1]).names
    contract = "image_id path_id series_id patient_id status reason finding_probability finding_positive threshold"
    assert set(contract.split()) | {"bundle_id", "engine", "seconds"} <= set(names)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_rows_come_back_from_the_folder_and_are_known_to_the_next_sink(tmp_path: Path, file_format: str) -> None:
    sink = open_sink(tmp_path / "out", format=file_format)
    sink.append([row(1), row(2, status="failed")])
    sink.flush()
    sink.append([row(3)])
    sink.flush()
    sink.close()
    again = open_sink(tmp_path / "out", format=file_format)
    assert again.done == {"p1", "p2", "p3"}
    assert (again.scored, dict(again.failed)) == (2, {"truncated": 1})
    again.close()
    shards = sorted((tmp_path / "out").glob(f"part-*.{file_format}"))
    assert [shard.name for shard in shards] == [f"part-000000.{file_format}", f"part-000001.{file_format}"]
    if file_format == "parquet":
        table = pd.read_parquet(tmp_path / "out")
        assert sorted(table["path_id"]) == ["p1", "p2", "p3"]


def test_rows_that_were_not_flushed_leave_nothing_behind(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1)])
    sink.close()
    again = open_sink(tmp_path)
    assert again.done == set()
    again.close()


def test_a_half_written_shard_is_removed_and_not_counted(tmp_path: Path) -> None:
    open_sink(tmp_path).close()
    (tmp_path / ".part-000000.parquet.77.tmp").write_bytes(b"PAR1 half")
    sink = open_sink(tmp_path)
    assert sink.done == set()
    assert list(tmp_path.glob(".part-*")) == []
    sink.close()


def test_a_full_disk_gives_one_error_and_keeps_the_rows_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1)])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(ScoringError, match=r"No space left on device.*resume"):
            sink.flush()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".part", "part"))] == []
    sink.flush()
    assert len(pd.read_parquet(tmp_path)) == 1
    sink.close()


def test_another_job_or_writer_is_refused(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    with pytest.raises(ScoringError, match="Another process is writing"):
        open_sink(tmp_path)
    sink.append([row(1)])
    sink.flush()
    sink.close()
    with pytest.raises(ScoringError, match=r"another job .differs in: bundle_id"):
        open_sink(tmp_path, bundle_id="b2")
    fresh = open_sink(tmp_path, resume=False, bundle_id="b2")
    assert fresh.done == set()
    fresh.close()


def test_a_damaged_shard_is_named_with_what_to_do(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1)])
    sink.flush()
    sink.close()
    shard = tmp_path / "part-000000.parquet"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(ScoringError, match="Delete it and run again"):
        open_sink(tmp_path)
