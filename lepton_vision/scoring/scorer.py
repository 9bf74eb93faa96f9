"""Batch scoring of images: probabilities and masks in one pass of the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from lepton_vision.inference.samples import UInt16Pixels, frames_of
from lepton_vision.inference.streams import Streams
from lepton_vision.readers.image import require_image
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.dicom.folder import ReportFolder
from lepton_vision.scoring.inputs.inputs import Input
from lepton_vision.scoring.masks.folder import MaskFolder
from lepton_vision.scoring.rows import Row, Values, decide, distances_of, ids_of, reason_of, status_of, without_pixels
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.transforms.masks import restore_mask
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.types import Image, Pixels


@dataclass(frozen=True, slots=True)
class ReadImages:
    """One input after reading: its images, without pixels, and (C, H, W) uint16 each, or the reason why not."""

    source: Input
    version: str | None
    seconds: float
    images: tuple[Image, ...] = ()
    pixels: tuple[UInt16Pixels, ...] = ()
    reason: str = ""

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
        look: what runs.
    """

    def __init__(
        self,
        waiting: Iterator[Sequence[UInt16Pixels]],
        streams: Streams,
        look: Callable[[Sequence[UInt16Pixels]], list[_Seen]],
    ) -> None:
        self._futures = (streams.submit(look, step) for step in waiting)
        self._running = deque(islice(self._futures, streams.engine.streams))

    def __iter__(self) -> Iterator[_Seen]:
        while self._running:
            found = self._running.popleft().result()
            self._running.extend(islice(self._futures, 1))
            yield from found


class ImageScorer:
    """Batching scorer: takes images that were read, and gives rows to the sink in the same order.

    Args:
        streams: where the network runs, see ``Streams``; whoever made it closes it.
        sink: where rows go.
        masks: where masks go, or None.
        reports: where DICOM reports go, or None.
        limits: what an input may cost.
    """

    def __init__(
        self,
        streams: Streams,
        sink: ShardSink,
        *,
        masks: MaskFolder | None,
        reports: ReportFolder | None = None,
        limits: Limits,
    ) -> None:
        self._limits, self._reports = limits, reports
        self._streams, self._engine, self._sink, self._masks = streams, streams.engine, sink, masks
        self._group: list[ReadImages] = []
        self._running: deque[tuple[list[ReadImages], _Steps]] = deque()
        self._facts: Row = {"bundle_id": self._engine.bundle.bundle_id, "engine": self._engine.name}
        self.depth = 2 * self._engine.batch_size

    def read(self, source: Input) -> ReadImages:
        """Read and preprocess one input, in any thread; every failure becomes a reason."""
        started, version = time.perf_counter(), source.version()
        try:
            config = self._engine.bundle.config
            image = source.read(limits=self._limits, is_whole=self._masks is not None)
            images = frames_of(require_image(image, include=config.scan.include))
            pixels = tuple(preprocess_image(image, config.preprocess, is_last_use=True) for image in images)
        except Exception as error:  # an input must end as a row, and the row carries the type
            return ReadImages(source, version, time.perf_counter() - started, reason=reason_of(error))
        slim = tuple(map(without_pixels, images))
        return ReadImages(source, version, time.perf_counter() - started, slim, pixels)

    def add(self, item: ReadImages) -> None:
        """Take one input; its batch runs once it is full, and its rows reach the sink once that is through."""
        self._group.append(item)
        size = self._engine.batch_size
        if sum(len(one.pixels) for one in self._group) >= size or len(self._group) >= 4 * size:
            self._start()
            while len(self._running) > self._engine.streams:  # one waits, so that no stream does
                self._settle()

    def finish(self) -> None:
        """Run the network on what was taken and not yet run, and hand all rows to the sink."""
        self._start()
        while self._running:
            self._settle()

    def _start(self) -> None:
        group, self._group = self._group, []
        pixels, size = [array for item in group for array in item.pixels], self._engine.batch_size
        waiting = (pixels[start : start + size] for start in range(0, len(pixels), size))
        self._running.append((group, _Steps(waiting, self._streams, self._look)))

    def _settle(self) -> None:
        """Wait for the oldest group, and hand its rows to the sink, all rows of an input at once."""
        group, steps = self._running.popleft()
        seen = iter(steps)
        for item in group:
            facts = self._facts | item.source.ids() | {"source_version": item.version}
            if item.reason:
                self._sink.append([facts | {"status": item.status, "reason": item.reason, "seconds": item.seconds}])
                continue
            share = item.seconds / len(item.images)
            rows = []
            for number, image in enumerate(item.images):
                frame = number if len(item.images) > 1 else item.source.frame
                row = facts | ids_of(image, frame=frame) | self._row(next(seen), image, item.source, share)
                if self._reports is not None:
                    row |= self._reports.columns(row, image=image, source=item.source, pixels=item.pixels[number])
                rows.append(row)
            self._sink.append(rows)
        self._sink.flush_due()

    def _look(self, pixels: Sequence[UInt16Pixels]) -> list[_Seen]:
        """Network outputs of each image of a step."""
        started = time.perf_counter()
        found = self._engine.examine_pixels(np.stack(pixels))
        distances = distances_of(self._engine.bundle, found.features, count=len(pixels))
        share = (time.perf_counter() - started) / len(pixels)
        return [
            _Seen(
                {name: np.atleast_1d(array[number]) for name, array in found.probabilities.items()},
                None if found.masks is None else found.masks[number],
                distances[number],
                share,
            )
            for number in range(len(pixels))
        ]

    def _row(self, seen: _Seen, image: Image, source: Input, read_seconds: float) -> Row:
        started = time.perf_counter()
        row = decide(seen.values, self._engine.bundle, distance=seen.distance)
        if self._masks is not None and seen.mask is not None:
            if np.isfinite(seen.mask).all():
                height, width = image.pixels.shape[1:]
                labels = restore_mask(seen.mask, (height, width), config=self._engine.bundle.config.preprocess)
                row |= self._masks.columns(labels, image=image, source=source)
            else:
                row |= self._masks.not_predicted("non_finite_output")
        return row | {"seconds": read_seconds + seen.seconds + time.perf_counter() - started}
