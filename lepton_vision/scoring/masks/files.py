"""Label map files in formats of other tools: PNG, NIfTI, or DICOM Segmentation."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ScoringError
from lepton_vision.files import write_atomic
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.nifti import NiftiHeader, read_nifti_header
from lepton_vision.scoring.dicom.segmentation import SegmentationInfo, write_segmentation
from lepton_vision.scoring.masks.label_maps import Labels, check_labels, mask_suffix, match_grid
from lepton_vision.types import FloatArray, Image

Source = str | Path | Sequence[str | Path]

# Where a NIfTI file says its voxels lie, and in which units.
_PLACE = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_UNKNOWN, _SCANNER = 0, 1  # qform_code and sform_code (nifti1.h)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_mask(
    labels: npt.NDArray[np.uint8],
    path: str | Path,
    *,
    image: Image,
    structures: Sequence[str],
    source: Source | None = None,
    series: str | None = None,
    info: SegmentationInfo | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write a label map that lies on the grid of ``image``; the suffix of ``path`` names the format.

    - ``.png``: 8 bits, the labels as grey values (a viewer shows them almost black). 2-D only; a PNG holds no place.
    - ``.nii.gz``, ``.nii``: where ``source`` is a NIfTI file, the mask has its shape, axis order and affine, bit for
      bit. Otherwise axes are W, H, D and both forms hold the place of ``image.geometry`` with code 1 (scanner). Without
      a geometry, a diagonal of the spacing with code 0: the place is unknown. A slice is one voxel thick: of the slice
      thickness in the header, or 1 mm. Names of structures are not written.
    - ``.dcm``: DICOM Segmentation, see ``segmentation.write_segmentation``. It alone holds the patient's name and
      identifiers, from ``source``.

    Args:
        labels: (H, W) or (D, H, W) uint8; 0 background, k the k-th structure.
        path: file to write, whole or not at all; its folder must be there.
        image: what the labels lie on, as it was read (and perhaps reoriented), not resampled.
        structures: names in order.
        source: what ``image`` was read from: file, folder or files. Needed for ``.dcm``.
        series: pseudonymous id of the series in ``source``, where there are several.
        info: what a DICOM Segmentation says about itself; not used for other formats.
        limits: what a file of ``source`` may cost.

    Returns:
        ``path``.

    Raises:
        ScoringError: labels, structures or suffix as they must not be; a mask that is not on the grid of ``source``;
            for NIfTI, neither geometry nor spacing.
        ReadError: ``source`` cannot be read.

    Example:
        >>> image = read_image("ct.nii.gz")  # doctest: +SKIP
        >>> write_mask(labels, "m.nii.gz", image=image, structures=("liver",), source="ct.nii.gz")  # doctest: +SKIP
    """
    path = Path(path)
    suffix = mask_suffix(path)
    check_labels(labels, image=image, structures=structures)
    if suffix == ".dcm":
        if source is None:
            raise ScoringError(
                "A DICOM Segmentation refers to the DICOM files of its image. Received: no source. Give "
                "source=FILES, or write .nii.gz.",
                key="source",
            )
        return write_segmentation(
            labels, path, image=image, source=source, structures=structures, series=series, info=info, limits=limits
        )
    data = _png(labels) if suffix == ".png" else _nifti(labels, image=image, header=_source_header(source, image))
    write_atomic(path, gzip.compress(data, mtime=0) if suffix == ".nii.gz" else data)
    return path


def _png(labels: Labels) -> bytes:
    from PIL import Image as Pillow

    if labels.ndim != 2:
        raise ScoringError(
            f"A PNG holds one slice (H, W). Received labels of shape {labels.shape}. Write .nii.gz.", key="path"
        )
    data = BytesIO()
    Pillow.fromarray(labels).save(data, format="PNG")
    return data.getvalue()


def _source_header(source: Source | None, image: Image) -> NiftiHeader | None:
    """Header of the source where it is a NIfTI file; of several channels, that of the first."""
    if image.source_format != "nifti" or not isinstance(source, str | Path):
        return None
    return read_nifti_header(Path(source))


def _nifti(labels: Labels, *, image: Image, header: NiftiHeader | None) -> bytes:
    """Bytes of a NIfTI file, not compressed."""
    from nibabel import Nifti1Image, Nifti2Image

    is_second = header is not None and int(header.header["sizeof_hdr"]) == 540
    kind: Any = Nifti2Image if is_second else Nifti1Image
    new = kind.header_class()
    is_whole = header is not None and (labels.ndim == 3 or header.shape[0] == 1)
    if header is not None and is_whole:
        stored = header.header.get_data_shape()
        axes = 3 if max(stored[3:], default=1) > 1 else len(stored)  # a mask has no components
        array = _on_stored_grid(labels, image=image, header=header).T.reshape(stored[:axes])
        new.set_data_shape(array.shape)  # before the places: it resets steps
        for name in _PLACE:
            new[name] = header.header[name]
    else:
        array = labels.T.reshape((*labels.shape[::-1], 1)[:3])
        new.set_data_shape(array.shape)
        new.set_xyzt_units("mm")
        affine, code = _affine(image)
        new.set_qform(affine, code=code)
        new.set_sform(affine, code=code)
    new.set_data_dtype(np.uint8)
    new.set_intent("label")
    return bytes(kind(array, None, new).to_bytes())


def _on_stored_grid(labels: Labels, *, image: Image, header: NiftiHeader) -> Labels:
    """Labels (D, H, W), or (H, W) where that is all, in the axis order of the file that the image was read from."""
    shape, geometry = header.shape, header.geometry
    if labels.ndim == 2:
        shape, geometry = shape[1:], None if geometry is None else geometry.plane(0)  # type: ignore[assignment]
    if image.geometry is not None and geometry is not None:
        return match_grid(image.geometry, geometry, shape=labels.shape, wanted_shape=shape).apply(labels)
    if labels.shape != shape or (image.geometry is None) != (geometry is None):
        raise ScoringError(
            f"Expected a mask on the grid of its source, {' x '.join(map(str, shape))} voxels. Received: "
            f"{' x '.join(map(str, labels.shape))}, or one with a place where the source has none. Give the file that "
            "the image was read from.",
            key="source",
        )
    return labels


def _affine(image: Image) -> tuple[FloatArray, int]:
    """Affine (i, j, k) = (w, h, d) → RAS [mm] of the image's grid, and its code."""
    affine: FloatArray = np.eye(4)
    if image.geometry is not None:
        columns = image.geometry.affine  # (d, h, w) or (h, w), then the origin
        axes = columns.shape[1] - 1
        affine[:, :axes] = columns[:, :axes][:, ::-1]
        affine[:, 3] = columns[:, axes]
        if axes == 2:
            affine[:3, 2] = np.cross(image.geometry.direction[1], image.geometry.direction[0]) * _thickness(image)
        return _LPS_TO_RAS @ affine, _SCANNER
    if image.spacing_mm is None:
        raise ScoringError(
            "Expected an image with a geometry, or at least a spacing. Received: neither. Write .png, or give the "
            "image its spacing_mm.",
            key="image",
        )
    steps = image.spacing_mm[::-1]
    affine[range(len(steps)), range(len(steps))] = steps
    return affine, _UNKNOWN


def _thickness(image: Image) -> float:
    """Of a single slice [mm], to give it a third axis."""
    stated = image.facts.get("slice_thickness_mm")
    return stated if isinstance(stated, float) and stated > 0.0 else 1.0
