"""Score rows of series, studies and patients, aggregated from the image shards at the end of a run.

Memory is bounded by ``ROWS_AT_ONCE`` rows, or by those of the largest series, study or patient, whatever the shards
hold: units are divided by a hash of their id into as many parts as that takes, and the shards are read once for each
part. Copies of an image, rows of one image id, count once. Images are joined in the order of their path ids, so that a
run that was killed and resumed gives the same bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from lepton_vision.errors import ScoringError, explain_os_error
from lepton_vision.files import atomic_file
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.aggregation import CASE_KEY, Aggregation, IntArray, Method, Unit, join_probabilities
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.readers.identity import original_id
from lepton_vision.scoring.rows import NOVELTY, Row, Values, case_schema, target_columns
from lepton_vision.types import Target
from lepton_vision.types.target import probability_names

ROWS_AT_ONCE = 200_000
UNITS: tuple[Unit, ...] = ("series", "study", "patient")
_FOLDER = "_cases"  # tools that read the folder of the shards as one table pass over such a name


@dataclass(frozen=True, slots=True)
class CaseRule:
    """Rule for the aggregation of a unit's images, and its threshold.

    Attributes:
        method: as the bundle declares it (``evaluation.aggregation``).
        point: chosen on validation for this unit; None where the bundle has none: such rows have no decisions.
        learnt: weights for the method "learnt".
    """

    method: Method
    point: OperatingPoint | None = None
    learnt: Aggregation | None = None


def case_rule(bundle: Bundle, unit: Unit) -> CaseRule | None:
    """Return how a bundle joins the images of a unit; None where it cannot: weights were learnt for another one."""
    kept = bundle.provenance.get(CASE_KEY)
    if kept is not None and kept["unit"] == unit:
        learnt = None if kept["learnt"] is None else Aggregation.from_dict(kept["learnt"])
        return CaseRule(kept["aggregation"], OperatingPoint.from_dict(kept["operating_point"]), learnt)
    method = bundle.config.evaluation.aggregation
    if method == "learnt" or (method == "noisy_or" and not all(target.is_yes_no for target in bundle.targets)):
        return None
    return CaseRule(method)


def remove_cases(folder: Path) -> None:
    """Remove the tables of an earlier run: further images belong into them."""
    for table in (folder / _FOLDER).glob("*.parquet"):
        with suppress(FileNotFoundError):
            table.unlink()


def write_cases(folder: Path, shards: Sequence[Path], *, schema: pa.Schema, bundle: Bundle) -> dict[str, int]:
    """Write ``_cases/series.parquet``, ``study.parquet`` and ``patient.parquet``, each whole or not at all.

    Args:
        folder: of the shards.
        shards: Parquet or CSV.
        schema: of the shards.
        bundle: that scored them.

    Returns:
        Rows by unit; a unit of which no image has an id, or that the bundle cannot join, is left out.

    Raises:
        ScoringError: the disk is full or the folder cannot be written.
    """
    if not bundle.targets or not shards:
        return {}
    counts, advice = {}, "Rows of images are safe; free space and resume."
    for unit in UNITS:
        rule = case_rule(bundle, unit)
        if rule is not None:
            with explain_os_error(f"write the rows of each {unit}", error=ScoringError, advice=advice, path=folder):
                counts[unit] = _write(folder / _FOLDER, _Shards(shards, schema), bundle, unit=unit, rule=rule)
    return {unit: count for unit, count in counts.items() if count}


class _Shards:
    """The rows of all shards that have probabilities, part by part."""

    def __init__(self, shards: Sequence[Path], schema: pa.Schema) -> None:
        is_csv = shards[0].suffix == ".csv"
        how = ds.CsvFileFormat() if is_csv else ds.ParquetFileFormat()
        self._dataset = ds.dataset([str(path) for path in shards], schema=schema, format=how)
        self._has_id = {unit: (ds.field(f"{unit}_id") != "") & (ds.field("status") == "ok") for unit in UNITS}

    def parts(self, unit: Unit, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows with an id of the unit, every unit in one part."""
        count = self._dataset.count_rows(filter=self._has_id[unit])
        parts = -(-count // ROWS_AT_ONCE)
        for part in range(parts):
            kept = [pa.table({name: pa.array([], self._dataset.schema.field(name).type) for name in columns})]
            batches = self._dataset.to_batches(columns=list(columns), filter=self._has_id[unit])
            kept += (_of_part(pa.table(batch), f"{unit}_id", part=part, parts=parts) for batch in batches)
            table = pa.concat_tables(kept).combine_chunks()
            if len(table):
                table = table.sort_by([(f"{unit}_id", "ascending"), ("path_id", "ascending"), ("frame", "ascending")])
                yield _without_copies(table, f"{unit}_id")


def _without_copies(table: pa.Table, column: str) -> pa.Table:
    """The first of the rows of one image in each unit: an image that was sent twice is no more evidence."""
    pairs = zip(table[column].to_pylist(), map(original_id, table["image_id"].to_pylist()), strict=True)
    first: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(pairs):
        first.setdefault(pair, row)
    return table if len(first) == len(table) else table.take(pa.array(first.values(), pa.int64()))


def _of_part(table: pa.Table, column: str, *, part: int, parts: int) -> pa.Table:
    if parts == 1 or not len(table):
        return table
    coded = pc.dictionary_encode(table[column].combine_chunks())
    is_mine = np.array([zlib.crc32(one.encode()) % parts == part for one in coded.dictionary.to_pylist()])
    return table.filter(pa.array(is_mine[coded.indices.to_numpy()]))


def _write(folder: Path, shards: _Shards, bundle: Bundle, *, unit: Unit, rule: CaseRule) -> int:
    """Write the table of one unit; return its rows."""
    has_novelty = bundle.novelty is not None
    schema = case_schema(bundle.targets, unit=unit, has_novelty=has_novelty)
    ids = [name for name in schema.names if name.endswith("_id") and name != "bundle_id"]
    names = [name for target in bundle.targets for name in probability_names(target)]
    columns = [*ids, "image_id", "path_id", "frame", *names, *([NOVELTY[1]] if has_novelty else [])]
    written, parts = 0, shards.parts(unit, columns)
    first = next(parts, None)
    if first is None:
        return 0
    folder.mkdir(exist_ok=True)
    with atomic_file(folder / f"{unit}.parquet") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        part: pa.Table | None = first
        while part is not None:
            rows = _join(part, bundle, ids=ids, rule=rule)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            written, part = written + len(rows), next(parts, None)
    return written


def _join(table: pa.Table, bundle: Bundle, *, ids: Sequence[str], rule: CaseRule) -> list[Row]:
    """One row for each value of the first id; ``table`` is sorted by it."""
    own = table[ids[0]].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
    counts = np.diff([*starts, len(own)])
    which = np.repeat(np.arange(starts.size), counts)
    joined = {target.name: _probabilities(table, target, which=which, rule=rule) for target in bundle.targets}
    above = {name: _shared(table[name].to_pylist(), which, units=starts.size) for name in ids}
    novelty = _largest(table, which, units=starts.size) if NOVELTY[1] in table.column_names else None
    rows = []
    for number, count in enumerate(counts.tolist()):
        values: Values = {name: np.atleast_1d(array[number]) for name, array in joined.items()}
        row: Row = {name: shared[number] for name, shared in above.items()} | {"images": count}
        row |= target_columns(values, bundle.targets, point=rule.point)
        row |= {} if novelty is None else {NOVELTY[1]: novelty[number]}
        rows.append(row | {"aggregation": rule.method, "bundle_id": bundle.bundle_id})
    return rows


def _probabilities(table: pa.Table, target: Target, *, which: IntArray, rule: CaseRule) -> Any:
    columns = [table[name].to_numpy().astype(np.float64) for name in probability_names(target)]
    prob = columns[0] if target.is_single else np.column_stack(columns)
    weights = {} if rule.learnt is None else rule.learnt.weights
    return join_probabilities(prob, which, target, method=rule.method, weights=weights)


def _shared(values: list[str | None], which: IntArray, *, units: int) -> list[str | None]:
    """Value of each unit; None where its images differ (a study of two patients is an error of the headers)."""
    found: list[set[str | None]] = [set() for _ in range(units)]
    for value, unit in zip(values, which.tolist(), strict=True):
        found[unit].add(value)
    return [next(iter(one)) if len(one) == 1 else None for one in found]


def _largest(table: pa.Table, which: IntArray, *, units: int) -> list[float | None]:
    values = table[NOVELTY[1]].to_numpy().astype(np.float64)
    most = np.full(units, -np.inf)
    np.maximum.at(most, which, np.where(np.isnan(values), -np.inf, values))
    return [float(value) if np.isfinite(value) else None for value in most]
