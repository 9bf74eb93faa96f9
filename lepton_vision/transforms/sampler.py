"""Sampler: the rows of an epoch, their order, and the augmentation seed of each.

Order and seeds follow from (seed, epoch) alone: not from the number of workers, nor from what ran before. A run
that was stopped in the middle of an epoch goes on with the very samples it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from lepton_vision.types import FloatArray

_MASK_63 = np.uint64(2**63 - 1)
_CHUNK = 2**14  # samples that get their seeds at once: eight temporary arrays of the whole epoch would add up


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (row, augmentation seed) of one epoch, for one process of a distributed run.

    Args:
        rows: number of rows N.
        seed: with the epoch decides everything.
        rank: number of this process, from 0.
        world: number of processes. Each gets the same number of samples; where N does not divide, the first rows of
            the epoch's order are shown twice.
        weights: (N,) relative frequency of each row, drawn with replacement; None shows each row once.
        samples: shown in an epoch; None is N. Without weights, every row comes once before any comes again.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sorted(row for row, _ in sampler)
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        rows: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        weights: FloatArray | None = None,
        samples: int | None = None,
    ) -> None:
        if rows < 1 or not 0 <= rank < world:
            raise ValueError(f"Expected rows >= 1 and 0 <= rank < world. Received: {rows}, {rank}, {world}.")
        if weights is not None and (weights.shape != (rows,) or not weights.sum() > 0 or weights.min() < 0):
            raise ValueError(f"Expected {rows} weights of 0 or more, not all 0. Received: shape {weights.shape}.")
        self.rows, self.seed, self.rank, self.world, self.weights = rows, seed, rank, world, weights
        self.samples = rows if samples is None else samples
        if self.samples < 1:
            raise ValueError(f"Expected at least 1 sample in an epoch. Received: {samples}.")
        self.epoch = 0
        self._start = 0

    def __len__(self) -> int:
        """Samples of a whole epoch in this process, wherever it starts."""
        return -(-self.samples // self.world)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; it is shown from its beginning."""
        self.epoch, self._start = epoch, 0

    def start_at(self, samples_done: int) -> None:
        """Skip what this process has already seen of the epoch; call it after ``set_epoch``."""
        if not 0 <= samples_done <= len(self):
            raise ValueError(f"Expected 0 to {len(self)} samples. Received: {samples_done}.")
        self._start = samples_done

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order, seeds = self._order()
        mine = slice(self.rank, None, self.world)
        for row, seed in zip(order[mine][self._start :], seeds[mine][self._start :], strict=True):
            yield int(row), int(seed)

    def _order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Rows and seeds of all processes together, a multiple of ``world`` long."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            rounds = [rng.permutation(self.rows) for _ in range(-(-self.samples // self.rows))]
            order = np.concatenate(rounds)[: self.samples]
        else:
            order = rng.choice(self.rows, size=self.samples, p=self.weights / self.weights.sum())
        order = np.resize(order, len(self) * self.world)
        return order, sample_seeds(order, seed=self.seed, epoch=self.epoch)


def sample_seeds(order: npt.NDArray[np.int64], *, seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """One 63-bit seed per sample: a stable mix of (seed, epoch, row, how often the row came before in this epoch).

    Args:
        order: (N,) rows in the order of the epoch.
        seed: seed of the run.
        epoch: number of the epoch.

    Returns:
        (N,) uint64 below 2**63.
    """
    earlier = _times_before(order)
    start = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    start = _mix(start ^ np.array([epoch], np.int64).astype(np.uint64))
    seeds = np.empty(len(order), np.uint64)
    for first in range(0, len(order), _CHUNK):
        part = slice(first, first + _CHUNK)
        mixed = _mix(start ^ order[part].astype(np.uint64))
        seeds[part] = _mix(mixed ^ earlier[part].astype(np.uint64)) & _MASK_63
    return seeds


def _times_before(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """(N,) how often each row came before."""
    earlier = np.zeros(len(order), np.int32)
    if not len(order) or np.bincount(order).max() == 1:  # a permutation, as ever without weights in one process
        return earlier
    by_row = np.argsort(order, kind="stable")
    ranked = order[by_row]
    is_first = np.r_[True, ranked[1:] != ranked[:-1]]
    places = np.arange(len(order))
    earlier[by_row] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return earlier


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit changes each output bit half of the time."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def class_weights(labels: npt.NDArray[np.float32]) -> FloatArray:
    """Weight of each row so that every class of a target is drawn equally often.

    Args:
        labels: (N,) class index or (N, K) multilabel values in {0, 1}; NaN is unknown.

    Returns:
        (N,) float64: one over the number of rows of the same class, times the number of labelled rows, averaged over
        the K columns. A row whose label is unknown has the mean weight of the labelled rows.
    """
    columns = labels[:, None] if labels.ndim == 1 else labels
    total = np.zeros(len(columns))
    for column in columns.T:
        is_known = ~np.isnan(column)
        weight = np.ones(len(column))
        if is_known.any():
            _, inverse, counts = np.unique(column[is_known], return_inverse=True, return_counts=True)
            weight[is_known] = (is_known.sum() / counts)[inverse]
            weight[~is_known] = weight[is_known].mean()
        total += weight
    weights: FloatArray = total / max(1, columns.shape[1])
    return weights


def patient_weights(patients: npt.NDArray[np.int64]) -> FloatArray:
    """Weight of each row so that every patient is drawn equally often.

    Args:
        patients: (N,) number of each row's patient, from 0.

    Returns:
        (N,) float64: one over the number of rows of the same patient.

    Example:
        >>> patient_weights(np.asarray([0, 0, 1, 0, 0]))
        array([0.25, 0.25, 1.  , 0.25, 0.25])
    """
    weights: FloatArray = 1.0 / np.bincount(patients)[patients]
    return weights
