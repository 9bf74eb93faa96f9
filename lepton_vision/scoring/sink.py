"""Rows out, each exactly once: a folder of shards that are written whole or not at all.

The shards are their own ledger. A shard appears under its name only when it is complete and on disk, so what a
killed run leaves behind is a set of whole shards, and the next run skips the inputs that they hold.
"""

from __future__ import annotations

import csv
import fcntl
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lepton_vision.errors import ScoringError
from lepton_vision.files import write_atomic
from lepton_vision.types import Target

ShardFormat = Literal["parquet", "csv"]
_JOB, _LOCK, _VERSION = "_job.json", ".lock", 1


def row_schema(targets: tuple[Target, ...]) -> pa.Schema:
    """Columns of a scored row, in order; ``threshold`` is that of the first target.

    A binary target gives ``<target>_probability`` and ``<target>_positive``; a multilabel target the same per class as
    ``<target>_<class>_…``; a multiclass target a probability per class and ``<target>_class``. Further targets bring a
    ``<target>_threshold`` of their own.
    """
    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    names = ("image_id", "path_id", "series_id", "study_id", "patient_id")
    fields: list[tuple[str, pa.DataType]] = [(name, text) for name in names]
    fields += [("frame", pa.int64()), ("status", text), ("reason", text)]
    for position, target in enumerate(targets):
        if target.is_exclusive:
            fields += [(f"{target.name}_{name}_probability", number) for name in target.classes]
            fields += [(f"{target.name}_class", text)]
        else:
            for stem in output_stems(target):
                fields += [(f"{stem}_probability", number), (f"{stem}_positive", flag)]
                if position or target.kind == "multilabel":
                    fields += [(f"{stem}_threshold", number)]
    fields += [("threshold", number), ("bundle_id", text), ("engine", text), ("seconds", number)]
    return pa.schema(fields)


def output_stems(target: Target) -> list[str]:
    """Start of the column names of each probability of a binary or multilabel target."""
    return [target.name] if target.kind == "binary" else [f"{target.name}_{name}" for name in target.classes]


class ShardSink:
    """Append-only folder of shards, held by one process at a time.

    Args:
        folder: made if missing.
        schema: columns of every shard.
        job: what must be the same for all rows of the folder (bundle id, format); another job is refused.
        resume: keep the shards that are there; False removes them first.

    Raises:
        ScoringError: the folder belongs to another job, is in use, or cannot be written.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, job: Mapping[str, Any], resume: bool) -> None:
        self.folder, self._schema, self._job = folder, schema, {"version": _VERSION, **job}
        self._format: ShardFormat = job["format"]
        self._rows: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            raise ScoringError(
                f"Cannot write the output folder: {error.strerror}. Name a folder that can be written.", path=folder
            ) from None
        try:
            self._open(resume=resume)
        except BaseException:
            self._lock.close()
            raise

    def _take_lock(self) -> IO[bytes]:
        lock = (self.folder / _LOCK).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ScoringError(
                "Another process is writing to this output folder. Wait for it, or name another folder.",
                path=self.folder,
            ) from None
        return lock

    def _open(self, *, resume: bool) -> None:
        for left_over in self.folder.glob(".*.tmp"):
            left_over.unlink()
        job_file = self.folder / _JOB
        if not resume:
            for path in [*self._shards(), *([job_file] if job_file.exists() else [])]:
                path.unlink()
        shards = self._shards()
        if job_file.exists():
            self._check_job(json.loads(job_file.read_text(encoding="utf-8")))
        elif shards:
            raise ScoringError(
                "The output folder holds shards but no record of their job. Name another folder.", path=self.folder
            )
        else:
            write_atomic(job_file, json.dumps(self._job, indent=1))
        self.done, self.failed, self.scored = set[str](), Counter[str](), 0
        for shard in shards:
            facts = list(self._read_facts(shard))
            self.done.update(row["path_id"] for row in facts)
            self._count(facts)
        self._next = 1 + max((int(path.stem.removeprefix("part-")) for path in shards), default=-1)

    def _check_job(self, found: Mapping[str, Any]) -> None:
        differing = [key for key in self._job if found.get(key) != self._job[key]]
        if differing:
            raise ScoringError(
                f"The output folder holds rows of another job (differs in: {', '.join(differing)}). "
                "Name another folder, or start over with resume off.",
                path=self.folder,
                key=differing[0],
            )

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob(f"part-*.{self._format}"))

    def _read_facts(self, shard: Path) -> Iterator[dict[str, Any]]:
        try:
            if self._format == "parquet":
                yield from pq.read_table(shard, columns=["path_id", "status", "reason"]).to_pylist()
            else:
                with shard.open(newline="", encoding="utf-8") as file:
                    yield from csv.DictReader(file)
        except (OSError, pa.ArrowException):
            raise ScoringError(
                "A shard in the output folder is damaged. Delete it and run again: its inputs are scored anew.",
                path=shard,
            ) from None

    def _count(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["status"] == "ok":
                self.scored += 1
            else:
                self.failed[row["reason"]] += 1

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Take all rows of one input; they reach the disk together with the next ``flush``."""
        self._rows.extend(rows)

    def __len__(self) -> int:
        """Rows taken and not yet on disk."""
        return len(self._rows)

    def flush(self) -> None:
        """Write the rows taken so far as one shard: synced, then renamed into place.

        Raises:
            ScoringError: the disk is full or the folder is gone; nothing half-written stays.
        """
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        target = self.folder / f"part-{self._next:06d}.{self._format}"
        try:
            write_atomic(target, self._encode(table))
        except OSError as error:
            raise ScoringError(
                f"Cannot write a shard: {error.strerror}. Rows written so far are safe; free space and resume.",
                path=target,
            ) from None
        self._count(self._rows)  # not into ``done``: nobody asks for an input twice in one run
        self._rows, self._next = [], self._next + 1

    def _encode(self, table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        if self._format == "parquet":
            pq.write_table(table, sink, compression="zstd")
        else:
            from pyarrow import csv as arrow_csv

            arrow_csv.write_csv(table, sink)
        return bytes(sink.getvalue())

    def close(self) -> None:
        """Let go of the folder; rows that were not flushed are dropped."""
        self._rows = []
        self._lock.close()
