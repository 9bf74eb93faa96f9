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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import ConfigError, ScoringError, nearest
from lepton_vision.files import HeldFolder
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.scoring.batch import Progress, Settings, score_into
from lepton_vision.scoring.cases import write_cases
from lepton_vision.scoring.cluster.files import PartFiles, part_files, read_shard, remove_parts
from lepton_vision.scoring.dicom.segmentation import Code
from lepton_vision.scoring.done import Words
from lepton_vision.scoring.inputs.inputs import Inputs, require_inputs
from lepton_vision.scoring.masks.folder import MaskFormat
from lepton_vision.scoring.outputs import PARTS, Sides
from lepton_vision.scoring.rows import Row
from lepton_vision.scoring.sink import (
    ID_KEY,
    JOB_FILE,
    ShardFormat,
    ShardSink,
    all_shards,
    failed_rows,
    other_keys,
    read_job,
    refuse_other_job,
    scored_ids,
)
from lepton_vision.scoring.summary import (
    FailureLimit,
    ScoreSummary,
    check_failures,
    refuse_share,
    summarize,
    tell_left_out,
)
from lepton_vision.scoring.superseded import supersede_in


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
    masks: str | Path | None = None,
    reports: str | Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Inputs:
    """Find the inputs of a whole run once, for all its parts; arguments as for ``score``."""
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    barred = [Path(one) for one in (output, masks, reports) if one is not None]
    return require_inputs(inputs, config=bundle.config, leave_out=barred, limits=limits)


def score_part(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path] | Inputs,
    output: str | Path,
    *,
    part: int,
    parts: int,
    masks: str | Path | None = None,
    mask_format: MaskFormat = "auto",
    reports: str | Path | None = None,
    report_codes: Mapping[str, Code] | None = None,
    heat_maps: bool = False,
    max_failures: float = 1.0,
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
        masks: folder of the whole run, the same for all parts; see ``score``.
        mask_format: see ``score``.
        reports: folder of the whole run, the same for all parts; see ``score``.
        report_codes: see ``score``.
        heat_maps: see ``score``.
        max_failures: see ``score``: of the rows of all parts; what failed in others before this one began counts.
        limits: see ``score``.
        progress: see ``score``.
        settings: of ``score``: workers, batch_size, device, precision, engine, shard_rows, retry_failed, tune_process.
            The format of the rows is chosen where they are merged.

    Returns:
        Counts of this part; None where nothing is left to score in it.

    Raises:
        ConfigError: see ``score``; or a setting that a part does not have.
        ScoringError: see ``score``; or another process works at this part.
        TooManyFailuresError: the run is stopped, see ``score``; ``merge_parts`` judges it in the end.

    Example:
        >>> score_part("bundle", "inbox", "scores", part=3, parts=100)  # doctest: +SKIP
    """
    chosen = part_settings(settings)
    refuse_share(max_failures)
    bundle, output = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), Path(output)
    asked = Sides.asked(masks, mask_format, reports=reports, codes=report_codes, heat_maps=heat_maps)
    sides = plan_run(bundle, output, sides=asked)
    found = list_run(bundle, inputs, output, masks=masks, reports=reports, limits=limits)
    own = part_inputs(found, part=part, parts=parts)
    supersede_in(output, own, sides=sides, bundle=bundle, retry_failed=chosen.retry_failed)
    own = own.keep(~np.isin(own.path_ids, scored_ids(output)))
    if not len(own):
        return None
    name = part_name(part, parts)
    stop = FailureLimit(max_failures, len(found), failed_rows(_folders(output, but=name)))
    how: dict[str, Any] = {"sides": sides, "settings": chosen, "limits": limits, "stop": stop, "progress": progress}
    return score_share(own, output, name, bundle=bundle, **how)


def _folders(output: Path, *, but: str) -> list[Path]:
    """Folders that hold rows of a run, but one of its parts."""
    return [output, *(path for path in (output / PARTS).glob("*-of-*") if path.name != but)]


def part_settings(settings: Mapping[str, Any]) -> Settings:
    """Settings of a part, by name.

    Raises:
        ConfigError: one that a part does not have.
    """
    names = [one.name for one in fields(Settings)]
    for name in settings:
        if name not in names:
            raise ConfigError(
                f"Unknown setting {name!r} of a part. {nearest(name, names)} The format of the rows, a path map and "
                "starting over are of the whole run: choose them where it is listed and merged.",
                key=name,
            )
    chosen = Settings(**settings)
    chosen.check()
    return chosen


def plan_run(bundle: Bundle, output: Path, *, sides: Sides) -> Sides:
    """Refuse before a part is scored what cannot be merged later; choose the format of the masks.

    Raises:
        ConfigError: see ``score``.
        ScoringError: see ``score``; or one of the folders is that of another job.
    """
    sides = sides.checked(bundle, output)
    for folder in (output, *(output / PARTS).glob("*-of-*")):  # a machine with a key of its own is told at once
        refuse_other_job(folder, {ID_KEY: key_check()}, what="output folder")
    refuse_other_job(output, {"bundle_id": bundle.bundle_id} | sides.job(), what="output folder")
    sides.refuse_other_jobs(bundle)
    return sides


def score_share(
    own: Inputs,
    output: Path,
    name: str,
    *,
    bundle: Bundle,
    sides: Sides,
    settings: Settings,
    limits: Limits,
    stop: FailureLimit,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score the inputs of a part into the folders of that name; arguments as ``score_part`` has checked them."""
    folder = output / PARTS / name
    how: dict[str, Any] = {"settings": settings, "limits": limits, "stop": stop, "progress": progress}
    return score_into(folder, own, bundle=bundle, sides=sides.of_part(name), **how)


