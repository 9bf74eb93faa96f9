"""Evaluation of the mask files that a CSV table lists: figures and a table of cases."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.case import CASE_FIGURES, CaseFigures
from lepton_vision.evaluation.masks.evaluation import (
    SegmentationEvaluation,
    Structures,
    check_occurrence,
    evaluate_masks,
)
from lepton_vision.evaluation.masks.files import MaskRow, load_cases
from lepton_vision.files import csv_bytes, write_atomic
from lepton_vision.predictions.column_names import columns_present
from lepton_vision.predictions.files import csv_cell, split_csv
from lepton_vision.types.words import is_unknown

COLUMNS = ("image_id", "patient_id", "truth", "prediction")
IMAGE_COLUMN = "image"  # may be left out: the evaluation does not need it, pictures do
VOLUME_COLUMN = "volume_id"  # may be left out: names the volume that a 2-D case is a slice of


def evaluate_mask_table(
    table: str | Path,
    *,
    out: str | Path,
    structures: Structures,
    tolerance_mm: float = 1.0,
    lesions: Sequence[str] = (),
    min_iou: float = 0.0,
    unknown: int | None = None,
    config: EvaluationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationEvaluation:
    """Evaluate the files named in a table, and write ``cases.csv`` and ``figures.json`` into ``out``.

    Args:
        table: CSV with the columns image_id, patient_id, truth and prediction; paths relative to the table. Files are
            what ``read_mask`` reads (an npz file holds one array (1, H, W) or (1, D, H, W)). A column ``image`` may
            name the image of each case (a file, or the folder of a DICOM series), a column ``volume_id`` the volume
            that it is a slice of; a cell of them may be blank, or a word for the unknown ("NULL"), as patient_id may.
        out: folder; made when everything is computed.
        structures: see ``evaluation.evaluate_masks``, as are the next three.
        tolerance_mm: of the surface Dice.
        lesions: structures whose components are counted.
        min_iou: IoU of a lesion hit.
        unknown: value of the truth where nobody knows what is there: such voxels count neither for nor against. None:
            no value says so.
        config: replicates, confidence, seed and ``surface_area``.
        progress: called with (done, total).

    Raises:
        EvaluationError: ``unknown`` is a value of a structure, or 0; see ``read_mask_table``,
            ``files.load_cases``, ``evaluation.evaluate_masks`` and ``evaluation.check_occurrence``.

    Example:
        >>> evaluate_mask_table("masks.csv", out="result", structures={"liver": 1})  # doctest: +SKIP
    """
    values = {value for group in structures.values() for value in ([group] if isinstance(group, int) else group)}
    if unknown is not None and unknown in {0, *values}:
        raise EvaluationError(
            f"Expected a value of no structure for what is unknown, and not 0. Received: {unknown}.", key="unknown"
        )
    rows = read_mask_table(table)
    evaluation = evaluate_masks(
        load_cases(rows, unknown=unknown, progress=progress),
        structures=structures,
        tolerance_mm=tolerance_mm,
        lesions=lesions,
        min_iou=min_iou,
        config=config,
    )
    check_occurrence(evaluation)
    if unknown is not None:
        evaluation = replace(evaluation, provenance={**evaluation.provenance, "unknown": unknown})
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
        image, volume = (cells[header.index(k)].strip() if k in header else "" for k in (IMAGE_COLUMN, VOLUME_COLUMN))
        patient_id, image, volume = ("" if is_unknown(text) else text for text in (patient_id, image, volume))
        files = path.parent / truth, path.parent / prediction, path.parent / image if image else None
        rows.append(MaskRow(image_id, patient_id, *files, volume))
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
    named = [(k, name, place) for k, row in enumerate(rows) for name, place in row.files().items()]
    missing = [(k, name) for k, name, place in named if not (place.is_file() or (name == "image" and place.is_dir()))]
    if missing:
        row, name = missing[0]
        raise EvaluationError(
            f"{len(missing)} of {len(named)} files are not there, the first in the column {name!r}. Paths are "
            "relative to the table. Correct them, or leave these rows out.",
            path=path,
            row=row,
            key=name,
        )


def write_mask_results(
    evaluation: SegmentationEvaluation, out: str | Path, *, further: Mapping[str, Any] | None = None
) -> Path:
    """Write ``cases.csv``, ``volumes.csv`` where the cases are slices of volumes, and ``figures.json`` last.

    Each is there whole or not at all.

    Args:
        evaluation: of ``evaluate_masks``.
        out: folder.
        further: plain values that stand in ``figures.json`` beside the evaluation's own.

    Returns:
        The path of ``figures.json``.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    failed = [{"image_id": f.image_id, "status": "failed", "reason": f.reason} for f in evaluation.failures]
    _write_cases(out / "cases.csv", [row.to_dict() for row in evaluation.cases] + failed)
    if evaluation.by_volume is not None:
        _write_cases(out / "volumes.csv", [_volume_row(row) for row in evaluation.by_volume.cases])
    figures = evaluation.to_dict() | dict(further or {})
    write_atomic(out / "figures.json", json.dumps(figures, indent=1, allow_nan=False))
    return out / "figures.json"


def _volume_row(row: CaseFigures) -> dict[str, Any]:
    """One row of ``volumes.csv``: what was counted, beside the figures."""
    counts = {f"voxels_{name}": count for name, count in row.figures.voxels._asdict().items()}
    return row.to_dict() | counts


def _write_cases(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; columns that no row has are left out, but for those that every table has."""
    further = ["surface_dice_area", "lesions_lesions", "lesions_found", "lesions_candidates", "lesions_false"]
    further += ["voxels_shared", "voxels_truth", "voxels_prediction"]
    found = [name for name in ("volume_id", *further) if any(name in row for row in rows)]
    columns = ["image_id", "patient_id", *found[: "volume_id" in found], "structure", "status", *CASE_FIGURES]
    columns += [*found["volume_id" in found :], "reason"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    write_atomic(path, csv_bytes(text.getvalue()))


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
