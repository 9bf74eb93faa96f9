"""Shards: whole or absent, each row once, one writer, one job per folder."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lepton_vision import files
from lepton_vision.errors import ScoringError
from lepton_vision.scoring.rows import row_schema
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.types import Target

TARGETS = (Target("finding", "binary", ("no", "yes")), Target("view", "multiclass", ("ap", "pa", "lateral")))
JOB = {"format": "parquet", "bundle_id": "b1", "engine": "torch"}


def row(number: int, *, status: str = "ok") -> dict[str, Any]:
    reason = None if status == "ok" else "truncated"
    return {
        "path_id": f"{number:016x}",
        "status": status,
        "reason": reason,
        "finding_probability": 0.1 * number,
        "source_version": f"{number + 100:016x}",
    }


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
    assert again.known_inputs.ids.tolist() == [1, 2, 3]
    assert [again.known_inputs.version(number) for number in (1, 2, 3)] == [101, 102, 103]
    assert (again.scored, dict(again.failed)) == (2, {"truncated": 1})
    again.close()
    shards = sorted((tmp_path / "out").glob(f"part-*.{file_format}"))
    assert [shard.name for shard in shards] == [f"part-000000.{file_format}", f"part-000001.{file_format}"]
    if file_format == "parquet":
        table = pd.read_parquet(tmp_path / "out")
        assert sorted(table["path_id"]) == [f"{number:016x}" for number in (1, 2, 3)]


def test_rows_that_were_not_flushed_leave_nothing_behind(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1)])
    sink.close()
    again = open_sink(tmp_path)
    assert len(again.known_inputs) == 0
    again.close()


def test_a_half_written_shard_is_removed_and_not_counted(tmp_path: Path) -> None:
    open_sink(tmp_path).close()
    (tmp_path / ".part-000000.parquet.77.tmp").write_bytes(b"PAR1 half")
    sink = open_sink(tmp_path)
    assert len(sink.known_inputs) == 0
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
    assert len(fresh.known_inputs) == 0
    fresh.close()


def test_an_input_in_two_shards_is_refused(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1), row(1)])  # two frames of one input are no such thing
    sink.flush()
    sink.close()
    again = open_sink(tmp_path)
    assert len(again.known_inputs) == 1
    again.close()
    (tmp_path / "part-000007.parquet").write_bytes((tmp_path / "part-000000.parquet").read_bytes())
    with pytest.raises(ScoringError, match="1 inputs with rows in several"):
        open_sink(tmp_path)


def test_a_shard_is_written_once_enough_rows_are_there(tmp_path: Path) -> None:
    sink = ShardSink(tmp_path, row_schema(TARGETS), job=JOB, resume=True, shard_rows=2)
    for number in range(3):
        sink.append([row(number)])
        sink.flush_due()
    assert len(pd.read_parquet(tmp_path)) == 2
    sink.close()


def test_a_damaged_shard_is_named_with_what_to_do(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    sink.append([row(1)])
    sink.flush()
    sink.close()
    shard = tmp_path / "part-000000.parquet"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(ScoringError, match="Delete it and run again"):
        open_sink(tmp_path)
