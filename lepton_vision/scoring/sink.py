"""Output shards of a scoring run: every row exactly once, each shard written atomically.

The shards are their own ledger. A shard appears under its name only when it is complete and on disk, so what a
killed run leaves behind is a set of whole shards, and the next run skips the inputs that they hold. All rows of an
input are in one shard.
"""

from __future__ import annotations

import csv
import json
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_vision.errors import ScoringError, explain_os_error
from lepton_vision.files import HeldFolder, csv_bytes, guarded, unguarded, write_atomic
from lepton_vision.predictions.table_facts import ID_KEY as ID_KEY
from lepton_vision.predictions.table_facts import JOB_FILE as JOB_FILE
from lepton_vision.readers.identity import key_check
from lepton_vision.types.id_key import ENVIRONMENT_KEY, SAME_KEY

ShardFormat = Literal["parquet", "csv"]
UInt64Array = npt.NDArray[np.uint64]
SHARD_ROWS, SHARD_SECONDS = 2048, 60.0  # whatever comes first: what a killed run has to do again
ROWS_ARE_SAFE = "Rows written so far are safe; free space and resume."
_VERSION = 2
_HOLDS = {
    "output folder": ("rows", ", or start over (--no-resume; in Python resume=False)"),
    "mask folder": ("masks", ": rows of that job refer to them"),
    "report folder": ("reports", ": rows of that job refer to them"),
}
_FACTS = ("path_id", "status", "reason", "source_version")


def hold_job_folder(folder: Path, *, job: Mapping[str, Any], what: str) -> HeldFolder:
    """Hold a folder, see ``files.HeldFolder``, for files that the rows of one job refer to.

    Args:
        folder: made if missing.
        job: what must be the same for all files.
        what: "mask folder" or "report folder".

    Raises:
        ScoringError: its record names another job.
    """
    lock = HeldFolder(folder, what=what, error=ScoringError)
    try:
        record = folder / JOB_FILE
        if not record.exists():
            write_atomic(record, json.dumps(job, indent=1))
        refuse_other_job(folder, job, what=what)
    except BaseException:
        lock.close()
        raise
    return lock


def refuse_other_job(folder: Path, job: Mapping[str, Any], *, what: str) -> None:
    """Refuse a folder whose record, if there is one, names another job; ``what`` is a key of ``_HOLDS``.

    Raises:
        ScoringError: it does, or its ids were made with another key.
    """
    record = folder / JOB_FILE
    differing = other_keys(job, read_job(record)) if record.exists() else []
    if ID_KEY in differing:
        raise ScoringError(
            f"The {what} holds {_HOLDS[what][0]} whose ids were made with another key: the same files would get other "
            f"ids, and stand in it twice. {SAME_KEY}, or name another folder.",
            path=folder,
            key=ENVIRONMENT_KEY,
        )
    if differing:
        held, advice = _HOLDS[what]
        raise ScoringError(
            f"The {what} holds {held} of another job (differs in: {', '.join(differing)}). Name another "
            f"folder{advice}.",
            path=folder,
            key=differing[0],
        )


def read_job(record: Path) -> dict[str, Any]:
    """The job that a folder was begun with, off its record.

    Raises:
        ScoringError: it is damaged.
    """
    try:
        job = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        job = None
    if not isinstance(job, dict):
        raise ScoringError(
            f"{record.name}, the record of the job that this folder was begun with, is damaged. Name another folder, "
            "or start over (--no-resume; in Python resume=False).",
            path=record,
        )
    return job


