"""Join of a label table with the scanned files: by path, UID, pseudonymous image id or patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from lepton_vision.errors import LabelTableError
from lepton_vision.manifest.key_columns import KEYS, KeyColumn, match_key, near_misses
from lepton_vision.manifest.lost_labels import describe_lost_rows
from lepton_vision.manifest.other_columns import findings_of, is_other_column, left_out
from lepton_vision.manifest.patients import id_text, is_identifier, plain_name, pseudonymous
from lepton_vision.manifest.schema import COLUMNS, FACT_COLUMNS, objects, plain_column
from lepton_vision.types.words import UNKNOWN_WORDS, is_unknown, without

_MASKS: Final = frozenset({"mask", "maskpath", "maskfile", "segmentation", "segmentationpath", "segmentationfile"})
# Never copied into a manifest.
_PRIVATE: Final = frozenset(
    {"patientname", "patientsname", "patientbirthdate", "patientbirth", "birthdate", "dateofbirth", "dob"}
    | {"accessionnumber"}
)
SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SITES: Final = ("site", "institution", "institutionname", "hospital", "hospitalname", "center", "centre", "clinic")
_OVERRIDES: Final = ("split", "fold", *FACT_COLUMNS)


@dataclass(frozen=True)
class Joined:
    """A manifest table with its labels.

    Attributes:
        frame: the files' rows with the columns of the label table.
        label_columns: the columns that came from the label table as they were.
        unmatched: rows of the label table that matched no file.
        note: the same as a sentence; "" where every row did.
        unnamed: ids of images that no row names.
    """

    frame: pd.DataFrame
    label_columns: tuple[str, ...]
    unmatched: int
    note: str
    unnamed: frozenset[str]


def join_labels(
    frame: pd.DataFrame,
    *,
    base_ids: Sequence[str],
    table: pd.DataFrame,
    root: Path,
    patient_from: str | None = None,
) -> Joined:
    """Add the columns of a label table to the rows that its key names.

    ``patient_id`` of the table replaces that of the files (as a pseudonym), as do ``split``, ``fold`` and header facts
    (``site``, ``sex`` …); ``modality`` only where a file says none, and ``frame``, from 0, says which image of a file
    of several is meant. ``mask`` names the file of a mask (see ``masks``). UID columns that are not the key, and
    columns that name a person, are left out; columns named as a patient's number (``mrn``, ``case_id`` …) are kept as
    pseudonyms and are no labels. Columns of facts (age, view, an index …, see ``spare``) are joined and are no labels
    either; columns without a name and those of boxes are left out. Cells such as "mass|cyst" become a column of 0 and 1
    for each finding. Every other column is joined as it is and counts as a label column. Rows without a match have
    nulls: unknown.

    Args:
        frame: conformed rows of the files.
        base_ids: (N,) ids of the files, without frame.
        table: the label table as ``label_files.read_table`` gives it.
        root: folder of the scan.
        patient_from: column that holds the patients, whatever it is called.

    Raises:
        LabelTableError: no key column, columns of patients that disagree, an ambiguous file name, contradicting rows
            for one key, an unknown split, or not one match.
    """
    match = match_key(table, frame=frame, base_ids=base_ids, root=root, patient_from=patient_from)
    carried, spare = _carried(table, key=match.key, patient_from=patient_from)
    rows = _of_frames(table, match.rows, frame=frame)
    chosen = _one_row_each(carried.drop(columns=list(spare)), rows, key=match.key.name)
    lost = [row for row, places in enumerate(rows) if not places]
    joined, labels = _attach(frame, carried, chosen=chosen)
    is_unnamed = np.ones(len(frame), dtype=bool)
    is_unnamed[list(chosen)] = False
    near = near_misses(list(table[match.key.name].iloc[lost]), list(frame["path"])) if match.key.kind == "path" else {}
    return Joined(
        joined,
        tuple(name for name in labels if name not in spare),
        len(lost),
        describe_lost_rows(lost, rows=len(table), near=near, key=match.key.name),
        frozenset(frame.loc[is_unnamed, "image_id"].dropna()),
    )


def _of_frames(table: pd.DataFrame, rows: list[list[int]], *, frame: pd.DataFrame) -> list[list[int]]:
    """The rows that a column ``frame`` leaves of files with several images; of other files it says nothing.

    Raises:
        LabelTableError: a frame that a file does not have, as where frames are counted from 1.
    """
    if "frame" not in table.columns or frame["frame"].isna().all():
        return rows
    own, kept = objects(frame["frame"]), []
    for row, (places, value) in enumerate(zip(rows, table["frame"], strict=True)):
        frames = [place for place in places if own[place] is not None]
        wanted = [place for place in frames if id_text(value) == str(own[place])]
        if frames and not is_unknown(value) and not wanted:
            raise LabelTableError(
                f"Row {row} of the label table names frame {id_text(value)[:20]} of a file with {len(frames)} usable "
                "frames. Expected their numbers from 0 in the column 'frame'; rename it where it says something else.",
                row=row,
                key="frame",
            )
        kept.append(wanted or places)
    return kept


def _carried(table: pd.DataFrame, *, key: KeyColumn, patient_from: str | None) -> tuple[pd.DataFrame, set[str]]:
    """Columns that go into the manifest, under the manifest's names, and those of them that are no labels."""
    columns: dict[str, Any] = {}
    spare: set[str] = set()
    patients = _patient_column(table) if patient_from is None else patient_from
    dropped = left_out([str(name) for name in table.columns])
    never = _PRIVATE.union(*KEYS.values())
    sites = [name for name in map(str, table.columns) if plain_name(name) in _SITES]
    if len(sites) == 1:  # named as the table names them; sites of headers are pseudonyms
        columns["site"] = without(table[sites[0]], UNKNOWN_WORDS)
    for name in map(str, table.columns):
        plain = plain_name(name)
        if name == patients and key != ("patient", name):
            columns["patient_id"] = pseudonymous(table[name])
        elif name in dropped or name == key.name or plain in never:
            continue
        elif plain in _MASKS:
            if "mask_path" in columns:
                raise LabelTableError("The label table names masks in two columns. Keep one.", key=str(name))
            columns["mask_path"] = table[name]
        elif plain == "split":
            columns["split"] = [_split(value) for value in table[name]]
        elif name in _OVERRIDES or name == "modality":
            columns[name] = without(table[name], UNKNOWN_WORDS)
        elif name in COLUMNS:
            raise LabelTableError(
                f"The column {name!r} of the label table has the name of a manifest column. Rename it.", key=name
            )
        elif is_identifier(name):  # kept so that patients can be named by it later
            columns[name] = plain_column(pd.Series(pseudonymous(table[name]), dtype=object))
            spare.add(name)
        elif is_other_column(name) or plain in _SITES:
            columns[name] = plain_column(without(table[name], UNKNOWN_WORDS))
            spare.add(name)
        else:
            columns[name] = plain_column(table[name])
            findings = findings_of(table[name])
            if findings and not set(findings) & {*table.columns, *columns}:
                columns |= findings
                spare.add(name)
    return pd.DataFrame(columns, index=table.index), spare


