"""Geometry of an image: the position of its voxels in the patient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations, product
from operator import mul
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

GRID_TOLERANCE = 0.1
"""How far a voxel may be from its place, as a part of the smallest side of a voxel: headers are rounded."""
_ROUNDING = 1e-3  # relative, of spacings and directions, however far it carries: three decimals


@dataclass(frozen=True, slots=True)
class Geometry:
    """Position of an image's voxels in the patient, in DICOM's coordinates (LPS, PS3.3 C.7.6.2.1.1).

    x grows to the patient's left, y to the back, z to the head; all in mm.

    Attributes:
        origin_mm: (x, y, z) of the center of the first voxel (index 0 on every axis).
        direction: rows of a matrix: one unit vector (x, y, z) per spatial axis, in array order (D, H, W), or (H, W)
            for one slice. Row k is the way that index k grows. The rows are at right angles to each other.
        spacing_mm: distance of neighbouring voxels along each spatial axis, in array order.

    Example:
        >>> Geometry((0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (2.0, 0.5, 0.5)).orientation
        'LPS'
    """

    origin_mm: Vector
    direction: tuple[Vector, ...]
    spacing_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        axes = len(self.spacing_mm)
        sizes = (len(self.origin_mm), len(self.direction), *map(len, self.direction))
        if axes not in (2, 3) or sizes != (3, axes, *(3,) * axes):
            raise ValueError(
                "Expected an origin (x, y, z), and a direction and a spacing for each of 2 or 3 axes. Received: "
                f"{len(self.origin_mm)} coordinates, {len(self.direction)} directions, {len(self.spacing_mm)} spacings."
            )
        numbers = (*self.origin_mm, *self.spacing_mm, *(part for row in self.direction for part in row))
        if not all(map(math.isfinite, numbers)) or min(self.spacing_mm) <= 0.0:
            raise ValueError(f"Expected finite numbers and a spacing above 0. Received: spacing {self.spacing_mm}.")
        pairs = combinations_with_replacement(range(axes), 2)
        products = ((sum(map(mul, self.direction[j], self.direction[k])), float(j == k)) for j, k in pairs)
        if any(abs(product - wanted) > 1e-3 for product, wanted in products):
            raise ValueError("Expected directions of length 1 at right angles to each other. Received: others.")

    @property
    def affine(self) -> FloatArray:
        """(4, 4) matrix (d, h, w, 1) → (x, y, z, 1) [mm]; (4, 3) for one slice: (h, w, 1) → (x, y, z, 1)."""
        axes = len(self.spacing_mm)
        matrix = np.zeros((4, axes + 1))
        matrix[:3, :axes] = np.asarray(self.direction).T * np.asarray(self.spacing_mm)
        matrix[:3, axes] = self.origin_mm
        matrix[3, axes] = 1.0
        return matrix

    @property
    def orientation(self) -> str:
        """Directions of W, H and D (in this order), to the nearest patient axis: "LPS" is a plain axial stack.

        L left, R right; P back, A front; S head, I feet. A slice has two letters, W and H.
        """
        rows = self.direction[::-1]
        best = max(permutations(range(3), len(rows)), key=lambda way: _nearness(rows, way))
        return "".join("RAI"[axis] if row[axis] < 0.0 else "LPS"[axis] for row, axis in zip(rows, best, strict=True))

    def plane(self, index: int) -> Geometry:
        """Geometry of the slice ``index`` of a volume."""
        origin = np.asarray(self.origin_mm) + index * self.spacing_mm[0] * np.asarray(self.direction[0])
        x, y, z = origin.tolist()
        return Geometry((x, y, z), self.direction[1:], self.spacing_mm[1:])


class GridGap(NamedTuple):
    """Differences between two grids of one shape and axis order.

    Attributes:
        kind: what differs first.
        distance_mm: largest distance of two voxels that should be one.
        text: both of them in words, e.g. "position (by 1.500 mm, 3 voxels)".
    """

    kind: Literal["spacing", "orientation", "position"]
    distance_mm: float
    text: str


def grid_gap(have: Geometry, want: Geometry, *, shape: tuple[int, ...]) -> GridGap | None:
    """Compare two grids voxel by voxel; None where they are the same but for the rounding of their headers.

    The same are first voxels at most ``GRID_TOLERANCE`` of the smallest side of a voxel apart, and steps along an axis
    that lead the last voxel as near to its place, or differ by a thousandth.

    Args:
        have: one grid.
        want: the other one, of as many axes, in the same order.
        shape: sizes of both.

    Example:
        >>> axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
        >>> here, near, there = (Geometry((0.0, 0.0, z), axes, (5.0, 0.5, 0.5)) for z in (0.0, 0.01, 5.0))
        >>> grid_gap(near, here, shape=(9, 9, 9)) is None, grid_gap(there, here, shape=(9, 9, 9)).text
        (True, 'position (by 5.000 mm, 10 voxels)')
    """
    smallest = min(want.spacing_mm)
    near = GRID_TOLERANCE * smallest
    steps = np.asarray(shape) - 1
    aside = np.linalg.norm(np.subtract(have.direction, want.direction), axis=1)
    reach = np.multiply(want.spacing_mm, steps)
    apart = float(np.linalg.norm(np.subtract(have.origin_mm, want.origin_mm)))
    is_off: dict[Literal["spacing", "orientation", "position"], bool] = {
        "spacing": not is_same_spacing(have.spacing_mm, want.spacing_mm, shape=shape),
        "orientation": bool(((aside * reach > near) & (aside > _ROUNDING)).any()),
        "position": apart > near,
    }
    kind = next((name for name, is_one in is_off.items() if is_one), None)
    if kind is None:
        return None
    corners = np.array([[*corner, 1] for corner in product(*((0, last) for last in steps))], np.float64)
    gaps = corners @ (have.affine - want.affine).T
    distance = float(np.linalg.norm(gaps[:, :3], axis=1).max())
    return GridGap(kind, distance, f"{kind} (by {distance:.3f} mm, {distance / smallest:.3g} voxels)")


def is_same_spacing(
    first: tuple[float, ...] | None, second: tuple[float, ...] | None, *, shape: tuple[int, ...]
) -> bool:
    """Whether two spacings [mm] are the same to ``grid_gap``; an unknown one fits any."""
    if first is None or second is None:
        return True
    if len(first) != len(second):
        return False
    stretch = np.abs(np.subtract(first, second))
    is_off = (stretch * (np.asarray(shape) - 1) > GRID_TOLERANCE * min(second)) & (
        stretch > _ROUNDING * np.asarray(second)
    )
    return not is_off.any()


def _nearness(rows: tuple[Vector, ...], way: tuple[int, ...]) -> tuple[float, list[tuple[int, Vector]]]:
    """How near rows lie to the patient axes that ``way`` gives them, larger is nearer; no two ways are equal.

    At 45 degrees two ways are as near. What decides then must not depend on the order or the sign of the rows, or a
    volume that was turned would be called otherwise than it was turned to; hence also the exactly rounded sum.
    """
    chosen = sorted((axis, row) for axis, row in zip(way, rows, strict=True))
    signs = [next((-1.0 if part < 0.0 else 1.0 for part in row if part), 1.0) for _, row in chosen]
    unsigned = [
        (axis, (row[0] * sign, row[1] * sign, row[2] * sign)) for (axis, row), sign in zip(chosen, signs, strict=True)
    ]
    return math.fsum(abs(row[axis]) for axis, row in chosen), unsigned