def other_keys(job: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return in which keys a job is another one than that on record; an old record does not tell the key of its ids."""
    return [key for key in job if found.get(key) != job[key] and not (key == ID_KEY and key not in found)]


def recorded_engine(folder: Path) -> str | None:
    """Return the engine that a folder of shards was started with: "torch", "openvino" or "onnx"; None if not known."""
    try:
        words = str(json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))["engine"]).split()
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the sink says what is wrong with a record that cannot be read
    names = {"torch": "torch", "torch-compile": "torch-compile", "openvino": "openvino", "onnxruntime": "onnx"}
    return names.get(words[0]) if words else None


def all_shards(folder: Path) -> list[Path]:
    """Shards of either format in a folder, oldest first."""
    return sorted(path for path in folder.glob("part-*") if path.suffix in (".parquet", ".csv"))


def failed_rows(folders: Iterable[Path]) -> int:
    """Rows that failed in the shards of some folders."""
    return sum(
        status == "failed" for folder in folders for shard in all_shards(folder) for status in _texts(shard, "status")
    )


def scored_ids(folder: Path) -> UInt64Array:
    """Path ids that have rows in the shards of a folder, (N,) uint64; parts that were not merged do not count."""
    ids = array("Q")
    for shard in all_shards(folder):
        ids.extend(int(one, 16) for one in _texts(shard, "path_id"))
    return np.frombuffer(ids, np.uint64)


def _texts(shard: Path, column: str) -> list[str]:
    """A column of a shard; nothing of one that another part has just emptied, see ``superseded``."""
    if not shard.exists():
        return []
    if shard.suffix == ".csv":
        with shard.open(newline="", encoding="utf-8-sig") as file:
            return [unguarded(row[column]) for row in csv.DictReader(file)]
    texts: list[str] = pq.read_table(shard, columns=[column])[column].to_pylist()
    return texts


def _guarded(table: pa.Table) -> pa.Table:
    """The table with texts that no spreadsheet computes."""
    for k, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = [cell if cell is None else guarded(cell) for cell in table[k].to_pylist()]
            table = table.set_column(k, field, pa.array(cells, field.type))
    return table


@dataclass(frozen=True, slots=True)
class KnownInputs:
    """Set of path ids and source versions, stored as the numbers that their hexadecimal digits spell.

    Attributes:
        ids: (N,) uint64, rising, each once.
        versions: (N,) uint64; 0 where unknown.
        failed: (N,) bool, whether a row of it failed.
    """

    ids: UInt64Array
    versions: UInt64Array
    failed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, ids: UInt64Array, versions: UInt64Array, failed: npt.NDArray[np.bool_]) -> KnownInputs:
        """Sort them.

        Raises:
            ScoringError: an input stands twice.
        """
        order = np.argsort(ids)
        ids = ids[order]
        twice = int((ids[1:] == ids[:-1]).sum())
        if twice:
            raise ScoringError(
                f"Expected the rows of an input in one shard. Received: {twice} inputs with rows in several; a shard "
                "was copied into the output folder. Take it out, or start over (--no-resume)."
            )
        return cls(ids, versions[order], failed[order])

    def __len__(self) -> int:
        return self.ids.size

    def mark(self, path_ids: UInt64Array) -> npt.NDArray[np.bool_]:
        """Mark those of (M,) path ids that have rows."""
        return np.isin(path_ids, self.ids, assume_unique=True)

    def version(self, path_id: int) -> int:
        """Version of an input that has rows; 0 where unknown."""
        return int(self.versions[np.searchsorted(self.ids, np.uint64(path_id))])

    def has_failed(self, path_id: int) -> bool:
        """Whether a row of an input that has rows failed."""
        return bool(self.failed[np.searchsorted(self.ids, np.uint64(path_id))])


class ShardSink:
    """Append-only folder of shards, held by one process at a time.

    Args:
        folder: made if missing.
        schema: columns of every shard.
        job: what must be the same for all rows of the folder (bundle id, format, masks); another job is refused.
        resume: keep the shards that are there; False removes them first.
        shard_rows: rows that make a shard due.
        waits: for another process that holds the folder, in place of an error.

    Attributes:
        known_inputs: those that had rows when the folder was opened.
        scored: rows on disk with status "ok".
        failed: those that failed, by reason.
        left_out: those of what is no image to classify, or no slice of the series it lies in, by reason.
        masked: rows on disk that name a mask.
        unmasked: rows on disk that say why there is none, by reason.
        mask_ids: image ids of the rows that named a mask when the folder was opened.

    Raises:
        ScoringError: the folder belongs to another job, is in use, holds an input twice, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        job: Mapping[str, Any],
        resume: bool,
        shard_rows: int = SHARD_ROWS,
        waits: bool = False,
    ) -> None:
        self.folder, self.schema, self._job = folder, schema, {"version": _VERSION, ID_KEY: key_check(), **job}
        self._format: ShardFormat = job["format"]
        self._rows: list[dict[str, Any]] = []
        self._failed_rows, self._shard_rows = 0, shard_rows
        self._lock = HeldFolder(folder, what="output folder", error=ScoringError, waits=waits)
        try:
            self._open(resume=resume)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, *, resume: bool) -> None:
        job_file = self.folder / JOB_FILE
        if not resume:
            for path in [*self.shards(), *([job_file] if job_file.exists() else [])]:
                path.unlink()
        shards = self.shards()
        if job_file.exists():
            refuse_other_job(self.folder, self._job, what="output folder")
        elif shards:
            raise ScoringError(
                "The output folder holds shards but no record of their job. Name another folder.", path=self.folder
            )
        else:
            write_atomic(job_file, json.dumps(self._job, indent=1))
        self._written = time.monotonic()
        self.read_shards()

    def read_shards(self) -> None:
        """Look again which inputs have rows.

        Raises:
            ScoringError: a shard is damaged, or an input stands twice.
        """
        self.failed, self.left_out, self.scored = Counter[str](), Counter[str](), 0
        self.mask_ids, self.unmasked, self.masked = set[str](), Counter[str](), 0
        ids, versions, failed = array("Q"), array("Q"), array("B")
        shards = self.shards()
        for shard in shards:
            facts = list(self._read_facts(shard))
            known = {row["path_id"]: row["source_version"] or "0" for row in facts}
            ids.extend(int(one, 16) for one in known)
            versions.extend(int(one, 16) for one in known.values())
            lost = {row["path_id"] for row in facts if row["status"] == "failed"}
            failed.extend(one in lost for one in known)
            self.mask_ids.update(row["image_id"] for row in facts if row.get("mask"))
            self._count(facts)
        marks = np.frombuffer(failed, np.bool_)
        self.known_inputs = KnownInputs.of(np.frombuffer(ids, np.uint64), np.frombuffer(versions, np.uint64), marks)
        self._next = 1 + max((int(path.stem.removeprefix("part-")) for path in shards), default=-1)

    @property
    def rows(self) -> int:
        """Rows on disk."""
        return self.scored + self.failed.total() + self.left_out.total()

    def shards(self) -> list[Path]:
        """Shards on disk, oldest first."""
        return sorted(self.folder.glob(f"part-*.{self._format}"))

    def _read_facts(self, shard: Path) -> Iterator[dict[str, Any]]:
        try:
            if self._format == "parquet":
                masks = ["image_id", "mask", "mask_reason"] if "mask" in self.schema.names else []
                yield from pq.read_table(shard, columns=[*_FACTS, *masks]).to_pylist()
            else:
                with shard.open(newline="", encoding="utf-8-sig") as file:
                    yield from (
                        {name: unguarded(cell or "") for name, cell in row.items()} for row in csv.DictReader(file)
                    )
        except (OSError, pa.ArrowException):
            raise ScoringError(
                "A shard in the output folder is damaged. Delete it and run again: its inputs are scored anew.",
                path=shard,
            ) from None

    def _count(self, rows: list[dict[str, Any]]) -> None:
        self.masked += sum(bool(row.get("mask")) for row in rows)
        self.unmasked.update(row["mask_reason"] for row in rows if row.get("mask_reason"))
        for row in rows:
            if row["status"] == "ok":
                self.scored += 1
            else:
                (self.left_out if row["status"] == "left_out" else self.failed)[row["reason"]] += 1

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Take all rows of one input; they reach the disk together with the next ``flush``."""
        self._rows.extend(rows)
        self._failed_rows += sum(row["status"] == "failed" for row in rows)

    @property
    def so_far(self) -> tuple[int, int]:
        """Rows that failed, and all rows; those that are not on disk yet included."""
        return self.failed.total() + self._failed_rows, self.rows + len(self._rows)

    def flush_due(self) -> None:
        """Write a shard where enough rows or seconds have come together; see ``flush``."""
        if len(self._rows) >= self._shard_rows or time.monotonic() - self._written >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows taken so far as one shard: synced, then renamed into place.

        Raises:
            ScoringError: the disk is full or the folder is gone; nothing half-written stays.
        """
        self._written = time.monotonic()
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=self.schema)
        target = self.folder / f"part-{self._next:06d}.{self._format}"
        with explain_os_error("write a shard", error=ScoringError, advice=ROWS_ARE_SAFE, path=target):
            write_atomic(target, self._encode(table))
        self._count(self._rows)  # not into ``known_inputs``: nobody asks for an input twice in one run
        self._rows, self._failed_rows, self._next = [], 0, self._next + 1

    def _encode(self, table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        if self._format == "parquet":
            pq.write_table(table, sink, compression="zstd")
        else:
            from pyarrow import csv as arrow_csv

            arrow_csv.write_csv(_guarded(table), sink)
            return csv_bytes(sink.getvalue().to_pybytes().decode("utf-8"))
        return bytes(sink.getvalue())

    def close(self) -> None:
        """Let go of the folder; rows that were not flushed are dropped."""
        self._rows = []
        self._lock.close()
