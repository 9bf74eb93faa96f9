"""A CSV table of mask files in, figures and a table of cases out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.config import EvaluationConfig
from lepton_vision.errors import EvaluationError, ReadError
from lepton_vision.evaluation.masks import CASE_FIGURES
from lepton_vision.evaluation.segmentation import MaskCase, SegmentationEvaluation, Structures, evaluate_masks
from lepton_vision.files import write_atomic
from lepton_vision.inference.predictions import Failure
from lepton_vision.inference.tables import columns_present, csv_cell, split_csv
from lepton_vision.readers import read_image
from lepton_vision.types import Image

COLUMNS = ("image_id", "patient_id", "truth", "prediction")
SPACING_TOLERANCE = 1e-3  # relative; headers keep float32, and tools round to a few digits


class MaskRow(NamedTuple):
    """One line of the table; paths are complete."""

    image_id: str
    patient_id: str
    truth: Path
    prediction: Path


def evaluate_mask_table(
    table: str | Path,
    *,
    out: str | Path,
    structures: Structures,
    tolerance_mm: float = 1.0,
    lesions: Sequence[str] = (),
    min_iou: float = 0.0,
    config: EvaluationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationEvaluation:
    """Evaluate the files named in a table, and write ``cases.csv`` and ``figures.json`` into ``out``.

    Args:
        table: CSV with the columns image_id, patient_id, truth and prediction; paths relative to the table. Files are
            what ``read_image`` reads (an npz file holds one array (1, H, W) or (1, D, H, W)).
        out: folder; made when everything is computed.
        structures: see ``segmentation.evaluate_masks``, as are the next three.
        tolerance_mm: of the surface Dice.
        lesions: structures whose components are counted.
        min_iou: IoU of a lesion hit.
        config: replicates, confidence and seed.
        progress: called with (done, total).

    Raises:
        EvaluationError: see ``read_mask_table``, ``load_cases`` and ``segmentation.evaluate_masks``.

    Example:
        >>> evaluate_mask_table("masks.csv", out="result", structures={"liver": 1})  # doctest: +SKIP
    """
    rows = read_mask_table(table)
    evaluation = evaluate_masks(
        load_cases(rows, progress=progress),
        structures=structures,
        tolerance_mm=tolerance_mm,
        lesions=lesions,
        min_iou=min_iou,
        config=config,
    )
    write_mask_results(evaluation, out)
    return evaluation


def read_mask_table(path: str | Path) -> tuple[MaskRow, ...]:
    """Read and check a table; every file that it names must exist.

    Raises:
        EvaluationError: no such table, a column that is missing or stands twice, an id that is empty or stands twice,
            a file that is not there.
    """
    path = Path(path)
    header, body = _read_csv(path)
    for name in COLUMNS:
        if name not in header:
            raise EvaluationError(
                f"The column {name!r} is missing. {columns_present(header, name)}", path=path, key=name
            )
    places = [header.index(name) for name in COLUMNS]
    rows, seen = [], set[str]()
    for number, cells in enumerate(body):
        image_id, patient_id, truth, prediction = (cells[k].strip() for k in places)
        if not image_id or image_id in seen:
            problem = "stands twice" if image_id else "is empty"
            raise EvaluationError(
                f"Each row needs an image_id of its own. Received: one that {problem}.",
                path=path,
                row=number,
                key="image_id",
            )
        seen.add(image_id)
        rows.append(MaskRow(image_id, patient_id, path.parent / truth, path.parent / prediction))
    _check_files(rows, path)
    return tuple(rows)


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EvaluationError(
            f"Cannot read the table of masks: {error.strerror}. Give a CSV file with the columns {', '.join(COLUMNS)}.",
            path=path,
        ) from None
    except UnicodeDecodeError:
        raise EvaluationError("The table of masks is not UTF-8 text. Save it as CSV in UTF-8.", path=path) from None
    header, body = split_csv(text, path)
    if not body:
        raise EvaluationError("The table of masks is empty. Expected a header and one row for each case.", path=path)
    return header, body


def _check_files(rows: Sequence[MaskRow], path: Path) -> None:
    """Say at once what is missing, before an hour of work; a path may hold a name, so the row stands for it."""
    missing = [(k, name) for k, row in enumerate(rows) for name in ("truth", "prediction") if not _is_file(row, name)]
    if missing:
        row, name = missing[0]
        raise EvaluationError(
            f"{len(missing)} of {2 * len(rows)} files are not there, the first in the column {name!r}. Paths are "
            "relative to the table. Correct them, or leave these rows out.",
            path=path,
            row=row,
            key=name,
        )


def _is_file(row: MaskRow, name: str) -> bool:
    place: Path = getattr(row, name)
    return place.is_file()


def load_cases(
    rows: Sequence[MaskRow], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[MaskCase | Failure]:
    """Read one case after the other; geometry is the truth's.

    A file that cannot be read becomes a Failure with the reason code. A prediction without a spacing or orientation of
    its own (PNG, npz) is taken to lie on the truth's grid.

    Raises:
        EvaluationError: a colour image, values that are no whole numbers, or a prediction of another shape, spacing or
            orientation than its truth; with the row.
    """
    for number, row in enumerate(rows):
        try:
            yield _load(row)
        except EvaluationError as error:
            raise EvaluationError(str(error), row=number, key=error.key) from None
        if progress is not None:
            progress(number + 1, len(rows))


def _load(row: MaskRow) -> MaskCase | Failure:
    images = {}
    for name, path in (("truth", row.truth), ("prediction", row.prediction)):
        try:
            images[name] = read_image(path)
        except ReadError as error:
            return Failure(row.image_id, f"{name}: {error.reason}")
    labels = {name: _labels(image, name) for name, image in images.items()}
    truth, prediction = images["truth"], images["prediction"]
    # The shape first (MaskCase says it): a spacing of another number of axes would only confuse.
    case = MaskCase(row.image_id, labels["truth"], labels["prediction"], truth.spacing_mm, row.patient_id)
    if truth.spacing_mm is not None and prediction.spacing_mm is not None:
        _check_spacing(truth.spacing_mm, prediction.spacing_mm)
    ways = [image.facts.get("orientation") for image in (truth, prediction)]
    if None not in ways and ways[0] != ways[1]:
        raise EvaluationError(
            f"A prediction needs the orientation of its truth, {ways[0]}. Received: {ways[1]}. Reorient the "
            "prediction, or save it with the truth's affine.",
            key="prediction",
        )
    return case


def _labels(image: Image, name: str) -> npt.NDArray[np.int32]:
    if image.channels != 1:
        raise EvaluationError(
            f"Expected one value per voxel in a mask. Received: {image.channels} channels in the {name}. Save labels "
            "as grey values, not colours.",
            key=name,
        )
    values = image.pixels[0]
    labels: npt.NDArray[np.int32] = values.astype(np.int32)
    is_wrong = labels != values
    if is_wrong.any():
        raise EvaluationError(
            f"Expected whole numbers in a mask. Received: {float(values[is_wrong][0]):g} in the {name}, "
            f"{int(is_wrong.sum())} such voxels. Save labels, not probabilities or interpolated labels.",
            key=name,
        )
    return labels


def _check_spacing(truth: tuple[float, ...], prediction: tuple[float, ...]) -> None:
    if not np.allclose(truth, prediction, rtol=SPACING_TOLERANCE, atol=0.0):
        shown = [" x ".join(f"{step:g}" for step in spacing) for spacing in (truth, prediction)]
        raise EvaluationError(
            f"A prediction needs the spacing of its truth, {shown[0]} mm. Received: {shown[1]} mm. Resample the "
            "prediction to the truth's grid.",
            key="prediction",
        )


def write_mask_results(evaluation: SegmentationEvaluation, out: str | Path) -> Path:
    """Write ``cases.csv``, then ``figures.json``, both whole or not at all; return the path of ``figures.json``."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = [row.to_dict() for row in evaluation.cases]
    counted = [f"lesions_{name}" for name in ("lesions", "found", "candidates", "false")]
    columns = ["image_id", "patient_id", "structure", "status", *CASE_FIGURES]
    columns += [name for name in counted if any(name in row for row in rows)] + ["reason"]
    rows += [{"image_id": f.image_id, "status": "failed", "reason": f.reason} for f in evaluation.failures]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    write_atomic(out / "cases.csv", text.getvalue())
    write_atomic(out / "figures.json", json.dumps(evaluation.to_dict(), indent=1, allow_nan=False))
    return out / "figures.json"


def parse_structures(text: str) -> Mapping[str, tuple[int, ...]]:
    """Read ``anterior=1,posterior=2,whole=1+2``.

    Raises:
        EvaluationError: no name, no whole number, or a name that stands twice.

    Example:
        >>> parse_structures("core=2,whole=1+2")
        {'core': (2,), 'whole': (1, 2)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, _, values = (piece.strip() for piece in part.partition("="))
        numbers = [number.strip() for number in values.split("+")]
        if not name or name in found or not all(number.isascii() and number.isdigit() for number in numbers):
            raise EvaluationError(
                f"Expected structures as name=value, each name once, e.g. anterior=1,posterior=2,whole=1+2. "
                f"Received: {part.strip()!r}.",
                key="structures",
            )
        found[name] = tuple(dict.fromkeys(int(number) for number in numbers))
    return found
