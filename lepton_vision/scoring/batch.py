"""Scoring runs: one row for every input, with a reason where it could not be scored.

Threads read and preprocess ahead while the model runs; a file or series that cannot be read becomes a row with a
reason. Whole shards of rows reach the disk at once, so a killed run goes on where it stopped; the mask that a row names
is on disk before the row is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lepton_vision.config.sections import GapChoice, TiltChoice, VolumeConfig
from lepton_vision.errors import ScoringError
from lepton_vision.files import check_folder, check_place
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes.choice import load_engine, warn_of_difference
from lepton_vision.inference.samples import read_ahead
from lepton_vision.inference.streams import SHORT_TURNS, Streams, streams_here
from lepton_vision.inference.volume_masks import VolumeSegmenter
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.archives import forget_archives
from lepton_vision.readers.identity import key_check
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.quiet import quiet
from lepton_vision.readers.series import check_repairs
from lepton_vision.scoring.cases import remove_cases, write_cases
from lepton_vision.scoring.dicom.segmentation import Code
from lepton_vision.scoring.inputs.inputs import Inputs, require_inputs
from lepton_vision.scoring.inputs.path_map import write_path_map
from lepton_vision.scoring.masks.folder import MaskFormat
from lepton_vision.scoring.outputs import OpenSides, Sides
from lepton_vision.scoring.scorer import ImageScorer
from lepton_vision.scoring.sink import ID_KEY, SHARD_ROWS, ShardFormat, ShardSink, recorded_engine, refuse_other_job
from lepton_vision.scoring.summary import (
    FailureLimit,
    ScoreSummary,
    check_failures,
    refuse_share,
    summarize,
    tell_left_out,
)
from lepton_vision.scoring.superseded import supersede
from lepton_vision.scoring.volumes import VolumeScorer, engine_name

IMAGES_AT_ONCE = 32

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
            see ``places.list_places``. Or what ``list_inputs`` found.
        output: folder of the shards (``part-000000.parquet`` …); pandas, polars and DuckDB read it as one table.
        masks: folder for the predicted masks, each on the grid of its source; not within ``output``. A bundle without
            targets needs it.
        mask_format: "nifti", "png" (images), "dicom" (holds patient data, see ``write_segmentation``), or "auto": NIfTI
            for volumes, PNG for images.
        reports: folder for a DICOM Structured Report of each row (each holds patient data, see
            ``dicom_report.write_report``); not within ``output``.
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
    bundle, output = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), Path(output)
    bundle = bundle if include is None else bundle.with_include(include)
    how: dict[str, Any] = {"retry_failed": retry_failed, "tune_process": tune_process}
    settings = Settings(workers, batch_size, device, precision, engine, shard_rows, gaps, tilt, **how)
    settings.check()
    refuse_share(max_failures)
    asked = Sides.asked(masks, mask_format, reports=reports, codes=report_codes, heat_maps=heat_maps)
    sides = asked.checked(bundle, output)
    barred = [output, *sides.folders]
    for folder in barred:
        check_folder(folder, what="output folder", error=ScoringError)
    if path_map is not None:
        check_place(path_map, what="path map", error=ScoringError)
    if resume:  # before the listing, and before a path map of other ids takes the place of that of the folder
        refuse_other_job(output, {ID_KEY: key_check()}, what="output folder")
    found = require_inputs(inputs, config=bundle.config, leave_out=barred, limits=limits)
    if path_map is not None:
        write_path_map(found, path_map)
    summary = score_into(
        output,
        found,
        bundle=bundle,
        sides=sides,
        settings=settings,
        resume=resume,
        file_format=file_format,
        limits=limits,
        stop=FailureLimit(max_failures, len(found)),
        progress=progress,
    )
    tell_left_out(summary, volumes=bundle.config.volume is not None)
    check_failures(summary, max_failures)
    return summary


@dataclass(frozen=True, slots=True)
class Settings:
    """Computation settings of a run; see ``score``."""

    workers: int = 2
    batch_size: int | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    engine: str = "torch"
    shard_rows: int = SHARD_ROWS
    gaps: GapChoice | None = None
    tilt: TiltChoice | None = None
    retry_failed: bool = False
    tune_process: bool = False

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ScoringError: a count below 1.
            ConfigError: a repair that does not exist.
        """
        check_repairs(gaps=self.gaps or "refuse", tilt=self.tilt or "refuse")
        if min(self.workers, 1 if self.batch_size is None else self.batch_size, self.shard_rows) < 1:
            raise ScoringError("Expected workers, batch_size and shard_rows of at least 1.")

    def repairs(self, bundle: Bundle) -> dict[str, Any]:
        """Repairs of series: as stated, or as the bundle was trained."""
        volume = bundle.config.volume or VolumeConfig()
        return {"gaps": self.gaps or volume.gaps, "tilt": self.tilt or volume.tilt}

    def images_at_once(self, bundle: Bundle) -> int:
        """Images per step of the model."""
        usual = IMAGES_AT_ONCE if bundle.config.volume is None else bundle.config.train.batch_size
        return self.batch_size or usual


