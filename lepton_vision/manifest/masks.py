"""Masks named by a label table: located, read once, checked against their images, and hashed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from lepton_vision.errors import ManifestError, ReadError
from lepton_vision.manifest.hashes import pixel_hash
from lepton_vision.manifest.schema import objects
from lepton_vision.readers.image import read_image
from lepton_vision.readers.mask import check_grid, is_laid, mask_files, read_mask, reorient_mask
from lepton_vision.types import Image, SampleAddress

_COLUMNS: Final = ("mask_path", "mask_member", "mask_values", "mask_hash")
_MOST_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class _Job:
    """One row with a mask: where image and mask lie, and what is known of the image."""

    row: int
    image: SampleAddress
    mask: SampleAddress
    shape: tuple[int, ...]


def attach_masks(
    frame: pd.DataFrame,
    *,
    root: Path,
    table_folder: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Read the masks that the column ``mask_path`` names as the label table wrote them.

    A cell is a path relative to the scanned folder or to the label table, with ``#name`` behind it for an array of an
    npz file. A row of one frame takes that frame of the mask; of a DICOM Segmentation, what lies where the image does.
    Afterwards ``mask_path`` is relative to the root,
    ``mask_values`` holds the values that occur ("0,2"), and ``mask_hash`` stands for the content. A row whose mask
    cannot be used is rejected with the reason; a blank cell means that nothing is known, not that nothing is there.
    The files of masks are no images themselves: their rows are left out.

    Args:
        frame: conformed rows.
        root: folder of the scan.
        table_folder: folder of the label table, or None.
        progress: called with (masks done, masks in all).

    Raises:
        ManifestError: not one of the named files exists.
    """
    cells = objects(frame["mask_path"])
    is_ok = objects(frame["status"]) == "ok"
    named = [row for row in range(len(frame)) if cells[row] is not None and is_ok[row]]
    if not named:
        return frame
    found = {row: _resolve(str(cells[row]), root=root, table_folder=table_folder) for row in named}
    if not any(address.path.is_file() for address in found.values()):
        raise ManifestError(
            f"None of the {len(named)} masks of the label table is there. Expected paths relative to the scanned "
            "folder or to the table, with #name behind them for an array of an npz file.",
            key="mask_path",
        )
    jobs = [_job(frame, row, mask=found[row], root=root) for row in named]
    values: dict[str, list[Any]] = {name: [None] * len(frame) for name in _COLUMNS}
    status, reason = objects(frame["status"]), objects(frame["reason"])
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for done, (job, outcome) in enumerate(zip(jobs, pool.map(_describe, jobs), strict=True), start=1):
            values["mask_path"][job.row] = Path(os.path.relpath(job.mask.path.absolute(), root.absolute())).as_posix()
            values["mask_member"][job.row] = job.mask.member
            if isinstance(outcome, str):
                status[job.row], reason[job.row] = "rejected", outcome
            else:
                values["mask_values"][job.row], values["mask_hash"][job.row] = outcome
            if progress is not None:
                progress(done, len(jobs))
    columns = {name: pd.Series(column, dtype=object) for name, column in values.items()}
    return _without_masks(frame.assign(status=status, reason=reason, **columns))


def _resolve(cell: str, *, root: Path, table_folder: Path | None) -> SampleAddress:
    text, _, member = cell.partition("#")
    text = text.strip().replace("\\", "/")
    folders = [root] if table_folder is None else [root, table_folder]
    places = [folder / text for folder in folders]
    path = next((place for place in places if place.is_file()), places[0])
    return SampleAddress(path, member.strip() or None)


def _job(frame: pd.DataFrame, row: int, *, mask: SampleAddress, root: Path) -> _Job:
    values = frame.iloc[row]
    member, number = (None if pd.isna(values[name]) else values[name] for name in ("member", "frame"))
    number = None if number is None else int(number)
    repair = "" if pd.isna(values["repair"]) else str(values["repair"])
    image = SampleAddress(root / str(values["path"]), member, number, repair)
    depth = 1 if number is not None or pd.isna(values["frames"]) else int(values["frames"])
    plane = (int(values["rows"]), int(values["columns"]))
    mask_frame = number if _has_frames(mask) else None
    return _Job(row, image, SampleAddress(mask.path, mask.member, mask_frame), (depth, *plane) if depth > 1 else plane)


def _has_frames(mask: SampleAddress) -> bool:
    """Whether a mask file may hold several frames; a still image beside one frame of a file is taken whole."""
    if len(mask_files(mask.path, mask.member)) > 1:
        return False
    return mask.member is not None or mask.path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def _describe(job: _Job) -> tuple[str, str] | str:
    """Values and hash of a mask, or the reason why it cannot be used."""
    try:
        mask = read_mask(job.mask.path, member=job.mask.member, frame=job.mask.frame, on=job.image)
        if mask.spacing_mm is not None and not is_laid(mask):
            image = read_image(job.image.path, member=job.image.member, frame=job.image.frame, **job.image.repairs)
            mask = reorient_mask(mask, image)
            check_grid(mask, image)
        _check_size(mask, job)
    except ReadError as error:
        return error.reason if error.reason.startswith("mask_") else f"mask_{error.reason}"
    values = np.unique(mask.pixels).astype(int)
    return ",".join(map(str, values)), pixel_hash(mask.pixels)


def _check_size(mask: Image, job: _Job) -> None:
    if mask.pixels.shape[1:] != job.shape:
        raise ReadError(
            f"A mask needs the size of its image, {job.shape}. Received: {mask.pixels.shape[1:]}.", reason="mask_size"
        )


def _without_masks(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out rows whose file is the mask of another row."""
    named = frame.loc[frame["mask_path"].notna(), ["mask_path", "mask_member"]]
    parts = (
        mask_files(path, member) for path, member in zip(*map(objects, (named[name] for name in named)), strict=True)
    )
    files = {path.as_posix() for some in parts for path in some}
    is_mask = frame["path"].isin(files) & frame["mask_path"].isna()
    return frame.loc[~is_mask].reset_index(drop=True)
