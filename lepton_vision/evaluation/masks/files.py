"""Evaluation cases from mask files: integer labels, with truth and prediction on one grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError, ReadError
from lepton_vision.evaluation.masks.evaluation import MaskCase
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers.mask import NOISE, is_laid, read_drawn, reorient_mask
from lepton_vision.types import Image, SampleAddress
from lepton_vision.types.geometry import grid_gap, is_same_spacing


class MaskRow(NamedTuple):
    """One line of the table; paths are complete, and ``image`` is None where none is named."""

    image_id: str
    patient_id: str
    truth: Path
    prediction: Path
    image: Path | None = None
    volume_id: str = ""

    def files(self) -> dict[str, Path]:
        """The files that are named, by column."""
        found = {"truth": self.truth, "prediction": self.prediction}
        return found if self.image is None else found | {"image": self.image}


def load_cases(
    rows: Sequence[MaskRow], *, unknown: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[MaskCase | Failure]:
    """Read one case after the other; geometry is the truth's. Where the truth is ``unknown``, both are background.

    A file that cannot be read becomes a Failure with the reason code, and so does a prediction that lies elsewhere in
    the patient than its truth (``prediction: geometry``, and how far away). A prediction of the same voxels in another
    axis order is turned; one without a spacing, orientation or place of its own (PNG, npz) is taken to lie on the
    truth's grid.

    Raises:
        EvaluationError: a colour image, values that are no whole numbers, or a prediction of another shape, spacing or
            orientation than its truth; with the row.
    """
    for number, row in enumerate(rows):
        try:
            yield _load(row, unknown=unknown)
        except EvaluationError as error:
            raise EvaluationError(str(error), row=number, key=error.key) from None
        if progress is not None:
            progress(number + 1, len(rows))


def _load(row: MaskRow, *, unknown: int | None) -> MaskCase | Failure:
    try:
        images = read_masks(row)
    except ReadError as error:
        return Failure(row.image_id, f"{'truth' if error.path == row.truth else 'prediction'}: {error.reason}")
    labels = {name: read_labels(image, name) for name, image in images.items()}
    truth, prediction = images["truth"], images["prediction"]
    # The shape first (MaskCase says it): a spacing of another number of axes would only confuse.
    case = MaskCase(
        row.image_id, labels["truth"], labels["prediction"], truth.spacing_mm, row.patient_id, row.volume_id
    )
    if truth.spacing_mm is not None and prediction.spacing_mm is not None:
        _check_spacing(truth.spacing_mm, prediction.spacing_mm, shape=case.truth.shape)
    ways = [image.facts.get("orientation") for image in (truth, prediction)]
    if None not in ways and ways[0] != ways[1]:
        raise EvaluationError(
            f"A prediction needs the orientation of its truth, {ways[0]}. Received: {ways[1]}. Reorient the "
            "prediction, or save it with the truth's affine.",
            key="prediction",
        )
    if truth.geometry is not None and prediction.geometry is not None:
        gap = grid_gap(prediction.geometry, truth.geometry, shape=case.truth.shape)
        if gap is not None:
            return Failure(row.image_id, f"prediction: geometry ({gap.text})")
    if unknown is None:
        return case
    is_known = labels["truth"] != unknown
    return replace(case, truth=np.where(is_known, case.truth, 0), prediction=np.where(is_known, case.prediction, 0))


def read_masks(row: MaskRow) -> dict[str, Image]:
    """Read truth and prediction, this in the axis order of the truth (see ``mask.reorient_mask``).

    A DICOM Segmentation lies on the image of the row, or else on the other mask.

    Raises:
        ReadError: with the path of the mask that cannot be read.
    """
    image = None if row.image is None else SampleAddress(row.image)
    paths = {"truth": row.truth, "prediction": row.prediction}
    found = {name: read_drawn(path, on=image) for name, path in paths.items()}
    for name, other in (("truth", "prediction"), ("prediction", "truth")):
        if image is None and is_laid(found[name]) and not is_laid(found[other]):
            found[name] = read_drawn(paths[name], on=found[other])
    if image is None and all(map(is_laid, found.values())) and len({one.pixels.shape for one in found.values()}) > 1:
        raise EvaluationError(
            "Two DICOM Segmentations leave out other slices. Expected the image that they belong to in the column "
            "'image'. Received: none.",
            key="image",
        )
    return found | {"prediction": reorient_mask(found["prediction"], found["truth"])}


def read_labels(image: Image, name: str) -> npt.NDArray[np.int32]:
    """Return (H, W) or (D, H, W) labels of an image of whole numbers.

    Raises:
        EvaluationError: colour, or values between whole numbers; ``name`` says of what.
    """
    if image.channels != 1:
        raise EvaluationError(
            f"Expected one value per voxel in a mask. Received: {image.channels} channels in the {name}. Save labels "
            "as grey values, not colours.",
            key=name,
        )
    values = image.pixels[0]
    labels: npt.NDArray[np.int32] = np.rint(values).astype(np.int32)
    is_wrong = np.abs(labels - values) > NOISE
    if is_wrong.any():
        raise EvaluationError(
            f"Expected whole numbers in a mask. Received: {float(values[is_wrong][0]):g} in the {name}, "
            f"{int(is_wrong.sum())} such voxels. Save labels, not probabilities or interpolated labels.",
            key=name,
        )
    return labels


def _check_spacing(truth: tuple[float, ...], prediction: tuple[float, ...], *, shape: tuple[int, ...]) -> None:
    if not is_same_spacing(prediction, truth, shape=shape):
        shown = [" x ".join(f"{step:g}" for step in spacing) for spacing in (truth, prediction)]
        raise EvaluationError(
            f"A prediction needs the spacing of its truth, {shown[0]} mm. Received: {shown[1]} mm. Resample the "
            "prediction to the truth's grid.",
            key="prediction",
        )
