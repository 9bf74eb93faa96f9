"""Samples: location of the pixels, split, and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lepton_vision.types.image import Pixels

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note): "scan", "train", "predict" …; total 0 where it is not known."""
UNKNOWN = 255
"""Number of a mask in this package where nobody knows what is there; the whole plane of a sample without a mask. Which
value of mask files becomes it is a setting (``segmentation.unknown``)."""
_REPAIRS = {"tilt": "shear", "gaps": "fill"}


@dataclass(frozen=True, slots=True)
class SampleAddress:
    """Location of the pixels of one sample.

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
        """Repairs asked of ``read_image``."""
        return {name: _REPAIRS[name] for name in self.repair.split(",") if name}


class CaseKey(NamedTuple):
    """Subject of a heat map of one sample.

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
