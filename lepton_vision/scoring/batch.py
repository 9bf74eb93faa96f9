"""Scoring runs: one row for every input, with a reason where it could not be scored.

Threads read and preprocess ahead while the model runs; a file or series that cannot be read becomes a row with a
reason. Whole shards of rows reach the disk at once, so a killed run goes on where it stopped; the mask that a row names
is on disk before the row is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.masks import VolumeSegmenter
from lepton_vision.inference.runtimes.choice import load_engine, warn_of_difference
from lepton_vision.inference.samples import read_ahead
from lepton_vision.inference.streams import SHORT_TURNS, Streams, streams_here
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.archives import forget_archives
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.quiet import quiet
from lepton_vision.scoring.cases import remove_cases, write_cases
from lepton_vision.scoring.dicom.segmentation import Code
from lepton_vision.scoring.inputs.inputs import Inputs
from lepton_vision.scoring.job import ScoreJob
from lepton_vision.scoring.masks.folder import MaskFormat
from lepton_vision.scoring.scorer import Scorer, engine_name
from lepton_vision.scoring.sink import SHARD_ROWS, ShardFormat, ShardSink, recorded_engine
from lepton_vision.scoring.summary import FailureLimit, ScoreSummary, check_failures, summarize, warn_of_left_out
from lepton_vision.scoring.superseded import supersede

# progress(inputs done, all inputs, failed inputs)
Progress = Callable[[int, int, int], None]


def score(
    bundle: Bundle | str | Path,
    inputs: str | Path | Iterable[str | Path] | Inputs,
    output: str | Path,
    *,
    masks: str | Path | None = None,
    mask_format: MaskFormat = "auto",
    reports: str | Path | None = None,
    report_codes: Mapping[str, Code] | None = None,
    heat_maps: bool = False,
    resume: bool = True,
    workers: int = 2,
    batch_size: int | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    engine: str = "torch",
    file_format: ShardFormat = "parquet",
    shard_rows: int = SHARD_ROWS,
    max_failures: float = 1.0,
    path_map: str | Path | None = None,
    include: Collection[str] | None = None,
    gaps: GapChoice | None = None,
    tilt: TiltChoice | None = None,
    retry_failed: bool = False,
    tune_process: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score files and folders into a folder of shards, one row for every image or volume and one for each that failed.

    A bundle of images gives a row per file, and per frame of a file of several. A bundle of volumes gives a row per
    volume of a DICOM series, wherever its files lie, and per other file; probabilities are those of ``predict``. Files
    of a series that are no slices of it (copies, localizers, pictures without a place), objects that are no images to
    classify (see ``include``) and DICOM documents get a row with the status "left_out", which is no failure.
    ``repair`` says what was repaired in a series.

    With ``masks``, rows get the size of each structure, ``<structure>_ml`` of a volume or ``<structure>_mm2`` of an
    image (NaN where the spacing in the patient is not known), and ``mask``, the name of a file in that folder, or
    ``mask_reason``, why there is none: ``not_dicom`` (a DICOM Segmentation of another format), ``no_spacing`` (NIfTI of
    an image without any), ``duplicate`` (an image of the same id has one), ``refused: …`` (the source is of a kind that
    the format cannot refer to), ``non_finite_output``, ``too_large``, or why the source could not be read again.

    With ``reports``, DICOM images and series get a DICOM Structured Report; rows get ``report``, the name of the file,
    or ``report_reason``: ``not_dicom``, ``duplicate``, ``refused: …``, or why the source could not be read again.

    Args:
        bundle: a Bundle with an operating point (it needs none without targets), or the folder of one.
        inputs: files, folders (walked, hidden files left out), glob patterns, manifests, archives, DICOMDIRs and URLs;
            see ``locations.list_locations``. Or what ``list_inputs`` found.
        output: folder of the shards (``part-000000.parquet`` …); pandas, polars and DuckDB read it as one table.
        masks: folder for the predicted masks, each on the grid of its source; not within ``output``. A bundle without
            targets needs it.
        mask_format: "nifti", "png" (images), "dicom" (holds patient data, see ``write_segmentation``), or "auto": NIfTI
            for volumes, PNG for images.
        reports: folder for a DICOM Structured Report of each row (each holds patient data, see
            ``dicom.report.write_structured_report``); not within ``output``.
        report_codes: by output (``covid``, ``signs_edema``), what the finding is: (value, scheme, meaning).
        heat_maps: with ``reports``, also Grad-CAM of each detected finding, as a Secondary Capture there.
        resume: keep what is there and score only the inputs that have no row yet, or have changed since (size or time
            of the file); False starts over. Rows that are replaced move to ``_superseded`` in the output folder.
        workers: threads that read ahead; so many volumes at most wait in memory.
        batch_size: images per step of the model; None is 32, and for volumes that of the training, as for ``predict``.
        device: "auto", "cpu", "cuda", "mps".
        precision: number format of the model; "auto" is that by which ``evaluate`` decides, see ``load_engine``.
        engine: runtime of the model, see ``load_engine``; "auto" goes on with that which the folder was started with.
        file_format: "parquet" or "csv".
        shard_rows: rows after which a shard is written (at the latest after a minute, too): what a killed run has to
            score again.
        max_failures: largest tolerated share of failed rows; a run that passes it for certain, and has 100 failed rows,
            is stopped, see ``summary.FailureLimit``.
        path_map: file to write with the path of each ``path_id``, before the first row; see ``write_path_map``.
        include: what else than images is scored, see ``config.ScanConfig.include``; None is what training took in. What
            is left out is a row with its kind for the reason.
        gaps: of series, "fill" or "refuse", see ``readers.read_series``; None is what the bundle was trained with.
        tilt: of series, "shear" or "refuse"; the same.
        retry_failed: whether inputs whose row failed are scored again.
        tune_process: make the run faster by settings of the whole process: memory that is freed is kept for the next
            step, which cannot be taken back (see ``keep_freed_memory``), and the interpreter's threads take turns of
            0.1 ms until the run ends. False leaves the process as it is; the command line sets it.
        limits: what an input may cost; one above it is a row with the reason ``too_large``.
        progress: called with (inputs done, all inputs, failed inputs).

    Returns:
        Counts over the whole folder, and time and rows of this run.

    Raises:
        ScoringError: no inputs, no operating point, or a folder that cannot be used or is full.
        ConfigError: masks of a bundle that predicts none, or in a format that cannot hold them.
        TooManyFailuresError: more than ``max_failures`` of the rows failed; every row so far is on disk.

    Example:
        >>> summary = score("runs/ct-01/bundle", "inbox", "scores")  # doctest: +SKIP
        >>> summary = score("runs/liver/bundle", "inbox", "scores", masks="masks")  # doctest: +SKIP
    """
    job = ScoreJob.of(
        bundle,
        output,
        masks=masks,
        mask_format=mask_format,
        reports=reports,
        report_codes=report_codes,
        heat_maps=heat_maps,
        resume=resume,
        workers=workers,
        batch_size=batch_size,
        device=device,
        precision=precision,
        engine=engine,
        file_format=file_format,
        shard_rows=shard_rows,
        max_failures=max_failures,
        include=include,
        gaps=gaps,
        tilt=tilt,
        retry_failed=retry_failed,
        tune_process=tune_process,
        limits=limits,
    ).prepared(inputs, path_map=path_map)
    summary = run_job(job, stop=FailureLimit(max_failures, len(job.inputs)), progress=progress)
    return check_summary(summary, job)


