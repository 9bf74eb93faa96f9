"""Archive of outdated score rows: moved out of the shards when their inputs are scored again.

What was known of an input stays in ``_superseded`` of the output folder, told apart by ``source_version``. Rows leave
before their inputs are scored again: they are written there first, then the shard without them takes the place of the
old one, so that a run which is killed anywhere leaves each input with the rows of one version, or with none, and the
next run scores those.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_vision.errors import ScoringError, explain_os_error
from lepton_vision.files import sync_folder, write_atomic
from lepton_vision.scoring.dicom.folder import report_files
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.job import ScoreJob
from lepton_vision.scoring.rows import Row
from lepton_vision.scoring.sink import JOB_FILE, KnownInputs, ShardSink, UInt64Array, all_shards, read_job

FOLDER = "_superseded"  # readers of tables pass over names that begin with an underscore


def outdated(inputs: Inputs, known: KnownInputs, *, retry_failed: bool) -> UInt64Array:
    """Path ids of inputs whose rows are of a file that has changed since (by size or time), or failed where asked.

    An input that could not even be looked at when it failed, and can be now, has changed.
    """
    found = array("Q")
    for one, is_known in zip(inputs, known.mark(inputs.path_ids).tolist(), strict=True):
        if is_known:
            number = int(one.path_id, 16)
            before, has_failed = known.version(number), known.has_failed(number)
            now = one.version() if before or has_failed else None
            if (now is not None and int(now, 16) != before) or (retry_failed and has_failed):
                found.append(number)
    return np.frombuffer(found, np.uint64)


def supersede(sink: ShardSink, job: ScoreJob) -> int:
    """Move the rows of outdated inputs out of an open folder, with their masks and reports; return how many.

    Raises:
        ScoringError: the disk is full or the folder cannot be written.
    """
    ids = outdated(job.inputs, sink.known_inputs, retry_failed=job.settings.retry_failed)
    if not ids.size:
        return 0
    count, what = 0, "set rows aside that are to be scored again"
    advice = "No row is lost; free space and run again."
    with explain_os_error(what, error=ScoringError, advice=advice, path=sink.folder):
        for shard in sink.shards():
            for row in _move(shard, ids):
                count += 1
                _remove_files(row, job)
    sink.read_shards()
    return count


def supersede_unopened(job: ScoreJob) -> int:
    """``supersede`` in a folder that nobody has opened, of a run in parts; it waits for another part that does so.

    Raises:
        ScoringError: see ``supersede``.
    """
    record = job.output / JOB_FILE
    if not record.exists() or not all_shards(job.output):
        return 0
    schema = job.files.schema(job.bundle)
    with closing(ShardSink(job.output, schema, job=read_job(record), resume=True, waits=True)) as sink:
        return supersede(sink, job)


def _move(shard: Path, ids: UInt64Array) -> list[Row]:
    """Move rows of some inputs out of a shard; return them."""
    old, rest, rows = (_divide_csv if shard.suffix == ".csv" else _divide_table)(shard, ids)
    if rows:
        folder = shard.parent / FOLDER
        folder.mkdir(exist_ok=True)
        for left_over in folder.glob(".*.tmp"):
            left_over.unlink()
        mark = hashlib.blake2b(old, digest_size=8).hexdigest()  # the same rows once more after a kill: the same file
        write_atomic(folder / f"{shard.stem}-{mark}{shard.suffix}", old)
        if rest is None:
            shard.unlink()
            sync_folder(shard.parent)
        else:
            write_atomic(shard, rest)
    return rows


def _divide_table(shard: Path, ids: UInt64Array) -> tuple[bytes, bytes | None, list[Row]]:
    """A Parquet shard as what is moved and what stays, None where nothing does; and the rows that are moved."""
    table = pq.read_table(shard)
    is_old = _are_of([int(one, 16) for one in table["path_id"].to_pylist()], ids)
    old, rest = table.filter(pa.array(is_old)), table.filter(pa.array(~is_old))
    return _parquet(old), _parquet(rest) if len(rest) else None, old.to_pylist()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _divide_csv(shard: Path, ids: UInt64Array) -> tuple[bytes, bytes | None, list[Row]]:
    """The same of a CSV shard; its lines stay as they are, to the byte."""
    import csv

    with shard.open(newline="", encoding="utf-8") as file:
        head, *lines = _records(file)
    rows: list[Row] = [{k: v or None for k, v in one.items()} for one in csv.DictReader([head, *lines])]
    is_old = _are_of([int(str(row["path_id"]), 16) for row in rows], ids).tolist()
    old, rest = ([line for line, was in zip(lines, is_old, strict=True) if was is side] for side in (True, False))
    moved = [row for row, was in zip(rows, is_old, strict=True) if was]
    return "".join([head, *old]).encode(), "".join([head, *rest]).encode() if rest else None, moved


def _records(lines: Any) -> Iterator[str]:
    """Lines of a CSV file, those of one record together: a text in quotes may hold ends of lines."""
    record = ""
    for line in lines:
        record += line
        if record.count('"') % 2 == 0:
            yield record
            record = ""


def _are_of(path_ids: Sequence[int], ids: UInt64Array) -> npt.NDArray[np.bool_]:
    return np.isin(np.array(path_ids, np.uint64), ids)


def _remove_files(row: Row, job: ScoreJob) -> None:
    """Remove the mask and the report of a row that is none any more: they are of what the file was."""
    masks, reports = job.files.masks, job.files.reports
    if masks is not None and row.get("mask"):
        (masks / row["mask"]).unlink(missing_ok=True)
    if reports is not None and row.get("report"):
        for name in report_files(row["report"].removesuffix(".sr.dcm"), job.bundle):
            (reports / name).unlink(missing_ok=True)
