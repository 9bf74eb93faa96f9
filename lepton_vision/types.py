"""The values that pass between stages.

Axis letters are fixed here and used in every docstring:
B batch, C channel, D depth (frames or slices), H height (rows), W width (columns), K class, N samples, M mask class.

A label that is unknown is NaN; it is never counted as negative. A mask is unknown where it holds ``UNKNOWN``: a sample
without a mask is not a sample whose mask is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import InvalidValueError, describe_keys
from lepton_vision.geometry import FloatArray as FloatArray
from lepton_vision.geometry import Geometry as Geometry
from lepton_vision.geometry import Vector as Vector
from lepton_vision.targets import EXCLUSIVE as EXCLUSIVE
from lepton_vision.targets import ModelOutput as ModelOutput
from lepton_vision.targets import Target as Target
from lepton_vision.targets import TargetKind as TargetKind
from lepton_vision.targets import Uncertain as Uncertain
from lepton_vision.targets import short_repr as short_repr

if TYPE_CHECKING:
    import torch

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note): "scan", "train", "predict" …; total 0 where it is not known."""

UNKNOWN = 255
"""Number of a mask in this package where nobody knows what is there; the whole plane of a sample without a mask. Which
value of mask files becomes it is a setting (``segmentation.unknown``)."""

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
    """A VOI window: which part of the modality range becomes black to white (PS3.3 C.11.2.1.2).

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
class VoiLut:
    """A VOI lookup table from a header (PS3.3 C.11.2.1.1): modality value → display value.

    Attributes:
        values: (N,) float32 display values scaled to [0, 1].
        first: modality value that maps to ``values[0]``; values outside are clipped to the ends.
    """

    values: Pixels
    first: float

    __repr__ = short_repr


_REPAIRS = {"tilt": "shear", "gaps": "fill"}


@dataclass(frozen=True, slots=True)
class SampleAddress:
    """Where the pixels of one sample lie.

    Attributes:
        path: the file, or the folder of a DICOM series that is one sample.
        member: name of the array inside an .npz file, pseudonymous id of the volume of a series in a folder, or None.
        frame: position of a frame or array entry, from 0; None for a file or series that is one sample.
        repair: of a series, what has to be repaired: "tilt", "gaps", both with a comma, or nothing.
    """

    path: Path
    member: str | None = None
    frame: int | None = None
    repair: str = ""

    @property
    def repairs(self) -> dict[str, Any]:
        """What ``read_image`` is asked for."""
        return {name: _REPAIRS[name] for name in self.repair.split(",") if name}


class CaseKey(NamedTuple):
    """What a heat map of one sample is about.

    Attributes:
        image_id: pseudonymous id of the sample.
        target: name of the target.
        class_name: class whose evidence is shown.
    """

    image_id: str
    target: str
    class_name: str


HeatMaps = Mapping[CaseKey, Pixels]
"""By what they are about, (H, W) float32, 0 or more, on the grid of the network's input."""


@dataclass(frozen=True, slots=True)
class Image:
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

    __repr__ = short_repr

    def _repr_html_(self) -> str:
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
        cells = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
        return f"<table><caption>Image</caption>{cells}</table>"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader yields.

    Attributes:
        images: (B, C, H, W) or (B, C, D, H, W) float32, normalised for the network.
        labels: by target name, (B,) float32 (multiclass: class index) or (B, K) (multilabel); NaN is unknown.
        index: (B,) int64 row positions in the manifest that the loader was made from.
        image_ids: B pseudonymous ids.
        masks: (B, H, W) or (B, D, H, W) uint8, 0 background, k the k-th structure, ``UNKNOWN`` where not known; None
            where no structure is asked for.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    index: torch.Tensor
    image_ids: tuple[str, ...]
    masks: torch.Tensor | None = None

    __repr__ = short_repr

    def to(self, device: torch.device | str, *, memory_format: torch.memory_format | None = None) -> Batch:
        """Move images (to ``memory_format``), labels and masks to ``device``; ids and index stay where they are."""
        images = self.images.to(device, non_blocking=True)
        if memory_format is not None:
            images = images.to(memory_format=memory_format)
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return replace(self, images=images, labels=labels, masks=masks)

    def pin_memory(self) -> Batch:
        """Pin images, labels and masks (called by the DataLoader on CUDA machines)."""
        labels = {name: label.pin_memory() for name, label in self.labels.items()}
        masks = None if self.masks is None else self.masks.pin_memory()
        return replace(self, images=self.images.pin_memory(), labels=labels, masks=masks)


