"""Training checkpoints with checksums: resumption mid-epoch, and the previous checkpoint as a fallback."""

from __future__ import annotations

import io
import logging
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.files import atomic_file, is_whole, seal_of, sync_folder

_LOGGER = logging.getLogger(__name__)
_VERSION = 3
# Keys that may differ when a run is resumed: they change how fast it goes or what follows it, not the weights.
_FREE_SECTIONS = ("cache", "evaluation", "audit")
_FREE_KEYS = ("train.workers", "train.checkpoint_seconds")
_PATH_KEYS = ("model.weights", "model.init_from", "augment.pipeline")  # values that no message shows


@dataclass(slots=True)
class Best:
    """The epoch to keep as things stand: the best so far, or the last one.

    Attributes:
        epoch: from 0.
        figures: what validation gave.
        state: weights on the CPU, the averaged ones where averaging is on.
    """

    epoch: int
    figures: dict[str, float]
    state: dict[str, Tensor]


@dataclass(slots=True)
class Position:
    """How far a run has come; changes with every step.

    Attributes:
        epoch: the running epoch, from 0.
        step: optimiser steps done in it.
        samples: samples that this process has seen of it.
        loss_sum: sum over its steps of loss times images.
        images: images behind ``loss_sum``.
        skipped: optimiser steps passed over in it because fp16 gradients overflowed.
        seconds: wall time of the whole run.
        epoch_seconds: wall time of this epoch's training.
        stale: epochs since the monitored figure last got better.
        history: one row per finished epoch.
        best: the epoch to keep, None before the first validation.
        is_finished: whether nothing is left to do.
    """

    epoch: int = 0
    step: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    is_finished: bool = False

    def start_next_epoch(self) -> None:
        """Move to the beginning of the next epoch."""
        self.epoch += 1
        self.step = self.samples = self.images = self.skipped = 0
        self.loss_sum = self.epoch_seconds = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        """Rebuild a position from plain values."""
        best = values["best"]
        return cls(**{**values, "best": None if best is None else Best(**best)})


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run was started with: a resumed run must have the same.

    Attributes:
        config: the whole configuration.
        data: fingerprint of the manifest, "" where it is not known.
        processes: number of processes.
        own: names of the parts that the caller brought, see ``OwnParts.shaping``.
    """

    config: Config
    data: str
    processes: int
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """``checkpoints/`` of a run folder."""

    run_dir: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.run_dir / "checkpoints" / "last.pt"

    @property
    def previous(self) -> Path:
        """The one before, for a last one that is damaged."""
        return self.last.with_name("previous.pt")

    def write(self, position: Position, origin: Origin, *, parts: Mapping[str, Any]) -> None:
        """Write a checkpoint; the last one becomes the one before.

        Args:
            position: where the run stands.
            origin: what it was started with.
            parts: state dicts by name (model, average, optimizer, scaler).

        Raises:
            TrainingError: the disk is full or not writable; the checkpoint before stays as it was.
        """
        content = {
            "version": _VERSION,
            "config": origin.config.to_dict(),
            "data": origin.data,
            "processes": origin.processes,
            "own": list(origin.own),
            "position": _plain(position),
            "parts": dict(parts),
        }
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.last) as file:
                guarded = _Guarded(file)
                torch.save(content, cast(IO[bytes], guarded))
                guarded.raise_error()
                file.write(seal_of(guarded.checksum))
                file.flush()
                os.fsync(file.fileno())
                if self.last.is_file():  # the new one, which is on disk, takes its name at the end of this block
                    self.last.replace(self.previous)
        except OSError as error:
            raise TrainingError(
                f"Cannot write the checkpoint of epoch {position.epoch}, step {position.step}: {error.strerror}. "
                "Make room in the run folder (two checkpoints of about four times the weights are kept) and go on with "
                "resume; the checkpoint before this one is intact.",
                path=self.last,
            ) from error

    def read(self, origin: Origin) -> tuple[Position, dict[str, Any]] | None:
        """Where the run stands and the state dicts, or None where no checkpoint was written yet.

        Where the last checkpoint is damaged, or a kill left none of this name, it is the one before.

        Raises:
            ConfigError: the run was started with another configuration, other data or another number of processes.
            TrainingError: no checkpoint is whole, or it is of a newer version.
        """
        path = self._newest()
        if path is None:
            return None
        if path == self.previous and self.last.is_file():
            _LOGGER.warning("The last checkpoint is damaged: training goes on from the one before.")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            version = content["version"]
        except Exception as error:
            raise _damaged(path) from error
        if version != _VERSION:
            raise TrainingError(
                f"Expected a checkpoint of version {_VERSION}. Received: {version}. "
                "Go on with the version of lepton_vision that wrote it, or start in another run folder.",
                path=path,
            )
        _check_origin(content, origin)
        return Position.from_dict(content["position"]), content["parts"]

    def _newest(self) -> Path | None:
        """The newest checkpoint that is whole; None where there is none at all."""
        found = [path for path in (self.last, self.previous) if path.is_file()]
        whole = next((path for path in found if is_whole(path)), None)
        if found and whole is None:
            raise _damaged(found[0])
        return whole

    def drop_damaged(self) -> None:
        """Put the checkpoint before in the place of a last one that is damaged, so that this does not follow it."""
        if self._newest() == self.previous:
            self.previous.replace(self.last)
            sync_folder(self.last.parent)

    def refuse_if_used(self) -> None:
        """Keep a run that is there from being overwritten.

        Raises:
            ConfigError: a checkpoint is there.
        """
        if self.last.is_file() or self.previous.is_file():
            raise ConfigError(
                "The run folder holds a run already. Expected an empty one. Go on with resume (--resume), "
                "or choose another run folder.",
                path=self.run_dir,
                key="run_dir",
            )

    def remove_leftovers(self) -> None:
        """Delete temporary files of a process that was killed while it wrote."""
        for path in self.last.parent.glob(f".{self.last.name}.*.tmp"):
            path.unlink(missing_ok=True)


def check_run(run_dir: Path, config: Config, *, data: str, resume: bool, own: tuple[str, ...] = ()) -> bool:
    """Refuse a run folder in which a run cannot begin or go on, before anything in it is touched.

    Args:
        run_dir: of the run.
        config: of the run.
        data: fingerprint of its manifest.
        resume: whether it is to go on.
        own: see ``Origin``.

    Returns:
        Whether the run is finished.

    Raises:
        ConfigError: see ``CheckpointFolder.read`` and ``refuse_if_used``.
        TrainingError: see ``CheckpointFolder.read``.
    """
    folder = CheckpointFolder(run_dir)
    if not resume:
        folder.refuse_if_used()
        return False
    found = folder.read(Origin(config, data, int(os.environ.get("WORLD_SIZE", "1")), own))
    return found is not None and found[0].is_finished


def _damaged(path: Path) -> TrainingError:
    return TrainingError(
        "The checkpoint is damaged, or of an older version of lepton_vision, and there is no other one. Remove the "
        "folder `checkpoints` of the run to start again.",
        path=path,
    )


def _plain(position: Position) -> dict[str, Any]:
    """Plain values of a position; tensors are not copied."""
    best = position.best
    values = {name: getattr(position, name) for name in Position.__dataclass_fields__}
    values["best"] = None if best is None else {"epoch": best.epoch, "figures": best.figures, "state": best.state}
    return values


class _Guarded(io.RawIOBase):
    """A file for torch.save that keeps a write error until torch is done, and the CRC-32 of what was written.

    An exception inside torch's archive writer leaves it half open, and it then complains about that instead.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._error: OSError | None = None
        self.checksum = 0

    def write(self, data: Any) -> int:
        if self._error is None:
            self.checksum = zlib.crc32(data, self.checksum)
            try:
                return self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def raise_error(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error


def _check_origin(content: Mapping[str, Any], origin: Origin) -> None:
    """Refuse to go on with something else."""
    before, now = _settings(content["config"]), _settings(origin.config.to_dict())
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key, math.inf) != now.get(key, math.inf)
        and key.split(".")[0] not in _FREE_SECTIONS
        and key not in _FREE_KEYS
    )
    if changed:
        shown = ", ".join(
            key if key in _PATH_KEYS else f"{key} (was {before.get(key)!r}, is {now.get(key)!r})" for key in changed[:5]
        )
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ConfigError(
            f"Cannot resume with another configuration: {shown}{more}. "
            "Use the run folder's config.yaml, or start in another run folder.",
            key=changed[0],
        )
    if content["data"] != origin.data:
        raise ConfigError(
            f"Cannot resume with other data: the manifest's fingerprint was {content['data']!r}, is {origin.data!r}. "
            "Use the run folder's manifest, or start in another run folder. A scan with another id key "
            "(LEPTON_VISION_ID_KEY, or another home without its key file) gives other ids too.",
            key="data",
        )
    if content["processes"] != origin.processes:
        raise ConfigError(
            f"Cannot resume with {origin.processes} processes: the run was started with {content['processes']}, "
            "and the number decides which sample comes when.",
            key="processes",
        )
    if tuple(content["own"]) != origin.own:
        given = [_in_words(names) for names in (content["own"], origin.own)]
        raise ConfigError(
            f"Cannot resume with other parts of the caller: the run was started with {given[0]}, and is given "
            f"{given[1]}. Give it the same functions, or start in another run folder.",
            key="own",
        )


def _in_words(own: Sequence[str]) -> str:
    """Parts of the caller as arguments: ``figures (val_f2: higher is better)`` is ``figures= (…)``."""
    return ", ".join("= ".join(name.partition(" ")[::2]).strip() for name in own) or "none"


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key; the order of the structures is one, as masks number them in it."""
    segmentation = config.get("segmentation") or {}
    return _flat(config) | {"segmentation.structures": list(segmentation.get("structures", ()))}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
