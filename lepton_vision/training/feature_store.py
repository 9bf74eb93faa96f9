"""Disk cache of frozen-stage features by image, shared by folds, seeds and later runs."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from torch import Tensor

from lepton_vision._version import __version__
from lepton_vision.files import sealed, unsealed

_LOGGER = logging.getLogger(__name__)
_NAME, _VERSION = "features", 2  # raise the version whenever an entry's layout changes
_WAIT_SECONDS = 60.0  # for another process that writes
_T = TypeVar("_T")


class FeatureStore:
    """One SQLite file for one network and preprocessing, whose entries are whole or absent, even after a kill.

    Each entry is sealed: one that is damaged is computed anew, and a file that is no database any more is begun anew. A
    store that cannot be read or written costs time only: it is logged and done without.
    """

    def __init__(self, path: Path, *, max_gb: float) -> None:
        self.path, self._max_bytes, self._said = path, max_gb * 1e9, set[str]()
        try:
            self._connection = _connect(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._warn("The store of features is damaged: they are computed anew.")
        self.path.unlink(missing_ok=True)
        self._connection = _connect(self.path)

    def _warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _LOGGER.warning(message)

    @classmethod
    def open(cls, folder: Path | None, fingerprint: str, *, max_gb: float) -> FeatureStore | None:
        """Open or create the store of these stages.

        Args:
            folder: made if it does not exist; None means no store.
            fingerprint: names all that features depend on beside the image.
            max_gb: bound of the file in 10**9 bytes; 0 means no store.
        """
        if folder is None or max_gb <= 0:
            return None
        name = hashlib.sha256(f"{__version__} {_VERSION} {fingerprint}".encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(folder / f"{name}.features", max_gb=max_gb)
        except (OSError, sqlite3.Error) as error:
            _LOGGER.warning("Features are not kept on disk (%s): each run computes them.", type(error).__name__)
            return None

    def read(self, keys: Sequence[str]) -> Iterator[Tensor | None]:
        """Yield the features of each image, None where they are not there."""
        for key in keys:
            found = self._attempt(lambda key=key: self._select(key))  # type: ignore[misc]
            yield None if found is None else self._decode(found)

    def _select(self, key: str) -> bytes | None:
        row = self._connection.execute("SELECT entry FROM features WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def write(self, keys: Sequence[str], entries: Tensor) -> None:
        """Keep one entry per key, until the file has reached its bound."""
        if self.path.stat().st_size < self._max_bytes:
            self._attempt(lambda: self._insert(keys, entries))

    def _insert(self, keys: Sequence[str], entries: Tensor) -> None:
        with self._connection as opened:
            opened.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?)",
                [
                    (key, sealed(safetensors.torch.save({_NAME: entry.contiguous()})))
                    for key, entry in zip(keys, entries, strict=True)
                ],
            )

    def _attempt(self, action: Callable[[], _T]) -> _T | None:
        try:
            return action()
        except sqlite3.Error as error:
            if _is_damage(error):
                self.close()
                self._begin_anew()
            else:
                self._warn(f"The store of features cannot be used ({type(error).__name__}): they are computed.")
            return None

    def _decode(self, content: bytes) -> Tensor | None:
        plain = unsealed(content)
        if plain is None:
            self._warn("An entry of the store of features is damaged: computed anew.")
            return None
        return safetensors.torch.load(plain)[_NAME]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
    try:
        with connection as opened:
            opened.execute("CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, entry BLOB NOT NULL)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no database, or one that contradicts itself; a full or locked one is not damaged."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
