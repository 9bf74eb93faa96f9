"""Path matching of label rows to scanned files: by whole folder names, never across folders."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from lepton_vision.errors import LabelTableError

_DOUBLE: Final = (".nii.gz",)


@dataclass(frozen=True, slots=True)
class _Files:
    """Scanned files by the ways to write them: with suffix, or without.

    Attributes:
        whole: relative paths by relative path.
        ends: relative paths by every end of them, in whole names.
    """

    whole: Mapping[str, list[str]]
    ends: Mapping[str, list[str]]


def match_paths(rows: Mapping[Any, list[int]], texts: Sequence[str], *, root: Path) -> list[list[int]]:
    """Manifest rows that each path of a label table names; [] where it names none.

    A path finds the file that has it below ``root``, else the one file that ends with it, else the file whose path
    below ``root`` it ends with: what it has before that is then the place of ``root`` elsewhere. There the folder's own
    name decides where rows differ in it. A row with a folder never takes a file of another folder. Suffixes may be left
    out; "/" and a backslash are one; letter case counts.

    Args:
        rows: manifest rows by relative path.
        texts: paths of the label table; "" names no file.
        root: the scanned folder.

    Raises:
        LabelTableError: a row that several files fit, or rows of several folders that all fit ``root``.
    """
    names = {_plain(str(path)): path for path in rows}
    prefix = _plain(root.absolute().as_posix()).rstrip("/") + "/"
    wanted = [_plain(text).removeprefix(prefix).removeprefix("./") for text in texts]
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(stem_of(name), []).append(name)
    asked = set(wanted)
    kinds = [_Files(whole, _ends(whole, asked)) for whole in ({name: [name] for name in names}, stems)]
    found: list[str | None] = []
    heads: dict[int, str] = {}  # by row: what a path has before a path below root
    for number, text in enumerate(wanted):
        place, head = _find(text, kinds, row=number) if text else (None, None)
        found.append(place)
        if head is not None:
            heads[number] = head
    lost = _of_other_folders(found, heads, root=root)
    return [[] if place is None or number in lost else rows[names[place]] for number, place in enumerate(found)]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\\", "/"))


def stem_of(path: str) -> str:
    """A path without the suffix of its file; the scanned folder itself (a series in it) is "."."""
    lower = path.lower()
    double = next((end for end in _DOUBLE if lower.endswith(end)), None)
    pure = PurePosixPath(path)
    return path[: -len(double)] if double else str(pure.with_suffix("") if pure.name else pure)


def _ends(whole: Mapping[str, list[str]], asked: set[str]) -> dict[str, list[str]]:
    """Files by those ends of their paths that are asked for."""
    ends: dict[str, list[str]] = {}
    for text, names in whole.items():
        for end in _shorter(text):
            if end in asked:
                ends.setdefault(end, []).extend(names)
    return ends


def _shorter(text: str) -> Iterator[str]:
    """Ends of a path in whole names, the longest first, without itself."""
    while "/" in text:
        text = text.split("/", 1)[1]
        yield text


def _find(text: str, kinds: Sequence[_Files], *, row: int) -> tuple[str | None, str | None]:
    """The one file that a path names, and what the path has before the file's path below the root.

    The second is "" for a path below the root as it stands, None where the path says nothing of the root.
    """
    for files in kinds:
        longer = next((end for end in _shorter(text) if end in files.whole), None)
        if text in files.whole:
            names, head = files.whole[text], "" if "/" in text else None
        elif text in files.ends:
            names, head = files.ends[text], None
        elif longer is not None:
            names, head = files.whole[longer], text.removesuffix(longer).rstrip("/")
        else:
            continue
        if len(names) > 1:
            raise LabelTableError(
                f"Row {row} of the label table names a file that occurs {len(names)} times in the folder. "
                "Write paths relative to the scanned folder in the key column.",
                row=row,
            )
        return names[0], head
    return None, None


def _of_other_folders(found: Sequence[str | None], heads: Mapping[int, str], *, root: Path) -> set[int]:
    """Rows that name another folder than the scanned one, although the rest of their path fits a file.

    Raises:
        LabelTableError: rows name several folders of which none is known to be the scanned one.
    """
    name = _plain(root.absolute().name)
    foreign = {row: head for row, head in heads.items() if head and head.rsplit("/", 1)[-1] != name}
    if any(head and row not in foreign for row, head in heads.items()):
        return set(foreign)  # the table knows the scanned folder by name
    here = {found[row] for row, head in heads.items() if not head}
    lost = {row for row in foreign if here and ("/" not in str(found[row]) or found[row] in here)}
    claims: dict[str, dict[str, int]] = {}  # by file, or for all files right below the root: row by folder
    for row, head in foreign.items():
        if row not in lost:
            path = str(found[row])
            claims.setdefault(path if "/" in path else "", {}).setdefault(head, row)
    for folders in claims.values():
        if len(folders) > 1:
            row = list(folders.values())[1]
            raise LabelTableError(
                f"Row {row} of the label table and a row before it name different folders, and neither is known to be "
                "the scanned one. Scan the folder that holds them, or write paths relative to the scanned folder in "
                "the key column.",
                row=row,
            )
    return lost