def part_name(part: int, parts: int) -> str:
    """Name of the folders that a part is scored into before it is merged."""
    return f"{part:05d}-of-{parts:05d}"


def merge_parts(
    bundle: Bundle | str | Path,
    output: str | Path,
    *,
    inputs: Inputs | None = None,
    masks: str | Path | None = None,
    reports: str | Path | None = None,
    file_format: ShardFormat = "parquet",
    max_failures: float = 1.0,
) -> ScoreSummary:
    """Bring the rows of all parts into the output folder, each input once, with their files, and remove the parts.

    Args:
        bundle: see ``score``.
        output: folder of the whole run.
        inputs: those of the whole run: one without a row is an error then. Of images of one id in several parts, the
            first in their order has the mask or report; without them, that of the first part.
        masks: that which the parts were given.
        reports: that which the parts were given.
        file_format: of the rows in the output folder, "parquet" or "csv".
        max_failures: largest tolerated share of failed rows.

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
    bundle, output = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), Path(output)
    refuse_share(max_failures)
    sides = Sides.asked(masks, "auto", reports=reports, codes=None, heat_maps=False)
    summary = bring_together(bundle, output, sides=sides, file_format=file_format, inputs=inputs)
    if inputs is not None:
        lacking = len(inputs) - int(np.isin(inputs.path_ids, scored_ids(output)).sum())
        if lacking:
            raise ScoringError(
                f"Expected a row for each of {len(inputs)} inputs. Received: {lacking} without one, as parts were not "
                "finished. Score those parts again, then merge again; all other rows are in the folder.",
                path=output,
            )
    tell_left_out(summary, volumes=bundle.config.volume is not None)
    check_failures(summary, max_failures)
    return summary


def bring_together(
    bundle: Bundle,
    output: Path,
    *,
    sides: Sides,
    file_format: ShardFormat,
    inputs: Inputs | None,
) -> ScoreSummary:
    """Merge the parts that are there, finished or not; of ``sides``, the folders count."""
    started = time.perf_counter()
    parts = sorted(path for path in (output / PARTS).glob("*-of-*") if (path / JOB_FILE).exists())
    for folder in parts:
        refuse_other_job(folder, {ID_KEY: key_check()}, what="output folder")
    shards = [shard for folder in parts for shard in sorted(folder.glob("part-*.parquet"))]
    job = _job(parts, output)
    if not shards and not all_shards(output):
        raise ScoringError("Expected parts to merge. Received: none that was scored.", path=output)
    schema = sides.schema(bundle)
    with closing(ShardSink(output, schema, job=job | {"format": file_format}, resume=True)) as sink:
        before, known, taken = sink.rows, sink.done.ids, sink.mask_ids
        how: dict[str, Any] = {"bundle": bundle, "sides": sides, "inputs": inputs, "taken": taken}
        with part_files(shards, job, known=known, **how) as files:
            for shard in shards:
                known = _merge(shard, sink, known, files=files)
            sink.flush()
            for folder in (*sides.folders, output):
                remove_parts(folder, [part.name for part in parts])  # their rows are on disk in the sink
        cases = write_cases(output, sink.shards(), schema=schema, bundle=bundle)
        engine = job["engine"] if bundle.targets else None
        return summarize(sink, engine=engine, new_rows=sink.rows - before, started=started, cases=cases)


def start_over(output: Path, *, sides: Sides) -> None:
    """Remove the rows of an earlier run and what its parts left.

    Raises:
        ScoringError: another process holds the output folder.
    """
    with HeldFolder(output, what="output folder", error=ScoringError):
        for path in (*all_shards(output), output / JOB_FILE):
            path.unlink(missing_ok=True)
        for folder in (*sides.folders, output):
            shutil.rmtree(folder / PARTS, ignore_errors=True)


def _job(folders: list[Path], output: Path) -> dict[str, Any]:
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


def _merge(shard: Path, sink: ShardSink, known: Words, *, files: list[PartFiles]) -> Words:
    """Append the rows of a shard whose inputs have none, with their files; return all path ids that have rows now."""
    rows = read_shard(shard).to_pylist()
    ids = np.array([int(row["path_id"], 16) for row in rows], np.uint64)
    is_new = ~np.isin(ids, known)
    fresh = [_settled(row, shard.parent.name, files) for row, new in zip(rows, is_new, strict=True) if new]
    for one in files:
        one.sync()
    for group in _by_input(fresh):
        sink.append(group)
        sink.flush_due()
    return np.union1d(known, ids)


def _settled(row: Row, part: str, files: list[PartFiles]) -> Row:
    for one in files:
        row = one.settle(row, part)
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
