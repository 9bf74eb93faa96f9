"""Placement of Segmentation frames in an image: by position, else by the referenced source image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.types import FloatArray, Image
from lepton_vision.types.geometry import GRID_TOLERANCE, Geometry, grid_gap


class Source(NamedTuple):
    """An image, and the frame of it from 0, or None for the whole file."""

    image_id: str
    frame: int | None


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One frame of a Segmentation.

    Attributes:
        number: in the file, from 0.
        segment: number of the segment that it shows; None in a label map, whose pixels say it.
        geometry: place of the plane, or None.
        sources: what it was drawn on.
    """

    number: int
    segment: int | None
    geometry: Geometry | None
    sources: frozenset[Source]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Voxel grid of the wanted mask.

    Attributes:
        shape: (H, W) or (D, H, W).
        geometry: where they lie, or None.
        spacing_mm: of the image.
        image_id: of the image, "" where the frames themselves are the grid.
    """

    shape: tuple[int, ...]
    geometry: Geometry | None
    spacing_mm: tuple[float, ...] | None
    image_id: str = ""

    @classmethod
    def of(cls, image: Image) -> Canvas:
        """The voxels of an image."""
        return cls(image.pixels.shape[1:], image.geometry, image.spacing_mm, image.image_id)


@dataclass(frozen=True, slots=True)
class FramePosition:
    """Position of one frame.

    Attributes:
        frame: which one.
        box: its part of the mask.
        axes: for each axis of that part, which axis of the frame it is; None for one of a single voxel.
        flipped: axes of the frame that run the other way.
        fault: why it lies nowhere, to be raised if it is not empty; else None.
    """

    frame: SegmentFrame
    box: tuple[slice, ...] = ()
    axes: tuple[int | None, ...] = (0, 1)
    flipped: tuple[int, ...] = ()
    fault: ReadError | None = None

    def turn(self, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A frame (H, W) in the axis order of its part of the mask."""
        turned = np.flip(values, axis=self.flipped).transpose([axis for axis in self.axes if axis is not None])
        return np.expand_dims(turned, [k for k, axis in enumerate(self.axes) if axis is None])


def place_frames(
    frames: Sequence[SegmentFrame],
    canvas: Canvas,
    *,
    layout: PixelLayout,
    listed: frozenset[str],
    step_mm: float | None,
) -> list[FramePosition]:
    """Say where each frame lies; frames on other slices than the one of a 2-D canvas are left out.

    Args:
        frames: of a Segmentation.
        canvas: the voxels wanted.
        layout: size of a frame.
        listed: images that the Segmentation says it was derived from.
        step_mm: distance of its planes, where it is stated.

    Raises:
        ReadError: reason ``no_position`` or ``mask_position``: nothing says where the frames lie, or they belong to
            another image.
    """
    size = (layout.rows, layout.columns)
    if canvas.geometry is not None and all(frame.geometry is not None for frame in frames):
        if len(canvas.shape) == 3:
            return [_on_grid(frame, canvas, size=size) for frame in frames]
        return _on_slice(frames, canvas, size=size, listed=listed, step_mm=step_mm)
    return _by_source(frames, canvas, size=size, listed=listed)


