"""Channels of a NIfTI volume: components of one file with 4 axes, or several files of one case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final, TypeVar

import numpy as np

from lepton_vision.errors import ReadError
from lepton_vision.readers.identity import content_id
from lepton_vision.types import FloatArray, Geometry, Image

_STARTS: Final = ("_", "-", ".")
_ENDS: Final = (".nii.gz", ".nii")
_TOLERANCE: Final = 1e-3  # mm
_AnyPath = TypeVar("_AnyPath", bound=PurePath)


def suffixes_of(channels: Sequence[str]) -> tuple[str, ...]:
    """Name endings of the files of each channel, before ``.nii``; () where all channels lie in one file.

    A channel is named as it is in the configuration: ``flair`` (a component), ``_0000`` or ``flair=_0000`` (a file).
    """
    found = [name.partition("=")[2] or name for name in channels]
    is_file = ["=" in name or name.startswith(_STARTS) for name in channels]
    return tuple(found) if channels and all(is_file) else ()


def split_name(path: PurePath) -> tuple[str, str]:
    """Name of a NIfTI file before and from ``.nii``; the second is "" for a file of another name."""
    for end in _ENDS:
        if path.name.lower().endswith(end):
            return path.name[: -len(end)], path.name[-len(end) :]
    return path.name, ""


def named_channels(path: PurePath, channels: Sequence[str]) -> str | None:
    """Argument ``member`` of ``read_image`` for a NIfTI file; None for other files, and without channels."""
    return ",".join(channels) if channels and split_name(path)[1] else None


def agreed_channels(path: Path, channels: Sequence[str], *, row: str | None) -> str | None:
    """``named_channels`` of a row of a manifest, or what the row names itself of a file of another kind.

    Raises:
        ReadError: reason ``channels``: the manifest was scanned with others.
    """
    if not split_name(path)[1]:
        return row
    if (row or "") != ",".join(channels):
        raise ReadError(
            f"Expected a manifest with the channels {','.join(channels) or 'of one file'} (volume.channels). Received: "
            f"{row or 'none'}. Scan with these --channels.",
            reason="channels",
        )
    return row


def channel_files(path: Path, channels: Sequence[str]) -> tuple[Path, ...]:
    """The files of the case that one of them belongs to, in the order of the channels; () where it is no such file."""
    case = case_path(path, channels)
    stem, end = split_name(case or path)
    return tuple(path.with_name(f"{stem}{suffix}{end}") for suffix in suffixes_of(channels)) if case else ()


def case_path(path: _AnyPath, channels: Sequence[str]) -> _AnyPath | None:
    """Path of one of the files of a case without what names its channel; None where it is no such file."""
    stem, end = split_name(path)
    own = max((suffix for suffix in suffixes_of(channels) if end and stem.endswith(suffix)), key=len, default="")
    case = stem.removesuffix(own)
    return path.with_name(case + end) if own and case else None


def first_files(paths: Iterable[Path], channels: Sequence[str]) -> list[Path]:
    """One file for each case: that of its first channel that is there; files of no case stay."""
    listed = list(paths)
    known, taken, kept = set(listed), set(), []
    for path in listed:
        case = channel_files(path, channels)
        if not case or (case not in taken and path == next(one for one in case if one in known)):
            kept.append(path)
            taken.add(case)
    return kept


def read_case(path: Path, channels: Sequence[str], *, read: Callable[[Path], Image]) -> Image:
    """Read each file of a case and put them together as channels, in the order of ``channels``.

    Args:
        path: any of the files.
        channels: see ``suffixes_of``.
        read: reads one file.

    Raises:
        ReadError: as ``check_complete`` and ``join_channels``.
    """
    files = channel_files(path, channels)
    check_complete([file.is_file() for file in files] or [False] * len(channels), channels)
    return join_channels([read(file) for file in files], channels)


def check_complete(are_there: Sequence[bool], channels: Sequence[str]) -> None:
    """Refuse a case that lacks the file of a channel.

    Raises:
        ReadError: reason ``missing_channel``.
    """
    missing = [name for name, is_there in zip(channels, are_there, strict=True) if not is_there]
    if missing:
        raise ReadError(
            f"Expected a file for each of the channels {', '.join(channels)} (volume.channels). Missing: "
            f"{', '.join(missing)}.",
            reason="missing_channel",
        )


def join_channels(images: Sequence[Image], channels: Sequence[str]) -> Image:
    """Put images of one channel together, in the order of ``channels``, as the first image with pixels (C, D, H, W).

    Raises:
        ReadError: reason ``channel_grid``: files of different size or place.
    """
    first = images[0]
    for name, image in zip(channels, images, strict=True):
        if image.pixels.shape != first.pixels.shape or image.channels != 1 or not _is_same_place(image, first):
            raise ReadError(
                f"Expected channels of one size and place. Received: {image.pixels.shape[1:]} for {name}, "
                f"{first.pixels.shape[1:]} for {channels[0]}, or another place. Resample them to one grid.",
                reason="channel_grid",
            )
    low, high = (pick(image.value_range[k] for image in images) for k, pick in enumerate((min, max)))
    window = first.window if all(image.window == first.window for image in images) else None
    base, dash, frame = first.image_id.partition("-")
    if base:
        base = content_id(*(image.image_id.encode() for image in images))
    pixels = np.concatenate([image.pixels for image in images])
    return replace(first, pixels=pixels, value_range=(low, high), window=window, image_id=base + dash + frame)


def _is_same_place(image: Image, first: Image) -> bool:
    one, other = image.geometry, first.geometry
    if one is None or other is None:
        return one is other and image.spacing_mm == first.spacing_mm
    corners = (_numbers(one), _numbers(other))
    return np.allclose(*corners, rtol=0.0, atol=_TOLERANCE)


def _numbers(geometry: Geometry) -> FloatArray:
    return np.array([*geometry.origin_mm, *geometry.spacing_mm, *np.ravel(geometry.direction)])
