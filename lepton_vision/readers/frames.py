"""Frames of a file: read one by one, its header parsed once, or taken from what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import Content, open_content
from lepton_vision.readers.dicom.file import frame_reader
from lepton_vision.readers.limits import DEFAULT_LIMITS, Clock, Limits, raise_read_errors
from lepton_vision.readers.raster import page_reader
from lepton_vision.types import Image

_READ = "Cannot read the file"


def read_frames(path: str | Path, *, count: int, limits: Limits = DEFAULT_LIMITS) -> Iterator[Image | str]:
    """Yield the pixels of each frame, as ``image.read_pixels`` gives them, or the reason code why there are none.

    Once the frames have taken the time of the file, the others are not read (``too_slow``).

    Args:
        path: a DICOM or TIFF file.
        count: frames, as ``image.probe`` counts them.
        limits: what the file may cost.

    Raises:
        ReadError: the file as a whole cannot be read.
    """
    with open_content(Path(path), what=_READ, limits=limits) as content:
        clock, read = Clock(content.limits, frames=count), _reader(content)
        for number in range(count):
            try:
                clock.check()
                with raise_read_errors(_READ, reason="corrupt"):
                    image = read(number)
            except ReadError as error:
                yield error.reason
            else:
                yield image


def _reader(content: Content) -> Callable[[int], Image]:
    if content.kind == "dicom":
        return frame_reader(content.stream, head=content.head, limits=content.limits)
    return page_reader(content.stream, limits=content.limits)


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
