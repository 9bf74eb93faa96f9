"""Division of a DICOM series into volumes: foreign images left out, repetitions separated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from lepton_vision.errors import ReadError
from lepton_vision.readers.passes import find_passes
from lepton_vision.readers.plane import Plane
from lepton_vision.readers.stack import stack_planes
from lepton_vision.readers.traits import TRAITS, VISITS, differing, rank

_File = TypeVar("_File", bound=Hashable)
_FEWEST = 2  # slices of a volume
_MOST_TRAITS = 3  # that tell volumes apart together
_SAME_DIGITS = 2  # of a position in mm: places are rounded so
_SPLIT = frozenset({"duplicate_position", "mixed_slices", "geometry", "missing_slices"})


@dataclass(frozen=True, slots=True)
class Part:
    """One volume of a series.

    Attributes:
        suffix: what its id has behind that of the series, "-echo1"; empty where the series is one volume.
        numbers: which of the planes it is made of.
    """

    suffix: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Division:
    """Division of the planes of a series into volumes.

    Attributes:
        parts: the volumes; a single one, without a suffix, that cannot be stacked where they form none.
        left_out: reason code of each plane that belongs to none: its kind, ``no_position`` or ``copy``.
    """

    parts: tuple[Part, ...]
    left_out: dict[int, str]


def divide_series(planes: Sequence[Plane], *, is_copy: Callable[[int, int], bool]) -> Division:
    """Divide the planes of one series into volumes, as far as their headers leave no doubt.

    A localizer or another object that is no usual image (see ``kinds.object_kind``), and an image that has no
    place in the patient at all, are no slices as long as two others are. A copy of a slice is the same instance once
    more. What is left is divided by the elements in which repetitions differ (see ``traits.TRAITS``), and only where
    each part is a volume.

    Args:
        planes: of all files of the series.
        is_copy: whether two of them, which lie at the same place and claim to be the same instance, have the same
            pixels.
    """
    left_out = _not_slices(planes)
    kept = [k for k in range(len(planes)) if k not in left_out]
    copies = _copies(planes, kept, is_copy=is_copy)
    left_out |= dict.fromkeys(copies, "copy")
    kept = [k for k in kept if k not in copies]
    parts = _divide([planes[k] for k in kept]) if kept else []
    return Division(tuple(Part(one.suffix, tuple(kept[k] for k in one.numbers)) for one in parts), left_out)


class VolumeFiles(NamedTuple, Generic[_File]):
    """Files of one volume, and the frames in use of each file that is used in part, by number of the file."""

    files: tuple[_File, ...]
    frames: dict[int, frozenset[int]]


def volume_files(division: Division, planes: Sequence[tuple[_File, int]]) -> list[tuple[str, VolumeFiles[_File]]]:
    """Suffix and files of each volume, where each plane is given as its file and the frame in it."""
    counts = Counter(file for file, _ in planes)
    found = []
    for part in division.parts:
        own: dict[_File, set[int]] = {}
        for k in part.numbers:
            file, frame = planes[k]
            own.setdefault(file, set()).add(frame)
        frames = {k: frozenset(held) for k, (file, held) in enumerate(own.items()) if len(held) < counts[file]}
        found.append((part.suffix, VolumeFiles(tuple(own), frames)))
    return found


def reason_not_slice(plane: Plane) -> str | None:
    """Why an image beside slices is none of them, as a reason code, or None.

    What has a place, but not all of it, is taken for a slice whose header is damaged.
    """
    if plane.kind is not None:
        return plane.kind
    return "no_position" if plane.position_mm is None and plane.orientation is None else None


def _not_slices(planes: Sequence[Plane]) -> dict[int, str]:
    """Planes that are no slices beside at least two that are."""
    reasons = [reason_not_slice(plane) for plane in planes]
    located = sum(reason is None and plane.geometry is not None for reason, plane in zip(reasons, planes, strict=True))
    return {k: reason for k, reason in enumerate(reasons) if reason is not None} if located >= _FEWEST else {}


def _copies(planes: Sequence[Plane], numbers: Sequence[int], *, is_copy: Callable[[int, int], bool]) -> set[int]:
    """Planes that an earlier one is a copy of."""
    seen: dict[object, list[int]] = {}
    copies = set()
    for k in numbers:
        plane = planes[k]
        if plane.position_mm is None:
            continue
        others = seen.setdefault((plane.instance, plane.frame, plane.position_mm, plane.orientation), [])
        if any(is_copy(other, k) for other in others):
            copies.add(k)
        else:
            others.append(k)
    return copies


def _divide(planes: Sequence[Plane]) -> list[Part]:
    whole = [Part("", tuple(range(len(planes))))]
    reason = _refusal(planes)
    if reason not in _SPLIT or any(plane.geometry is None for plane in planes):
        return whole
    places = [_place(plane) for plane in planes]
    for parts in _candidates(planes):
        are_apart = all(len({places[k] for k in one.numbers}) == len(one.numbers) >= _FEWEST for one in parts)
        if are_apart and not any(_refusal([planes[k] for k in one.numbers]) for one in parts):
            return parts
    return whole


def _place(plane: Plane) -> tuple[float, ...]:
    return tuple(round(value, _SAME_DIGITS) for value in plane.position_mm or ())


def _refusal(planes: Sequence[Plane]) -> str:
    """Why planes are no volume, repaired or not; empty where they are one."""
    try:
        stack_planes(planes, gaps="fill", tilt="shear")
    except ReadError as error:
        return error.reason
    return ""


def _candidates(planes: Sequence[Plane]) -> Iterator[list[Part]]:
    """Ways to divide planes, the likeliest first: by values of one trait, of several, and by the order of visits."""
    traits = [plane.traits for plane in planes]
    varying = differing(traits) if all(traits) else []
    ranks = {k: rank([values[k] for values in traits]) for k in varying}
    chosen = [which for count in range(1, _MOST_TRAITS + 1) for which in combinations(varying, count)]
    for which in chosen:
        yield _parts(planes, {k: ranks[k] for k in which})
    yield from _runs(planes)
    for visit in VISITS:
        if visit not in varying:
            continue
        for which in ((), *chosen):
            if visit not in which and len(which) < _MOST_TRAITS:
                found = _visits(planes, {k: ranks[k] for k in which}, ranks[visit])
                if found is not None:
                    yield _parts(planes, {**{k: ranks[k] for k in which}, visit: found})


def _runs(planes: Sequence[Plane]) -> Iterator[list[Part]]:
    """By the passes of the scanner, where they leave no doubt."""
    ways = planes[0].orientation
    if ways is None:
        return
    positions = np.array([plane.position_mm for plane in planes])
    passes = find_passes(planes, positions @ np.cross(ways[1], ways[0]))
    if passes is not None and passes.runs and not passes.doubt:
        yield _parts(planes, {passes.traits[0]: passes.runs})


def _parts(planes: Sequence[Plane], ranks: dict[int, list[int]]) -> list[Part]:
    """Planes by their ranks in some traits."""
    members: dict[tuple[int, ...], list[int]] = {}
    for number in range(len(planes)):
        members.setdefault(tuple(one[number] for one in ranks.values()), []).append(number)
    keys = [TRAITS[k].key for k in ranks]
    return [
        Part("".join(f"-{key}{place}" for key, place in zip(keys, places, strict=True)), tuple(numbers))
        for places, numbers in sorted(members.items())
    ]


def _visits(planes: Sequence[Plane], ranks: dict[int, list[int]], order: list[int]) -> list[int] | None:
    """Number of the visit at which each plane was taken, or None where places have unequal visits, or two at a time."""
    found = [0] * len(planes)
    at: dict[object, list[int]] = {}
    for number, plane in enumerate(planes):
        at.setdefault((_place(plane), *(one[number] for one in ranks.values())), []).append(number)
    counts = {len(numbers) for numbers in at.values()}
    if len(counts) != 1 or counts == {1}:
        return None
    for numbers in at.values():
        if len({order[number] for number in numbers}) < len(numbers):
            return None
        for visit, number in enumerate(sorted(numbers, key=order.__getitem__), start=1):
            found[number] = visit
    return found
