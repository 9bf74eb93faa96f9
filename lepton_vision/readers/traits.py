"""Traits by which slices at the same position differ, and detection of mixed acquisitions in a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from lepton_vision.types import FloatArray


class Trait(NamedTuple):
    """One way in which slices of a series differ.

    Attributes:
        key: what the id of a volume is lengthened by.
        words: for messages.
        kind: what a second value among slices at places of their own means. contrast: another picture, wherever its
            slices lie. pass: another run of the scanner, unless it went on where the first one ended. cycle: the same
            where the runs are volumes each; else the moments at which the slices of one run were taken. visit: nothing;
            it tells slices at the same place apart.
    """

    key: str
    words: str
    kind: Literal["contrast", "pass", "cycle", "visit"]


# In the order in which they are tried.
TRAITS = (
    Trait("type", "image type", "contrast"),
    Trait("echo", "echo", "contrast"),
    Trait("b", "b-value", "contrast"),
    Trait("direction", "diffusion direction", "visit"),
    Trait("inversion", "inversion time", "pass"),
    Trait("flip", "flip angle", "pass"),
    Trait("agent", "contrast agent", "pass"),
    Trait("voltage", "tube voltage", "pass"),
    Trait("kernel", "convolution kernel", "pass"),
    Trait("phase", "temporal position", "pass"),
    Trait("cycle", "cardiac phase", "cycle"),
    Trait("trigger", "trigger time", "cycle"),
    Trait("acquisition", "acquisition number", "pass"),
    Trait("time", "acquisition time", "visit"),
)
# Their order is that of time: the n-th value at each place belongs to the n-th visit, whatever the values are.
VISITS = tuple(k for k, trait in enumerate(TRAITS) if trait.key in ("phase", "trigger", "acquisition", "time"))
TIME = next(k for k, trait in enumerate(TRAITS) if trait.key == "time")
_MOST_PHASES, _FEWEST_SLICES = 3, 3


def rank(values: Sequence[str]) -> list[int]:
    """Number of each value, from 1, in ascending order: numbers by size, and before text."""
    order = {value: number for number, value in enumerate(sorted(set(values), key=_sorted_as), start=1)}
    return [order[value] for value in values]


def _sorted_as(value: str) -> tuple[bool, float, str]:
    parts = value.split()
    try:
        return False, float(parts[-1]) if parts else -np.inf, value
    except ValueError:
        return True, 0.0, value


def differing(traits: Sequence[tuple[str, ...]]) -> list[int]:
    """Which traits have more than one value, in order, less those that divide the slices as an earlier one does."""
    found: dict[tuple[int, ...], int] = {}
    for k, values in enumerate(zip(*traits, strict=True)):
        if len(set(values)) > 1:
            first = {value: number for number, value in reversed(list(enumerate(values)))}
            found.setdefault(tuple(first[value] for value in values), k)
    return list(found.values())


def mixed_traits(traits: Sequence[tuple[str, ...]], distances: FloatArray) -> list[int]:
    """Which traits say that slices at places of their own, sorted by ``distances`` (N,), are of several acquisitions.

    A value that a single slice has says nothing: some scanners number or time each slice. Neither does a run of the
    scanner that went on where another one ended. What the order of times tells beyond, see ``passes.find_passes``.
    """
    found = []
    for k in differing(traits):
        kind, values = TRAITS[k].kind, [trait[k] for trait in traits]
        counts = Counter(values)
        if kind == "visit" or min(counts.values()) < 2:
            continue
        runs = 1 + sum(a != b for a, b in pairwise(values))
        if kind != "contrast" and runs == len(counts):
            continue
        if kind == "cycle" and not are_phases([distances[np.array(values) == value] for value in counts]):
            continue
        found.append(k)
    return found


def are_phases(parts: Sequence[FloatArray]) -> bool:
    """Whether slices of a few moments are volumes each: many moments of few slices are how one volume was scanned."""
    if len(parts) > _MOST_PHASES or min(map(len, parts)) < _FEWEST_SLICES:
        return False
    return all(np.ptp(steps) <= 0.1 * steps.mean() for steps in map(np.diff, parts))


def words_of(numbers: Sequence[int]) -> str:
    """Names of traits, for a message."""
    return " and ".join(TRAITS[k].words for k in numbers)
