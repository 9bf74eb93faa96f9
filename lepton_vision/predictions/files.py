"""Prediction files in CSV and Parquet, ours and other tools'."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import EvaluationError, explain_os_error
from lepton_vision.files import atomic_file, csv_bytes, guarded, sidecar, unguarded, write_atomic
from lepton_vision.predictions.cells import TextArray, as_text
from lepton_vision.predictions.column_names import (
    Columns,
    columns_present,
    held_names,
    names_in_file,
    names_of,
    renamed,
)
from lepton_vision.predictions.label_words import TRUTH, expected_labels, label_of, words_of
from lepton_vision.predictions.table_facts import (
    ID_KEY,
    key_of,
    parse_facts,
    preprocess_of,
    targets_of,
)
from lepton_vision.types import FloatArray, SampleAddress, Target
from lepton_vision.types.words import is_unknown

_METADATA_KEY = b"lepton_vision_predictions"
_BLOCK = 1000  # rows of a CSV that are text at once
_SUFFIXES = (".csv", ".parquet")


def save_table(
    path: str | Path, columns: Columns, *, facts: Mapping[str, Any], addresses: Sequence[SampleAddress] | None
) -> Path:
    """Write a table beside ``path`` and rename it there, so that a reader never sees half of it."""
    path = Path(path)
    is_parquet = check_suffix(path) == ".parquet"
    content = _parquet_bytes(columns, facts=facts, addresses=addresses) if is_parquet else _csv_bytes(columns)
    advice = "Nothing was left behind; choose another folder."
    with explain_os_error("write the predictions", error=EvaluationError, advice=advice, path=path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, private=is_parquet and addresses is not None) as file:  # paths may hold names
            file.write(content)
            if not is_parquet:
                file.flush()
                os.fsync(file.fileno())  # what is left to do is two renames: both files are written, or neither
                write_atomic(sidecar(path), json.dumps(facts, indent=1))
    return path


def load_fields(
    path: str | Path, *, targets: Sequence[Target] | None, columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read a table, checked column by column: what ``Predictions`` is made of. See ``naming_table`` for its errors."""
    found, facts = read_columns(path)
    table = renamed(found, columns, targets=targets or targets_of(facts))
    return fields_of(table, facts, targets=targets, theirs=names_in_file(table, found))


@contextlib.contextmanager
def naming_table(path: str | Path) -> Iterator[None]:
    """Add the table to the errors about it."""
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(str(error), path=path, row=error.row, key=error.key) from None


def read_columns(path: str | Path) -> tuple[Columns, dict[str, Any]]:
    """Cells by column, and our facts about the whole table; both as they stand in the file."""
    path = Path(path)
    check_suffix(path)
    try:
        columns, facts = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        return columns, facts | {ID_KEY: key_of(facts, path)}
    except OSError as error:
        raise EvaluationError(
            f"Cannot read the predictions: {error.strerror or 'no valid file'}. Give a CSV or Parquet file.", path=path
        ) from None


def check_suffix(path: Path) -> str:
    """Return the suffix of a file that can hold predictions."""
    if path.suffix not in _SUFFIXES:
        raise EvaluationError(
            f"Predictions are kept in .csv or .parquet files. Received: {path.suffix or 'no suffix'!r}.", path=path
        )
    return path.suffix


def _csv_bytes(columns: Columns) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180; with "\n" alone a bare "\r" in an id is not quoted
    writer.writerow(guarded(name) for name in columns)
    writer.writerows(zip(*([csv_cell(value) for value in values] for values in columns.values()), strict=True))
    return csv_bytes(text.getvalue())


