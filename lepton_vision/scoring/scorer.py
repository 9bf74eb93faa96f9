"""Batch scoring of images and volumes: probabilities and masks, one row for each sample.

Masks of images come from the same pass of the network as their probabilities. A volume's mask is predicted by itself,
in windows or slice by slice; once it is written, no more of the volume is kept than what the network sees of it for its
targets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np
import torch

from lepton_vision.errors import EvaluationError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.masks import VolumeSegmenter
from lepton_vision.inference.samples import Sample, samples_of
from lepton_vision.inference.streams import Streams
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.image import require_image
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.series import repairs_of
from lepton_vision.scoring.dicom.folder import ReportFolder
from lepton_vision.scoring.inputs.inputs import Input
from lepton_vision.scoring.masks.folder import MaskFolder
from lepton_vision.scoring.rows import Row, Values, decide, distances_of, ids_of, reason_of, status_of
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.views import view_of
from lepton_vision.types import Pixels, SampleAddress


@dataclass(frozen=True, slots=True)
class ReadInput:
    """One input after reading.

    Attributes:
        source: what was read.
        version: its size and time before that.
        seconds: that it took so far.
        samples: its images without pixels, each ready for the network; none where it could not be read.
        reason: code; empty where it was read.
        columns: of the mask of a volume, once that is written.
    """

    source: Input
    version: str | None
    seconds: float
    samples: tuple[Sample, ...] = ()
    reason: str = ""
    columns: Row = field(default_factory=dict)

    @property
    def status(self) -> str:
        """That of its row where it has no image."""
        return status_of(self.reason, is_stray=self.source.is_left_out)


class _Seen(NamedTuple):
    """Network outputs of one image; ``mask`` (1 + M, height, width) or None, ``distance`` as for ``decide``."""

    values: Values
    mask: Pixels | None
    distance: float | None
    seconds: float


class _Steps:
    """Steps of one group, as many at once as there are streams: a file of a thousand frames has as many masks.

    Args:
        waiting: pixels of each step.
        streams: where they run.
    """

    def __init__(self, waiting: Iterator[Sequence[UInt16Pixels]], streams: Streams) -> None:
        self._futures = (streams.submit(_look, step, engine=streams.engine) for step in waiting)
        self._running = deque(islice(self._futures, streams.engine.streams))

    def __iter__(self) -> Iterator[_Seen]:
        while self._running:
            found = self._running.popleft().result()
            self._running.extend(islice(self._futures, 1))
            yield from found


def _look(pixels: Sequence[UInt16Pixels], *, engine: Engine) -> list[_Seen]:
    """Network outputs of each sample of a step; masks of images alone."""
    started = time.perf_counter()
    found = engine.examine_pixels(np.stack(pixels))
    masks = None if view_of(engine.bundle.config).is_volume else found.masks
    distances = distances_of(engine.bundle, found.features, count=len(pixels))
    share = (time.perf_counter() - started) / len(pixels)
    return [
        _Seen(
            {name: np.atleast_1d(array[number]) for name, array in found.probabilities.items()},
            None if masks is None else masks[number],
            distances[number],
            share,
        )
        for number in range(len(pixels))
    ]


class Scorer:
    """Batching scorer: takes inputs that were read, and gives rows to the sink in the same order.

    Args:
        bundle: the model.
        sink: where rows go.
        streams: where the network runs, see ``Streams``; whoever made it closes it. None for volumes without targets.
        segmenter: for the masks of volumes; None where none are wanted.
        masks: where masks go, or None.
        reports: where DICOM reports go, or None.
        workers: volumes that may be read ahead; of images, as many as two steps take.
        repairs: ``gaps`` and ``tilt`` of series, see ``readers.read_series``.
        limits: what an input may cost.
    """

    def __init__(
        self,
        bundle: Bundle,
        sink: ShardSink,
        *,
        streams: Streams | None,
        segmenter: VolumeSegmenter | None = None,
        masks: MaskFolder | None = None,
        reports: ReportFolder | None = None,
        workers: int = 1,
        repairs: Mapping[str, Any] | None = None,
        limits: Limits,
    ) -> None:
        self._bundle, self._sink, self._streams, self._segmenter = bundle, sink, streams, segmenter
        self._masks, self._reports, self._limits, self._view = masks, reports, limits, view_of(bundle.config)
        engine, volume = None if streams is None else streams.engine, bundle.config.volume
        self._how: dict[str, Any] = {"limits": limits, "is_whole": self._view.is_volume or masks is not None}
        self._how |= {} if volume is None else {"channels": volume.channels, **(repairs or {})}
        self._step = 1 if engine is None else engine.samples_per_step
        # Of images one group waits, so that no stream does; a volume takes long, and its row is not to be lost.
        self._ahead = 0 if engine is None or self._view.is_volume else engine.streams
        self.depth = workers if self._view.is_volume else 2 * self._step
        self._group: list[ReadInput] = []
        self._running: deque[tuple[list[ReadInput], Iterable[_Seen]]] = deque()
        self._facts: Row = {"bundle_id": bundle.bundle_id, "engine": engine_name(engine, segmenter)}

    def read(self, source: Input) -> ReadInput:
        """Read and prepare one input, in any thread; every failure becomes a reason."""
        started, version = time.perf_counter(), source.version()
        try:
            image = require_image(source.read(**self._how), include=self._bundle.config.scan.include)
            whole, at = self._segmenter is not None, SampleAddress(source.path)
            samples = samples_of(image, self._view, at=at, is_whole=whole, is_last_use=True)
        except Exception as error:  # an input must end as a row, and the row carries the type
            return ReadInput(source, version, time.perf_counter() - started, reason=reason_of(error))
        return ReadInput(source, version, time.perf_counter() - started, samples)

    def add(self, item: ReadInput) -> None:
        """Take one input: the mask of a volume is written at once; its batch runs once it is full.

        Rows reach the sink once their batch is through.
        """
        self._group.append(item if self._segmenter is None else self._with_masks(item, self._segmenter))
        waiting = sum(len(one.samples) for one in self._group)
        if waiting >= self._step or len(self._group) >= 4 * self._step:
            self._start()
            while len(self._running) > self._ahead:
                self._settle()

    def finish(self) -> None:
        """Run the network on what was taken and not yet run, and hand all rows to the sink."""
        self._start()
        while self._running:
            self._settle()

    def _with_masks(self, item: ReadInput, segmenter: VolumeSegmenter) -> ReadInput:
        """Predict and write the mask of a volume, and keep what the network sees of it for its targets."""
        started, samples, columns = time.perf_counter(), [], Row()
        for sample in item.samples:
            columns |= self._volume_mask(sample, item.source, segmenter)
            kept = sample.pixels[:0] if self._streams is None else self._view.plain(sample.pixels)
            samples.append(replace(sample, pixels=kept))
        seconds = item.seconds + time.perf_counter() - started
        return replace(item, samples=tuple(samples), columns=columns, seconds=seconds)

    def _volume_mask(self, sample: Sample, source: Input, segmenter: VolumeSegmenter) -> Row:
        if self._masks is None:
            return {}
        try:
            prob = segmenter.probabilities(sample.pixels)
        except EvaluationError:
            return self._masks.not_predicted("non_finite_output")
        except (MemoryError, torch.OutOfMemoryError):  # one volume too large for the device, and the next may fit
            return self._masks.not_predicted("too_large")
        return self._mask_columns(prob, sample, source)

    def _mask_columns(self, prob: Pixels, sample: Sample, source: Input) -> Row:
        if self._masks is None or sample.image is None:
            return {}
        if not np.isfinite(prob).all():
            return self._masks.not_predicted("non_finite_output")
        return self._masks.columns(self._view.restore(prob, sample.image), image=sample.image, source=source)

    def _start(self) -> None:
        group, self._group = self._group, []
        pixels, size = [sample.pixels for item in group for sample in item.samples], self._step
        waiting = (pixels[start : start + size] for start in range(0, len(pixels), size))
        nothing = repeat(_Seen({}, None, None, 0.0))
        self._running.append((group, nothing if self._streams is None else _Steps(waiting, self._streams)))

    def _settle(self) -> None:
        """Wait for the oldest group, and hand its rows to the sink, all rows of an input at once."""
        group, steps = self._running.popleft()
        seen = iter(steps)
        for item in group:
            facts = self._facts | item.source.ids() | {"source_version": item.version}
            if item.reason:
                self._sink.append([facts | {"status": item.status, "reason": item.reason, "seconds": item.seconds}])
                continue
            rows = []
            for number, sample in enumerate(item.samples):
                frame = number if len(item.samples) > 1 else item.source.frame
                rows.append(facts | self._row(next(seen), sample, item, frame=frame))
            self._sink.append(rows)
        self._sink.flush_due()

    def _row(self, seen: _Seen, sample: Sample, item: ReadInput, *, frame: int | None) -> Row:
        started, image = time.perf_counter(), sample.image
        if image is None:
            return {}
        row = ids_of(image, frame=frame) | decide(seen.values, self._bundle, distance=seen.distance) | item.columns
        if seen.mask is not None:
            row |= self._mask_columns(seen.mask, sample, item.source)
        if self._view.is_volume:
            row |= {"repair": repairs_of(image) or None}
        row |= {"seconds": item.seconds / len(item.samples) + seen.seconds + time.perf_counter() - started}
        if self._reports is not None:
            row |= self._reports.columns(row, image=image, source=item.source, pixels=sample.pixels)
        return row


def engine_name(engine: Engine | None, segmenter: VolumeSegmenter | None) -> str:
    """Name of the engine of the rows, e.g. "torch 2.14.1 cpu fp32 batch 2"; of the targets if there are any."""
    if engine is not None:
        return engine.name
    return "" if segmenter is None else segmenter.name
