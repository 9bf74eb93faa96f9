"""Scoring job: inputs, output folder, files beside the rows, settings and limits of a run as one value."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lepton_vision.config.sections import GapChoice, TiltChoice, VolumeConfig
from lepton_vision.errors import ConfigError, ScoringError, nearest
from lepton_vision.files import check_folder, check_place
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.series import check_repairs
from lepton_vision.scoring.inputs.inputs import Inputs, require_inputs
from lepton_vision.scoring.inputs.path_map import write_path_map
from lepton_vision.scoring.outputs import PARTS, FileOutputs
from lepton_vision.scoring.sink import ID_KEY, SHARD_ROWS, ShardFormat, refuse_other_job, scored_ids

IMAGES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """Computation settings of a run; see ``batch.score``."""

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
    resume: bool = True
    file_format: ShardFormat = "parquet"
    max_failures: float = 1.0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ScoringError: a count below 1, or a share of failures that is none.
            ConfigError: a repair that does not exist.
        """
        check_repairs(gaps=self.gaps or "refuse", tilt=self.tilt or "refuse")
        if min(self.workers, 1 if self.batch_size is None else self.batch_size, self.shard_rows) < 1:
            raise ScoringError("Expected workers, batch_size and shard_rows of at least 1.")
        if not 0.0 <= self.max_failures <= 1.0:
            raise ScoringError(f"Expected max_failures from 0 to 1. Received: {self.max_failures}.", key="max_failures")


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A scoring run: on one machine, one of its parts, or what its parts are merged into.

    Attributes:
        bundle: that scores.
        output: folder of the shards.
        files: masks and reports beside the rows.
        settings: of the computation.
        limits: what an input may cost.
        inputs: what is scored; empty until they are listed.
    """

    bundle: Bundle
    output: Path
    files: FileOutputs
    settings: Settings
    limits: Limits
    inputs: Inputs

    @classmethod
    def of(
        cls,
        bundle: Bundle | str | Path,
        output: str | Path,
        *,
        include: Collection[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        **options: Any,
    ) -> ScoreJob:
        """Make a job of the arguments of ``score``; nothing is looked for or written yet.

        Raises:
            ConfigError: an option that does not exist.
            ScoringError: an option out of its range.
        """
        beside = {one.name for one in fields(FileOutputs)}
        known = [*beside, *(one.name for one in fields(Settings))]
        for name in options:
            if name not in known:
                raise ConfigError(f"Unknown setting {name!r} of a scoring run. {nearest(name, known)}", key=name)
        files, settings = ({k: v for k, v in options.items() if (k in beside) is side} for side in (True, False))
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        bundle = bundle if include is None else bundle.with_include(include)
        job = cls(bundle, Path(output), FileOutputs.of(**files), Settings(**settings), limits, Inputs.of(()))
        job.settings.check()
        return job

    @property
    def folders(self) -> list[Path]:
        """Folders that the run writes, that of the rows first."""
        return [self.output, *self.files.folders]

    @property
    def is_volume(self) -> bool:
        """Whether volumes are scored, rather than images."""
        return self.bundle.config.is_volume

    @property
    def images_at_once(self) -> int:
        """Images per step of the model."""
        usual = self.bundle.config.train.batch_size if self.is_volume else IMAGES_AT_ONCE
        return self.settings.batch_size or usual

    @property
    def repairs(self) -> dict[str, Any]:
        """Repairs of series: as stated, or as the bundle was trained."""
        volume, settings = self.bundle.config.volume or VolumeConfig(), self.settings
        return {"gaps": settings.gaps or volume.gaps, "tilt": settings.tilt or volume.tilt}

    def prepared(
        self, named: str | Path | Iterable[str | Path] | Inputs, *, path_map: str | Path | None = None
    ) -> ScoreJob:
        """Refuse what cannot be scored or merged later, choose the format of the masks, and find the inputs.

        Raises:
            ConfigError: see ``score``.
            ScoringError: see ``score``; or one of the folders is that of another job.
        """
        job = replace(self, files=self.files.checked(self.bundle, self.output))
        for folder in job.folders:
            check_folder(folder, what="output folder", error=ScoringError)
        if path_map is not None:
            check_place(path_map, what="path map", error=ScoringError)
        job._refuse_other_jobs()  # before a path map of other ids takes the place of that of the folder
        job = job.listed(named)
        if path_map is not None:
            write_path_map(job.inputs, path_map)
        return job

    def _refuse_other_jobs(self) -> None:
        if self.settings.resume:
            for folder in (self.output, *(self.output / PARTS).glob("*-of-*")):
                refuse_other_job(folder, {ID_KEY: key_check()}, what="output folder")
            record = {"bundle_id": self.bundle.bundle_id} | self.files.job()
            refuse_other_job(self.output, record, what="output folder")
        self.files.refuse_other_jobs(self.bundle)

    def listed(self, named: str | Path | Iterable[str | Path] | Inputs) -> ScoreJob:
        """The job with its inputs, which are looked for unless they were found before."""
        found = require_inputs(named, config=self.bundle.config, leave_out=self.folders, limits=self.limits)
        return replace(self, inputs=found)

    def without_scored(self) -> ScoreJob:
        """The job of the inputs that have no row in the output folder yet; rows of parts do not count."""
        return replace(self, inputs=self.inputs.keep(~np.isin(self.inputs.path_ids, scored_ids(self.output))))

    def part(self, name: str) -> ScoreJob:
        """The job in folders of one part, which keep what is there and hold Parquet whatever it is merged into."""
        settings = replace(self.settings, resume=True, file_format="parquet")
        return replace(self, output=self.output / PARTS / name, files=self.files.of_part(name), settings=settings)
