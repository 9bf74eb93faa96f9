"""Suppression of warnings and logs of the file-reading libraries, limited to the threads that read.

Warnings, and loggers at DEBUG, quote headers and texts of patients. Python keeps one list of warning filters, one set
of loggers and pydicom one setting for the whole process. While any thread reads, each of them holds a part that asks
which thread it is called in: other threads warn, log and parse as before, and nothing is left behind.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydicom import config as pydicom_config

from lepton_vision.types.held import Held

_OF_READERS = re.compile(r"(pydicom|highdicom|tifffile|PIL|nibabel|pylibjpeg|openjpeg)(\.|$)")
_WARN_HERE = re.compile(r"(pydicom|highdicom|tifffile|PIL|nibabel|lepton_vision\.readers)(\.|$)")
for _name in ("tifffile", "PIL.ImageFile", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.PcxImagePlugin"):
    logging.getLogger(_name)  # known before the first file of its kind, so that it is silent there too


class _ThisThread(threading.local):
    """How deep this thread is in what reads; stands for the module in a warning filter, which calls ``match``.

    Everything is found in C, so that no thread can change the list of filters while another one walks over it.
    """

    depth = 0
    match: Callable[[str], object] = re.compile(r"(?!)").match  # of no module


_this_thread = _ThisThread()
_FILTER = ("ignore", None, Warning, _this_thread, 0)


class _SilentHere(logging.Filter):
    """Lets records of other threads pass."""

    def filter(self, _record: logging.LogRecord) -> bool:
        return not _this_thread.depth


_SILENT = _SilentHere()


class _LenientHere(pydicom_config.Settings):
    """pydicom's settings, but that a thread which reads does not validate.

    Values of the wrong form are no reason to refuse an image, and checking them takes a third of the time.
    """

    @property
    def reading_validation_mode(self) -> int:
        return pydicom_config.IGNORE if _this_thread.depth else super().reading_validation_mode

    @reading_validation_mode.setter
    def reading_validation_mode(self, value: int) -> None:
        self._reading_validation_mode = value


@lru_cache(maxsize=1)
def _loggers_among(_count: int) -> tuple[logging.Logger, ...]:
    """Loggers of the packages that read files; looked up anew where the process has got more loggers."""
    known = list(logging.Logger.manager.loggerDict.items())
    return tuple(one for name, one in known if _OF_READERS.match(name) and isinstance(one, logging.Logger))


class _Parts:
    """What stands in the settings of the process while any thread reads."""

    def __init__(self) -> None:
        # ``catch_warnings`` of another thread exchanges the list; a part left in one of many is passed over for good.
        self._lists: deque[list[Any]] = deque(maxlen=8)
        self._loggers: tuple[logging.Logger, ...] = ()
        self._lock = threading.Lock()

    def put(self) -> Callable[[], None]:
        """Put them in; return what takes them out."""
        settings = pydicom_config.settings
        kind = type(settings)
        self.renew()
        settings.__class__ = _LenientHere

        def take_out() -> None:
            settings.__class__ = kind
            for logger in self._loggers:
                logger.removeFilter(_SILENT)
            places: list[Any] = [*self._lists, warnings.filters]
            for filters in places:
                while _FILTER in filters:
                    filters.remove(_FILTER)
            self._loggers = ()
            self._lists.clear()

        return take_out

    def renew(self) -> None:
        """Put in what is missing: a logger is new, or another thread has put a filter in front, or another list."""
        filters: Any = warnings.filters
        loggers = _loggers_among(len(logging.Logger.manager.loggerDict))
        if filters and filters[0] is _FILTER and loggers is self._loggers:
            return
        with self._lock:
            if not filters or filters[0] is not _FILTER:
                # Not ``filterwarnings``: it would let warnings of all threads that were shown once be shown again.
                filters.insert(0, _FILTER)
                self._lists.append(filters)
            for logger in loggers:
                logger.addFilter(_SILENT)  # ``setLevel`` would empty the caches of all loggers of the process
            self._loggers = loggers


_parts = _Parts()
_standing = Held(_parts.put)


class _Quiet:
    """Silences what reads files in this thread, while it is inside; other threads notice nothing."""

    def __enter__(self) -> None:
        _standing.__enter__()
        _parts.renew()
        if not _this_thread.depth:
            _this_thread.match = _WARN_HERE.match
        _this_thread.depth += 1

    def __exit__(self, *_: object) -> None:
        _this_thread.depth -= 1
        if not _this_thread.depth:
            del _this_thread.match
        _standing.__exit__()


quiet = _Quiet()
