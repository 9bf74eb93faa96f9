"""A label table joined to the scanned files: by path, UID, pseudonymous image id or patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd

from lepton_vision.errors import ManifestError
from lepton_vision.manifest.patients import id_text, is_identifier, plain_name, pseudonymous
from lepton_vision.manifest.schema import COLUMNS, FACT_COLUMNS, plain_column
from lepton_vision.readers.identity import pseudonym

# Spellings of key columns, without case, blanks, "_" and "-". The first kind that is there joins.
KEYS: Final[dict[str, frozenset[str]]] = {
    "path": frozenset(
        {"path", "file", "filename", "filepath", "relativepath", "image", "imagepath", "imagefile", "imagename"}
    ),
    "image": frozenset({"sopinstanceuid", "sopuid", "instanceuid"}),
    "image_id": frozenset({"imageid"}),
    "series": frozenset({"seriesinstanceuid", "seriesuid"}),
    "study": frozenset({"studyinstanceuid", "studyuid"}),
    "patient": frozenset({"patientid", "patient", "subjectid", "subject"}),
}
_MASKS: Final = frozenset({"mask", "maskpath", "maskfile", "segmentation", "segmentationpath", "segmentationfile"})
# Never copied into a manifest.
_PRIVATE: Final = frozenset(
    {"patientname", "patientsname", "patientbirthdate", "birthdate", "dateofbirth", "dob", "accessionnumber"}
)
SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_OVERRIDES: Final = ("split", "fold", *FACT_COLUMNS)


@dataclass(frozen=True)
class Joined:
    """A manifest table with its labels.

    Attributes:
        frame: the files' rows with the columns of the label table.
        label_columns: the columns that came from the label table as they were.
        unmatched: rows of the label table that matched no file.
    """

    frame: pd.DataFrame
    label_columns: tuple[str, ...]
    unmatched: int


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
    (``site``, ``sex`` …); ``mask`` names the file of a mask (see ``masks``). UID columns that are not the key, and
    columns that name a person, are left out; columns named as a patient's number (``mrn``, ``case_id`` …) are kept as
    pseudonyms and are no labels. Every other column is joined as it is and counts as a label column. Rows without a
    match have nulls: unknown.

    Args:
        frame: conformed rows of the files.
        base_ids: (N,) ids of the files, without frame.
        table: the label table as ``tables.read_table`` gives it.
        root: folder of the scan.
        patient_from: column that holds the patients, whatever it is called.

    Raises:
        ManifestError: no key column, columns of patients that disagree, an ambiguous file name, contradicting rows for
            one key, an unknown split, or not one match.
    """
    kind, key = find_key(table.columns, patient_from=patient_from)
    carried = _carried(table, kind=kind, key=key, patient_from=patient_from)
    targets = _targets(frame, base_ids=base_ids, kind=kind, values=table[key], root=root)
    is_matched = np.asarray([bool(len(rows)) for rows in targets])
    if not is_matched.any():
        raise ManifestError(
            f"None of the {len(table)} rows of the label table matches a file by the column {key!r}. Expected "
            f"{_EXPECTED[kind]}. Correct that column, or scan the folder that the table belongs to.",
            key=key,
        )
    chosen = _one_row_each(carried, targets, key=key)
    return _attach(frame, carried, chosen=chosen, unmatched=int((~is_matched).sum()))


_EXPECTED: Final = {
    "path": "paths relative to the scanned folder, or file names that occur once",
    "image": "SOP Instance UIDs as in the DICOM headers",
    "image_id": "ids of a manifest made with the same key, or file names without suffix",
    "series": "Series Instance UIDs as in the DICOM headers",
    "study": "Study Instance UIDs as in the DICOM headers",
    "patient": "patient ids as in the DICOM headers",
}


def find_key(columns: Sequence[Any] | pd.Index[Any], *, patient_from: str | None = None) -> tuple[str, str]:
    """Kind and name of the key column; that of the patients, where ``patient_from`` names it, only without another.

    Raises:
        ManifestError: none, or two of the same kind.
    """
    for kind, spellings in KEYS.items():
        found = [str(column) for column in columns if plain_name(column) in spellings]
        if kind == "patient" and patient_from is not None:
            found = [patient_from]
        if len(found) > 1:
            raise ManifestError(f"The label table has two key columns of one kind: {found}. Keep one.", key=found[0])
        if found:
            return kind, found[0]
    raise ManifestError(
        "The label table has no key column. Expected one of: path, file, SOPInstanceUID, SeriesInstanceUID, "
        f"StudyInstanceUID, PatientID, image_id. Received: {[str(column) for column in columns]}. Rename the column "
        "that names the images."
    )


def _carried(table: pd.DataFrame, *, kind: str, key: str, patient_from: str | None) -> pd.DataFrame:
    """Columns that go into the manifest, under the manifest's names."""
    columns: dict[str, Any] = {}
    patients = _patient_column(table) if patient_from is None else patient_from
    for name in table.columns:
        plain = plain_name(name)
        if name == patients and (kind != "patient" or name != key):
            columns["patient_id"] = pseudonymous(table[name])
        elif name == key or plain in _PRIVATE or any(plain in spellings for spellings in KEYS.values()):
            continue
        elif plain in _MASKS:
            if "mask_path" in columns:
                raise ManifestError("The label table names masks in two columns. Keep one.", key=str(name))
            columns["mask_path"] = table[name]
        elif plain == "split":
            columns["split"] = [_split(value) for value in table[name]]
        elif str(name) in _OVERRIDES:
            columns[str(name)] = table[name]
        elif str(name) in COLUMNS and name != "frame":
            raise ManifestError(
                f"The column {str(name)!r} of the label table has the name of a manifest column. Rename it.",
                key=str(name),
            )
        elif is_identifier(name):  # kept so that patients can be named by it later
            columns[str(name)] = plain_column(pd.Series(pseudonymous(table[name]), dtype=object))
        else:
            columns[str(name)] = plain_column(table[name])
    return pd.DataFrame(columns, index=table.index)