def canvas_of(frames: Sequence[SegmentFrame], layout: PixelLayout, *, step_mm: float | None) -> Canvas:
    """The planes that the frames lie on, from the lowest to the highest along their normal.

    Raises:
        ReadError: reason ``no_position``: several frames of a segment, and no place.
    """
    size = (layout.rows, layout.columns)
    known = [frame.geometry for frame in frames if frame.geometry is not None]
    if len(known) < len(frames) or not known:
        segments = [frame.segment for frame in frames]
        if len(set(segments)) < len(segments):
            raise ReadError(
                "Expected a place in the patient for each frame of a Segmentation. Received: several frames without, "
                "whose order would be a guess. Read it on its image.",
                reason="no_position",
            )
        return Canvas(size, None, None)
    normal = _normal(known[0])
    heights = np.array([np.dot(normal, one.origin_mm) for one in known])
    low = known[int(heights.argmin())]
    near = GRID_TOLERANCE * min(low.spacing_mm)
    steps = np.diff(np.unique(np.round(heights / near))) * near
    if not len(steps):
        return Canvas(size, low, low.spacing_mm)
    smallest = float(np.diff(np.sort(heights))[np.diff(np.sort(heights)) > near / 2].min())
    count = round(smallest / step_mm) if step_mm else 0
    step = step_mm if step_mm and count >= 1 and abs(smallest - count * step_mm) <= near else smallest
    depth = round(float(np.ptp(heights)) / step) + 1
    x, y, z = normal.tolist()
    spacing = (float(np.ptp(heights)) / (depth - 1), *low.spacing_mm)
    return Canvas((depth, *size), Geometry(low.origin_mm, ((x, y, z), *low.direction), spacing), spacing)


def _normal(plane: Geometry) -> FloatArray:
    """Unit vector: row direction x column direction, as slices of a series are sorted."""
    normal = np.cross(plane.direction[1], plane.direction[0])
    return np.asarray(normal / np.linalg.norm(normal), np.float64)


def _on_grid(frame: SegmentFrame, canvas: Canvas, *, size: tuple[int, int]) -> FramePosition:
    """Place a frame on a volume, or say how far from its voxels it lies."""
    plane, grid = frame.geometry, canvas.geometry
    if plane is None or grid is None:
        raise ReadError("Expected a frame with a place.", reason="no_position")
    cosines = np.asarray(grid.direction) @ np.asarray(plane.direction).T  # (3, 2): voxel axes by frame axes
    down, along = (int(axis) for axis in np.abs(cosines).argmax(axis=0))
    if down == along:
        return FramePosition(frame, fault=_off("lie across the voxels of its image"))
    signs = [1 if cosines[axis, k] > 0 else -1 for k, axis in enumerate((down, along))]
    index = (np.asarray(grid.direction) @ np.subtract(plane.origin_mm, grid.origin_mm)) / grid.spacing_mm
    first = np.rint(index).astype(int)
    x, y, z = (grid.affine @ [*first, 1])[:3].tolist()
    ways = np.asarray(grid.direction)[[down, along]] * np.asarray(signs)[:, None]
    expected = Geometry((x, y, z), tuple(map(tuple, ways.tolist())), (grid.spacing_mm[down], grid.spacing_mm[along]))
    gap = grid_gap(plane, expected, shape=size)
    if gap is not None:
        return FramePosition(frame, fault=_off(f"differ in {gap.text}"))
    last = first.copy()
    for axis, sign, length in zip((down, along), signs, size, strict=True):
        last[axis] += sign * (length - 1)
    low, high = np.minimum(first, last), np.maximum(first, last) + 1
    outside = np.maximum(np.maximum(-low, high - canvas.shape), 0)
    if outside.any():
        return FramePosition(
            frame, fault=_off(f"lie {float((outside * grid.spacing_mm).max()):.3f} mm beyond its image")
        )
    axes: list[int | None] = [None, None, None]
    axes[down], axes[along] = 0, 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return FramePosition(frame, box, tuple(axes), tuple(k for k, sign in enumerate(signs) if sign < 0))