def check_summary(summary: ScoreSummary, job: ScoreJob) -> ScoreSummary:
    """Warn of objects that a run left out, and refuse too many failures; return the summary."""
    warn_of_left_out(summary, volumes=job.is_volume)
    check_failures(summary, job.settings.max_failures)
    return summary


def run_job(job: ScoreJob, *, stop: FailureLimit, progress: Progress | None = None) -> ScoreSummary:
    """Score the inputs of a job that was prepared."""
    started, settings = time.perf_counter(), job.settings
    with ExitStack() as held:
        if settings.tune_process:
            keep_freed_memory()
            held.enter_context(SHORT_TURNS)
        recorded = recorded_engine(job.output) if settings.engine == "auto" and settings.resume else None
        network = _load(job, recorded or settings.engine)
        record = {"format": settings.file_format, "bundle_id": job.bundle.bundle_id, "engine": engine_name(*network)}
        how: dict[str, Any] = {"resume": settings.resume, "shard_rows": settings.shard_rows}
        sink = ShardSink(job.output, job.files.schema(job.bundle), job=record | job.files.job(), **how)
        held.enter_context(closing(sink))
        replaced, before = supersede(sink, job), sink.rows
        scorer = _scorer(job, sink, network, held=held)
        _run(job, sink, scorer, stop=stop, progress=progress)
        cases = write_cases(job.output, sink.shards(), schema=sink.schema, bundle=job.bundle)
    return summarize(
        sink,
        engine=None if network[0] is None else network[0].name,
        difference=None if network[0] is None else network[0].difference,
        new_rows=sink.rows - before,
        started=started,
        cases=cases,
        replaced=replaced,
    )


