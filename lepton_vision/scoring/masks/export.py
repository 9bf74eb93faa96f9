"""Conversion of mask files between formats, on the same voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import ScoringError
from lepton_vision.files import check_place
from lepton_vision.readers import read_image, read_series
from lepton_vision.readers.mask import read_drawn
from lepton_vision.scoring.dicom.segmentation import SegmentationInfo
from lepton_vision.scoring.masks.files import write_mask
from lepton_vision.scoring.masks.label_maps import Labels, mask_suffix, match_grid
from lepton_vision.types import Image
from lepton_vision.types.geometry import is_same_spacing


@dataclass(frozen=True, slots=True)
class ExportedMask:
    """Result of the export of a mask.

    Attributes:
        path: the file.
        labels: value of each structure in it.
        voxels: how many voxels each structure has.
    """

    path: Path
    labels: Mapping[str, int]
    voxels: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"mask": str(self.path), "labels": dict(self.labels), "voxels": dict(self.voxels)}


def export_mask(
    mask: str | Path,
    path: str | Path,
    *,
    source: str | Path,
    structures: Mapping[str, Sequence[int]],
    series: str | None = None,
    info: SegmentationInfo | None = None,
) -> ExportedMask:
    """Write the mask in a file in another format, once it is known to lie on the grid of its source.

    A mask of the same voxels in another axis order is turned, exactly. One that holds no place (PNG, npz) is taken in
    the order in which ``read_image(source)`` has the voxels; a NIfTI mask must say where it lies if the source does.

    Args:
        mask: what ``read_image`` reads, or a DICOM Segmentation, one value per voxel (an npz file holds one array
            (1, H, W) or (1, D, H, W)).
        path: file to write; its suffix names the format, see ``files.write_mask``.
        source: image file, or folder with one DICOM series.
        structures: by name, in the order of the labels to be written, the value or values that it has in ``mask``. The
            k-th structure becomes label k.
        series: pseudonymous id of the series in the folder, where there are several.
        info: what a DICOM Segmentation says about itself.

    Raises:
        ScoringError: another grid, with what differs; a value that has no name, or two; see ``write_mask``.
        ReadError: a file that cannot be read.

    Example:
        >>> export_mask("m.nii.gz", "m.dcm", source="study/ct", structures={"liver": [1]})  # doctest: +SKIP
    """
    mask_suffix(path)
    check_place(path, what="mask", error=ScoringError)
    image = read_image(source) if series is None else read_series(source, series=series)
    drawn = read_drawn(mask, on=image)
    labels = _on_grid(_relabel(drawn, structures), drawn=drawn, image=image)
    names = tuple(structures)
    written = write_mask(labels, path, image=image, structures=names, source=source, series=series, info=info)
    counts = np.bincount(labels.ravel(), minlength=len(names) + 1)
    return ExportedMask(
        written,
        labels={name: k for k, name in enumerate(names, start=1)},
        voxels={name: int(counts[k]) for k, name in enumerate(names, start=1)},
    )


def _relabel(drawn: Image, structures: Mapping[str, Sequence[int]]) -> Labels:
    """Values of the mask to 0 and 1 … K in the order of the names."""
    if drawn.channels != 1:
        raise ScoringError(
            f"Expected one value per voxel in a mask. Received: {drawn.channels} channels. Save labels as grey values.",
            key="mask",
        )
    wanted = [value for values in structures.values() for value in values]
    if len(set(wanted)) != len(wanted) or 0 in wanted:
        raise ScoringError(
            "Expected each value of the mask under one name, and 0 under none: a label map cannot overlap. Received: "
            f"{', '.join(map(str, wanted))}.",
            key="structures",
        )
    values = drawn.pixels[0]
    unnamed = ~np.isin(values, [0, *wanted])
    if unnamed.any():
        raise ScoringError(
            f"Expected the values 0 and {', '.join(map(str, wanted))} in the mask. Received: "
            f"{float(values[unnamed][0]):g}, in all {int(unnamed.sum())} voxels without a name. Name every value, and "
            "give labels, not probabilities or grey tones.",
            key="structures",
        )
    labels = np.zeros(values.shape, dtype=np.uint8)
    for k, own in enumerate(structures.values(), start=1):
        labels[np.isin(values, list(own))] = k
    return labels


def _on_grid(labels: Labels, *, drawn: Image, image: Image) -> Labels:
    """Labels in the axis order of the image, once both are known to be the same voxels."""
    shape = image.pixels.shape[1:]
    if drawn.geometry is not None and image.geometry is not None:
        return match_grid(drawn.geometry, image.geometry, shape=labels.shape, wanted_shape=shape).apply(labels)
    if drawn.source_format in ("nifti", "dicom") and image.geometry is not None:
        raise ScoringError(
            "Expected a mask that says where it lies, as its source does. Received: a file with no usable affine or "
            "position, whose axis order would be a guess. Save it with the affine of its source.",
            key="mask",
        )
    if labels.shape != shape:
        shown = [" x ".join(map(str, sizes)) for sizes in (shape, labels.shape)]
        raise ScoringError(
            f"Expected a mask of the shape of its source, {shown[0]}. Received: {shown[1]}. Resample the mask to the "
            "grid of the source first.",
            key="mask",
        )
    steps = (drawn.spacing_mm, image.spacing_mm)
    if steps[0] and steps[1] and not is_same_spacing(*steps, shape=shape):
        shown = [" x ".join(f"{step:g}" for step in spacing) for spacing in (steps[1], steps[0])]
        raise ScoringError(
            f"Expected a mask of the spacing of its source, {shown[0]} mm. Received: {shown[1]} mm. Resample the mask "
            "to the grid of the source first.",
            key="mask",
        )
    return labels
