"""Parallel streams of inference steps, each on its share of the processors.

One step on all processors waits at the end of each layer for the slowest of them, and reading ahead makes any of them
slow. Several steps, each on its share of the processors, do not wait for each other: time that a reader takes is lost
once only. Beside other work either way may be the faster one, so that both are measured while they run (see
``Autotuner``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sized
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Lock
from typing import Any, ParamSpec, TypeVar

import torch

from lepton_vision.inference.autotune import Autotuner, Way
from lepton_vision.inference.engine import Engine
from lepton_vision.types.held import Held

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class Streams:
    """Threads that run steps of an engine: as many at once as it allows, or one after the other on all processors.

    torch keeps the number of threads of a step for each thread that calls it, and for all threads still to come. A step
    asks for the interpreter some sixty times, and waits each time for up to a turn of another thread, 5 ms as Python
    begins; with turns of 0.1 ms a scoring run is 1.03 times as fast, see ``SHORT_TURNS``.

    Args:
        engine: what runs the steps; other runtimes than torch have a fixed number of threads, and only streams.
        way: the only way to run them; None takes what is the faster one at the time. Results are the same to the bit.

    Example:
        >>> streams = Streams(Engine(bundle, streams=2))  # doctest: +SKIP
        >>> streams.submit(streams.engine.examine_pixels, pixels).result()  # doctest: +SKIP
    """

    def __init__(self, engine: Engine, *, way: Way | None = None) -> None:
        self.engine = engine
        threads = torch.get_num_threads()
        self._way: Way = way or "streams"
        self._pace = Autotuner(window=2 * engine.streams) if way is None and engine.has_free_threads else None
        self._lock = Lock()
        self._pools = {"streams": _pool(engine.streams, engine.threads), "steps": _pool(1, threads)}
        torch.set_num_threads(threads)  # of threads still to come, too: those of the pools have started
        self._running: list[Future[Any]] = []
        self._before: list[Future[Any]] = []

    def submit(self, work: Callable[_Args, _Result], *args: _Args.args, **named: _Args.kwargs) -> Future[_Result]:
        """Run ``work`` in the next free stream, or after the step before it; all calls come from one thread."""
        if self._pace is None:
            return self._pools[self._way].submit(work, *args, **named)
        way, self._running = self._pace.way, _open(self._running)
        if way != self._way:
            self._way, self._before, self._running = way, self._running, []
        self._before = _open(self._before)

        def run(before: list[Future[Any]], pace: Autotuner) -> _Result:
            for one in before:  # of the other way
                with suppress(CancelledError):
                    one.exception()
            try:
                return work(*args, **named)
            finally:
                with self._lock:
                    pace.finished(way, images=len(args[0]) if args and isinstance(args[0], Sized) else 1)

        step = self._pools[way].submit(run, self._before, self._pace)
        self._running.append(step)
        return step

    def close(self) -> None:
        """Wait for the steps that run, and drop those that have not begun."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown(wait=True)


def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """Threads that have started, each with its number of threads for torch."""
    pool, all_there = ThreadPoolExecutor(count, "lepton-step"), Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # a thread that has never asked takes over the number of the process later on
        torch.set_num_threads(threads)
        all_there.wait()

    for one in [pool.submit(start) for _ in range(count)]:
        one.result()
    return pool


def _shorten_turns() -> Callable[[], None]:
    turn = sys.getswitchinterval()
    sys.setswitchinterval(min(turn, 0.0001))
    return lambda: sys.setswitchinterval(turn)


SHORT_TURNS = Held(_shorten_turns)
"""Turns of 0.1 ms for the interpreter's threads, all of the process's, while any thread is inside."""


def _open(steps: list[Future[Any]]) -> list[Future[Any]]:
    """Steps that are not through; a list of all would keep their results."""
    return [one for one in steps if not one.done()]


def streams_here() -> int:
    """Number of parallel steps for this machine: at most 4, as each holds a batch in memory.

    Example:
        >>> 1 <= streams_here() <= 4
        True
    """
    threads = torch.get_num_threads()
    return max(count for count in range(1, 5) if threads % count == 0)
