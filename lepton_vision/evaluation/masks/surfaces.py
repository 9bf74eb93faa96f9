"""Surfaces of binary masks and the distances between them, in mm.

The surface of a mask are its voxels with a face neighbour (4 in 2-D, 6 in 3-D) outside the mask; beyond the edge of the
array lies background. A distance runs from the centre of a surface voxel to the nearest centre on the other surface.
Both are MONAI's rules (``monai.metrics.utils.get_mask_edges`` and ``get_surface_distance``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from lepton_vision.errors import EvaluationError
from lepton_vision.types import Displayed, FloatArray

BoolArray = npt.NDArray[np.bool_]

# A distance that equals the tolerance on paper must not miss it by the rounding of 3 * 0.1.
ROUNDING_MM = 1e-6
_LEAF = 32  # points in a leaf of the tree: it is built for one query only


@dataclass(frozen=True, eq=False)
class SurfaceDistances(Displayed):
    """Distances between two surfaces.

    Attributes:
        truth_mm: (A,) float64 [mm] from each surface voxel of the truth to the surface of the prediction, any order.
        prediction_mm: (B,) float64 [mm] the other way round.
    """

    truth_mm: FloatArray
    prediction_mm: FloatArray

    def hausdorff_mm(self, *, percentile: float = 95.0) -> float:
        """The larger of the two directed percentiles [mm], each interpolated linearly between order statistics.

        This is ``monai.metrics.HausdorffDistanceMetric(percentile=95)``; 100 gives the Hausdorff distance
        (Huttenlocher et al., IEEE TPAMI 15:850, 1993). Tools differ: MedPy pools both directions before it takes the
        percentile, which is lower where one direction is much worse than the other, and can be higher on surfaces of
        few voxels; DeepMind's ``compute_robust_hausdorff`` weighs distances by area (see ``surface_area``) and takes
        the larger direction.
        """
        return float(max(np.percentile(self.truth_mm, percentile), np.percentile(self.prediction_mm, percentile)))

    def surface_dice(self, *, tolerance_mm: float) -> float:
        """Share of both surfaces' voxels that lie at most ``tolerance_mm`` from the other surface, 0 to 1.

        Normalised surface Dice (Nikolov et al., JMIR 23:e26151, 2021) with surface measured in voxels, as in
        ``monai.metrics.SurfaceDiceMetric`` with ``use_subvoxels=False``. DeepMind's ``surface-distance`` weighs by area
        instead: ``surface_area.area_surface_dice``.
        """
        limit = tolerance_mm + ROUNDING_MM
        near = np.count_nonzero(self.truth_mm <= limit) + np.count_nonzero(self.prediction_mm <= limit)
        return near / (self.truth_mm.size + self.prediction_mm.size)


def check_geometry(
    truth: tuple[int, ...], prediction: tuple[int, ...], *, spacing_mm: tuple[float, ...] | None
) -> None:
    """Raise EvaluationError where two shapes and a spacing do not describe one grid of 2 or 3 axes."""
    if truth != prediction:
        raise EvaluationError(
            f"A prediction needs the shape of its truth, {truth}. Received: {prediction}. Resample the prediction to "
            "the truth's grid.",
            key="prediction",
        )
    if len(truth) not in (2, 3):
        raise EvaluationError(f"Expected masks (H, W) or (D, H, W). Received shape: {truth}.", key="truth")
    if spacing_mm is not None and (
        len(spacing_mm) != len(truth) or not all(math.isfinite(step) and step > 0.0 for step in spacing_mm)
    ):
        raise EvaluationError(
            f"Expected {len(truth)} spacings above 0 mm, one for each axis, or None. Received: {spacing_mm}.",
            key="spacing_mm",
        )


def check_tolerance(tolerance_mm: float) -> None:
    """Raise EvaluationError where the tolerance is no distance."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0.0):
        raise EvaluationError(f"Expected a tolerance of 0 mm or more. Received: {tolerance_mm:g}.", key="tolerance_mm")


def surface_distances(
    truth: BoolArray, prediction: BoolArray, *, spacing_mm: tuple[float, ...] | None = None
) -> SurfaceDistances:
    """Measure from each surface to the other.

    Args:
        truth: (H, W) or (D, H, W) bool with at least one voxel.
        prediction: bool of the same shape with at least one voxel.
        spacing_mm: distance of voxel centres along each axis; None means 1.

    Example:
        >>> mask = np.zeros((1, 5), dtype=np.bool_)
        >>> first, second = mask.copy(), mask.copy()
        >>> first[0, 0] = second[0, 3] = True
        >>> float(surface_distances(first, second, spacing_mm=(1.0, 0.5)).truth_mm[0])
        1.5
    """
    box = bounding_box(truth | prediction)
    edges = surface(truth[box]), surface(prediction[box])
    step = np.asarray((1.0,) * truth.ndim if spacing_mm is None else spacing_mm)
    shared = int(np.count_nonzero(edges[0] & edges[1]))  # at distance 0 without a search
    points = [np.argwhere(edge) * step for edge in edges]
    alone = [np.argwhere(one & ~other) * step for one, other in (edges, edges[::-1])]
    truth_mm, prediction_mm = (
        np.concatenate([np.zeros(shared), nearest_mm(alone[k], points[1 - k])]) for k in range(2)
    )
    return SurfaceDistances(truth_mm, prediction_mm)


def nearest_mm(origins: FloatArray, targets: FloatArray) -> FloatArray:
    """Distance of each origin, (A, ndim), to the nearest of the targets, (B, ndim)."""
    if not origins.size:
        return np.zeros(0)
    tree = KDTree(targets, leafsize=_LEAF, compact_nodes=False, balanced_tree=False)
    return np.asarray(tree.query(origins)[0], dtype=np.float64)


def surface(mask: BoolArray) -> BoolArray:
    """Mark the voxels of a mask that have a face neighbour outside it, or lie at the edge of the array.

    Example:
        >>> surface(np.ones((3, 3), dtype=np.bool_)).astype(int).tolist()
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        here[0] = here[-1] = False
    return mask & ~inner


def bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Smallest box around the marked voxels, one slice per axis; empty slices where nothing is marked.

    Example:
        >>> bounding_box(np.array([[0, 0, 0], [0, 1, 1]], dtype=np.bool_))
        (slice(1, 2, None), slice(1, 3, None))
    """
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        part = slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)
        box.append(part)
        mask = mask[(slice(None),) * axis + (part,)]  # the next axes look at what is left
    return tuple(box)
