"""Multi-channel cases whose files are members of archives or objects in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lepton_vision.readers.channels import case_path, check_complete, join_channels, split_name, suffixes_of
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.inputs.locations import Location
from lepton_vision.scoring.inputs.packed_series import open_location
from lepton_vision.types import Image

_Case = tuple[str, int, PurePosixPath]


def group_cases(locations: Iterable[Location], channels: Sequence[str]) -> list[Location]:
    """One location for each case, that of its first channel that is there, with those of all its files.

    Args:
        locations: members, objects, and others, which stay what they are.
        channels: see ``channels.suffixes_of``.
    """
    found: dict[_Case | int, dict[str, Location]] = {}
    for number, location in enumerate(locations):
        is_packed = location.kind in ("member", "object") and not location.reason
        name = case_path(location.name, channels) if is_packed else None
        if name is None:
            found[number] = {"": location}
            continue
        case = (location.path if location.kind == "member" else "", location.copy, name)
        found.setdefault(case, {})[split_name(location.name)[0]] = location
    return [_first(case, files, channels) for case, files in found.items()]


def _first(case: _Case | int, files: dict[str, Location], channels: Sequence[str]) -> Location:
    if isinstance(case, int):
        return files[""]
    stem = split_name(case[2])[0]
    of_channels = [files.get(stem + suffix) for suffix in suffixes_of(channels)]
    first = next(location for location in of_channels if location is not None)
    return replace(first, case=json.dumps([location.text if location else "" for location in of_channels]))


def read_packed_case(
    location: Location, channels: Sequence[str], *, read: Callable[[Path], Image], limits: Limits
) -> Image:
    """Read each file of a case, one on disk at a time, and put them together as ``channels.read_case`` does.

    Raises:
        ReadError: one cannot be fetched, unpacked or read; else as ``channels.read_case``.
    """
    texts = json.loads(location.case)
    check_complete(list(map(bool, texts)), channels)
    images = []
    for text in texts:
        with open_location(Location.of_text(text), limits=limits) as path:
            images.append(read(path))
    return join_channels(images, channels)