def _on_slice(
    frames: Sequence[SegmentFrame],
    canvas: Canvas,
    *,
    size: tuple[int, int],
    listed: frozenset[str],
    step_mm: float | None,
) -> list[FramePosition]:
    """Frames at the place of one slice; none is an empty slice, once it is known to belong to the Segmentation."""
    plane = canvas.geometry
    if plane is None:
        raise ReadError("Expected a slice with a place.", reason="no_position")
    x, y, z = normal = _normal(plane).tolist()
    spacing = (min(plane.spacing_mm), *plane.spacing_mm)
    thick = Geometry(plane.origin_mm, ((x, y, z), *plane.direction), spacing)
    thin = replace(canvas, shape=(1, *canvas.shape), geometry=thick)
    apart = {frame: np.subtract(_place_of(frame).origin_mm, plane.origin_mm) for frame in frames}
    heights = {frame: float(np.dot(normal, away)) for frame, away in apart.items()}
    near = GRID_TOLERANCE * min(plane.spacing_mm)
    here = [frame for frame in frames if abs(heights[frame]) <= near]
    if here:
        return [_flat(_on_grid(frame, thin, size=size)) for frame in here]
    refers = [frame for frame in frames if _refers(frame.sources, canvas.image_id)]
    nearest = min(refers or frames, key=lambda frame: abs(heights[frame]))
    moved = np.subtract(_place_of(nearest).origin_mm, np.multiply(normal, heights[nearest])).tolist()
    shifted = replace(_place_of(nearest), origin_mm=(moved[0], moved[1], moved[2]))
    fault = _on_grid(replace(nearest, geometry=shifted), thin, size=size).fault
    distance = abs(heights[nearest])
    if fault is None and (refers or _is_between(distance, step_mm, near=near)):
        fault = _off(f"differ in position (by {distance:.3f} mm across the slices)")
    if fault is not None and (refers or canvas.image_id.partition("-")[0] not in listed):
        raise fault
    return []


def _is_between(distance: float, step_mm: float | None, *, near: float) -> bool:
    """Whether a slice so far from a plane of a Segmentation lies between its planes."""
    return step_mm is not None and abs(distance - round(distance / step_mm) * step_mm) > near


def _place_of(frame: SegmentFrame) -> Geometry:
    if frame.geometry is None:
        raise ReadError("Expected a frame with a place.", reason="no_position")
    return frame.geometry


def _flat(place: FramePosition) -> FramePosition:
    """The place of a frame on a volume of one slice, on that slice."""
    return replace(place, box=place.box[1:], axes=place.axes[1:] if place.fault is None else place.axes)


def _by_source(
    frames: Sequence[SegmentFrame], canvas: Canvas, *, size: tuple[int, int], listed: frozenset[str]
) -> list[FramePosition]:
    """Without places, a frame lies on the image or the frame of it that it was drawn on."""
    if size != canvas.shape[-2:]:
        raise ReadError(
            f"A mask needs the size of its image, {canvas.shape[-2]} x {canvas.shape[-1]}. Received: frames of "
            f"{size[0]} x {size[1]}. Resample the mask.",
            reason="mask_size",
        )
    whole = (slice(None), slice(None))
    if len(canvas.shape) == 3:
        found = [(frame, one.frame) for frame in frames for one in frame.sources if one.image_id == canvas.image_id]
        if len(found) < len(frames) or any(k is None or not 0 <= k < canvas.shape[0] for _, k in found):
            raise _lost()
        return [FramePosition(frame, (slice(k, k + 1), *whole), (None, 0, 1)) for frame, k in found if k is not None]
    if not canvas.image_id or (not any(f.sources for f in frames) and len({f.segment for f in frames}) == len(frames)):
        return [FramePosition(frame, whole) for frame in frames]  # one picture and its segments
    here = [frame for frame in frames if _refers(frame.sources, canvas.image_id)]
    if not here and canvas.image_id.partition("-")[0] not in listed:
        raise _lost()
    return [FramePosition(frame, whole) for frame in here]


def _refers(sources: Iterable[Source], image_id: str) -> bool:
    """Whether one of them is this image: of a file of several frames, this frame, or all of them."""
    base, _, frame = image_id.partition("-")
    return any(one.image_id == base and (one.frame is None or not frame or frame == str(one.frame)) for one in sources)


def _lost() -> ReadError:
    return ReadError(
        "Expected a Segmentation of this image. Received: frames without a place in the patient, or an image without, "
        "and no reference from each frame to this image. Name the mask that was drawn on it.",
        reason="mask_position",
    )


def _off(how: str) -> ReadError:
    return ReadError(
        f"Expected a Segmentation on the voxels of its image. Received: frames that {how}. Name that of this "
        "image, or resample it to its grid.",
        reason="mask_position",
    )
