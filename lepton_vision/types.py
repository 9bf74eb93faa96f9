"""The values that pass between stages.

Axis letters are fixed here and used in every docstring:
B batch, C channel, D depth (frames or slices), H height (rows), W width (columns), K class, N samples, M mask class.

A label that is unknown is NaN; it is never counted as negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement, permutations
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

TargetKind = Literal["binary", "multiclass", "multilabel"]
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

FloatArray = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float32]
Vector = tuple[float, float, float]


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
        smallest = 1.0 if self.function == "LINEAR" else 0.0
        is_valid = self.width >= 1.0 if self.function == "LINEAR" else self.width > 0.0
        if not (np.isfinite(self.center) and np.isfinite(self.width) and is_valid):
            raise ValueError(
                f"A {self.function} window needs a finite center and a width of at least {smallest:g}. "
                f"Received: center={self.center}, width={self.width}."
            )


@dataclass(frozen=True, slots=True)
class VoiLut:
    """A VOI lookup table from a header (PS3.3 C.11.2.1.1): modality value → display value.

    Attributes:
        values: (N,) float32 display values scaled to [0, 1].
        first: modality value that maps to ``values[0]``; values outside are clipped to the ends.
    """

    values: Pixels
    first: float


@dataclass(frozen=True, slots=True)
class SampleAddress:
    """Where the pixels of one sample lie.

    Attributes:
        path: the file.
        member: name of the array inside an .npz file, or None.
        frame: position of a frame or array entry, from 0; None for a file that is one sample.
    """

    path: Path
    member: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of an image lie in the patient, in DICOM's coordinates (LPS, PS3.3 C.7.6.2.1.1).

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
        """Where W, H and D (in this order) grow, to the nearest patient axis: "LPS" is a plain axial stack.

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
        facts: further header facts without patient data (photometric, transfer_syntax, laterality, frames …).
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
class Target:
    """What the model predicts: a name, a kind and the classes. One head per target.

    Attributes:
        name: letters, digits and underscores; also the label column unless ``column`` says otherwise.
        kind: "binary" (one probability, of ``classes[1]``), "multiclass" (probabilities sum to one) or
            "multilabel" (one independent probability per class).
        classes: binary: (negative, positive). multilabel: one label column per class, of that name.
        column: label column of a binary or multiclass target; None means ``name``.
        is_lateral: left and right mean something for this target, so images are never flipped left–right.

    Example:
        >>> Target("covid", "binary", ("NonCOVID", "COVID"), column="label").positive
        'COVID'
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    column: str | None = None
    is_lateral: bool = False

    def __post_init__(self) -> None:
        smallest = {"binary": 2, "multiclass": 2, "multilabel": 1}[self.kind]
        is_count_valid = len(self.classes) == 2 if self.kind == "binary" else len(self.classes) >= smallest
        if not is_count_valid:
            exactly = "exactly 2" if self.kind == "binary" else f"at least {smallest}"
            raise ValueError(f"A {self.kind} target needs {exactly} classes. Received: {len(self.classes)}.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"Target {self.name!r} names a class twice: {list(self.classes)}.")
        if not self.name.replace("_", "a").isalnum():
            raise ValueError(f"A target name is letters, digits and underscores. Received: {self.name!r}.")

    @property
    def positive(self) -> str:
        """Positive class of a binary target."""
        return self.classes[1]

    @property
    def outputs(self) -> int:
        """Number of logits of the head: 1 for binary, K otherwise."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Label columns of the manifest that this target reads."""
        return self.classes if self.kind == "multilabel" else (self.column or self.name,)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader yields.

    Attributes:
        images: (B, C, H, W) float32, normalised for the network.
        labels: by target name, (B,) float32 (multiclass: class index) or (B, K) (multilabel); NaN is unknown.
        index: (B,) int64 row positions in the manifest that the loader was made from.
        image_ids: B pseudonymous ids.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    index: torch.Tensor
    image_ids: tuple[str, ...]

    def to(self, device: torch.device | str, *, memory_format: torch.memory_format | None = None) -> Batch:
        """Move images and labels to ``device``; ids and index stay where they are.

        ``memory_format`` is for (B, C, H, W); a batch of features (B, F) stays as it is.
        """
        images = self.images.to(device, non_blocking=True)
        if memory_format is not None and images.ndim == 4:
            images = images.contiguous(memory_format=memory_format)
        labels = {name: label.to(device, non_blocking=True) for name, label in self.labels.items()}
        return replace(self, images=images, labels=labels)

    def pin_memory(self) -> Batch:
        """Pin images and labels (called by the DataLoader on CUDA machines)."""
        labels = {name: label.pin_memory() for name, label in self.labels.items()}
        return replace(self, images=self.images.pin_memory(), labels=labels)


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What ``forward`` of every network returns, in training and in scoring.

    Attributes:
        logits: by target name, (B, 1) for binary, (B, K) otherwise; before sigmoid or softmax.
        mask_logits: (B, M, H, W), or None where the network has no segmentation head.
    """

    logits: dict[str, torch.Tensor]
    mask_logits: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become decisions; chosen on validation and then frozen.

    Attributes:
        thresholds: by target name: (t,) for binary, K figures for multilabel, () for multiclass (largest probability
            wins). Positive means probability >= threshold.
        criterion: how it was chosen, e.g. "sensitivity >= 0.95".
        chosen_on: split that it was chosen on; None for a threshold stated by hand.
        n: number of labelled samples it was chosen on (0 for one stated by hand).
    """

    thresholds: Mapping[str, tuple[float, ...]]
    criterion: str
    chosen_on: str | None = None
    n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        thresholds = {name: list(values) for name, values in self.thresholds.items()}
        return {"thresholds": thresholds, "criterion": self.criterion, "chosen_on": self.chosen_on, "n": self.n}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Rebuild what ``to_dict`` gave."""
        thresholds = {name: tuple(float(t) for t in ts) for name, ts in values["thresholds"].items()}
        return cls(thresholds, str(values["criterion"]), values.get("chosen_on"), int(values.get("n", 0)))


@dataclass(frozen=True, slots=True)
class Figure:
    """One reported number with its interval.

    Attributes:
        value: the figure; NaN where it is undefined.
        low: lower end of the interval; NaN where undefined.
        high: upper end of the interval; NaN where undefined.
        n: number of labelled samples behind it.
        reason: why it is undefined, or a caveat about its interval; empty where there is nothing to say.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"undefined ({self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined number becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        plain: dict[str, Any] = {key: None if np.isnan(x) else float(x) for key, x in numbers.items()}
        plain["n"] = self.n
        return plain | ({"reason": self.reason} if self.reason else {})
