"""A scoring run in parts, on as many machines as there are: each part is a folder of its own until it is merged.

Parts share the inputs by path id and write below ``_parts`` of the output folder, each with its own ledger, so that a
part that was killed goes on where it stopped, wherever it is run again. Merging copies the rows of inputs that have
none yet; it may itself be killed and repeated. All machines see the inputs and the output folder under one path, and
share the key of the ids (``LEPTON_VISION_ID_KEY``).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_vision.errors import ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.scoring.batch import Progress, score
from lepton_vision.scoring.cases import write_cases
from lepton_vision.scoring.done import Words
from lepton_vision.scoring.inputs import Inputs, require_inputs
from lepton_vision.scoring.sink import JOB_FILE, ShardSink, other_keys
from lepton_vision.scoring.summary import ScoreSummary, summarize

PARTS = "_parts"  # readers of tables pass over names that begin with an underscore


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
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Inputs:
    """Find the inputs of a whole run once, for all its parts; arguments as for ``score``."""
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    is_volume = bundle.config.volume is not None
    return require_inputs(inputs, volumes=is_volume, leave_out=[Path(output)], limits=limits)


def score_part(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path] | Inputs,
    output: str | Path,
    *,
    part: int,
    parts: int,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    **settings: Any,
) -> ScoreSummary | None:
    """Score one part of a run: what a task of an array job does; then ``merge_parts`` once all have ended.

    Args:
        bundle: see ``score``.
        inputs: those of the whole run.
        output: folder of the whole run.
        part: number of this part, from 0.
        parts: of how many.
        limits: see ``score``.
        progress: see ``score``.
        settings: of ``score``: workers, batch_size, device, precision, engine, shard_rows; not masks or reports.

    Returns:
        Counts of this part; None where nothing is left to score in it.

    Raises:
        ScoringError: see ``score``; or another process works at this part.

    Example:
        >>> score_part("bundle", "inbox", "scores", part=3, parts=100)  # doctest: +SKIP
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    output = Path(output)
    own = part_inputs(list_run(bundle, inputs, output, limits=limits), part=part, parts=parts)
    own = own.keep(~np.isin(own.path_ids, scored_ids(output)))
    if not len(own):
        return None
    return score(bundle, own, part_folder(output, part, parts), limits=limits, progress=progress, **settings)


def part_folder(output: Path, part: int, parts: int) -> Path:
    """Where a part is scored before it is merged."""
    return output / PARTS / f"{part:05d}-of-{parts:05d}"


def scored_ids(output: Path) -> Words:
    """Path ids that have rows in the shards of a folder, (N,) uint64; parts that were not merged do not count."""
    found = [pq.read_table(shard, columns=["path_id"])["path_id"] for shard in sorted(output.glob("part-*.parquet"))]
    return np.array([int(one, 16) for column in found for one in column.to_pylist()], np.uint64)


def merge_parts(
    bundle: Bundle | str | Path,
    output: str | Path,
    *,
    inputs: Inputs | None = None,
) -> ScoreSummary:
    """Bring the rows of all parts into the output folder, each input once, and remove the parts.

    Args:
        bundle: see ``score``.
        output: folder of the whole run.
        inputs: those of the whole run: one without a row is an error then.

    Returns:
        Counts over the whole folder; ``new_rows`` are those that were merged.

    Raises:
        ScoringError: no part was scored, parts of different jobs (engine, bundle), or inputs without a row; what could
            be merged is.

    Example:
        >>> merge_parts("bundle", "scores").rows  # doctest: +SKIP
        100000
    """
    started = time.perf_counter()
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    output = Path(output)
    folders = sorted(path for path in (output / PARTS).glob("*-of-*") if (path / JOB_FILE).exists())
    shards = [shard for folder in folders for shard in sorted(folder.glob("part-*.parquet"))]
    job = _job(folders, output)
    if not shards and not any(output.glob("part-*.parquet")):
        raise ScoringError("Expected parts to merge. Received: none that was scored.", path=output)
    schema = pq.read_schema((shards or sorted(output.glob("part-*.parquet")))[0])
    with closing(ShardSink(output, schema, job=job, resume=True)) as sink:
        before = sink.rows
        known = sink.done.ids
        for shard in shards:
            known = _merge(shard, sink, known)
        sink.flush()
        for folder in folders:  # their rows are on disk in the sink
            shutil.rmtree(folder)
        cases = write_cases(output, sink.shards(), schema=schema, bundle=bundle)
        engine = job["engine"] if bundle.targets else None
        summary = summarize(sink, engine=engine, new_rows=sink.rows - before, started=started, cases=cases)
    if inputs is not None:
        lacking = len(inputs) - int(np.isin(inputs.path_ids, known).sum())
        if lacking:
            raise ScoringError(
                f"Expected a row for each of {len(inputs)} inputs. Received: {lacking} without one, as parts were not "
                "finished. Score those parts again, then merge again; all other rows are in the folder.",
                path=output,
            )
    return summary


def _job(folders: list[Path], output: Path) -> dict[str, Any]:
    """The one job of all parts, without the version of its record, which the sink adds."""
    records = [folder / JOB_FILE for folder in folders] or [output / JOB_FILE]
    try:
        found = [json.loads(record.read_text(encoding="utf-8")) for record in records]
    except (OSError, ValueError):
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


def _merge(shard: Path, sink: ShardSink, known: Words) -> Words:
    """Append the rows of a shard whose inputs have none; return all path ids that have rows now."""
    try:
        rows = pq.read_table(shard).to_pylist()
    except (OSError, pa.ArrowException):
        raise ScoringError(
            "A shard of a part is damaged. Delete it, score that part again and merge again.", path=shard
        ) from None
    ids = np.array([int(row["path_id"], 16) for row in rows], np.uint64)
    is_new = ~np.isin(ids, known)
    for group in _by_input([row for row, new in zip(rows, is_new, strict=True) if new]):
        sink.append(group)
        sink.flush_due()
    return np.union1d(known, ids)


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
