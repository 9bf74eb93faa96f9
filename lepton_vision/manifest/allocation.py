"""Allocation of groups to parts of exact size, balanced in every trait.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011)
with a fixed number of places in each part: the rarest trait is dealt out first, each time to the part that still
wants it most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def allocate(traits: BoolArray, *, is_class: BoolArray, shares: Sequence[float], order: IntArray) -> IntArray:
    """Give each group a part.

    Args:
        traits: (G, F) which group has which trait (a class, a site …).
        is_class: (F,) traits of which every part gets at least one group where there are enough.
        shares: (K,) share of the groups that each part gets; sums to one.
        order: (G,) a permutation; groups of a trait are dealt in this order.

    Returns:
        (G,) part numbers 0 … K-1; the size of each part is its share, rounded.
    """
    groups = len(traits)
    everyone = np.ones((groups, 1), dtype=bool)
    rows = np.concatenate([traits, everyone], axis=1)[order]
    places = part_sizes(groups, shares)
    wanted = _wanted(rows.sum(axis=0), places, is_class=np.append(is_class, False))
    left = rows.sum(axis=0)
    dealt = np.full(groups, -1, dtype=np.int64)
    while (left > 0).any():
        trait = int(np.flatnonzero(left == left[left > 0].min())[0])
        for group in np.flatnonzero(rows[:, trait] & (dealt < 0)):
            own = rows[group]
            part = _choose(wanted[trait], wanted[own].sum(axis=0), places=places)
            dealt[group] = part
            places[part] -= 1
            wanted[own, part] -= 1
            left[own] -= 1
    parts = np.empty(groups, dtype=np.int64)
    parts[order] = dealt
    return parts


def part_sizes(groups: int, shares: Sequence[float]) -> IntArray:
    """Whole sizes that sum to ``groups``, each within one of its share (largest remainder).

    No part with a share is empty, unless there are fewer groups than parts.
    """
    exact = np.asarray(shares, dtype=np.float64) * groups
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.argsort(-(exact - sizes), kind="stable")
    sizes[remainders[: groups - int(sizes.sum())]] += 1
    for part in np.flatnonzero((sizes == 0) & (exact > 0)):
        if sizes.max() > 1:
            sizes[int(sizes.argmax())] -= 1
            sizes[part] = 1
    return sizes


def _wanted(totals: IntArray, places: IntArray, *, is_class: BoolArray) -> npt.NDArray[np.float64]:
    """(F, K) number of groups of each trait that each part should get; of a class at least one."""
    wanted = totals[:, None] * (places / max(1, int(places.sum())))[None, :]
    used = np.flatnonzero(places > 0)
    for trait in np.flatnonzero(is_class & (totals >= len(used))):
        row = wanted[trait]
        row[used] = np.maximum(row[used], 1.0)
        row[int(row.argmax())] -= row.sum() - totals[trait]
    return wanted


def _choose(deficit: npt.NDArray[np.float64], deficit_of_all: npt.NDArray[np.float64], *, places: IntArray) -> int:
    """Part with a free place that wants the trait most; ties go to the one that wants all traits together most."""
    keys = [(deficit[k], deficit_of_all[k], places[k], -k) if places[k] > 0 else None for k in range(len(places))]
    best = max(key for key in keys if key is not None)
    return -int(best[3])
