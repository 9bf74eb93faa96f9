"""What a file may cost, and how everything that goes wrong while reading becomes one ReadError."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydicom import config as pydicom_config

from lepton_vision.errors import LeptonError, ReadError


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that are checked before anything is decoded or inflated.

    Attributes:
        max_pixels: samples (rows x columns x channels x frames) that one call may decode; above it, read single frames.
        max_bytes: bytes that a file which is read whole may have, and that a deflated file, a gzip stream, an npz
            member or a member of an archive may become.
        max_archive_bytes: bytes that all members of one archive may become together.
        max_ratio: how many times its own size an archive may become, once that is more than 256 MiB. Blank images are
            deflated to a thousandth, so that small archives and single members may exceed it.
        seconds: processor and wall time of a decoder that runs in a child process, for one frame.
    """

    max_pixels: int = 2**28
    max_bytes: int = 2**31
    max_archive_bytes: int = 2**35
    max_ratio: float = 100.0
    seconds: float = 30.0


DEFAULT_LIMITS = Limits()
_OF_READERS = re.compile(r"(pydicom|highdicom|tifffile)(\.|$)")
logging.getLogger("tifffile")  # known before the first TIFF, so that it is silent there too


def check_size(*sizes: int, limits: Limits) -> None:
    """Refuse sizes that are not positive, or whose product is above the cap.

    Raises:
        ReadError: reason ``corrupt`` or ``too_large``.
    """
    total = 1
    for size in sizes:
        if size <= 0:
            raise ReadError(f"Expected sizes above 0. Received: {size}. The header is damaged.", reason="corrupt")
        total *= size
    if total > limits.max_pixels:
        raise ReadError(
            f"Expected at most {limits.max_pixels} samples. The header announces {total}. "
            "Read single frames, or raise Limits.max_pixels if the file can be trusted.",
            reason="too_large",
        )


def check_bytes(size: int, *, limits: Limits) -> None:
    """Refuse a file above the cap of bytes before it is read.

    Raises:
        ReadError: reason ``too_large``.
    """
    if size > limits.max_bytes:
        raise ReadError(
            f"Expected a file of at most {limits.max_bytes} bytes. Received: {size}. Raise Limits.max_bytes "
            "(score: --max-file-gb) if the file can be trusted.",
            reason="too_large",
        )


@contextmanager
def guard(what: str, *, reason: str) -> Iterator[None]:
    """Turn every failure inside into a ReadError that quotes no header text.

    Decoders raise more than Exception: pylibjpeg-rle, for one, a pyo3 PanicException that is a BaseException.
    Interrupts pass through.

    Args:
        what: first words of the message, e.g. "Cannot parse the DICOM header".
        reason: reason code for failures that have no better one.
    """
    try:
        yield
    except (LeptonError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise ReadError(f"{what}: not enough memory.", reason="too_large") from None
    except EOFError:
        raise ReadError(f"{what}: the file ends too early. Copy it again.", reason="truncated") from None
    except OSError as error:
        is_of_system = error.errno is not None
        text = error.strerror if is_of_system else type(error).__name__
        raise ReadError(f"{what}: {text}.", reason="missing" if is_of_system else reason) from None
    except BaseException as error:
        raise ReadError(f"{what} ({type(error).__name__}).", reason=reason) from None


def _loggers() -> tuple[logging.Logger, ...]:
    """Loggers of pydicom, highdicom and tifffile, those of their modules included."""
    return _loggers_among(len(logging.Logger.manager.loggerDict))


@lru_cache(maxsize=1)
def _loggers_among(_count: int) -> tuple[logging.Logger, ...]:
    """As ``_loggers``; looked up anew where the process has got more loggers."""
    known = list(logging.Logger.manager.loggerDict.items())
    return tuple(one for name, one in known if _OF_READERS.match(name) and isinstance(one, logging.Logger))


class _Quiet:
    """Silences pydicom, highdicom, tifffile and Pillow (whose warnings quote header values) while any thread is inside.

    Counted, so that threads that overlap do not restore each other's settings; nothing is changed outside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved: tuple[Any, ...] = ()

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            settings = pydicom_config.settings
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.filterwarnings(
                "ignore", module=r"(pydicom|highdicom|tifffile|PIL|nibabel|lepton_vision\.readers)(\.|$)"
            )
            # Not ``setLevel``: it empties the caches of all loggers of the process, a tenth of a millisecond a file.
            loggers = [logger for logger in _loggers() if not logger.disabled]
            self._saved = (caught, loggers, settings, settings._reading_validation_mode)
            for logger in loggers:
                logger.disabled = True
            # Values of the wrong form are no reason to refuse an image, and checking them takes a third of the time.
            settings.reading_validation_mode = pydicom_config.IGNORE

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            caught, loggers, settings, mode = self._saved
            settings._reading_validation_mode = mode
            for logger in loggers:
                logger.disabled = False
            caught.__exit__(None, None, None)


quiet = _Quiet()