def _patient_column(table: pd.DataFrame) -> str | None:
    """The column that is named as patients are; of several, the first one where they tell the same patients apart."""
    names = [str(name) for name in table.columns if plain_name(name) in KEYS["patient"]]
    groups = {tuple(pd.factorize(table[name].map(id_text))[0]) for name in names}
    if len(groups) > 1:
        raise LabelTableError(
            f"The label table names patients in several columns that do not agree: {names}. Say which one counts with "
            "--patient-from (Python: patient_from), or keep one.",
            key=names[1],
        )
    return names[0] if names else None


def _split(value: Any) -> str | None:
    text = id_text(value).lower()
    if is_unknown(text):
        return None
    if text not in SPLIT_WORDS:
        raise LabelTableError(
            f"The column split of the label table holds {text[:40]!r}. Expected train, val or test "
            "(or training, valid, validate, validation, testing), or nothing.",
            key="split",
        )
    return SPLIT_WORDS[text]


def _one_row_each(carried: pd.DataFrame, targets: Sequence[Sequence[int]], *, key: str) -> dict[int, int]:
    """Row of the label table for each named row of the manifest; repeated rows must say the same."""
    texts = (
        carried.astype(object).where(carried.notna(), None).apply(tuple, axis=1).tolist()
        if len(carried.columns)
        else []
    )
    chosen: dict[int, int] = {}
    conflicts: list[int] = []
    for row, places in enumerate(targets):
        for place in places:
            before = chosen.setdefault(place, row)
            if before != row and texts and texts[before] != texts[row]:
                conflicts.append(row)
    if conflicts:
        raise LabelTableError(
            f"{len(set(conflicts))} rows of the label table repeat a key of the column {key!r} with other values, the "
            f"first is row {conflicts[0]}. Expected one row for each {key}, or equal ones. Remove the wrong rows; a "
            "table with a row for each finding needs a column for each finding in its place.",
            row=conflicts[0],
            key=key,
        )
    return chosen


def _attach(
    frame: pd.DataFrame, carried: pd.DataFrame, *, chosen: dict[int, int]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Put the chosen rows' values into the manifest rows; the names of the columns that are new."""
    positions = np.full(len(frame), -1, dtype=np.int64)
    positions[list(chosen)] = list(chosen.values())
    is_chosen = positions >= 0
    aligned = carried.iloc[np.maximum(positions, 0)].reset_index(drop=True)
    aligned = aligned.mask(pd.Series(~is_chosen), axis=0)
    result = frame.copy()
    labels: dict[str, Any] = {}
    for name in carried.columns:
        if name in COLUMNS:
            given = aligned[name].notna() & (result[name].isna() if name == "modality" else True)
            values = result[name].astype(object)
            values[given] = aligned.loc[given, name].astype(object)
            result[name] = values
            if name == "patient_id":
                result["patient_known"] = result["patient_known"].fillna(False).astype(bool) | given
        else:
            labels[name] = plain_column(aligned[name])
    result = pd.concat([result, pd.DataFrame(labels, index=result.index)], axis=1)
    return result, tuple(labels)
