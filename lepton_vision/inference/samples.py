"""Samples for prediction, from manifest rows or plain files, read ahead in threads while the model works."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat, takewhile
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from lepton_vision.config import Config
from lepton_vision.errors import ReadError
from lepton_vision.manifest.layouts import find_masks, may_be_mask
from lepton_vision.manifest.table import Manifest
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.folders import FolderKey, walk_folder
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image, require_image
from lepton_vision.transforms.dataset import ImageDataset
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.rows import TextColumn
from lepton_vision.transforms.volume_dataset import VolumeDataset
from lepton_vision.types import Image, SampleAddress, short_repr

_LOGGER = logging.getLogger(__name__)
UInt16Pixels = npt.NDArray[np.uint16]
_NAMED = 5  # rows that a warning names
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
        study_id: pseudonymous id; "" where unknown.
    """

    image_id: str
    patient_id: str
    series_id: str
    address: SampleAddress
    pixels: UInt16Pixels
    row: int = -1
    study_id: str = ""

    __repr__ = short_repr


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


def read_file(path: Path, config: Config) -> Outcome:
    """Read one file; each frame of a file that holds several becomes a sample."""
    try:
        images = frames_of(require_image(read_image(path), include=config.scan.include))
        return tuple(
            Sample(
                image.image_id,
                image.patient_id or "",
                image.series_id or "",
                SampleAddress(path, None, frame if len(images) > 1 else None),
                preprocess_image(image, config.preprocess),
                study_id=image.study_id or "",
            )
            for frame, image in enumerate(images)
        )
    except ReadError as error:
        return Failure(pseudonym("image", path.as_posix()), error.reason)
    except MemoryError:
        return Failure(pseudonym("image", path.as_posix()), "too_large")


def rejected_rows(manifest: Manifest) -> list[Failure]:
    """Return the rows that cannot be predicted, with their reasons."""
    frame = manifest.frame
    rejected = frame.loc[frame["status"] != "ok", ["image_id", "reason"]].fillna("unknown")
    return [Failure(str(image_id), str(reason)) for image_id, reason in rejected.itertuples(index=False)]


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


def warn_of_failures(failures: Sequence[Failure], manifest: Manifest, *, rejected: int = 0) -> None:
    """Say which rows of a manifest are in no figure because they cannot be read, though they could be when scanned.

    Args:
        failures: of the rows of ``manifest``.
        manifest: where they stand.
        rejected: so many of them are rows that the scan rejected, which come first.
    """
    found = failures[rejected:]
    if not found:
        return
    numbers = np.arange(len(manifest)) if manifest.numbers is None else manifest.numbers
    rows = dict(zip(manifest.frame["image_id"].astype(str), numbers.tolist(), strict=True))
    named = "; ".join(f"row {rows.get(one.image_id, '?')}, {one.image_id}: {one.reason}" for one in found[:_NAMED])
    _LOGGER.warning(
        "%d of %d rows cannot be read now and are in no figure (%s%s). Put the files back, or scan again.",
        len(found),
        int(manifest.is_ok.sum()),
        named,
        f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else "",
    )


