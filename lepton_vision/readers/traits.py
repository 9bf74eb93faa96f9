"""What slices at the same places may differ by, and whether a stack of slices mixes several acquisitions."""

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


def mixed_traits(traits: Sequence[tuple[str, ...]], distances: FloatArray, *, is_swept: bool) -> list[int]:
    """Which traits say that slices at places of their own, sorted by ``distances`` (N,), are of several acquisitions.

    A value that a single slice has says nothing: some scanners number or time each slice. Neither does a run of the
    scanner that went on where another one ended. ``is_swept``: the scanner takes neighbours one after the other (CT;
    MR may take every other slice first), so that times tell runs apart, see ``sweeps``.
    """
    found = [TIME] if is_swept and all(traits) and sweeps([trait[TIME] for trait in traits], distances) else []
    for k in differing(traits):
        kind, values = TRAITS[k].kind, [trait[k] for trait in traits]
        counts = Counter(values)
        if kind == "visit" or min(counts.values()) < 2:
            continue
        runs = 1 + sum(a != b for a, b in pairwise(values))
        if kind != "contrast" and runs == len(counts):
            continue
        if kind == "cycle" and not _are_phases([distances[np.array(values) == value] for value in counts]):
            continue
        found.append(k)
    return found


def sweeps(times: Sequence[str], distances: FloatArray) -> list[int]:
    """Number, from 1, of the run through the patient in which each slice was taken, up or down.

    Args:
        times: of the slices.
        distances: (N,) their places along the normal.

    Returns:
        Empty where there is one run, or many, or where they are no volumes that lie between each other.
    """
    ranks = np.array(rank(times))
    for sign in (1.0, -1.0):  # slices of one moment lie in the order of the run
        order = np.lexsort((sign * distances, ranks))
        runs = _stretches(distances[order])
        labels = np.empty(len(runs), dtype=int)
        labels[order] = runs
        parts = [np.sort(distances[labels == label]) for label in range(1, max(runs) + 1)]
        if len(parts) == 1 or not _are_phases(parts):
            return []
    along = labels[np.argsort(distances, kind="stable")]
    return labels.tolist() if np.count_nonzero(np.diff(along)) >= len(parts) else []


def _stretches(distances: FloatArray) -> list[int]:
    """Number of the stretch of even steps, up or down, that each distance belongs to."""
    labels, usual = [1], 0.0
    for step in np.diff(distances).tolist():
        is_new = usual != 0.0 and abs(step - usual) > 0.1 * abs(usual)
        labels.append(labels[-1] + is_new)
        usual = 0.0 if is_new else usual or step
    return labels


def _are_phases(parts: Sequence[FloatArray]) -> bool:
    """Whether slices of a few moments are volumes each: many moments of few slices are how one volume was scanned."""
    if len(parts) > _MOST_PHASES or min(map(len, parts)) < _FEWEST_SLICES:
        return False
    return all(np.ptp(steps) <= 0.1 * steps.mean() for steps in map(np.diff, parts))


def words_of(numbers: Sequence[int]) -> str:
    """Names of traits, for a message."""
    return " and ".join(TRAITS[k].words for k in numbers)
