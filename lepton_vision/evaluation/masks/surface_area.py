"""Area-weighted surface Dice after DeepMind's definition, on marching-cubes surface elements."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np

from lepton_vision.evaluation.masks.surfaces import (
    ROUNDING_MM,
    BoolArray,
    bounding_box,
    check_geometry,
    check_tolerance,
    nearest_mm,
)
from lepton_vision.types import FloatArray


def area_surface_dice(
    truth: BoolArray, prediction: BoolArray, *, spacing_mm: tuple[float, ...], tolerance_mm: float = 1.0
) -> float:
    """Share of the area of both surfaces that lies at most ``tolerance_mm`` from the other surface, 0 to 1.

    Nikolov et al., JMIR 23:e26151, 2021, as in DeepMind's ``surface-distance`` and MONAI's ``SurfaceDiceMetric`` with
    ``use_subvoxels=True``: a piece of surface lies between 2 x 2 (x 2) neighbouring voxels that differ, and distances
    run between the middles of such cells. ``surface_dice`` counts surface voxels instead. A piece is cut into
    triangles around its middle, where theirs is cut from a corner: equal in 2-D and wherever the piece is flat. A
    twisted piece differs from theirs by up to 13 % on cubic voxels, by up to a third on voxels of 3 x 0.7 x 1.3 mm and
    by nearly half where one side is ten times another; most pieces are flat, and the share moves by less than 0.01.

    Args:
        truth: (H, W) or (D, H, W) bool.
        prediction: bool of the same shape.
        spacing_mm: distance of voxel centres along each axis.
        tolerance_mm: surfaces at most so far apart agree.

    Returns:
        NaN where both are empty, 0 where one is.

    Example:
        >>> truth = np.zeros((5, 5), dtype=np.bool_)
        >>> truth[1:4, 1:4] = True
        >>> area_surface_dice(truth, truth, spacing_mm=(1.0, 1.0))
        1.0
    """
    check_geometry(truth.shape, prediction.shape, spacing_mm=spacing_mm)
    check_tolerance(tolerance_mm)
    if not truth.any() or not prediction.any():
        return 0.0 if truth.any() or prediction.any() else float("nan")
    box = bounding_box(truth | prediction)
    areas = np.array([piece_area(code, spacing_mm) for code in range(2 ** (2**truth.ndim))])
    points, sizes = [], []
    for mask in (truth[box], prediction[box]):
        codes = _codes(mask)
        cells = np.argwhere((codes > 0) & (codes < areas.size - 1))
        points.append(cells * np.asarray(spacing_mm))
        sizes.append(areas[codes[tuple(cells.T)]])
    near = [nearest_mm(points[k], points[1 - k]) <= tolerance_mm + ROUNDING_MM for k in range(2)]
    return float(sum(sizes[k][near[k]].sum() for k in range(2)) / sum(one.sum() for one in sizes))


def _codes(mask: BoolArray) -> np.ndarray:
    """Number of each cell of 2 x 2 (x 2) voxels: one bit for each corner that is in the mask."""
    padded = np.pad(mask, 1)
    found = np.zeros([n - 1 for n in padded.shape], dtype=np.intp)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim)):
        found |= padded[tuple(slice(c, c + n) for c, n in zip(corner, found.shape, strict=True))].astype(np.intp) << bit
    return found


@cache
def piece_area(code: int, spacing_mm: tuple[float, ...]) -> float:
    """Area [mm²] (2-D: length [mm]) of the surface that separates the corners of a cell.

    Args:
        code: bit k is set where the k-th corner, in the order of ``itertools.product``, is in the mask.
        spacing_mm: size of the cell along each axis.
    """
    corners = list(product((0, 1), repeat=len(spacing_mm)))
    inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
    fewer = inside if 2 * len(inside) <= len(corners) else set(corners) - inside
    joined = [pair for face in _faces(corners) for pair in _joined(face, fewer)]
    middle = {edge: np.asarray(spacing_mm) * (np.array(edge[0]) + np.array(edge[1])) / 2 for p in joined for edge in p}
    if len(spacing_mm) == 2:
        return float(sum(np.linalg.norm(middle[a] - middle[b]) for a, b in joined))
    return sum(_loop_area([middle[edge] for edge in loop]) for loop in _loops(joined))


Corner = tuple[int, ...]
Edge = tuple[Corner, Corner]


def _faces(corners: list[Corner]) -> list[list[Corner]]:
    if len(corners) == 4:
        return [corners]
    return [[one for one in corners if one[axis] == side] for axis in range(3) for side in (0, 1)]


def _joined(face: list[Corner], fewer: set[Corner]) -> list[tuple[Edge, Edge]]:
    """Pairs of crossed edges of a face that a line of the surface joins; diagonal corners stay apart."""
    edges = [(a, b) for a, b in combinations(sorted(face), 2) if sum(x != y for x, y in zip(a, b, strict=True)) == 1]
    crossed = [edge for edge in edges if (edge[0] in fewer) != (edge[1] in fewer)]
    if len(crossed) == 2:
        return [(crossed[0], crossed[1])]
    held = [[edge for edge in crossed if corner in edge] for corner in face if corner in fewer]
    return [(pair[0], pair[1]) for pair in held if len(crossed) == 4]


def _loops(joined: list[tuple[Edge, Edge]]) -> list[list[Edge]]:
    """Closed lines on the cell's sides: every crossed edge lies on two sides."""
    left, loops = list(joined), []
    while left:
        first, end = left.pop()
        loop = [first]
        while end != first:
            loop.append(end)
            k = next(k for k, pair in enumerate(left) if end in pair)
            pair = left.pop(k)
            end = pair[1] if pair[0] == end else pair[0]
        loops.append(loop)
    return loops


def _loop_area(points: list[FloatArray]) -> float:
    ends = np.array(points) - np.mean(points, axis=0)
    return float(np.linalg.norm(np.cross(ends, np.roll(ends, -1, axis=0)), axis=1).sum() / 2)