class PathList(Sequence[Path]):
    """Immutable paths, packed end to end: 60 bytes each, where a list of Path objects takes 400.

    Example:
        >>> [path.name for path in PathList(["a/1.dcm", "a/2.dcm"])]
        ['1.dcm', '2.dcm']
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = TextColumn.of(texts)

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> list[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | list[Path]:
        found = range(len(self))[place]
        return Path(self._texts[found]) if isinstance(found, int) else [Path(self._texts[k]) for k in found]


def list_files(
    named: str | Path | Sequence[str | Path],
    *,
    leave_out: Path | Sequence[Path] = (),
    include: Collection[str] = (),
) -> PathList:
    """Return the files named, absolute, in the order given, each once; a folder stands for the files below it, sorted.

    Folders are walked as in a scan, see ``readers.folders.walk_folder``. Hidden files and folders (a leading dot) are
    what tools leave behind, not scans, and files of a folder that are masks of others by their names (see
    ``layouts.find_masks``) are no images; a warning counts these. A file that does not exist, and a folder that cannot
    be listed, stay in the list: they end as failures.

    Args:
        named: a file, a folder, or several of both.
        leave_out: folders whose files are left out (an output folder inside an input folder).
        include: "mask_file" among them takes masks for images.
    """
    folders = [leave_out] if isinstance(leave_out, Path) else leave_out
    barred = frozenset(folder.absolute() for folder in folders)
    entries = [named] if isinstance(named, str | Path) else named
    places = (os.path.normpath(Path(entry).expanduser().absolute()) for entry in entries)
    takes_masks = "mask_file" in include

    seen = set[FolderKey]()

    def below(folder: str) -> Iterator[str]:
        files = TextColumn.of(walk_folder(folder, leave_out=barred, seen=seen))
        masks = frozenset[str]() if takes_masks else named_masks(files, folder=folder)
        if masks:
            _LOGGER.warning(
                "%d files are masks of images by their names and are left out (scan.include: [mask_file] takes them "
                "for images, as does naming them one by one).",
                len(masks),
            )
        yield from (file for file in files if file not in masks)

    found = (file for place in places for file in (below(place) if os.path.isdir(place) else (place,)))  # noqa: PTH112
    return PathList(found if len(entries) < 2 else _once(found))  # one folder holds each file once


def _once(texts: Iterable[str]) -> Iterator[str]:
    """Each text where it comes first."""
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def named_masks(files: TextColumn | Sequence[str], *, folder: str) -> frozenset[str]:
    """Files below a folder, an archive or a URL whose names mark them as masks of others."""
    if not any(may_be_mask(file[len(folder) :]) for file in files):
        return frozenset()
    places = {PurePosixPath(file[len(folder) :].lstrip("/")).as_posix(): file for file in files}
    return frozenset(places[path] for path in find_masks(places))


def read_ahead(jobs: Iterable[_Job], read: Callable[[_Job], _Result], *, workers: int, depth: int) -> Iterator[_Result]:
    """Yield ``read(job)`` in order, while at most ``depth`` results wait; 0 workers read in the calling thread.

    Threads are enough: decoding and resizing release the interpreter's lock, and nothing is pickled. Where many may
    wait, a thread takes several jobs at once, as each hand-over costs a twentieth of a small image; but not the first
    ones, so that a few large files are read side by side. Where half of ``depth`` waits, one thread reads at a time:
    two of them ask for the interpreter in turns, and take 1.6 times as long for a small file.
    """
    if workers < 1:
        yield from map(read, jobs)
        return
    remaining, several = iter(jobs), max(1, depth // (8 * workers))
    sizes = chain(repeat(1, 8 * workers), repeat(several))
    groups = takewhile(bool, (tuple(islice(remaining, size)) for size in sizes))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lepton-read")
    ready, turn = deque[None](), Lock()  # an entry for each group that waits

    def read_group(group: Sequence[_Job]) -> tuple[list[_Result], Exception | None]:
        with turn if len(ready) * several > depth // 2 else nullcontext():
            found = _read_group(read, group)
        ready.append(None)
        return found

    try:
        waiting: deque[Future[tuple[list[_Result], Exception | None]]] = deque(
            pool.submit(read_group, group) for group in islice(groups, max(depth // several, workers))
        )
        while waiting:
            results, error = waiting.popleft().result()
            ready.pop()
            waiting.extend(pool.submit(read_group, group) for group in islice(groups, 1))
            yield from results
            if error is not None:
                raise error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_group(read: Callable[[_Job], _Result], jobs: Sequence[_Job]) -> tuple[list[_Result], Exception | None]:
    """Results up to the first failure, and that."""
    results: list[_Result] = []
    for job in jobs:
        try:
            results.append(read(job))
        except Exception as error:
            return results, error
    return results, None
