"""Ledger of a run's test evaluations: one line for each, so that a report can state their number.

A test split that was looked at often is no test any more: what was changed in between was chosen on it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LEDGER = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One look at a test split: by what, at what.

    Attributes:
        bundle_id: of the model.
        manifest: fingerprint of the manifest; "" where unknown.
        split: "test", or "unknown" for a table that does not say.
        command: what looked: "run", "run --folds 5", "evaluate", "evaluate --external", "evaluate --predictions",
            "write_report" ….
        figures: names of the figures that were computed, by target.
        cases: digest of the cases and labels that were looked at; "" where unknown.
        id_key: ``identity.key_check`` of the key of their ids, on which both digests depend; "" where unknown.
    """

    bundle_id: str
    manifest: str
    split: str
    command: str
    figures: Mapping[str, Sequence[str]]
    cases: str = ""
    id_key: str = ""

    @property
    def is_external(self) -> bool:
        """Whether it was at another site's split."""
        return "--external" in self.command


@dataclass(frozen=True, slots=True)
class LookCount:
    """Number of looks, as the ledger counts them.

    Attributes:
        count: looks of this bundle at these cases until now, this one included.
        is_written: whether this one is in the ledger: not in a folder that cannot be written.
    """

    count: int
    is_written: bool

    def to_dict(self) -> dict[str, Any]:
        """Facts for provenance."""
        facts: dict[str, Any] = {"test_looks": self.count}
        return facts if self.is_written else facts | {"ledger": "not written: the run folder cannot be written"}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Record of the looks at the predictions of a bundle.

    Attributes:
        folder: of the run.
        manifest: fingerprint of the manifest that was predicted.
        command: what looks.
        makes_folder: whether the folder is made where it is missing.
        id_key: as for ``LedgerEntry``.
    """

    folder: Path
    manifest: str
    command: str
    makes_folder: bool = False
    id_key: str = ""

    def record(self, bundle_id: str | None, figures: Mapping[str, Sequence[str]], **how: Any) -> dict[str, Any]:
        """Record a look at a test split, ours or another site's, as ``recording`` does; facts for provenance."""
        with self.recording(bundle_id, figures, **how) as facts:
            return facts

    @contextlib.contextmanager
    def recording(
        self,
        bundle_id: str | None,
        figures: Mapping[str, Sequence[str]],
        *,
        cases: str = "",
        is_external: bool = False,
        split: str = "test",
    ) -> Iterator[dict[str, Any]]:
        """Give the facts of a look for provenance, and record it once its results are there: when the block has ended.

        An error in the block is no look.

        Args:
            bundle_id: of the model, or a name for what another tool predicted.
            figures: names of the figures, by target.
            cases: digest of the cases and labels that were looked at (``Predictions.cases``); "" where unknown.
            is_external: whether they are another site's.
            split: "test" or "unknown".
        """
        if self.makes_folder:
            with contextlib.suppress(OSError):  # said by ``LookCount``; it stops nothing
                self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command + (" --external" if is_external else "")
        look = LedgerEntry(bundle_id or "another tool", self.manifest, split, command, figures, cases, self.id_key)
        yield count_look(self.folder, look).to_dict()
        record_look(self.folder, look)


def find_ledger(*places: str | Path) -> Path:
    """Return the folder whose ledger counts: the first of the places, or of the folders above them, that has one.

    Where none has, it is the last place. ``runs/ct-01/evaluation`` thus leads to the ledger of ``runs/ct-01``.
    """
    for place in map(Path, places):
        for folder in (place, place.absolute().parent):
            if (folder / LEDGER).is_file():
                return folder
    return Path(places[-1])


def count_look(folder: str | Path, look: LedgerEntry) -> LookCount:
    """Count with the look that is about to be noted, and say whether it can be; nothing is written."""
    path = Path(folder) / LEDGER
    before = 0
    with contextlib.suppress(OSError):
        before = _count(path, look)
    return LookCount(
        before + 1, is_written=path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)
    )


def record_look(folder: str | Path, look: LedgerEntry) -> LookCount:
    """Append one line to ``folder/ledger.jsonl`` and count; nothing that stands there is ever changed.

    Two processes at once wait for each other (where the system can lock files), and each line is written in one go.
    A folder that cannot be written does not stop an evaluation: the look is counted, and ``is_written`` is False. A
    line that was torn by a crash is left as it is and counts as no look.

    Example:
        >>> import tempfile
        >>> look = LedgerEntry("0123", "4567", "test", "evaluate", {"covid": ["auroc"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [record_look(folder, look).count for _ in range(2)]
        [1, 2]
    """
    path = Path(folder) / LEDGER
    try:
        with _locked(path) as descriptor:
            before = _count(path, look)
            torn = path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + _line(look))
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            return LookCount(_count(path, look) + 1, is_written=False)
        return LookCount(1, is_written=False)
    return LookCount(before + 1, is_written=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open for appending, and hold the lock until the end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with contextlib.suppress(ImportError):
            import fcntl  # not on Windows: there a line is still appended in one go

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def names_of(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of figures by target, as a look keeps them."""
    return {name: list(found) for name, found in figures.items()}


def _line(look: LedgerEntry) -> bytes:
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle_id": look.bundle_id,
        "manifest": look.manifest,
        "split": look.split,
        "command": look.command,
        "figures": {name: list(figures) for name, figures in look.figures.items()},
        "cases": look.cases,
        "id_key": look.id_key,
    }
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def _count(path: Path, look: LedgerEntry) -> int:
    """LookCount like this one that are in the ledger: by this bundle, at these cases."""
    found = 0
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            is_alike = entry.get("split") == look.split and entry.get("bundle_id") == look.bundle_id
            is_external = "--external" in str(entry.get("command"))
            found += is_alike and is_external == look.is_external and _is_same_data(entry, look)
    return found


def _is_same_data(entry: Mapping[str, Any], look: LedgerEntry) -> bool:
    """Whether both are at the same cases; where one does not know its cases, at the same manifest, as far as known.

    Of ids of two keys nobody knows: then the test split of a study is one, and those of two other sites are two.
    """
    if look.id_key and entry.get("id_key", look.id_key) not in ("", look.id_key):
        return not look.is_external
    for key, value in (("cases", look.cases), ("manifest", look.manifest)):
        if value and entry.get(key):
            return bool(entry[key] == value)
    return True
