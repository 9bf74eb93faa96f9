"""File listing below a folder for every command: links followed, each folder once, no folder skipped silently."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

_LEFT_BEHIND = "__MACOSX"  # by the archiver of macOS: copies of names without pixels
FolderKey = tuple[int, int] | str


def walk_folder(
    folder: str | Path,
    *,
    leave_out: Collection[str | Path] = (),
    seen: set[FolderKey] | None = None,
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
    """Paths of the visible files below a folder, in sorted order; a folder that cannot be listed is given itself.

    Links to folders are followed once everything else is listed, so that a folder which is there by its name and by a
    link goes by its name, and circles of links end. Hidden files and folders (a leading dot) are left out.

    Args:
        folder: where to begin.
        leave_out: folders below it whose files are left out, whichever way leads there.
        seen: folders that were listed before; those listed now are added.
        on_error: called for a folder that cannot be listed, which is not given then.
    """
    top = os.fspath(folder)
    seen = set() if seen is None else seen
    barred = {_key(os.fspath(one)) for one in leave_out}
    unlisted, roots = list[str](), [top]
    told = on_error or (lambda error: unlisted.append(os.fspath(error.filename)))
    for root in roots:  # grows by the links that are found
        for place, folders, files in os.walk(root, onerror=told):
            key = _key(place)
            if key in seen or (key in barred and place != top):
                folders.clear()
                continue
            seen.add(key)
            visible = sorted(name for name in folders if not name.startswith(".") and name != _LEFT_BEHIND)
            links = {name for name in visible if os.path.islink(os.path.join(place, name))}  # noqa: PTH114,PTH118
            roots += [os.path.join(place, name) for name in visible if name in links]  # noqa: PTH118
            folders[:] = [name for name in visible if name not in links]
            yield from (os.path.join(place, name) for name in sorted(files) if not name.startswith("."))  # noqa: PTH118
    yield from sorted(unlisted)


def match_paths(pattern: str) -> list[str]:
    """Paths that match a glob pattern, sorted: each entry of a folder once, by the shortest way; circles end.

    ``**`` stands for any number of folders; what it would have to look into and cannot be listed is a match, too.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return _once_each(glob.glob(pattern))  # noqa: PTH207  keeps texts
    first = parts.index("**")
    found, known = set[str](), set[str]()
    for top in _once_each(glob.glob(str(Path(*parts[:first])))):  # noqa: PTH207
        for file in walk_folder(top, on_error=lambda error: found.add(os.fspath(error.filename))):
            place = file
            while place not in known and len(place) >= len(top):  # the file, and each folder above it once
                known.add(place)
                if _matches(Path(place[len(top) :].strip(os.sep)).parts, parts[first:]):
                    found.add(place)
                place = os.path.dirname(place)  # noqa: PTH120
    return sorted(found)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether names of folders and a file match the parts of a pattern."""
    if not parts:
        return not names
    if parts[0] == "**":
        return _matches(names, parts[1:]) or (bool(names) and _matches(names[1:], parts))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])


def _once_each(paths: Collection[str]) -> list[str]:
    """Leave out paths that lead to the same entry of the same folder by way of a link; the shortest one stays."""
    kept: dict[tuple[FolderKey, str], str] = {}
    for path in sorted(paths, key=lambda one: (one.count(os.sep), one)):
        parent, name = os.path.split(path)
        kept.setdefault((_key(parent), name), path)
    return sorted(kept.values())


def _key(folder: str) -> FolderKey:
    """Identity of a folder; the resolved path where the system does not number folders."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except OSError:
        return os.path.realpath(folder)
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(folder)
