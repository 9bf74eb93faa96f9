"""Frame decoding in a disposable child process, for decoders that can crash or hang.

GDCM aborts on some damaged files (measured: 16 of 5,000 mutants), and SimpleITK contains it; JPEG 2000 and some kinds
of TIFF can take minutes and gigabytes. Warm children are kept, one for each thread that decodes at once, since starting
one costs about a second; one is replaced after a crash, a timeout or any doubt. A child is a fresh interpreter and no
fork, so that threads of torch in the parent do no harm; it sees the compressed frame and its layout, never the header
of the file.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.limits import Limits, add_cpu_seconds

_MODULE = "lepton_vision.readers.dicom.decode_worker"
_START_SECONDS = 90.0  # a cold import of a decoder on a busy machine
_ANSWER_SECONDS = 60.0  # above the processor time, which the child limits itself: waiting for a core
_HEADER_BYTES = 4


def decode_isolated(data: bytes, syntax: str, *, plugin: str, layout: PixelLayout, limits: Limits) -> npt.NDArray[Any]:
    """Decode one frame in the child of this process.

    Args:
        data: the compressed frame.
        syntax: transfer syntax UID.
        plugin: "gdcm" or "simpleitk".
        layout: what the header says about the pixels.
        limits: ``seconds`` of processor time and of wall time, and ``memory``.

    Returns:
        (H, W) or (H, W, 3) stored values.

    Raises:
        ReadError: reason ``decoder_failed`` or ``decoder_missing``.
    """
    expected = layout.rows * layout.columns * layout.samples * max(layout.bits_allocated, 8) // 8
    request = {"syntax": syntax, "plugin": plugin, "layout": dataclasses.asdict(layout)}
    return _ask(request, data, limits=limits, most=4 * expected, name=plugin)


def decode_picture_isolated(data: bytes, *, kind: str, most: int, limits: Limits) -> npt.NDArray[Any]:
    """Decode the first picture of a raster file by Pillow in a child of this process, see ``pages.decode_picture``.

    Args:
        data: the file.
        kind: its format.
        most: bytes that the picture may have.
        limits: as for ``decode_isolated``.

    Raises:
        ReadError: as ``pages.read_picture``, and reason ``decoder_failed``.
    """
    return _ask({"picture": kind}, data, limits=limits, most=most, name="pillow")


def _ask(request: dict[str, Any], data: bytes, *, limits: Limits, most: int, name: str) -> npt.NDArray[Any]:
    """The array that a child makes of ``data``."""
    request |= {"seconds": limits.seconds, "memory": limits.memory, "name": name}
    with _acquire_host() as host:
        started = time.monotonic()
        try:
            answer, pixels = host.ask(request, data, seconds=limits.seconds, most=most)
        except ReadError:  # it was killed, maybe for its time
            add_cpu_seconds(min(limits.seconds, time.monotonic() - started))
            raise
    add_cpu_seconds(answer["seconds"])
    if answer.get("is_missing"):
        raise ReadError(f"The decoder {name} is not installed. Install it.", reason="decoder_missing")
    if "reason" in answer:
        raise ReadError(answer["error"], reason=answer["reason"])
    if "error" in answer:
        raise ReadError(f"The decoder {name} refused a frame ({answer['error']}).", reason="decoder_failed")
    values = np.frombuffer(pixels, dtype=np.dtype(answer["dtype"]))
    return values.reshape(answer["shape"])


class _Host:
    """One child process for decoding."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._end: int | None = None

    def ask(
        self, request: dict[str, Any], data: bytes, *, seconds: float, most: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Send a request and wait for its answer; a child that fails in any way is thrown away.

        A child that has answered before may have been killed since, or carry the damage of an earlier frame: the
        frame is tried once more in a fresh one, by the same decoder, unless it ran out of time.
        """
        is_fresh = self._process is None or self._process.poll() is not None
        start = time.monotonic()
        allowed = seconds + (_START_SECONDS if is_fresh else _ANSWER_SECONDS)
        try:
            return self._exchange(request, data, allowed=allowed, most=most)
        except (EOFError, OSError, ValueError):
            end = self._end
            if not is_fresh and time.monotonic() - start < allowed:
                return self.ask(request, data, seconds=seconds, most=most)
            how = f"ended by signal {-end}" if end is not None and end < 0 else f"ended with code {end}"
            raise ReadError(
                f"The decoder {request['name']} crashed or ran out of time or memory (its process {how}).",
                reason="decoder_failed",
            ) from None

    def _exchange(
        self, request: dict[str, Any], data: bytes, *, allowed: float, most: int
    ) -> tuple[dict[str, Any], bytearray]:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        timer = threading.Timer(allowed, process.kill)
        timer.daemon = True
        timer.start()
        try:
            if process.stdin is None or process.stdout is None:
                raise EOFError
            send(process.stdin, {**request, "folder": self._folder}, data=data)
            return receive(process.stdout, most=most)
        except BaseException:  # also Ctrl-C in the middle of an answer: the next answer would be this one's
            self.stop()
            raise
        finally:
            timer.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        self.stop()
        atexit.unregister(self.stop)
        atexit.register(self.stop)
        self._folder = tempfile.mkdtemp(prefix="lepton-decode-")
        paths = [str(Path(entry or ".").absolute()) for entry in sys.path]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        return self._process

    def stop(self) -> None:
        """End the child, if any, and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._end = process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


class _Hosts:
    """Pool of child processes: the idle ones, and as many at once as there are processors."""

    def __init__(self) -> None:
        self.idle: deque[_Host] = deque()
        self._places = threading.BoundedSemaphore(os.cpu_count() or 1)

    @contextlib.contextmanager
    def acquire(self) -> Iterator[_Host]:
        """Give the child that was used last, or a new one."""
        with self._places:
            try:
                host = self.idle.pop()
            except IndexError:
                host = _Host()
            try:
                yield host
            finally:
                self.idle.append(host)


_hosts: dict[int, _Hosts] = {}


def _acquire_host() -> contextlib.AbstractContextManager[_Host]:
    return _hosts.setdefault(os.getpid(), _Hosts()).acquire()  # a forked process must not talk to its parent's children


def send(pipe: IO[bytes], header: dict[str, Any], *, data: Any) -> None:
    """Write one message: length of the JSON header, the header, the data."""
    text = json.dumps({**header, "bytes": len(data)}).encode()
    pipe.write(len(text).to_bytes(_HEADER_BYTES, "little") + text)
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes], *, most: int) -> tuple[dict[str, Any], bytearray]:
    """Read one message with at most ``most`` bytes of data.

    Raises:
        EOFError: the other side has ended.
        ValueError: no message, or more data than expected.
    """
    length = int.from_bytes(_read(pipe, _HEADER_BYTES), "little")
    header: dict[str, Any] = json.loads(_read(pipe, length))
    if header["bytes"] > most:
        raise ValueError("more data than expected")
    return header, _read(pipe, header["bytes"])


def _read(pipe: IO[bytes], length: int) -> bytearray:
    result = bytearray(length)
    view, place = memoryview(result), 0
    while place < length:
        count = pipe.readinto(view[place:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        place += count
    return result
