"""Scoring of volumes one after the other: masks on their voxels, probabilities in batches of patches or bags.

At most as many volumes are read ahead as there are threads. Once its mask is written, no more of a volume is kept than
what the network sees of it for its targets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lepton_vision.config import Config
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.samples import UInt16Pixels
from lepton_vision.inference.volume_masks import VolumeSegmenter
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.image import require_image
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.series import repairs_of
from lepton_vision.scoring.dicom.folder import ReportFolder
from lepton_vision.scoring.inputs.inputs import Input
from lepton_vision.scoring.masks.folder import MaskFolder
from lepton_vision.scoring.rows import Row, Values, decide, distances_of, ids_of, reason_of, status_of, without_pixels
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.transforms.grid import Grid, grid_of, preprocess_view, restore_mask
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.volume_dataset import plain_sample
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class ReadVolume:
    """One input after reading, or the reason why not.

    Attributes:
        source: what was read.
        version: its size and time before that.
        seconds: that it took so far.
        image: without pixels; None where it could not be read.
        sample: (C, D, H, W) uint16 that the network sees for its targets; None without targets.
        whole: (C, D, H, W) uint16 prepared volume for a mask; None where none is wanted, or it is done.
        grid: how the voxels of the file became those of ``whole``.
        columns: of the mask.
        reason: code; empty where it was read.
    """

    source: Input
    version: str | None
    seconds: float
    image: Image | None = None
    sample: UInt16Pixels | None = None
    whole: UInt16Pixels | None = None
    grid: Grid | None = None
    columns: Row | None = None
    reason: str = ""

    @property
    def status(self) -> str:
        """That of its row where it has no image."""
        return status_of(self.reason, is_stray=self.source.is_left_out)


class VolumeScorer:
    """Volume scorer: takes volumes that were read, writes masks, and gives rows to the sink.

    Args:
        bundle: a model of volumes.
        sink: where rows go.
        engine: for its targets; None without targets.
        segmenter: for its masks; None where none are wanted.
        masks: where masks go; None where none are wanted.
        reports: where DICOM reports go; None where none are wanted.
        workers: volumes that may be read ahead.
        repairs: ``gaps`` and ``tilt`` of series, see ``readers.read_series``.
        limits: what an input may cost.
    """

    def __init__(
        self,
        bundle: Bundle,
        sink: ShardSink,
        *,
        engine: Engine | None,
        segmenter: VolumeSegmenter | None,
        masks: MaskFolder | None,
        reports: ReportFolder | None = None,
        workers: int,
        repairs: Mapping[str, Any],
        limits: Limits,
    ) -> None:
        self._repairs = repairs
        self._limits, self._reports = limits, reports
        self._bundle, self._sink = bundle, sink
        self._engine, self._segmenter, self._masks = engine, segmenter, masks
        self._config: Config = bundle.config
        self._volume = bundle.config.volume or VolumeConfig()
        self._facts: Row = {"bundle_id": bundle.bundle_id, "engine": engine_name(engine, segmenter)}
        self._group: list[ReadVolume] = []
        self.depth = workers

    def read(self, source: Input) -> ReadVolume:
        """Read and prepare one volume, in any thread; every failure becomes a reason."""
        started, version = time.perf_counter(), source.version()
        try:
            image = source.read(limits=self._limits, channels=self._volume.channels, **self._repairs)
            require_image(image, include=self._config.scan.include)
            grid = grid_of(image, self._volume)
            whole = preprocess_view(image, self._config.preprocess, self._volume)
            sample = None if self._engine is None else np.array(plain_sample(whole, self._volume))
        except Exception as error:  # an input must end as a row, and the row carries the type
            return ReadVolume(source, version, time.perf_counter() - started, reason=reason_of(error))
        kept = None if self._segmenter is None else whole
        return ReadVolume(source, version, time.perf_counter() - started, without_pixels(image), sample, kept, grid)

    def add(self, item: ReadVolume) -> None:
        """Take one volume: its mask is written at once, its row reaches the sink once a batch is full."""
        if item.image is None:
            facts = self._facts | item.source.ids() | {"source_version": item.version}
            self._sink.append([facts | {"status": item.status, "reason": item.reason, "seconds": item.seconds}])
            self._sink.flush_due()
            return
        started = time.perf_counter()
        columns = self._mask(item, item.image)
        seconds = item.seconds + time.perf_counter() - started
        self._group.append(replace(item, whole=None, columns=columns, seconds=seconds))
        if self._engine is None or len(self._group) >= self._engine.samples_per_step:
            self.finish()

    def finish(self) -> None:
        """Run the network on the samples that were taken, and hand the rows to the sink."""
        group, self._group = self._group, []
        started = time.perf_counter()
        seen = self._look(group)
        share = (time.perf_counter() - started) / max(len(group), 1)
        for item, (values, distance) in zip(group, seen, strict=True):
            if item.image is None:
                continue
            row = self._facts | item.source.ids() | ids_of(item.image) | {"source_version": item.version}
            row |= decide(values, self._bundle, distance=distance) | (item.columns or {})
            row |= {"seconds": item.seconds + share, "repair": repairs_of(item.image) or None}
            if self._reports is not None:
                row |= self._reports.columns(row, image=item.image, source=item.source)
            self._sink.append([row])
        self._sink.flush_due()

    def _look(self, group: list[ReadVolume]) -> list[tuple[Values, float | None]]:
        """Probabilities of each volume, and its distance from those of the training where that is known."""
        samples = [item.sample for item in group if item.sample is not None]
        if self._engine is None or not samples:
            return [({}, None) for _ in group]
        found = self._engine.examine(to_input(np.stack(samples), self._config.preprocess, axes=3))
        values = [
            {k: np.atleast_1d(v[number]) for k, v in found.probabilities.items()} for number in range(len(samples))
        ]
        distances = distances_of(self._bundle, found.features, count=len(samples))
        return list(zip(values, distances, strict=True))

    def _mask(self, item: ReadVolume, image: Image) -> Row:
        """Predict and write the mask of one volume."""
        if self._segmenter is None or self._masks is None or item.whole is None or item.grid is None:
            return {}
        try:
            labels = restore_mask(self._segmenter.probabilities(item.whole), item.grid)
        except EvaluationError:
            return self._masks.not_predicted("non_finite_output")
        except (MemoryError, torch.OutOfMemoryError):  # one volume too large for the device, and the next may fit
            return self._masks.not_predicted("too_large")
        return self._masks.columns(labels, image=image, source=item.source)


def engine_name(engine: Engine | None, segmenter: VolumeSegmenter | None) -> str:
    """Name of the engine of the rows, e.g. "torch 2.14.1 cpu fp32 batch 2"; of the targets if there are any."""
    if engine is not None:
        return engine.name
    return "" if segmenter is None else segmenter.name