@dataclass(frozen=True, slots=True)
class PointFigures:
    """What a threshold gave on the samples that it was chosen on; NaN for a class that has none.

    Attributes:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
        ppv: positive predictive value in [0, 1], at the prevalence of these samples.
        npv: negative predictive value, or None where every sample was called positive.
        n: labelled samples.
        positives: positive ones among them.
    """

    sensitivity: float
    specificity: float
    ppv: float
    npv: float | None
    n: int
    positives: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become decisions; chosen on validation and then frozen.

    Attributes:
        thresholds: by target name: (t,) for binary, K figures for multilabel, () for multiclass (largest probability
            wins). Positive means probability >= threshold. NaN (None in files): there is no decision on that class,
            as validation lacked samples to choose one on.
        criterion: how it was chosen, e.g. "sensitivity >= 0.95".
        chosen_on: split that it was chosen on; None for a threshold stated by hand.
        n: number of labelled samples it was chosen on (0 for one stated by hand).
        figures: by target name, what each threshold gave there; empty for one stated by hand or of an older bundle.
    """

    thresholds: Mapping[str, tuple[float, ...]]
    criterion: str
    chosen_on: str | None = None
    n: int = 0
    figures: Mapping[str, tuple[PointFigures, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        thresholds = {name: [_none_if_nan(one) for one in values] for name, values in self.thresholds.items()}
        plain = {"thresholds": thresholds, "criterion": self.criterion, "chosen_on": self.chosen_on, "n": self.n}
        figures = {
            name: [{key: _none_if_nan(value) for key, value in asdict(one).items()} for one in several]
            for name, several in self.figures.items()
        }
        return plain | {"figures": figures}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Rebuild what ``to_dict`` gave."""
        thresholds = {name: tuple(map(_nan_if_none, ts)) for name, ts in values["thresholds"].items()}
        given, shares = values.get("figures", {}), ("sensitivity", "specificity", "ppv")
        figures = {
            name: tuple(PointFigures(**{**one, **{key: _nan_if_none(one[key]) for key in shares}}) for one in several)
            for name, several in given.items()
        }
        return cls(thresholds, str(values["criterion"]), values.get("chosen_on"), int(values.get("n", 0)), figures)


def _none_if_nan(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def decimals(low: float, high: float, *, least: int = 3) -> int:
    """How many decimals the two ends of an interval need to read differently, 6 at most."""
    return next((k for k in range(least, 7) if f"{low:.{k}f}" != f"{high:.{k}f}"), 6)


class Interval(NamedTuple):
    """An interval of a figure by a stated method."""

    method: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One reported number with its interval.

    Attributes:
        value: the figure; NaN where it is undefined.
        low: lower end of the interval; NaN where undefined.
        high: upper end of the interval; NaN where undefined.
        n: number of labelled samples behind it.
        reason: why it is undefined, or a caveat about its interval; empty where there is nothing to say.
        method: of the interval: "percentile" or "bca" (bootstraps over patients), "wilson" …; empty where unstated.
        others: intervals by other methods: "delong_logit_t" and "delong" or, where patients have several images,
            "obuchowski_logit_t" and "obuchowski" for an AUROC; "wilson" and "clopper_pearson" for a proportion.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""
    method: str = ""
    others: tuple[Interval, ...] = ()

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"undefined ({self.reason})"
        if not self.low < self.high:
            return f"{self.value:.3f} (no interval)"
        digits = decimals(self.low, self.high)
        return f"{self.value:.3f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined number becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        plain: dict[str, Any] = {key: None if np.isnan(x) else float(x) for key, x in numbers.items()}
        plain["n"] = self.n
        if self.method:
            plain["method"] = self.method
        if self.others:
            plain["intervals"] = {one.method: [float(one.low), float(one.high)] for one in self.others}
        return plain | ({"reason": self.reason} if self.reason else {})
