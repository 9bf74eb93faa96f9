"""Graceful Ctrl-C: the running step is completed and saved before training stops."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    """Request of the user to stop."""

    is_set: bool = False


@contextlib.contextmanager
def listen_for_interrupt() -> Iterator[StopRequest]:
    """Turn the first SIGINT into a request to stop; the second one interrupts at once. The handler before is put back.

    Outside the main thread, or where SIGINT is ignored, nothing is changed.
    """
    stop = StopRequest()
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before in (signal.SIG_IGN, None):
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.is_set = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
