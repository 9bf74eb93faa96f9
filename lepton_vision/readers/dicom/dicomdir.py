"""File list of a DICOMDIR: part of the doorway to pydicom (PS3.3 F, PS3.10 8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom.header import items, open_dicom
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_bytes

_MOST_BYTES = 2**28  # pydicom holds it as a whole, several times larger


def is_dicomdir(path: str) -> bool:
    """Whether a file has the one name that PS3.10 8.6 gives a DICOMDIR, in any case."""
    return Path(path).name.upper() == "DICOMDIR"


def list_dicomdir(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> list[Path]:
    """Paths of the files that a DICOMDIR refers to, in its order, each once; those that are missing too.

    File ids are upper case; where a disc was copied to lower case, the files are found as well. Ids that lead out of
    the folder of the DICOMDIR, also by a link on the way, are left out.

    Raises:
        ReadError: it cannot be read, or refers to nothing (reason ``empty``).

    Example:
        >>> paths = list_dicomdir("disc/DICOMDIR")  # doctest: +SKIP
    """
    path = Path(path)
    cap = replace(limits, max_bytes=min(limits.max_bytes, _MOST_BYTES))
    with open_content(path, what="Cannot read the DICOMDIR", limits=cap) as content:
        check_bytes(content.size, limits=cap)
        header = open_dicom(content.stream, head=content.head, limits=content.limits).dataset
        ids = [_components(record.get("ReferencedFileID")) for record in items(header, "DirectoryRecordSequence")]
    root = path.parent.resolve()
    places = (_resolve(path.parent, parts) for parts in ids if parts)
    found = dict.fromkeys(place for place in places if _stays_below(place, root))
    if not found:
        raise ReadError("The DICOMDIR refers to no file.", reason="empty", path=path)
    return list(found)


def _components(value: object) -> list[str]:
    if value is None:
        return []
    parts = [value] if isinstance(value, str) else [str(part) for part in value]  # type: ignore[attr-defined]
    is_safe = all(part not in ("", ".", "..") and not set(part) & set("/\\\0") for part in parts)
    return parts if is_safe else []


def _stays_below(place: Path, root: Path) -> bool:
    """Whether a path ends below the root once links are followed; what cannot be followed does not."""
    try:
        return place.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that no file can have
        return False


def _resolve(folder: Path, parts: list[str]) -> Path:
    plain = folder.joinpath(*parts)
    lower = folder.joinpath(*(part.lower() for part in parts))
    return lower if not plain.exists() and lower.exists() else plain
