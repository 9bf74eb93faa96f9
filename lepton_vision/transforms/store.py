"""Disk cache of preprocessed volumes: one memory-mapped file each, shared by all workers and later runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision._version import __version__
from lepton_vision.config import Config, fingerprint
from lepton_vision.files import is_whole, sealed, unsealed, write_atomic
from lepton_vision.readers.channels import channel_files
from lepton_vision.readers.mask import mask_files
from lepton_vision.transforms.cache import WarnOnce
from lepton_vision.transforms.preprocess import Prepared
from lepton_vision.transforms.rows import RowTable

_log = logging.getLogger(__name__)

_VERSION = 2  # raise it whenever a file's layout changes; the package's version stands for the voxels
_DAY = 86400.0


class VolumeCache:
    """A folder with two sealed files for each prepared volume; the name stands for source, version and settings.

    A file is written whole or not at all, so that processes need no lock: two that write the same volume write the
    same bytes. Folds of one study share them.

    Args:
        folder: made if it does not exist.
        rows: of the data set.
        config: preprocess, volume and segmentation sections are part of the names. ``cache.max_gb`` bounds all files
            together, in 10**9 bytes; half of the free space bounds them too. Where that is reached, files that were not
            used for a day make room; else the volume is not kept.
        masks: of the rows; None where none are asked for.
    """

    def __init__(self, folder: Path, rows: RowTable, config: Config, *, masks: RowTable | None) -> None:
        self.folder, self.max_bytes = folder, config.cache.max_gb * 1e9
        self._rows, self._masks, self._names = rows, masks, dict[int, str]()
        sections = config.to_dict()
        preprocess = {**sections["preprocess"], "mean": None, "std": None}  # applied after the cache
        volume = {key: sections["volume"][key] for key in ("view", "spacing_mm", "tilt", "gaps")}
        structures = None if config.segmentation is None else sorted(config.segmentation.numbers.items())
        self._settings = fingerprint([_VERSION, __version__, preprocess, volume, structures])
        self._is_full, self._whole, self._once = False, set[str](), WarnOnce()

    def _name(self, row: int) -> str:
        """Name of a volume by what it and its mask are read from, 32 hexadecimal digits."""
        if row not in self._names:
            sources = "\n".join((self._settings, *row_sources(self._rows, row, masks=self._masks)))
            self._names[row] = hashlib.sha256(os.fsencode(sources)).hexdigest()[:32]
        return self._names[row]

    def get(self, row: int) -> Prepared | None:
        """Return a volume that was kept, its voxels mapped; None where it is not there or damaged.

        Each process reads the voxels once to compare their checksum.
        """
        name = self._name(row)
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

    def put(self, row: int, volume: Prepared) -> None:
        """Keep a volume where there is room; what goes wrong costs time only, so it is logged and nothing fails."""
        if self._is_full:
            return
        name = self._name(row)
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


def row_sources(rows: RowTable, row: int, *, masks: RowTable | None) -> list[str]:
    """Return the files that a row and its mask are read from, with the place in them and their versions."""
    places = [rows.locate(row), *([masks.locate(row)] if masks is not None and masks.paths[row] else [])]
    return [
        f"{place.path.absolute()} {place.member} {place.frame} {place.repair} {source_version(path)}"
        for place in places
        for path in channel_files(place.path, (place.member or "").split(",")) or mask_files(place.path, place.member)
    ]
