"""Reorientation of a volume along the patient's axes: flips and swaps only, no resampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.types import Geometry, Image

_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


def reorient(image: Image, axes: str = "LPS") -> Image:
    """Flip and swap the axes of a volume until W, H and D grow as ``axes`` says; the geometry goes with them.

    Every voxel keeps its value and its place in the patient, so that ``reorient(turned, image.geometry.orientation)``
    gives the image back. An oblique volume is turned to the nearest patient axes.

    Args:
        image: a volume with a geometry.
        axes: where W, H and D (in this order, as ``Geometry.orientation``) shall grow: one letter each of L or R,
            P or A, and S or I. "LPS" is DICOM's axial stack, "RAS" what NIfTI tools like.

    Returns:
        Image with pixels (C, D, H, W) float32, contiguous; header facts as they were but ``orientation``.

    Raises:
        ConfigError: ``axes`` is no such triple.
        ReadError: reason ``volume`` (a 2-D image) or ``no_position`` (no geometry).

    Example:
        >>> reorient(volume, "RAS").geometry.orientation  # doctest: +SKIP
        'RAS'
    """
    wanted = axes.upper() if isinstance(axes, str) else ""
    if sorted(_AXIS.get(letter, -1) for letter in wanted) != [0, 1, 2]:
        raise ConfigError(
            f"Expected three letters, one each of L or R, P or A, S or I, such as 'LPS'. Received: {axes!r}.",
            key="axes",
        )
    if not image.is_volume:
        raise ReadError("Expected a volume. Received: a 2-D image, which cannot be turned.", reason="volume")
    if image.geometry is None:
        raise ReadError("Expected an image that lies in the patient. Received: no geometry.", reason="no_position")
    sources, flipped = axis_turns(image.geometry, wanted)
    pixels = np.flip(image.pixels, axis=tuple(k + 1 for k in flipped)).transpose(0, *(k + 1 for k in sources))
    geometry = _turn(image.geometry, shape=image.pixels.shape[1:], sources=sources, flipped=flipped)
    return replace(
        image,
        pixels=np.ascontiguousarray(pixels),
        spacing_mm=geometry.spacing_mm,
        geometry=geometry,
        facts={**image.facts, "orientation": geometry.orientation},
    )


def axis_turns(geometry: Geometry, axes: str) -> tuple[list[int], list[int]]:
    """How the axes of a volume are turned to ``axes``: which one (0 D, 1 H, 2 W) each becomes, and which are reversed.

    Args:
        geometry: of the volume.
        axes: three letters as for ``reorient``, in capitals.

    Returns:
        For the new D, H and W the axis that it was, and the axes of the volume as it is that are reversed.
    """
    # Letters go W, H, D and arrays D, H, W: both are read backwards here.
    have = geometry.orientation[::-1]
    sources = [next(k for k in range(3) if _AXIS[have[k]] == _AXIS[letter]) for letter in axes[::-1]]
    return sources, [k for k, letter in zip(sources, axes[::-1], strict=True) if have[k] != letter]


def _turn(geometry: Geometry, *, shape: tuple[int, ...], sources: list[int], flipped: list[int]) -> Geometry:
    """Geometry after the axes ``flipped`` are reversed and axis k becomes what was axis ``sources[k]``."""
    direction = np.asarray(geometry.direction, dtype=np.float64)
    origin = np.asarray(geometry.origin_mm, dtype=np.float64)
    for k in flipped:
        origin = origin + direction[k] * (geometry.spacing_mm[k] * (shape[k] - 1))
        direction[k] = -direction[k]
    x, y, z = origin.tolist()
    rows = [tuple(direction[k].tolist()) for k in sources]
    return Geometry((x, y, z), (rows[0], rows[1], rows[2]), tuple(geometry.spacing_mm[k] for k in sources))