def csv_cell(value: Any) -> str:
    """Text of a cell: empty where unknown; every float comes back bit for bit, and no text is a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(float(value))  # the shortest text that reads back exactly
    return guarded(value) if isinstance(value, str) else str(value)


def _parquet_bytes(columns: Columns, *, facts: Mapping[str, Any], addresses: Sequence[SampleAddress] | None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = ("image_id", "patient_id", "series_id", "study_id", "split", "path", "member", "repair")
    if addresses is not None:
        columns = columns | {
            "path": [address.path.as_posix() for address in addresses],
            "member": [address.member for address in addresses],
            "frame": [address.frame for address in addresses],
        }
        if any(address.repair for address in addresses):
            columns = columns | {"repair": [address.repair or None for address in addresses]}
    types = {name: pa.string() if name in text else pa.int64() if name == "frame" else pa.float64() for name in columns}
    arrays = [pa.array(values, type=types[name]) for name, values in columns.items()]
    table = pa.table(arrays, names=list(columns))
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(facts).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _read_csv(path: Path) -> tuple[Columns, dict[str, Any]]:
    beside, facts = sidecar(path), dict[str, Any]()
    if beside.is_file():
        facts = parse_facts(beside.read_bytes().decode("utf-8", errors="replace"), path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            while first.startswith("#"):  # as tables of before began, and some of other tools do
                facts = parse_facts(first[1:], path) or facts
                first = file.readline()
            rows = _csv_rows(itertools.chain([first], file), path)
            header = [unguarded(name) for name in next(rows, [])]
            columns = _gathered(rows, header)
    except UnicodeDecodeError:
        raise EvaluationError(
            "The predictions are not UTF-8 text. Save the table as CSV in UTF-8.", path=path
        ) from None
    if not header:
        raise EvaluationError("The predictions are empty. Expected a header and one row for each image.", path=path)
    targets = targets_of(facts)
    named = {name for target in targets for part in names_of(target, len(targets) == 1) for name in part}
    if beside.is_file() and named - set(header):
        raise EvaluationError(
            f"{beside.name} beside the table tells of columns that the table does not have, so it belongs to another "
            "one. Remove it.",
            path=path,
        )
    return columns, facts


def _gathered(rows: Iterator[list[str]], header: Sequence[str]) -> Columns:
    """Cells by column; probabilities become numbers block by block, as text takes ten times the memory."""
    parts: dict[str, list[Any]] = {name: [] for name in header}
    while block := list(itertools.islice(rows, _BLOCK)):
        for name, cells in zip(header, zip(*block, strict=True), strict=True):
            parts[name].append(_as_numbers(cells) if name.startswith(("y_prob", "y_value")) else cells)
    return {
        name: np.concatenate(several)
        if several and all(isinstance(one, np.ndarray) for one in several)
        else [unguarded(cell) if isinstance(cell, str) else cell for one in several for cell in one]
        for name, several in parts.items()
    }


def _as_numbers(cells: Sequence[str]) -> FloatArray | Sequence[str]:
    """The cells as float64; as they are where one is no number, which is judged later."""
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return cells


def split_csv(text: str, path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table, checked to fit each other; both are empty where there is no line.

    Raises:
        EvaluationError: no CSV, a column that stands twice, or a row of another length than the header.
    """
    rows = _csv_rows(io.StringIO(text, newline=""), path)
    return next(rows, []), list(rows)


def _csv_rows(lines: Iterable[str], path: Path) -> Iterator[list[str]]:
    """The header and then the rows, checked to fit it."""
    first = next(several := iter(lines), "")
    separator = "," if "," in first else max(",;\t", key=first.count)  # with ";" or tabs as some spreadsheets write it
    rows = (row for row in csv.reader(itertools.chain([first], several), delimiter=separator) if row)
    header = list[str]()
    try:
        for number, row in enumerate(rows, start=-1):
            if number < 0:
                header = [name.strip() for name in row]
                if len(set(header)) != len(header):
                    raise EvaluationError("The header names a column twice. Remove one of them.", path=path)
            elif len(row) != len(header):
                raise EvaluationError(
                    f"Row {number} (from 0) has {len(row)} cells, the header {len(header)}. Correct the table.",
                    path=path,
                    row=number,
                )
            yield row if number >= 0 else header
    except csv.Error as error:
        raise EvaluationError(f"The table is no CSV ({error}). Save it again, with quotes closed.", path=path) from None


