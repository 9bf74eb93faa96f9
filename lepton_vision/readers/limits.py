"""Resource limits of reading, and the conversion of every failure to a ReadError."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from lepton_vision.errors import ConfigError, LeptonError, ReadError

_SLOWEST = 4_000_000  # bytes a second: half of what JPEG 2000, the slowest of our decoders, takes on a busy core
_GROWTH = 8  # bytes of memory for each byte of a large file: its pixels as stored and as float32, and as much again
_FRAME_SECONDS = 0.001  # what a frame or entry may take at least: files of 100,000 small images exist
_FRAME_BYTES = 64  # of the file for each frame; below _FEW_FRAMES blank ones may be packed as small as they come
_FEW_FRAMES = 2**15


def _setting(name: str, default: float) -> float:
    """A number above 0 from the environment, where workers and child processes find it too."""
    found = os.environ.get(name)
    try:
        value = default if found is None else float(found)
        if 0.0 < value < float("inf"):
            return value
    except ValueError:
        pass
    raise ConfigError(f"Expected a number above 0 in {name}. Received: something else. Correct or unset it.", key=name)


def _bytes_setting() -> int:
    return int(_setting("LEPTON_VISION_FILE_MEMORY_GB", 1.0) * 2**30)


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one file, most of them checked before anything is decoded or inflated.

    Every file has a budget of time and memory. Those of a large file grow with it, see ``for_file``, so that the budget
    stops what a small file can blow up to, and no honest volume.

    Attributes:
        max_pixels: samples (rows x columns x channels x frames) that one call may decode; above it, read single frames.
        max_bytes: bytes that a file which is read whole may have, and that a deflated file, a gzip stream, an npz
            member or a member of an archive may become.
        max_archive_bytes: bytes that all members of one archive may become together.
        max_ratio: how many times its own size an archive may become, once that is more than 256 MiB. Blank images are
            deflated to a thousandth, so that small archives and single members may exceed it.
        seconds: processor time for one file. The setting LEPTON_VISION_FILE_SECONDS of the environment changes the
            default of every command and of the workers that it starts.
        memory: bytes that reading one file may take beside the process as it is; LEPTON_VISION_FILE_MEMORY_GB changes
            the default.
    """

    max_pixels: int = 2**28
    max_bytes: int = 2**31
    max_archive_bytes: int = 2**35
    max_ratio: float = 100.0
    seconds: float = field(default_factory=partial(_setting, "LEPTON_VISION_FILE_SECONDS", 10.0))
    memory: int = field(default_factory=_bytes_setting)

    def for_file(self, size: int) -> Limits:
        """Limits of a file of ``size`` bytes: a second for each 4 MB and 8 bytes for each byte, where that is more."""
        if size <= self.seconds * _SLOWEST and size * _GROWTH <= self.memory:
            return self
        return replace(self, seconds=max(self.seconds, size / _SLOWEST), memory=max(self.memory, size * _GROWTH))

    def check_frames(self, frames: int, *, size: int) -> None:
        """Refuse more frames, pages or entries than a file of ``size`` bytes can hold: each costs time even if empty.

        Raises:
            ReadError: reason ``too_large``.
        """
        if frames > max(_FEW_FRAMES, size // _FRAME_BYTES):
            raise ReadError(
                f"The header announces {frames} images, the file has {size} bytes. Split the file.", reason="too_large"
            )


_elsewhere = threading.local()  # ``seconds`` that child processes have worked for this thread


def add_cpu_seconds(seconds: float) -> None:
    """Count processor time that a child process took for this thread, see ``Clock``."""
    _elsewhere.seconds = getattr(_elsewhere, "seconds", 0.0) + seconds


def _spent() -> float:
    return time.thread_time() + float(getattr(_elsewhere, "seconds", 0.0))


class Clock:
    """Processor time of this thread and for it since the clock was made, against what a file may take.

    Args:
        limits: of the file, see ``Limits.for_file``.
        frames: images that are to be read from it.
    """

    def __init__(self, limits: Limits, *, frames: int = 1) -> None:
        self._seconds = max(limits.seconds, frames * _FRAME_SECONDS)
        self._end = _spent() + self._seconds

    def check(self) -> None:
        """Refuse to go on once the time is used up.

        Raises:
            ReadError: reason ``too_slow``.
        """
        if _spent() > self._end:
            raise ReadError(
                f"Reading the file takes more than {self._seconds:g} s. Set LEPTON_VISION_FILE_SECONDS (or "
                "Limits.seconds) higher if it can be trusted.",
                reason="too_slow",
            )


DEFAULT_LIMITS = Limits()


def check_size(*sizes: int, limits: Limits, itemsize: int = 0, held: int = 0) -> None:
    """Refuse sizes that are not positive, or whose product is above the caps.

    Args:
        sizes: samples along each axis.
        limits: of the file.
        itemsize: bytes that each sample takes while it is read, beside the four of its float32; 0 where none is read.
        held: bytes that are held already, such as the inflated file.

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
    if (itemsize or held) and total * (4 + itemsize) + held > limits.memory:
        raise ReadError(
            f"Expected pixels that can be read in {limits.memory} bytes. The header announces {total} samples, which "
            f"take {total * (4 + itemsize) + held}. Set LEPTON_VISION_FILE_MEMORY_GB (or Limits.memory) higher if the "
            "file can be trusted.",
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
def raise_read_errors(what: str, *, reason: str) -> Iterator[None]:
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
