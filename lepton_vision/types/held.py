"""Process-wide settings, held while any thread needs them and restored afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Held:
    """A setting that holds while any thread is inside, and is then as it was; the process has only one.

    Args:
        hold: makes the setting and returns what takes it back.
    """

    def __init__(self, hold: Callable[[], Callable[[], None]]) -> None:
        self._hold, self._inside, self._lock = hold, 0, threading.Lock()
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo = self._hold()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo()