def _read_parquet(path: Path) -> tuple[Columns, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        raise EvaluationError("The predictions are no valid Parquet file. Write them again.", path=path) from None
    content = (table.schema.metadata or {}).get(_METADATA_KEY)
    facts = {} if content is None else parse_facts(content.decode(), path)
    columns = {
        name: table[name].to_numpy() if pa.types.is_floating(table[name].type) else table[name].to_pylist()
        for name in table.column_names
    }
    return columns, facts


def fields_of(
    columns: Columns, facts: Mapping[str, Any], *, targets: Sequence[Target] | None, theirs: Mapping[str, str]
) -> dict[str, Any]:
    """Fields of ``Predictions`` from columns that have our names, checked one by one; ``theirs``: for messages."""
    image_id = as_text(_column(columns, "image_id", theirs))
    if "patient_id" not in columns:
        raise EvaluationError(
            "The column 'patient_id' is missing: intervals need to know which images are of one patient. "
            f"{columns_present(_in_file(columns, theirs), 'patient_id')} "
            "With one image for each patient, copy image_id to patient_id.",
            key="patient_id",
        )
    found = tuple(targets_of(facts) if targets is None else targets) or infer_targets(columns)
    y_true, y_prob = {}, {}
    for target in found:
        names = held_names(target, columns, is_only=len(found) == 1)
        true, prob = (
            np.column_stack([_numbers(columns, one, target, theirs=theirs) for one in part]) for part in names
        )
        y_true[target.name] = true.reshape(target.label_shape(len(true)))
        y_prob[target.name] = prob.reshape(target.output_shape(len(prob)))
    return {
        "targets": found,
        "image_id": image_id,
        "patient_id": _ids(columns["patient_id"]),
        "series_id": _ids(columns.get("series_id", [""] * image_id.size)),
        "y_true": y_true,
        "y_prob": y_prob,
        "split": _split(columns, facts),
        "bundle_id": facts.get("bundle_id"),
        "addresses": _addresses(columns),
        "preprocess": preprocess_of(facts),
        "failures": facts.get("failures", ()),
        "study_id": _ids(columns["study_id"]) if "study_id" in columns else None,
        "patient_known": _numbers(columns, "patient_known", theirs=theirs) == 1 if "patient_known" in columns else None,
        "id_key": facts.get(ID_KEY, ""),
    }


def infer_targets(columns: Columns) -> tuple[Target, ...]:
    """Read the targets from the column names of another tool's table."""
    found = []
    for name in (name.removeprefix("y_true_") for name in columns if name.startswith("y_true_")):
        if f"y_value_{name}" in columns:
            found.append(Target(name, "regression"))
            continue
        prefix = f"y_prob_{name}_"
        classes = tuple(column.removeprefix(prefix) for column in columns if column.startswith(prefix))
        if f"y_prob_{name}" in columns or not classes:
            found.append(Target(name, "binary", ("0", "1")))
        else:
            found.append(Target(name, "multiclass", classes))
    classes = tuple(column.removeprefix("y_prob_") for column in columns if column.startswith("y_prob_"))
    if not found and "y_prob" not in columns and len(classes) > 1:
        return (Target("y", "multiclass", classes),)
    is_number = "y_value" in columns and "y_prob" not in columns
    return tuple(found) or (Target("y", "regression") if is_number else Target("y", "binary", ("0", "1")),)


def _in_file(columns: Columns, theirs: Mapping[str, str]) -> list[str]:
    return [theirs[name] for name in columns if name in theirs]


def _column(columns: Columns, name: str, theirs: Mapping[str, str]) -> Any:
    if name not in columns:
        output = "y_value" if name.startswith("y_value") else "y_prob"
        is_open = name.startswith("y_prob") or (name == "y_true" and "y_value" not in columns)
        number = " If a number is predicted, add --target kind=regression." if is_open else ""
        raise EvaluationError(
            f"The column {name!r} is missing. {columns_present(_in_file(columns, theirs), name)} Expected image_id, "
            f"patient_id, y_true and {output}. Say which column it is: --columns {name}=COLUMN (columns= in "
            f"Python).{number}",
            key=name,
        )
    return columns[name]


def _ids(values: Any) -> TextArray:
    """What groups samples, as text; "" for a blank, or a word for the unknown, which is no patient of many images."""
    names, places = np.unique(as_text(values), return_inverse=True)
    known: TextArray = np.array(["" if is_unknown(str(name)) else str(name) for name in names], dtype=names.dtype)
    return known[places]


def _numbers(columns: Columns, name: str, target: Target | None = None, *, theirs: Mapping[str, str]) -> FloatArray:
    """Turn a column into float64; an unknown label is NaN, an unknown probability is refused later as NaN."""
    words = TRUTH if target is None else words_of(target)
    values = _column(columns, name, theirs)
    if isinstance(values, np.ndarray):
        return np.asarray(values, dtype=np.float64)
    numbers = np.empty(len(values), dtype=np.float64)
    for row, value in enumerate(values):
        is_word = isinstance(value, str) and name.startswith("y_true")
        is_class = is_word and value.strip() in words  # "none" may be a grade
        is_empty = value is None or (isinstance(value, str) and is_unknown(value) and not is_class)
        try:
            numbers[row] = math.nan if is_empty else float(label_of(value, words) if is_word else value)
        except (TypeError, ValueError):
            raise EvaluationError(
                f"The column {theirs.get(name, name)!r} needs numbers. Received text in row {row} (from 0). "
                f"{expected_labels(target if is_word else None, values)}",
                row=row,
                key=name,
            ) from None
    return numbers


def _split(columns: Columns, facts: Mapping[str, Any]) -> str | None:
    values = sorted({str(value) for value in columns.get("split", ()) if value not in (None, "")})
    if len(values) > 1:
        raise EvaluationError(
            f"The rows are of different splits: {', '.join(values)}. Evaluate each split by itself.", key="split"
        )
    split: str | None = values[0] if values else facts.get("split")
    return split


def _addresses(columns: Columns) -> tuple[SampleAddress, ...] | None:
    if "path" not in columns or "member" not in columns or "frame" not in columns:
        return None
    repairs = columns.get("repair", [None] * len(columns["path"]))  # tables of before have none
    rows = zip(columns["path"], columns["member"], columns["frame"], repairs, strict=True)
    return tuple(
        SampleAddress(Path(path), member or None, None if frame in (None, "") else int(frame), repair or "")
        for path, member, frame, repair in rows
        if path
    )