def _patient_column(table: pd.DataFrame) -> str | None:
    """The column that is named as patients are; of several, the first one where they tell the same patients apart."""
    names = [str(name) for name in table.columns if plain_name(name) in KEYS["patient"]]
    groups = {tuple(pd.factorize(table[name].map(id_text))[0]) for name in names}
    if len(groups) > 1:
        raise ManifestError(
            f"The label table names patients in several columns that do not agree: {names}. Say which one counts with "
            "--patient-from (Python: patient_from), or keep one.",
            key=names[1],
        )
    return names[0] if names else None


def _split(value: Any) -> str | None:
    text = id_text(value).lower()
    if not text:
        return None
    if text not in SPLIT_WORDS:
        raise ManifestError(
            f"The column split of the label table holds {text[:40]!r}. Expected train, val or test "
            "(or training, valid, validation, testing), or nothing.",
            key="split",
        )
    return SPLIT_WORDS[text]


def _targets(
    frame: pd.DataFrame, *, base_ids: Sequence[str], kind: str, values: pd.Series[Any], root: Path
) -> list[list[int]]:
    """Rows of the manifest that each row of the label table names."""
    texts = [id_text(value) for value in values]
    if kind == "path":
        return _by_path(list(frame["path"]), texts, root=root)
    if kind == "image_id":
        places = _places([*base_ids], list(frame["image_id"]))
        found = [places.get(text, []) for text in texts]
        return found if any(found) else _by_path(list(frame["path"]), texts, root=root)
    if kind == "image":
        places = _places(list(base_ids))
        return [places.get(pseudonym("image", text), []) if text else [] for text in texts]
    places = _places(list(frame[f"{kind}_id"].astype(object).where(frame[f"{kind}_id"].notna(), None)))
    return [places.get(pseudonym(kind, text), []) if text else [] for text in texts]  # type: ignore[arg-type]


def _places(*columns: Sequence[Any]) -> dict[Any, list[int]]:
    """Row numbers by value; of several columns, a row counts once for each value."""
    places: dict[Any, list[int]] = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        for value in dict.fromkeys(values):
            if value is not None:
                places.setdefault(value, []).append(row)
    return places


def _by_path(paths: Sequence[str], texts: Sequence[str], *, root: Path) -> list[list[int]]:
    """Rows by relative path; else by the end of the path, in whole folder names; else by a file name that is unique."""
    rows = _places(paths)
    by_name = _names(rows, suffix=True)
    by_stem = _names(rows, suffix=False)
    prefix = root.absolute().as_posix().rstrip("/") + "/"
    wanted = [text.replace("\\", "/").removeprefix(prefix).removeprefix("./") for text in texts]
    count: dict[str, int] = {}
    for text in dict.fromkeys(wanted):
        name = PurePosixPath(text).name
        count[name] = count.get(name, 0) + 1
    found = []
    for number, text in enumerate(wanted):
        if text in rows or not text:
            found.append(rows.get(text, []))
            continue
        name = PurePosixPath(text).name
        candidates = by_name.get(name) or by_stem.get(name, [])
        ending = [path for path in candidates if _ends_alike(path, text)]
        if not ending and "/" in text and count[name] == 1 and len(candidates) == 1:
            ending = candidates
        if len(ending) > 1:
            raise ManifestError(
                f"Row {number} of the label table names a file that occurs {len(ending)} times in the folder. "
                "Write paths relative to the scanned folder in the key column.",
                row=number,
            )
        found.append(rows[ending[0]] if ending else [])
    return found


def _names(paths: dict[Any, list[int]], *, suffix: bool) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for path in paths:
        pure = PurePosixPath(path)
        names.setdefault(pure.name if suffix else pure.stem, []).append(path)
    return names


def _ends_alike(path: str, text: str) -> bool:
    """Whether one is the end of the other, in whole parts; suffixes that only the file has do not count."""
    ends = {path, str(PurePosixPath(path).with_suffix(""))}
    return any(f"/{end}".endswith(f"/{text}") or f"/{text}".endswith(f"/{end}") for end in ends)


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
        raise ManifestError(
            f"{len(set(conflicts))} rows of the label table repeat a key of the column {key!r} with other values, the "
            f"first is row {conflicts[0]}. Expected one row for each {key}, or equal ones. Remove the wrong rows.",
            row=conflicts[0],
            key=key,
        )
    return chosen


def _attach(frame: pd.DataFrame, carried: pd.DataFrame, *, chosen: dict[int, int], unmatched: int) -> Joined:
    """Put the chosen rows' values into the manifest rows."""
    positions = np.full(len(frame), -1, dtype=np.int64)
    positions[list(chosen)] = list(chosen.values())
    is_chosen = positions >= 0
    aligned = carried.iloc[np.maximum(positions, 0)].reset_index(drop=True)
    aligned = aligned.mask(pd.Series(~is_chosen), axis=0)
    result = frame.copy()
    labels: dict[str, Any] = {}
    for name in carried.columns:
        if name in COLUMNS:
            given = aligned[name].notna()
            values = result[name].astype(object)
            values[given] = aligned.loc[given, name].astype(object)
            result[name] = values
            if name == "patient_id":
                result["patient_known"] = result["patient_known"].fillna(False).astype(bool) | given
        else:
            labels[name] = plain_column(aligned[name])
    result = pd.concat([result, pd.DataFrame(labels, index=result.index)], axis=1)
    return Joined(result, tuple(name for name in labels if not is_identifier(name)), unmatched)
