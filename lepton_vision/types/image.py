"""Images: pixels with their units, windows and position in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import InvalidValueError, describe_keys
from lepton_vision.types.geometry import Geometry
from lepton_vision.types.result import Displayed, Table

WindowName = Literal[
    "header",  # VOI of the file; raster files, which hold display values, use their full range
    "full",  # value_range of the file
    "percentile",  # 0.5th to 99.5th percentile of this image
    "lung",  # CT presets, only on pixels in HU
    "mediastinum",
    "soft_tissue",
    "brain",
    "subdural",
    "stroke",
    "bone",
    "liver",
]
Backbone = Literal[
    "resnet10",  # MONAI's smallest; torchvision has no weights for it
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
ObjectKind = Literal["segmentation", "localizer", "secondary_capture", "parametric_map", "dose", "mask_file"]
"""What has pixels and yet is no image to classify: kinds of DICOM objects, and files that are masks by their names."""

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window: the part of the modality range that is shown from black to white (PS3.3 C.11.2.1.2).

    Attributes:
        center: middle of the window, in the image's units (HU for CT).
        width: full width in the same units; at least 1 for LINEAR, above 0 otherwise.
        function: VOI LUT function.

    Example:
        >>> Window(40, 400).function
        'LINEAR'
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    center: float
    width: float
    function: WindowFunction = "LINEAR"

    def __post_init__(self) -> None:
        if self.function not in (known := get_args(WindowFunction)):
            raise InvalidValueError(f"Expected one of the functions {', '.join(known)}. Received: {self.function!r}.")
        smallest = 1.0 if self.function == "LINEAR" else 0.0
        is_valid = self.width >= 1.0 if self.function == "LINEAR" else self.width > 0.0
        if not (np.isfinite(self.center) and np.isfinite(self.width) and is_valid):
            raise InvalidValueError(
                f"A {self.function} window needs a finite center and a width of at least {smallest:g}. "
                f"Received: center={self.center}, width={self.width}."
            )

    __get_pydantic_json_schema__: ClassVar[Any] = classmethod(describe_keys)


@dataclass(frozen=True, slots=True)
class VoiLut(Displayed):
    """A VOI lookup table from a header (PS3.3 C.11.2.1.1): modality value → display value.

    Attributes:
        values: (N,) float32 display values scaled to [0, 1].
        first: modality value that maps to ``values[0]``; values outside are clipped to the ends.
    """

    values: Pixels
    first: float


@dataclass(frozen=True, slots=True)
class Image(Displayed):
    """One decoded image in modality units.

    Attributes:
        pixels: (C, H, W) or (C, D, H, W) float32 in ``units``; MONOCHROME1 is turned so that larger is brighter.
        spacing_mm: one figure per spatial axis, in axis order ((H, W) or (D, H, W)), or None where unknown.
        geometry: where the voxels lie in the patient, or None where the file does not say, or they form no regular
            grid of right angles. Its spacing is ``spacing_mm``.
        units: "HU", "US" (unspecified) or another value of Rescale Type (PS3.3 C.11.1.1.2); "display" for raster files.
        value_range: smallest and largest value that the file could hold, in ``units`` (not what it does hold).
        modality: DICOM Modality ("CT", "MR", "DX" …) or None.
        window: VOI window or VOI lookup table of the header, or None.
        image_id: pseudonymous id of this image (frame included), stable across runs with the same key.
        series_id: pseudonymous id of the series, or None.
        study_id: pseudonymous id of the study, or None.
        patient_id: pseudonymous id of the patient, or None where the file does not say.
        source_format: "dicom", "nifti", "png", "jpeg", "tiff", "npz" …
        decoder: name and version of what decoded the pixels, e.g. "pyjpegls 1.5.1".
        facts: further header facts without patient data (photometric, transfer_syntax, laterality, frames …);
            ``orientation`` where W and H grow to, of an image that has no ``geometry``.
    """

    pixels: Pixels
    spacing_mm: tuple[float, ...] | None = None
    geometry: Geometry | None = None
    units: str = "display"
    value_range: tuple[float, float] = (0.0, 255.0)
    modality: str | None = None
    window: Window | VoiLut | None = None
    image_id: str = ""
    series_id: str | None = None
    study_id: str | None = None
    patient_id: str | None = None
    source_format: str = "array"
    decoder: str = ""
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.pixels.shape[0])

    @property
    def is_volume(self) -> bool:
        """Whether ``pixels`` has a depth axis."""
        return self.pixels.ndim == 4

    def _tables(self) -> tuple[Table, ...]:
        shape = " x ".join(str(n) for n in self.pixels.shape)
        low, high = (float(self.pixels.min()), float(self.pixels.max())) if self.pixels.size else (np.nan, np.nan)
        rows = {
            "shape (C, H, W)" if not self.is_volume else "shape (C, D, H, W)": shape,
            "range": f"{low:g} to {high:g} {self.units}",
            "spacing [mm]": self.spacing_mm,
            "orientation": None if self.geometry is None else self.geometry.orientation,
            "modality": self.modality,
            "window": self.window if isinstance(self.window, Window) else type(self.window).__name__,
            "format": self.source_format,
            "decoder": self.decoder,
        }
        return (Table("Image", rows.items()),)
