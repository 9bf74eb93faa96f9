"""Folder of masks predicted by a scoring run, and the columns that refer to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lepton_vision.errors import ConfigError, ScoringError, nearest
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.dicom.segmentation import SegmentationInfo, check_info
from lepton_vision.scoring.inputs.inputs import Input
from lepton_vision.scoring.masks.files import write_mask
from lepton_vision.scoring.masks.label_maps import Labels
from lepton_vision.scoring.rows import Row, reason_of
from lepton_vision.scoring.sink import ID_KEY, hold_job_folder
from lepton_vision.types import Image

MaskFormat = Literal["auto", "nifti", "png", "dicom"]
FORMATS: tuple[MaskFormat, ...] = ("auto", "nifti", "png", "dicom")

_SUFFIXES: dict[MaskFormat, str] = {"nifti": ".nii.gz", "png": ".png", "dicom": ".dcm"}
_VERSION = 1
# A distance at the detector or on the film is none in the patient (PS3.3 10.7.1.3): areas would be too large.
_NOT_IN_PATIENT = frozenset({"ImagerPixelSpacing", "NominalScannedPixelSpacing"})


def choose_format(mask_format: MaskFormat, bundle: Bundle) -> MaskFormat:
    """Return the format of the masks of a bundle: "auto" is NIfTI for volumes and PNG for images.

    Raises:
        ConfigError: the bundle predicts no masks, an unknown format, or PNG for volumes.
        ScoringError: a name of a structure that the format cannot hold.
    """
    structures = bundle.require_masks().names
    if mask_format not in FORMATS:
        raise ConfigError(
            f"Unknown mask format {mask_format!r}. {nearest(mask_format, list(FORMATS))}", key="mask_format"
        )
    is_volume = bundle.config.is_volume
    if mask_format == "png" and is_volume:
        raise ConfigError(
            "A PNG holds one slice. Received: a bundle of volumes. Use the mask format nifti or dicom.",
            key="mask_format",
        )
    if mask_format == "dicom":
        check_info(SegmentationInfo(bundle.bundle_id), structures=structures)
    return ("nifti" if is_volume else "png") if mask_format == "auto" else mask_format


def measure_names(bundle: Bundle) -> tuple[str, ...]:
    """Columns of the sizes of structures: ``<structure>_ml`` for volumes, ``<structure>_mm2`` for images."""
    unit = "ml" if bundle.config.is_volume else "mm2"
    return tuple(f"{name}_{unit}" for name in bundle.require_masks().names)


def measure(labels: Labels, image: Image, *, structures: int) -> list[float]:
    """Size of each structure: [ml] of a volume, [mm2] of an image; NaN where the spacing in the patient is not known.

    Args:
        labels: (D, H, W) or (H, W) uint8 on the grid of ``image``.
        image: its spacing counts.
        structures: M.
    """
    counts = np.bincount(labels.ravel(), minlength=structures + 1)[1 : structures + 1]
    spacing = image.spacing_mm
    if spacing is None or image.facts.get("spacing_source") in _NOT_IN_PATIENT:
        return [math.nan] * structures
    size = math.prod(spacing) / (1000.0 if labels.ndim == 3 else 1.0)
    return [float(count) * size for count in counts]


def mask_job(bundle: Bundle, mask_format: MaskFormat) -> dict[str, Any]:
    """Return what must be the same for all masks of a folder."""
    return {"version": _VERSION, "masks": mask_format, "bundle_id": bundle.bundle_id, ID_KEY: key_check()}


class MaskFolder:
    """Folder with a mask file for each image of one bundle, ``<image_id>.png``, ``.nii.gz`` or ``.dcm``.

    Args:
        folder: made if missing; held by one process at a time.
        bundle: a bundle that predicts masks.
        mask_format: not "auto", see ``choose_format``.
        taken: image ids that have a mask which a row names: a further image of that id gets none.
        limits: what the source of a mask may cost, as where it was read to be scored.

    Raises:
        ScoringError: the folder holds masks of another bundle or format, is in use, or cannot be written.
    """

    def __init__(
        self, folder: Path, *, bundle: Bundle, mask_format: MaskFormat, taken: set[str], limits: Limits
    ) -> None:
        self.folder, self._format, self._taken, self._limits = folder, mask_format, set(taken), limits
        self._structures = bundle.require_masks().names
        self._names, self._has_targets = measure_names(bundle), bool(bundle.targets)
        self._info = SegmentationInfo(bundle.bundle_id)
        self._lock = hold_job_folder(folder, job=mask_job(bundle, mask_format), what="mask folder")

    def columns(self, labels: Labels, *, image: Image, source: Input) -> Row:
        """Write the mask of one image, and return what its row says of it.

        Args:
            labels: (D, H, W) or (H, W) uint8 on the grid of ``image``.
            image: as it was read; its pixels are not looked at.
            source: what it was read from.

        Raises:
            ScoringError: the folder cannot be written (a full disk): no later mask could be.
        """
        sizes = measure(labels, image, structures=len(self._structures))
        row: Row = dict(zip(self._names, sizes, strict=True))
        name = f"{image.image_id}{_SUFFIXES[self._format]}"
        reason = self._refusal(image) or self._write(labels, name, image=image, source=source)
        if reason:
            return row | _no_mask(reason)
        self._taken.add(image.image_id)
        return row | {"mask": name, "mask_reason": None}

    def not_predicted(self, reason: str) -> Row:
        """Columns of a row whose mask could not be predicted; of a bundle without targets it has failed altogether."""
        return _no_mask(reason) | ({} if self._has_targets else {"status": "failed", "reason": reason})

    def _refusal(self, image: Image) -> str:
        """Code why this image cannot have a mask of this format, or nothing."""
        if self._format == "dicom" and image.source_format != "dicom":
            return "not_dicom"
        if self._format == "nifti" and image.geometry is None and image.spacing_mm is None:
            return "no_spacing"
        return "duplicate" if image.image_id in self._taken else ""

    def _write(self, labels: Labels, name: str, *, image: Image, source: Input) -> str:
        """Write the file; return a code why it could not be, or nothing."""
        series = None if source.series is None else source.series.series_id
        try:
            with source.on_disk(limits=self._limits) as files:
                write_mask(
                    labels,
                    self.folder / name,
                    image=image,
                    structures=self._structures,
                    source=files,
                    series=series,
                    info=self._info,
                    limits=self._limits,
                )
        except ScoringError as error:  # the source is of a kind that the format cannot refer to: in words, no code
            return f"refused: {error}"
        except OSError as error:
            raise ScoringError(
                f"Cannot write a mask: {error.strerror}. Rows written so far are safe; free space and resume.",
                path=self.folder / name,
            ) from None
        except Exception as error:  # as for reading: a mask that cannot be written must not end the run
            return reason_of(error)
        return ""

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()


def _no_mask(reason: str) -> Row:
    return {"mask": None, "mask_reason": reason}
