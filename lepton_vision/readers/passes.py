"""Interleaved scanner passes over the same region, separated by the time and spacing of their slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lepton_vision.readers.plane import Plane
from lepton_vision.readers.traits import TIME, TRAITS, are_phases, differing, rank
from lepton_vision.types import FloatArray

_EVEN = 0.1  # how far lengths may be from each other, as a part of them: headers are rounded
_SAME_MM = 1e-3
_ORDERED = tuple(k for k, trait in enumerate(TRAITS) if trait.key in ("phase", "cycle", "trigger", "acquisition"))


class Passes(NamedTuple):
    """Several passes whose slices interleave.

    Attributes:
        traits: which traits tell them apart.
        runs: pass of each slice, from 1; empty where there are several, but which slice is of which is not known.
        doubt: for a message, what leaves a doubt whether they are one; "" where there is none.
    """

    traits: list[int]
    runs: list[int]
    doubt: str = ""


def find_passes(planes: Sequence[Plane], distances: FloatArray) -> Passes | None:
    """Passes that the order of times tells apart, whatever the times are; None where there is one.

    CT takes neighbours one after the other, so times alone tell. MR may take every other slice first, and one such run
    looks as two passes do: it is one where the header says that neighbours lie as near as they do here, and several
    where it says that they lie farther apart. Where it says neither, times of acquisition say nothing, and the times
    and numbers that repetitions are told by leave a doubt.

    Args:
        planes: of one series.
        distances: (N,) their places along the normal [mm].
    """
    if planes[0].modality not in ("CT", "MR") or not all(plane.traits for plane in planes):
        return None
    if planes[0].modality == "CT":
        runs = sweeps([plane.traits[TIME] for plane in planes], distances)
        return Passes([TIME], runs) if runs else None
    traits = [plane.traits for plane in planes]
    varying = differing(traits)
    steps = np.diff(np.sort(distances))
    words = _farther(planes, steps)
    if words is None:
        return None
    swept = {k: sweeps([values[k] for values in traits], distances) for k in (*_ORDERED, TIME) if k in varying}
    found = [k for k, runs in swept.items() if runs and (words or k != TIME)]
    doubt = "" if words else ", and no Spacing Between Slices or Slice Thickness that says whether they are one run"
    if found:
        return Passes(found, swept[found[0]], doubt)
    if words == "thickness":  # slices that overlap
        return None
    along = np.argsort(distances, kind="stable")
    ordered = {k: [traits[number][k] for number in along] for k in _ORDERED if k in varying}
    mixed = [k for k, values in ordered.items() if _turns(values) and (words or len(set(values)) == len(values))]
    return Passes(mixed, [], doubt) if mixed else None


def _farther(planes: Sequence[Plane], steps: FloatArray) -> str | None:
    """What says that neighbours of one pass lie farther apart than these steps; "" where nothing does, None if not.

    Slice Thickness says less than Spacing Between Slices: slices of one pass may overlap.
    """
    if steps.min() <= _SAME_MM or np.ptp(steps) > _EVEN * steps.mean():
        return "steps"
    step = float(np.median(steps))
    between, thickness = _least([one.between_mm for one in planes]), _least([one.thickness_mm for one in planes])
    if between is not None:
        times = round(between / step)
        return "spacing" if times >= 2 and abs(between / step - times) <= _EVEN * times else None
    if thickness is not None:
        return "thickness" if thickness > (1.0 + _EVEN) * step else None
    return ""


def _least(lengths: Sequence[float | None]) -> float | None:
    known = [length for length in lengths if length is not None]
    return min(known) if len(known) == len(lengths) else None


def _turns(values: Sequence[str]) -> bool:
    """Whether values, by place, go up and down again."""
    changes = np.sign(np.diff(rank(values)))
    return bool(changes.max(initial=0) > 0 > changes.min(initial=0))


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
        if len(parts) == 1 or not are_phases(parts):
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
