"""Division of a scoring run into parts for several machines: a folder for each until they are merged.

Parts share the inputs by path id and write below ``_parts`` of the output folder, and of the folders for masks and
reports, each with its own ledger, so that a part that was killed goes on where it stopped, wherever it is run again.
Merging copies the rows of inputs that have none yet and moves the files that they name; it may itself be killed and
repeated. All machines see the inputs and these folders under one path, and share the key of the ids
(``LEPTON_VISION_ID_KEY``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.files import HeldFolder
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.scoring.batch import Progress, check_summary, run_job
from lepton_vision.scoring.cases import write_cases
from lepton_vision.scoring.cluster.files import PartFiles, part_files, read_shard, remove_parts
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.job import ScoreJob
from lepton_vision.scoring.outputs import PARTS
from lepton_vision.scoring.rows import Row
from lepton_vision.scoring.sink import (
    ID_KEY,
    JOB_FILE,
    ShardSink,
    UInt64Array,
    all_shards,
    failed_rows,
    other_keys,
    read_job,
    refuse_other_job,
)
from lepton_vision.scoring.summary import FailureLimit, ScoreSummary, summarize
from lepton_vision.scoring.superseded import supersede_unopened


def part_inputs(inputs: Inputs, *, part: int, parts: int) -> Inputs:
    """The share of one part: the same inputs whatever else is named, since it is told by the path id.

    Raises:
        ScoringError: a number of no part.
    """
    if not 0 <= part < parts:
        raise ScoringError(f"Expected a part from 0 to {parts - 1}. Received: {part}.", key="part")
    return inputs.keep(inputs.path_ids % np.uint64(parts) == np.uint64(part))


def list_run(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path] | Inputs,
    output: str | Path,
    **options: Any,
) -> Inputs:
    """Find the inputs of a whole run once, for all its parts; arguments as for ``score``."""
    return ScoreJob.of(bundle, output, **options).listed(inputs).inputs


def score_part(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path] | Inputs,
    output: str | Path,
    *,
    part: int,
    parts: int,
    progress: Progress | None = None,
    **options: Any,
) -> ScoreSummary | None:
    """Score one part of a run: what a task of an array job does; then ``merge_parts`` once all have ended.

    Args:
        bundle: see ``score``.
        inputs: those of the whole run.
        output: folder of the whole run.
        part: number of this part, from 0.
        parts: of how many.
        progress: see ``score``.
        options: of ``score``, the same for all parts, but file_format, path_map and resume, which are chosen where the
            run is listed and merged. Folders for masks and reports are those of the whole run. ``max_failures`` is of
            the rows of all parts; what failed in others before this one began counts.

    Returns:
        Counts of this part; None where nothing is left to score in it.

    Raises:
        ConfigError: see ``score``; or an option that a part does not have.
        ScoringError: see ``score``; or another process works at this part.
        TooManyFailuresError: the run is stopped, see ``score``; ``merge_parts`` judges it in the end.

    Example:
        >>> score_part("bundle", "inbox", "scores", part=3, parts=100)  # doctest: +SKIP
    """
    for name in ("file_format", "path_map", "resume"):
        if name in options:
            raise ConfigError(
                f"Unknown setting {name!r} of a part. The format of the rows, a path map and starting over are of the "
                "whole run: choose them where it is listed and merged.",
                key=name,
            )
    job = ScoreJob.of(bundle, output, **options).prepared(inputs)
    own = replace(job, inputs=part_inputs(job.inputs, part=part, parts=parts))
    supersede_unopened(own)
    own = own.without_scored()
    if not len(own.inputs):
        return None
    name = part_name(part, parts)
    others = [path for path in (job.output / PARTS).glob("*-of-*") if path.name != name]
    stop = FailureLimit(job.settings.max_failures, len(job.inputs), failed_rows([job.output, *others]))
    return run_job(own.part(name), stop=stop, progress=progress)


def part_name(part: int, parts: int) -> str:
    """Name of the folders that a part is scored into before it is merged."""
    return f"{part:05d}-of-{parts:05d}"


def merge_parts(
    bundle: Bundle | str | Path, output: str | Path, *, inputs: Inputs | None = None, **options: Any
) -> ScoreSummary:
    """Bring the rows of all parts into the output folder, each input once, with their files, and remove the parts.

    Args:
        bundle: see ``score``.
        output: folder of the whole run.
        inputs: those of the whole run: one without a row is an error then. Of images of one id in several parts, the
            first in their order has the mask or report; without them, that of the first part.
        options: of ``score``, of which masks and reports (the folders that the parts were given), file_format and
            max_failures count.

    Returns:
        Counts over the whole folder; ``new_rows`` are those that were merged.

    Raises:
        ConfigError: parts have masks or reports, and their folder is not named.
        ScoringError: no part was scored, parts of different jobs (engine, bundle), or inputs without a row; what could
            be merged is.
        TooManyFailuresError: more than ``max_failures`` of the rows failed; every row is in the folder.

    Example:
        >>> merge_parts("bundle", "scores").rows  # doctest: +SKIP
        100000
    """
    job = ScoreJob.of(bundle, output, **options)
    return merge_job(job if inputs is None else replace(job, inputs=inputs))


def merge_job(job: ScoreJob) -> ScoreSummary:
    """``merge_parts`` of a job; it knows its inputs, or has none."""
    summary = merge_finished_parts(job)
    lacking = len(job.without_scored().inputs)
    if lacking:
        raise ScoringError(
            f"Expected a row for each of {len(job.inputs)} inputs. Received: {lacking} without one, as parts were not "
            "finished. Score those parts again, then merge again; all other rows are in the folder.",
            path=job.output,
        )
    return check_summary(summary, job)


def merge_finished_parts(job: ScoreJob) -> ScoreSummary:
    """Merge the parts that are there, finished or not."""
    started, output = time.perf_counter(), job.output
    parts = sorted(path for path in (output / PARTS).glob("*-of-*") if (path / JOB_FILE).exists())
    for folder in parts:
        refuse_other_job(folder, {ID_KEY: key_check()}, what="output folder")
    shards = [shard for folder in parts for shard in sorted(folder.glob("part-*.parquet"))]
    record = _record(parts, output)
    if not shards and not all_shards(output):
        raise ScoringError("Expected parts to merge. Received: none that was scored.", path=output)
    schema, merged = job.files.schema(job.bundle), record | {"format": job.settings.file_format}
    with closing(ShardSink(output, schema, job=merged, resume=True)) as sink:
        before, known = sink.rows, sink.known_inputs.ids
        with part_files(shards, record, job=job, known=known, taken=sink.mask_ids) as files:
            for shard in shards:
                known = _merge(shard, sink, known, files=files)
            sink.flush()
            for folder in job.folders:
                remove_parts(folder, [part.name for part in parts])  # their rows are on disk in the sink
        cases = write_cases(output, sink.shards(), schema=schema, bundle=job.bundle)
        engine = record["engine"] if job.bundle.targets else None
        return summarize(sink, engine=engine, new_rows=sink.rows - before, started=started, cases=cases)


def start_over(job: ScoreJob) -> None:
    """Remove the rows of an earlier run and what its parts left.

    Raises:
        ScoringError: another process holds the output folder.
    """
    with HeldFolder(job.output, what="output folder", error=ScoringError):
        for path in (*all_shards(job.output), job.output / JOB_FILE):
            path.unlink(missing_ok=True)
        for folder in job.folders:
            shutil.rmtree(folder / PARTS, ignore_errors=True)


def _record(folders: list[Path], output: Path) -> dict[str, Any]:
    """The one job of all parts, without the version of its record, which the sink adds."""
    records = [folder / JOB_FILE for folder in folders] or [output / JOB_FILE]
    try:
        found = [read_job(record) for record in records]
    except OSError:
        raise ScoringError("Expected parts that were scored. Received: none.", path=output) from None
    for one in found[1:]:
        differing = other_keys(one, found[0])
        if differing:
            raise ScoringError(
                f"Expected parts of one job. Received: parts that differ in {', '.join(differing)}. Name engine, "
                "device, precision and batch size, so that all machines do the same; score the parts again.",
                path=output,
                key=differing[0],
            )
    return {key: value for key, value in found[0].items() if key != "version"}


def _merge(shard: Path, sink: ShardSink, known: UInt64Array, *, files: list[PartFiles]) -> UInt64Array:
    """Append the rows of a shard whose inputs have none, with their files; return all path ids that have rows now."""
    rows = read_shard(shard).to_pylist()
    ids = np.array([int(row["path_id"], 16) for row in rows], np.uint64)
    is_new = ~np.isin(ids, known)
    fresh = [_with_files(row, shard.parent.name, files) for row, new in zip(rows, is_new, strict=True) if new]
    for one in files:
        one.sync()
    for group in _by_input(fresh):
        sink.append(group)
        sink.flush_due()
    return np.union1d(known, ids)


def _with_files(row: Row, part: str, files: list[PartFiles]) -> Row:
    for one in files:
        row = one.move_up(row, part)
    return row


def _by_input(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows that follow one another and have one path id: they must reach the disk together."""
    group: list[dict[str, Any]] = []
    for row in rows:
        if group and row["path_id"] != group[0]["path_id"]:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
