"""Label maps: validity, file names, and change of axis order on the same voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ScoringError
from lepton_vision.types import Geometry, Image
from lepton_vision.types.geometry import grid_gap

Labels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".nii.gz", ".nii", ".dcm")

_MOST = 255  # structures in 8 bits


def check_labels(labels: npt.NDArray[Any], *, image: Image, structures: Sequence[str]) -> None:
    """Refuse what is no label map of these structures on the image's grid.

    Args:
        labels: (H, W) or (D, H, W) uint8; 0 background, k the k-th structure.
        image: whose grid the labels lie on.
        structures: names in order.

    Raises:
        ScoringError: another type or shape, a value without a name, or names that are empty or stand twice.
    """
    names = [structures] if isinstance(structures, str) else list(structures)
    if isinstance(structures, str) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ScoringError(
            f"Expected structures as an ordered tuple of names, e.g. ('liver',). Received: {structures!r}.",
            key="structures",
        )
    if not 1 <= len(names) <= _MOST or len(set(names)) != len(names):
        raise ScoringError(
            f"Expected 1 to {_MOST} structures, each name once. Received: {len(names)}, {len(set(names))} of them "
            "different.",
            key="structures",
        )
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8:
        kind = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ScoringError(
            f"Expected labels as a uint8 array, 0 background and k the k-th structure. Received: {kind}. Convert it: "
            "labels.astype(np.uint8).",
            key="labels",
        )
    wanted = image.pixels.shape[1:]
    if labels.shape != wanted:
        raise ScoringError(
            f"Expected labels of the image's shape {wanted}. Received: {labels.shape}. Bring the mask back to the grid "
            "of the image first.",
            key="labels",
        )
    largest = int(labels.max(initial=0))
    if largest > len(names):
        raise ScoringError(
            f"Expected labels from 0 to {len(names)}, one for each structure. Received: {largest} in "
            f"{int((labels > len(names)).sum())} voxels. Name every structure, in the order of the values.",
            key="structures",
        )


def mask_suffix(path: str | Path, *, known: Sequence[str] = SUFFIXES) -> str:
    """Return which of the known suffixes a path has, once its folder is known to be there.

    Raises:
        ScoringError: another suffix, or no such folder.

    Example:
        >>> mask_suffix("mask.NII.GZ")
        '.nii.gz'
    """
    path = Path(path)
    suffix = next((one for one in known if path.name.lower().endswith(one)), None)
    if suffix is None:
        raise ScoringError(
            f"Expected a mask file that ends in {', '.join(known)}. Received: {path.suffix or 'no suffix'}.",
            path=path,
            key="path",
        )
    if not path.parent.is_dir():
        raise ScoringError("The folder of the mask file is not there. Make it first.", path=path, key="path")
    return suffix


@dataclass(frozen=True, slots=True)
class Turn:
    """Flips and swaps that take an array from its own grid to another axis order of the same voxels.

    Attributes:
        axes: for each axis of the result, which axis of the array it is.
        flipped: axes of the array that are reversed.
    """

    axes: tuple[int, ...]
    flipped: tuple[int, ...]

    def apply(self, labels: Labels) -> Labels:
        """Return the same voxels in the other order, contiguous."""
        return np.ascontiguousarray(np.flip(labels, axis=self.flipped).transpose(self.axes))


def match_grid(have: Geometry, want: Geometry, *, shape: tuple[int, ...], wanted_shape: tuple[int, ...]) -> Turn:
    """Find the flips and swaps after which every voxel of an array lies where the wanted grid has it.

    Args:
        have: geometry of the array.
        want: geometry of the wanted grid, of as many axes.
        shape: sizes of the array.
        wanted_shape: sizes of the wanted grid.

    Raises:
        ScoringError: it is another grid; the message says in what: axes, shape, spacing, orientation or position.
    """
    axes = len(want.spacing_mm)
    if len(have.spacing_mm) != axes:
        raise ScoringError(f"Expected a mask of {axes} axes. Received: one of {len(have.spacing_mm)}.", key="mask")
    # Entry (k, j): how far axis k of the wanted grid runs along axis j of the array.
    cosines = np.asarray(want.direction) @ np.asarray(have.direction).T
    order = max(permutations(range(axes)), key=lambda way: float(abs(cosines[range(axes), way]).sum()))
    turn = Turn(order, tuple(j for k, j in enumerate(order) if cosines[k, j] < 0.0))
    differences = _differences(have, want, turn=turn, shape=shape, wanted_shape=wanted_shape)
    if differences:
        raise ScoringError(
            f"Expected a mask on the grid of its source. Received: one that differs in {differences}. "
            "Resample the mask to the grid of the source first.",
            key="mask",
        )
    return turn


def _differences(
    have: Geometry, want: Geometry, *, turn: Turn, shape: tuple[int, ...], wanted_shape: tuple[int, ...]
) -> str | None:
    """Differences of two grids, in words, the array turned to the wanted axis order."""
    turned = tuple(shape[j] for j in turn.axes)
    if turned != wanted_shape:
        return f"shape ({_times(turned)} for {_times(wanted_shape)})"
    first = have.affine @ [*(shape[j] - 1 if j in turn.flipped else 0 for j in range(len(shape))), 1]
    signs = [-1.0 if j in turn.flipped else 1.0 for j in turn.axes]
    ways = np.array([have.direction[j] for j in turn.axes]) * np.array(signs)[:, None]
    x, y, z = first[:3].tolist()
    moved = Geometry((x, y, z), tuple(map(tuple, ways.tolist())), tuple(have.spacing_mm[j] for j in turn.axes))
    gap = grid_gap(moved, want, shape=wanted_shape)
    if gap is None:
        return None
    if gap.kind == "spacing":
        return f"spacing ({_times(moved.spacing_mm)} mm for {_times(want.spacing_mm)} mm)"
    return gap.text


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