_Network = tuple[Engine | None, VolumeSegmenter | None]


def _load(job: ScoreJob, runtime: str) -> _Network:
    """Put the network on the device: for targets, and for masks of volumes, which are predicted in windows."""
    device, precision = job.settings.device, job.settings.precision
    engine = segmenter = None
    if job.bundle.targets or not job.is_volume:
        engine = load_engine(
            job.bundle,
            engine=runtime,
            device=device,
            precision=precision,
            batch_size=job.images_at_once,
            streams=1 if job.is_volume else streams_here(),
        )
        warn_of_difference(engine, device=device)
    if job.files.masks is not None and job.is_volume:
        segmenter = VolumeSegmenter(job.bundle, device=device, precision=precision)
    return engine, segmenter


def _scorer(job: ScoreJob, sink: ShardSink, network: _Network, *, held: ExitStack) -> Scorer:
    engine, segmenter = network
    masks, reports = job.files.open(job.bundle, taken=sink.mask_ids, limits=job.limits, held=held)
    return Scorer(
        job.bundle,
        sink,
        streams=None if engine is None else held.enter_context(closing(Streams(engine))),
        segmenter=segmenter,
        masks=masks,
        reports=reports,
        workers=job.settings.workers,
        repairs=job.repairs,
        limits=job.limits,
    )


def _run(
    job: ScoreJob,
    sink: ShardSink,
    scorer: Scorer,
    *,
    stop: FailureLimit,
    progress: Progress | None,
) -> None:
    """Read ahead in threads, score whole inputs in batches, write shards; stop where too many have failed."""
    inputs, is_done = job.inputs, sink.known_inputs.mark(job.inputs.path_ids)
    pending = (one for one, known in zip(inputs, is_done, strict=True) if not known)  # no list: there may be millions
    done = int(is_done.sum())
    if done < len(inputs):
        remove_cases(sink.folder)
    failures = 0

    def check() -> None:
        failed, rows = sink.so_far
        stop.check(failed, rows=rows + len(inputs) - done)

    try:
        if done < len(inputs):
            check()  # of an earlier run
        items: Iterator[Any] = read_ahead(pending, scorer.read, workers=job.settings.workers, depth=scorer.depth)
        with quiet:  # once for all: if each file enters it, that takes a twentieth of the time of reading one
            for item in items:
                scorer.add(item)
                failures, done = failures + bool(item.reason and item.status == "failed"), done + 1
                if progress is not None:
                    progress(done, len(inputs), failures)
                check()
            scorer.finish()
    finally:
        forget_archives()
        sink.flush()  # also when interrupted: what is in the sink are finished rows
