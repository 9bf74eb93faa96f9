"""Disk cache of preprocessed volumes: one memory-mapped file each, shared by all workers and later runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision._version import __version__
from lepton_vision.config import Config, fingerprint
from lepton_vision.files import is_whole, sealed, unsealed, write_atomic
from lepton_vision.transforms.cache import WarnOnce
from lepton_vision.transforms.patches import Points, StoredMask
from lepton_vision.transforms.preprocess import UInt16Pixels

_log = logging.getLogger(__name__)

_VERSION = 2  # raise it whenever a file's layout changes; the package's version stands for the voxels
_DAY = 86400.0


@dataclass(frozen=True, eq=False)
class Prepared:
    """A volume ready to be cut into patches.

    Attributes:
        pixels: (C, D, H, W) uint16, read-only where it comes from the cache.
        mask: (D, H, W) numbers of structures, or None where nothing is known.
        points: (N, 4) int32 voxels of structures, see ``find_points``.
        spacing_mm: of (D, H, W), or None where unknown.
    """

    pixels: UInt16Pixels
    mask: StoredMask | None
    points: Points
    spacing_mm: tuple[float, float, float] | None


class VolumeCache:
    """A folder with two sealed files for each prepared volume; the name stands for source, version and settings.

    A file is written whole or not at all, so that processes need no lock: two that write the same volume write the
    same bytes. Folds of one study share them.

    Args:
        folder: made if it does not exist.
        config: preprocess, volume and segmentation sections are part of the names.
        max_gb: bound of all files together in 10**9 bytes; half of the free space bounds it too. Where it is reached,
            files that were not used for a day make room; else the volume is not kept.
    """

    def __init__(self, folder: Path, config: Config, *, max_gb: float) -> None:
        self.folder, self.max_bytes = folder, max_gb * 1e9
        sections = config.to_dict()
        preprocess = {**sections["preprocess"], "mean": None, "std": None}  # applied after the cache
        volume = {key: sections["volume"][key] for key in ("view", "spacing_mm", "tilt", "gaps")}
        structures = None if config.segmentation is None else sorted(config.segmentation.numbers.items())
        self._settings = fingerprint([_VERSION, __version__, preprocess, volume, structures])
        self._is_full, self._whole, self._once = False, set[str](), WarnOnce()

    def name(self, *sources: str) -> str:
        """Name of a volume, 32 hexadecimal digits.

        Args:
            sources: what the volume and its mask are read from, and their versions (see ``source_version``).
        """
        return hashlib.sha256(os.fsencode("\n".join((self._settings, *sources)))).hexdigest()[:32]

    def get(self, name: str) -> Prepared | None:
        """Return a volume that was kept, its voxels mapped; None where it is not there or damaged.

        Each process reads the voxels once to compare their checksum.
        """
        path = self.folder / f"{name}.volume"
        try:
            plain = unsealed((self.folder / f"{name}.facts").read_bytes())
            if plain is None or not (name in self._whole or is_whole(path)):
                self._once.warn(_log, "A volume in the cache is damaged: it is prepared anew.")
                return None
            self._whole.add(name)
            stored: Any = np.load(path, mmap_mode="r")
            with np.load(io.BytesIO(plain)) as facts:
                points, spacing, has_mask = facts["points"], facts["spacing_mm"], bool(facts["has_mask"])
            if time.time() - path.stat().st_mtime > _DAY:
                os.utime(path)  # it is in use
        except (OSError, ValueError, KeyError, EOFError):
            return None
        return Prepared(
            pixels=stored[:-1] if has_mask else stored,
            mask=stored[-1] if has_mask else None,
            points=points,
            spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])) if len(spacing) else None,
        )

    def put(self, name: str, volume: Prepared) -> None:
        """Keep a volume where there is room; what goes wrong costs time only, so it is logged and nothing fails."""
        if self._is_full:
            return
        planes = volume.pixels if volume.mask is None else np.concatenate((volume.pixels, volume.mask[None]))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(planes.nbytes):
                self._is_full = True
                _log.info("The cache of volumes is full; further volumes are prepared in each epoch.")
                return
            facts = io.BytesIO()
            spacing = () if volume.spacing_mm is None else volume.spacing_mm
            np.savez(facts, points=volume.points, spacing_mm=np.asarray(spacing), has_mask=volume.mask is not None)
            voxels = io.BytesIO()
            np.save(voxels, np.ascontiguousarray(planes, dtype=np.uint16))
            write_atomic(self.folder / f"{name}.facts", sealed(facts.getvalue()))
            write_atomic(self.folder / f"{name}.volume", sealed(voxels.getvalue()))  # last: it says that both are there
        except OSError as error:
            self._is_full = True
            _log.warning("Volumes are not cached: %s.", os.strerror(error.errno) if error.errno else error)

    def _make_room(self, needed: int) -> bool:
        """Whether a file of so many bytes fits, after old ones were removed if they had to be."""
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*.volume"))
        used = sum(size for _, size, _ in found)
        bound = min(self.max_bytes, used + shutil.disk_usage(self.folder).free / 2)
        for modified, size, path in found:
            if used + needed <= bound or time.time() - modified <= _DAY:
                break
            for part in (path, path.with_suffix(".facts")):
                with contextlib.suppress(OSError):
                    part.unlink()
            used -= size
        return used + needed <= bound


def source_version(path: Path) -> str:
    """Size and time of a file, or of all files of a folder: what is read anew when it changes."""
    try:
        parts = sorted(path.rglob("*")) if path.is_dir() else [path]
        facts = [(part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    except OSError:
        return "missing"
    return fingerprint(facts)
