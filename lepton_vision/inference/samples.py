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

from lepton_vision.config.sections import VolumeConfig
from lepton_vision.errors import ReadError
from lepton_vision.manifest.layouts import find_masks, may_be_mask
from lepton_vision.manifest.table import Manifest
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.channels import first_files, named_channels
from lepton_vision.readers.content import is_folder
from lepton_vision.readers.folders import FolderKey, walk_folder
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image, require_image
from lepton_vision.readers.series_list import group_series
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.rows import TextColumn
from lepton_vision.transforms.views import View
from lepton_vision.types import Displayed, Image, SampleAddress

_LOGGER = logging.getLogger(__name__)
_NAMED = 5  # rows that a warning names
_ZERO = np.float32(0.0).tobytes()
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, eq=False)
class Sample(Displayed):
    """One image or volume ready for the network.

    Attributes:
        image_id: pseudonymous id; that of the manifest for a row of one.
        address: where the pixels lie.
        pixels: (C, H, W) or (C, D, H, W) uint16: what the network sees for its targets, or, for masks, all of it.
        row: row of the data set that it comes from; -1 for a plain file.
        patient_id: pseudonymous id; "" where unknown.
        series_id: pseudonymous id; "" where unknown.
        study_id: pseudonymous id; "" where unknown.
        image: as it was read, its pixels all 0 where nobody needs them; None for a row of a data set.
    """

    image_id: str
    address: SampleAddress
    pixels: UInt16Pixels
    row: int = -1
    patient_id: str = ""
    series_id: str = ""
    study_id: str = ""
    image: Image | None = None


# What one row or one file becomes: an image, the images of a file of several frames, or a failure.
Outcome = tuple[Sample, ...] | Failure


def read_row(dataset: SampleDataset, row: int) -> Outcome:
    """Read one row of a manifest; ids are filled in by whoever holds the manifest."""
    image_id = dataset.rows.image_id(row)
    return attempt(lambda: (Sample(image_id, dataset.locate(row), dataset.load_row(row), row),), image_id)


def read_place(place: Path | SampleAddress | Failure, view: View, *, masks: bool = False) -> Outcome:
    """Read one file or series from ``list_samples``; for ``masks`` samples keep all that was read."""
    if isinstance(place, Failure):
        return place
    at = place if isinstance(place, SampleAddress) else SampleAddress(place)

    def read() -> tuple[Sample, ...]:
        image = read_image(at.path, member=at.member, frame=at.frame, **at.repairs)
        require_image(image, include=view.config.scan.include)
        return samples_of(image, view, at=at, is_whole=masks, is_last_use=not masks)

    series, dash, suffix = (at.member or "").partition("-") if at.member and is_folder(at.path) else ("", "", "")
    return attempt(read, pseudonym("image", series or at.path.as_posix()) + dash + suffix)


def attempt(read: Callable[[], tuple[Sample, ...]], image_id: str) -> Outcome:
    """Return what ``read`` gives, or the failure of what cannot be read."""
    try:
        return read()
    except ReadError as error:
        return Failure(image_id, error.reason)
    except MemoryError:
        return Failure(image_id, "too_large")


def samples_of(
    image: Image, view: View, *, at: SampleAddress, is_whole: bool = False, is_last_use: bool = False
) -> tuple[Sample, ...]:
    """Prepare what was read of one place: one sample, or one for each frame of a file of images.

    Args:
        image: as it was read.
        view: of the model.
        at: where it was read.
        is_whole: give all of the prepared pixels, which masks are predicted of.
        is_last_use: the pixels of the image may be overwritten; samples do not keep them.

    Raises:
        ReadError: it cannot be prepared.
    """
    parts = view.parts(image)
    places = [at] if len(parts) == 1 else [replace(at, frame=frame) for frame in range(len(parts))]
    pixels = [view.prepare(part, is_last_use=is_last_use).pixels for part in parts]
    return tuple(
        Sample(
            part.image_id,
            place,
            ready if is_whole else view.plain(ready),
            patient_id=part.patient_id or "",
            series_id=part.series_id or "",
            study_id=part.study_id or "",
            image=without_pixels(part) if is_last_use else part,
        )
        for part, place, ready in zip(parts, places, pixels, strict=True)
    )


def without_pixels(image: Image) -> Image:
    """Return the image with pixels of its shape that are all 0 and take no memory."""
    shape = image.pixels.shape
    return replace(image, pixels=np.ndarray(shape, np.float32, _ZERO, strides=(0,) * len(shape)))


def rejected_rows(manifest: Manifest) -> list[Failure]:
    """Return the rows that cannot be predicted, with their reasons."""
    frame = manifest.frame
    rejected = frame.loc[frame["status"] != "ok", ["image_id", "reason"]].fillna("unknown")
    return [Failure(str(image_id), str(reason)) for image_id, reason in rejected.itertuples(index=False)]


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


def list_samples(
    named: str | Path | Sequence[str | Path], view: View
) -> Sequence[Path] | Sequence[SampleAddress | Failure]:
    """Return where the samples of a view lie: files, or volumes."""
    include = view.config.scan.include
    if not view.is_volume:
        return list_files(named, include=include)
    return list_volumes(named, volume=view.config.volume, include=include)


def list_volumes(
    named: str | Path | Sequence[str | Path], *, volume: VolumeConfig | None = None, include: Collection[str] = ()
) -> list[SampleAddress | Failure]:
    """Return where the volumes lie: DICOM series first (the folder and the id of the series), then all other files.

    A file that is no volume is in the list: it ends as a failure. What lies in a series and is no slice of it is a
    failure at once.

    Args:
        named: a file, a folder, or several of both.
        volume: says which series are repaired, and the channels of NIfTI files; None: none.
        include: kinds of objects that are read by themselves where they are no slices, see ``config.ScanConfig``.
    """
    series, others = group_series(list_files(named, include=include))
    choices = {} if volume is None else {"tilt": volume.tilt, "gaps": volume.gaps}
    repair = ",".join(name for name, choice in choices.items() if choice != "refuse")
    channels = () if volume is None else volume.channels
    strays = [stray for one in series for stray in one.left_out]
    files = [*first_files(others, channels), *(path for path, reason in strays if reason in include)]
    return [
        *(SampleAddress(one.folder, one.member, repair=repair) for one in series),
        *(SampleAddress(path, named_channels(path, channels)) for path in files),
        *(Failure(pseudonym("image", path.as_posix()), reason) for path, reason in strays if reason not in include),
    ]


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