def score_into(
    output: Path,
    found: Inputs,
    *,
    bundle: Bundle,
    sides: Sides,
    settings: Settings,
    limits: Limits,
    resume: bool = True,
    file_format: ShardFormat = "parquet",
    stop: FailureLimit | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score inputs that were found into a folder; arguments as for ``score``, checked."""
    started = time.perf_counter()
    with ExitStack() as held:
        if settings.tune_process:
            keep_freed_memory()
            held.enter_context(SHORT_TURNS)
        runtime = (recorded_engine(output) if settings.engine == "auto" and resume else None) or settings.engine
        network = _load(bundle, replace(settings, engine=runtime), masks=sides.masks is not None)
        job = {"format": file_format, "bundle_id": bundle.bundle_id, "engine": engine_name(*network)} | sides.job()
        schema = sides.schema(bundle)
        sink = ShardSink(output, schema, job=job, resume=resume, shard_rows=settings.shard_rows)
        held.enter_context(closing(sink))
        replaced = supersede(sink, found, sides=sides, bundle=bundle, retry_failed=settings.retry_failed)
        beside, before = sides.open(bundle, taken=sink.mask_ids, limits=limits, held=held), sink.rows
        scorer = _scorer(bundle, sink, network, sides=beside, settings=settings, limits=limits, held=held)
        _run(found, sink, scorer, workers=settings.workers, stop=stop or FailureLimit(), progress=progress)
        cases = write_cases(output, sink.shards(), schema=schema, bundle=bundle)
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


def _load(bundle: Bundle, settings: Settings, *, masks: bool) -> _Network:
    """Put the network on the device: for targets, and for masks of volumes, which are predicted in windows."""
    is_volume = bundle.config.volume is not None
    engine = segmenter = None
    if bundle.targets or not is_volume:
        engine = load_engine(
            bundle,
            engine=settings.engine,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.images_at_once(bundle),
            streams=1 if is_volume else streams_here(),
        )
        warn_of_difference(engine, device=settings.device)
    if masks and is_volume:
        segmenter = VolumeSegmenter(bundle, device=settings.device, precision=settings.precision)
    return engine, segmenter


def _scorer(
    bundle: Bundle,
    sink: ShardSink,
    network: _Network,
    *,
    sides: OpenSides,
    settings: Settings,
    limits: Limits,
    held: ExitStack,
) -> ImageScorer | VolumeScorer:
    (engine, segmenter), (masks, reports) = network, sides
    if bundle.config.volume is None and engine is not None:
        streams = held.enter_context(closing(Streams(engine)))
        return ImageScorer(streams, sink, masks=masks, reports=reports, limits=limits)
    return VolumeScorer(
        bundle,
        sink,
        engine=engine,
        segmenter=segmenter,
        masks=masks,
        reports=reports,
        workers=settings.workers,
        repairs=settings.repairs(bundle),
        limits=limits,
    )


def _run(
    inputs: Inputs,
    sink: ShardSink,
    scorer: ImageScorer | VolumeScorer,
    *,
    workers: int,
    stop: FailureLimit,
    progress: Progress | None,
) -> None:
    """Read ahead in threads, score whole inputs in batches, write shards; stop where too many have failed."""
    is_done = sink.done.mark(inputs.path_ids)
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
        items: Iterator[Any] = read_ahead(pending, scorer.read, workers=workers, depth=scorer.depth)
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
