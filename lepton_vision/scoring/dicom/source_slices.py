"""Source slice of each slice of a mask, matched by position and never by the order of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.readers.dicom.header import text
from lepton_vision.readers.dicom.sources import SourceFile, keep_frame, state_spacing, state_thickness
from lepton_vision.readers.stack import Plane, Stack, stack_planes
from lepton_vision.scoring.masks.label_maps import Labels, match_grid
from lepton_vision.types import Geometry, Image


@dataclass(frozen=True, slots=True)
class PlacedMask:
    """A mask whose slices are matched with those of its source.

    Attributes:
        headers: one header per slice, or that of one file of several frames.
        labels: (N, H, W) uint8, rows and columns as the source stores them; slice n belongs to header n, or to frame n.
        frame: which frame of its file the only slice belongs to, or None where ``labels`` holds all of them.
    """

    headers: tuple[Any, ...]
    labels: Labels
    frame: int | None = None


def place_on_source(labels: Labels, *, image: Image, files: Sequence[SourceFile]) -> PlacedMask:
    """Bring a mask into the order and orientation of its source files.

    Args:
        labels: (H, W) or (D, H, W) on the grid of ``image``.
        image: what was read from the files.
        files: all files of the series, in any order; their headers are completed.

    Raises:
        ScoringError: files of another series, of several frames of reference or of several files of several frames; an
            image that was resampled, or repaired while it was read; slices that form no regular volume.
    """
    _check_series(image, files)
    if labels.ndim == 2:
        return _place_slice(labels, image=image, files=files)
    for fact, text_of in (
        ("slices_filled", "missing slices filled in"),
        ("tilt_degrees", "a tilted gantry straightened"),
    ):
        if image.facts.get(fact):
            raise ScoringError(
                f"A DICOM Segmentation needs one source slice for each slice of the mask. Received: an image with "
                f"{text_of}, whose slices are not those of the source. Write .nii.gz.",
                key="image",
            )
    if image.geometry is None:
        raise ScoringError(
            "A DICOM Segmentation of a volume needs an image with a place in the patient. Received: no geometry. Write "
            "a mask for single frames, or .nii.gz.",
            key="image",
        )
    return _place_volume(labels, image.geometry, files=files)


def _check_series(image: Image, files: Sequence[SourceFile]) -> None:
    ids = {plane.series_id for one in files for plane in one.planes}
    if image.series_id is not None and ids != {image.series_id}:
        raise ScoringError(
            "Expected the DICOM files that the image was read from. Received: files of another series. Give "
            "source=FILES of this image.",
            key="source",
        )
    if len({text(one.header, "FrameOfReferenceUID") for one in files}) > 1:
        raise ScoringError("Expected files of one Frame of Reference. Received: several.", key="source")


def _place_slice(labels: Labels, *, image: Image, files: Sequence[SourceFile]) -> PlacedMask:
    """The one frame of the files that has the image's id, or else its place."""
    frames = [(one, plane) for one in files for plane in one.planes]
    chosen = [(one, plane) for one, plane in frames if image.image_id in _ids(one, plane)]
    chosen = chosen or [(one, plane) for one, plane in frames if _is_at(image, plane)]
    if len(chosen) != 1:
        raise ScoringError(
            f"Expected one slice of the source that the mask lies on. Received: {len(chosen)} of {len(frames)} such. "
            "Give source=FILE that the image was read from.",
            key="source",
        )
    one, plane = chosen[0]
    if image.geometry is not None and plane.geometry is not None:
        shape = (plane.rows, plane.columns)
        turn = match_grid(image.geometry, plane.geometry, shape=labels.shape, wanted_shape=shape)
        labels = turn.apply(labels)
    elif labels.shape != (plane.rows, plane.columns) or image.geometry is not None:
        raise ScoringError(
            f"Expected a mask of {plane.rows} x {plane.columns} pixels on its source. Received: "
            f"{labels.shape[0]} x {labels.shape[1]}, or one with another place. Do not resample the image.",
            key="image",
        )
    state_thickness(one.header)
    if len(one.planes) == 1:
        return PlacedMask((one.header,), labels[None])
    keep_frame(one.header, frame=plane.frame)
    return PlacedMask((one.header,), labels[None], plane.frame)


def _ids(one: SourceFile, plane: Plane) -> set[str]:
    return {f"{one.image_id}-{plane.frame}"} if len(one.planes) > 1 else {one.image_id}


def _is_at(image: Image, plane: Plane) -> bool:
    if image.geometry is None or plane.geometry is None:
        return False
    try:
        match_grid(
            image.geometry, plane.geometry, shape=image.pixels.shape[1:], wanted_shape=(plane.rows, plane.columns)
        )
    except ScoringError:
        return False
    return True


def _place_volume(labels: Labels, geometry: Geometry, *, files: Sequence[SourceFile]) -> PlacedMask:
    planes = [plane for one in files for plane in one.planes]
    if len(files) > 1 and any("PerFrameFunctionalGroupsSequence" in one.header for one in files):
        raise ScoringError(
            f"A DICOM Segmentation refers to single-frame files, or to one file of several frames. Received: "
            f"{len(files)} files of frames. Write a mask for each file.",
            key="source",
        )
    stack = _stack(planes)
    shape = (stack.depth, planes[0].rows, planes[0].columns)
    turned = match_grid(geometry, stack.geometry, shape=labels.shape, wanted_shape=shape).apply(labels)
    if len(files) > 1:  # files in the order of their slices, so that the order they were listed in leaves no trace
        headers, placed = tuple(files[k].header for k in stack.order), turned
    else:
        headers, placed = (files[0].header,), np.empty_like(turned)
        placed[list(stack.order)] = turned
    way = headers[0].get("ImageOrientationPatient")
    for header in headers:
        state_spacing(header, slices_mm=stack.geometry.spacing_mm[0])
        if "ImageOrientationPatient" in header:
            header.ImageOrientationPatient = way  # alike but for rounding, as was checked
    return PlacedMask(headers, placed)


def _stack(planes: Sequence[Plane]) -> Stack:
    try:
        return stack_planes(planes)
    except ReadError as error:
        raise ScoringError(f"The source files form no volume that a mask can lie on. {error}", key="source") from None
