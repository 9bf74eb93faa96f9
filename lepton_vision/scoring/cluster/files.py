"""Transfer of mask and report files from the parts of a run into the folder of the run.

Each part writes into a folder of its own, so that no two machines write one file, and what a part left half-done is
dropped with it. Where images of one id lie in several parts, the first in the order of the inputs has the file, as in
a run on one machine; the order of the parts decides where inputs are not known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.files import sync_folder
from lepton_vision.models.bundle import Bundle
from lepton_vision.scoring.dicom.folder import report_files
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.job import ScoreJob
from lepton_vision.scoring.outputs import PARTS
from lepton_vision.scoring.rows import Row
from lepton_vision.scoring.sink import JOB_FILE, UInt64Array, hold_job_folder, read_job, refuse_other_job

FilesOf = Callable[[Row], list[str]]
_KINDS = {"mask": "mask folder", "report": "report folder"}


@dataclass(frozen=True, slots=True)
class PartFiles:
    """Files of one kind.

    Attributes:
        column: "mask" or "report": names the file of a row; ``<column>_reason`` says why there is none.
        folder: of the run.
        files_of: names of the files that may belong to a row; the last is the one that it names.
        first: by name of a file that several parts have, the part whose file counts.
        taken: image ids of which a row names a mask; a report counts again where it has the same bytes.
    """

    column: str
    folder: Path
    files_of: FilesOf
    first: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def move_up(self, row: Row, part: str) -> Row:
        """Move the files of a row of a part up; return the row, which says so where another image has them.

        Raises:
            ScoringError: a file that the row names is not there.
        """
        name = row[self.column]
        if name is None:
            return row
        names, first = self.files_of(row), self.first.get(name, part)
        if self.column == "mask":
            is_other = row["image_id"] in self.taken or first != part
        else:
            if first != part and not self._has_others(names, first):
                self._move(names, first)
            is_other = self._has_others(names, part)
        if is_other:
            return row | {self.column: None, f"{self.column}_reason": "duplicate"}
        self._move(names, part)
        if not (self.folder / name).exists():
            raise ScoringError(
                f"Expected the {self.column} that a row of a part names. Received: none of this name. Remove the "
                "folder of that part, score it again and merge again.",
                path=self.folder / PARTS / part,
            )
        self.taken.add(row["image_id"])
        return row

    def _has_others(self, names: Sequence[str], part: str) -> bool:
        """Whether the folder of the run has one of the files of a part with other bytes, of another image of the id."""
        pairs = [(self.folder / PARTS / part / name, self.folder / name) for name in names]
        return any(one.exists() and up.exists() and one.read_bytes() != up.read_bytes() for one, up in pairs)

    def sync(self) -> None:
        """Make what was moved last; the rows that name it come after."""
        sync_folder(self.folder)

    def _move(self, names: Sequence[str], part: str) -> None:
        for name in names:
            with suppress(FileNotFoundError):  # no heat map of this finding; or it was moved before
                (self.folder / PARTS / part / name).replace(self.folder / name)


@contextmanager
def part_files(
    shards: Sequence[Path],
    record: dict[str, Any],
    *,
    job: ScoreJob,
    known: UInt64Array,
    taken: set[str],
) -> Iterator[list[PartFiles]]:
    """Hold the folders that masks and reports of parts are moved to.

    Args:
        shards: of the parts, in their order.
        record: of the parts.
        job: that they are merged into; the order of its inputs, where it knows them, tells which of several images of
            one id is the first.
        known: path ids that have rows in the output folder.
        taken: image ids of which a row of the output folder names a mask.

    Yields:
        One value for each column that the rows have.

    Raises:
        ConfigError: parts have masks or reports and no folder is named, or the other way round.
        ScoringError: a folder holds files of another job, or is in use.
    """
    with ExitStack() as held:
        kept = []
        for column, what in _KINDS.items():
            folder = job.files.masks if column == "mask" else job.files.reports
            has = record.get(f"{column}s") is not None
            if has != (folder is not None):
                raise ConfigError(
                    f"Expected {column}s={'FOLDER, that which the parts were given' if has else 'None'}: the parts "
                    f"{'have' if has else 'have no'} {column}s. Received: {'none' if has else 'a folder'}.",
                    key=f"{column}s",
                )
            if folder is not None:
                _hold(folder, what, parts=sorted({shard.parent.name for shard in shards}), held=held)
                names = _named(column, job.bundle)
                first = _first_parts(shards, column, inputs=job.inputs, known=known)
                kept.append(PartFiles(column, folder, names, first, set(taken)))
        yield kept


def _named(column: str, bundle: Bundle) -> FilesOf:
    if column == "mask":
        return lambda row: [row["mask"]]
    return lambda row: report_files(row["report"].removesuffix(".sr.dcm"), bundle)


def _hold(folder: Path, what: str, *, parts: Sequence[str], held: ExitStack) -> None:
    """Hold the folder of the run; all parts must be of its job."""
    records = [record for part in parts if (record := folder / PARTS / part / JOB_FILE).exists()]
    for number, record in enumerate(records):  # none where a merge that was cut off had come to removing them
        job = read_job(record)
        if number:
            refuse_other_job(folder, job, what=what)
        else:
            held.enter_context(closing(hold_job_folder(folder, job=job, what=what)))


def read_shard(shard: Path, *, columns: list[str] | None = None) -> pa.Table:
    """Read a shard of a part.

    Raises:
        ScoringError: it is damaged.
    """
    try:
        return pq.read_table(shard, columns=columns)
    except (OSError, pa.ArrowException):
        raise ScoringError(
            "A shard of a part is damaged. Delete it, score that part again and merge again.", path=shard
        ) from None


def remove_parts(folder: Path, parts: Sequence[str]) -> None:
    """Remove what parts have left in a folder of the run."""
    for part in parts:
        shutil.rmtree(folder / PARTS / part, ignore_errors=True)
    with suppress(OSError):  # other parts are still there
        (folder / PARTS).rmdir()


def _first_parts(shards: Sequence[Path], column: str, *, inputs: Inputs, known: UInt64Array) -> dict[str, str]:
    """By name of a file that rows of several parts have, the part of the first."""
    tables = [read_shard(shard, columns=["path_id", column]) for shard in shards]
    if not tables:
        return {}
    names = pa.chunked_array([chunk for table in tables for chunk in table[column].chunks], pa.string())
    counts = pc.value_counts(names.drop_null())
    several = {one["values"] for one in counts.to_pylist() if one["counts"] > 1}
    found: dict[str, list[tuple[int, str]]] = {}
    for shard, table in zip(shards, tables, strict=True) if several else ():
        for row in table.to_pylist():
            if row[column] in several:
                found.setdefault(row[column], []).append((int(row["path_id"], 16), shard.parent.name))
    asked = np.array([path_id for pairs in found.values() for path_id, _ in pairs], np.uint64)
    done = set(asked[np.isin(asked, known)].tolist())
    order, last = _positions(asked, inputs), len(inputs)
    first = {}
    for name, pairs in found.items():
        left = [(order.get(path_id, last), part) for path_id, part in pairs if path_id not in done]
        if left:
            first[name] = min(left, key=lambda pair: pair[0])[1]  # the first of the parts where the order is not known
    return first


def _positions(path_ids: UInt64Array, inputs: Inputs) -> dict[int, int]:
    """Positions of some inputs in the order of all, where it is known."""
    at = np.flatnonzero(np.isin(inputs.path_ids, path_ids))
    return dict(zip(inputs.path_ids[at].tolist(), at.tolist(), strict=True))
