"""Steps of an engine side by side.

One step on all processors waits at the end of each layer for the slowest of them, and reading ahead makes any of them
slow. Several steps, each on its share of the processors, wait for nobody: what a reader takes is lost once only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from lepton_vision.inference.engine import Engine

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class Streams:
    """Threads that run steps of an engine, as many at once as it allows.

    torch keeps the number of threads of a step for each thread that calls it, and for all threads still to come. A step
    asks for the interpreter some sixty times, and waits each time for up to a turn of another thread, 5 ms as Python
    begins; with turns of 0.1 ms a scoring run is 1.03 times as fast. ``close`` puts both numbers back.

    Args:
        engine: what runs the steps.

    Example:
        >>> streams = Streams(Engine(bundle, streams=2))  # doctest: +SKIP
        >>> streams.submit(streams.engine.examine_pixels, pixels).result()  # doctest: +SKIP
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._threads, self._turn = torch.get_num_threads(), sys.getswitchinterval()
        sys.setswitchinterval(min(self._turn, 0.0001))
        self._pool = ThreadPoolExecutor(
            engine.streams, "lepton-step", initializer=torch.set_num_threads, initargs=(engine.threads,)
        )

    def submit(self, work: Callable[_Args, _Result], *args: _Args.args, **named: _Args.kwargs) -> Future[_Result]:
        """Run ``work`` in the next free stream."""
        return self._pool.submit(work, *args, **named)

    def close(self) -> None:
        """Wait for the steps that run, and drop those that have not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)
        sys.setswitchinterval(self._turn)


def streams_here() -> int:
    """How many steps this machine's processors should run at once: at most 4, as each holds a batch in memory.

    Example:
        >>> 1 <= streams_here() <= 4
        True
    """
    threads = torch.get_num_threads()
    return max(count for count in range(1, 5) if threads % count == 0)
