"""Samples to predict: rows of a manifest or plain files, read ahead in threads while the model works."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lepton_vision.config import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.inference.predictions import Failure
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.dataset import ImageDataset
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.volume_dataset import VolumeDataset
from lepton_vision.types import Image, SampleAddress

UInt16Pixels = npt.NDArray[np.uint16]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image ready for the network.

    Attributes:
        image_id: pseudonymous id.
        patient_id: pseudonymous id; "" where unknown.
        series_id: pseudonymous id; "" where unknown.
        address: where the pixels lie.
        pixels: (C, H, W) or (C, D, H, W) uint16, preprocessed.
        row: row of the dataset that it comes from; -1 for a plain file.
    """

    image_id: str
    patient_id: str
    series_id: str
    address: SampleAddress
    pixels: UInt16Pixels
    row: int = -1


# What one row or one file becomes: an image, the images of a file of several frames, or a failure.
Outcome = tuple[Sample, ...] | Failure


def read_row(dataset: ImageDataset | VolumeDataset, row: int) -> Outcome:
    """Read one row of a manifest; ids are filled in by whoever holds the manifest."""
    image_id = dataset.rows.image_id(row)
    try:
        pixels = dataset.load_row(row)
    except ReadError as error:
        return Failure(image_id, error.reason)
    except MemoryError:
        return Failure(image_id, "too_large")
    return (Sample(image_id, "", "", dataset.locate(row), pixels, row),)


def read_file(path: Path, config: PreprocessConfig) -> Outcome:
    """Read one file; each frame of a file that holds several becomes a sample."""
    try:
        images = frames_of(read_image(path))
        return tuple(
            Sample(
                image.image_id,
                image.patient_id or "",
                image.series_id or "",
                SampleAddress(path, None, frame if len(images) > 1 else None),
                preprocess_image(image, config),
            )
            for frame, image in enumerate(images)
        )
    except ReadError as error:
        return Failure(pseudonym("image", path.as_posix()), error.reason)
    except MemoryError:
        return Failure(pseudonym("image", path.as_posix()), "too_large")


def frames_of(image: Image) -> list[Image]:
    """Return the 2-D images of a file: itself, or one per frame."""
    if not image.is_volume:
        return [image]
    spacing = None if image.spacing_mm is None else image.spacing_mm[-2:]
    whole = image.geometry
    return [
        replace(
            image,
            pixels=image.pixels[:, k],
            spacing_mm=spacing,
            geometry=None if whole is None else whole.plane(k),
            image_id=f"{image.image_id}-{k}",
        )
        for k in range(image.pixels.shape[1])
    ]


def list_files(named: str | Path | Sequence[str | Path], *, leave_out: Path | None = None) -> list[Path]:
    """Return the files named, absolute, in the order given, each once; a folder stands for the files below it, sorted.

    Hidden files and folders (a leading dot) are what tools leave behind, not scans. A file that does not exist stays
    in the list: it ends as a failure.

    Args:
        named: a file, a folder, or several of both.
        leave_out: folder whose files are left out (an output folder inside an input folder).
    """
    found: dict[Path, None] = {}
    barred = None if leave_out is None else leave_out.absolute()
    for entry in [named] if isinstance(named, str | Path) else named:
        path = Path(os.path.normpath(Path(entry).expanduser().absolute()))
        found |= dict.fromkeys(_walk(path, barred) if path.is_dir() else [path])
    return list(found)


def _walk(folder: Path, barred: Path | None) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(place, name) != barred)
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def read_ahead(jobs: Iterable[_Job], read: Callable[[_Job], _Result], *, workers: int, depth: int) -> Iterator[_Result]:
    """Yield ``read(job)`` in order, while at most ``depth`` results wait; 0 workers read in the calling thread.

    Threads are enough: decoding and resizing release the interpreter's lock, and nothing is pickled.
    """
    if workers < 1:
        yield from map(read, jobs)
        return
    remaining = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lepton-read")
    try:
        waiting: deque[Future[_Result]] = deque(
            pool.submit(read, job) for job in islice(remaining, max(depth, workers))
        )
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, job) for job in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
