"""What is to be scored: paths and folders in, one ordered list of files out, each file once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lepton_vision.errors import ScoringError


def list_inputs(inputs: str | Path | Sequence[str | Path], *, leave_out: Path | None = None) -> list[Path]:
    """Return every file named or found below a folder, absolute, each once, folders walked in sorted order.

    Hidden files and folders (a leading dot) are left out: they are what tools leave behind, not scans. A file that is
    named but does not exist stays in the list, since every input must end as a row.

    Args:
        inputs: a file, a folder, or several of both.
        leave_out: folder whose files are never inputs (the output, where it lies inside an input folder).

    Raises:
        ScoringError: nothing was named, or the folders hold no file at all.
    """
    named = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not named:
        raise ScoringError("Expected at least one file or folder to score. Received: none.", key="inputs")
    barred = None if leave_out is None else leave_out.absolute()
    found = dict.fromkeys(_walk_all(named, barred))
    if not found:
        raise ScoringError(
            "Expected files to score. Received: an empty folder. Check the path; hidden files do not count.",
            key="inputs",
        )
    return list(found)


def _walk_all(named: Iterable[str | Path], barred: Path | None) -> Iterator[Path]:
    for entry in named:
        path = Path(os.path.normpath(Path(entry).expanduser().absolute()))
        if path.is_dir():
            yield from _walk(path, barred)
        else:
            yield path


def _walk(folder: Path, barred: Path | None) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (barred is None or Path(place, name) != barred)
        )
        if barred is not None and Path(place) == barred:
            continue
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(place, name)
