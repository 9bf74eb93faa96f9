"""Choice of the faster of two ways of running a network, measured while it runs.

Which way is faster depends on what else the machine does, and that changes. Each way is timed by the clock for a few
steps, the faster one is kept, and the comparison is made again after a while, or as soon as the pace of steps changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Literal, NamedTuple

Way = Literal["streams", "steps"]
_STAY = 48  # windows between comparisons while the pace stays as it is
_CLEAR = 0.85  # a way this much slower in a single window is not tried again in that comparison
_BETTER = 1.05  # the other way is taken if it is this much faster
_SAME = 1.3  # a pace that differs by this factor, twice in a row, says that the machine does other work now


class Trial(NamedTuple):
    """The way that is wanted next, and for how many steps."""

    way: Way
    steps: int


class Autotuner:
    """Choice of the way that the next step runs. Not safe for threads: whoever shares it brings a lock.

    Args:
        window: steps that are timed together.
        clock: seconds since some time.

    Example:
        >>> Autotuner(window=4).way
        'streams'
    """

    def __init__(self, window: int, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._trials, self._clock = _compare(window), clock
        self._trial = next(self._trials)
        self._since, self._steps, self._images = clock(), 0, 0

    @property
    def way(self) -> Way:
        """Way of running the next step."""
        return self._trial.way

    def finished(self, way: Way, *, images: int) -> None:
        """Count a step that is through; those of the way before, which still ran, only move the start."""
        now = self._clock()
        if way != self._trial.way:
            self._since = now
            return
        self._steps, self._images = self._steps + 1, self._images + images
        if self._steps >= self._trial.steps:
            self._trial = self._trials.send(self._images / max(now - self._since, 1e-9))
            self._since, self._steps, self._images = now, 0, 0


def _compare(window: int) -> Generator[Trial, float, None]:
    """Ask for windows of steps; receives the images per second of each."""
    way: Way = "streams"
    yield Trial(way, window)  # threads start, memory is mapped
    pace = yield Trial(way, window)
    while True:
        other: Way = "steps" if way == "streams" else "streams"
        mine, theirs = [pace], [(yield Trial(other, window))]
        if theirs[0] > _CLEAR * pace:
            mine.append((yield Trial(way, window)))
            theirs.append((yield Trial(other, window)))
        if sum(theirs) / len(theirs) > _BETTER * sum(mine) / len(mine):
            way, mine = other, theirs
        pace = yield from _keep(way, window, sum(mine) / len(mine))


def _keep(way: Way, window: int, pace: float) -> Generator[Trial, float, float]:
    """Keep a way until its pace changes or it is time to compare again; returns its last pace."""
    changed, last = 0, pace
    for _ in range(_STAY):
        last = yield Trial(way, window)
        changed = 0 if pace / _SAME < last < pace * _SAME else changed + 1
        if changed > 1:
            break
    return last
