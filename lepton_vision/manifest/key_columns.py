"""Key column of a label table: its detection, and the images that each row names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import pandas as pd

from lepton_vision.errors import LabelTableError
from lepton_vision.manifest.lost_labels import near_miss_hint
from lepton_vision.manifest.paths import match_paths, stem_of
from lepton_vision.manifest.patients import id_text, plain_name
from lepton_vision.readers.channels import case_path
from lepton_vision.readers.identity import pseudonym
from lepton_vision.types.id_key import ENVIRONMENT_KEY
from lepton_vision.types.words import is_unknown, words

# Spellings of key columns, without case, blanks, "_" and "-", by kind: those that name one image before those that name
# several. The first column that matches a file joins, see ``match_key``.
KEYS: Final[dict[str, frozenset[str]]] = {
    "path": words("""
        path, file, filename, filepath, relativepath, relpath, fullpath, image, imagepath, imagefile, imagefilename,
        imagefilepath, imagename, imageindex, imageidx, img, imgpath, imgname, imgid, dicomid, dicompath, dicomfile,
        dicomfilename, isicid, idcode
    """),
    "image": frozenset({"sopinstanceuid", "sopuid", "instanceuid"}),
    "image_id": frozenset({"imageid"}),
    "series": frozenset({"seriesinstanceuid", "seriesuid"}),
    "study": frozenset({"studyinstanceuid", "studyuid"}),
    "patient": frozenset({"patientid", "patient", "subjectid", "subject"}),
}
_ID: Final = ("path", "patient")  # what a column "id" may hold, where no other column is a key
_ONE_IMAGE: Final = ("path", "image", "image_id")
_EXPECTED: Final = {
    "path": "paths relative to the scanned folder, or file names that occur once",
    "image": "SOP Instance UIDs as in the DICOM headers",
    "image_id": f"ids of a manifest made with the same key ({ENVIRONMENT_KEY}), or file names without suffix",
    "series": "Series Instance UIDs as in the DICOM headers",
    "study": "Study Instance UIDs as in the DICOM headers",
    "patient": "patient ids as in the DICOM headers",
}


class KeyColumn(NamedTuple):
    """A column that may name the images, and the kind of its values, see ``KEYS``."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Match:
    """The column that a table is joined by.

    Attributes:
        key: kind "path" too where UIDs or patient ids are the names of the files.
        rows: for each row of the label table, the rows of the manifest that it names.
    """

    key: KeyColumn
    rows: list[list[int]]


@dataclass(frozen=True, slots=True)
class _Scanned:
    """Scanned files, prepared for comparison with keys.

    Attributes:
        frame: conformed rows of the files.
        base_ids: (N,) ids of the files, without frame.
        root: folder of the scan.
    """

    frame: pd.DataFrame
    base_ids: Sequence[str]
    root: Path

    def places(self) -> dict[Any, list[int]]:
        """Rows by path, and by the name of a case of several files; masks, which may be called as images, by none."""
        is_mask = self.frame["reason"].eq("mask_file").fillna(False)
        paths = self.frame["path"].astype(object).where(~is_mask, None)
        members = self.frame["member"].astype(object).where(self.frame["source_format"].eq("nifti"), None)
        cases = [
            case_path(PurePosixPath(path), member.split(",")) if isinstance(member, str) and path else None
            for path, member in zip(paths, members, strict=True)
        ]
        return places_of(list(paths), [case and case.as_posix() for case in cases])


def find_keys(columns: Sequence[Any] | pd.Index[Any], *, patient_from: str | None = None) -> list[KeyColumn]:
    """Key columns, those of one image first; for patients ``patient_from``, where it is given.

    Raises:
        LabelTableError: none.
    """
    found = []
    for kind, spellings in KEYS.items():
        names = [str(column) for column in columns if plain_name(column) in spellings]
        if kind == "patient" and patient_from is not None:
            names = [patient_from]
        found += [KeyColumn(kind, name) for name in names]
    found = found or [KeyColumn(kind, str(column)) for column in columns if plain_name(column) == "id" for kind in _ID]
    if not found:
        raise LabelTableError(
            "The label table has no key column. Expected one of: path, file, SOPInstanceUID, SeriesInstanceUID, "
            f"StudyInstanceUID, PatientID, image_id. Received: {[str(column) for column in columns]}. Rename the "
            "column that names the images."
        )
    return found


def match_key(
    table: pd.DataFrame, *, frame: pd.DataFrame, base_ids: Sequence[str], root: Path, patient_from: str | None = None
) -> Match:
    """Find the column that names files, and the files that each row names.

    Columns of one kind are tried together, and the one that matches most rows joins; kinds are tried in the order of
    ``KEYS``, so that a column that names images goes before one that names patients. A coarser one is taken in its
    place only where none of its values stands twice. UIDs and patient ids (other than plain numbers) may be the names
    of files.

    Raises:
        LabelTableError: no key column, not one match, or a file name that is not unique.
    """
    keys, scanned = find_keys(table.columns, patient_from=patient_from), _Scanned(frame, base_ids, root)
    names_images = any(key.kind in _ONE_IMAGE for key in keys)
    for kind in KEYS:
        found, doubts = [], []
        for key in [key for key in keys if key.kind == kind]:
            texts = _texts(table[key.name], kind)
            known = [text for text in texts if text]
            if names_images and kind not in _ONE_IMAGE and len(set(known)) < len(known):
                continue
            try:
                found += [Match(key, _rows(scanned, kind, texts)), *_by_name(scanned, key, texts)]
            except LabelTableError as doubt:  # a name that is not unique: another column of the kind may say more
                doubts.append(doubt)
        best = max(found, key=lambda match: sum(map(bool, match.rows)), default=None)
        if best is not None and any(best.rows):
            return best
        if doubts:
            raise doubts[0]
    tried = " or ".join(dict.fromkeys(repr(key.name) for key in keys))
    expected = "; ".join(f"in {key.name!r} {_EXPECTED[key.kind]}" for key in keys)
    paths = [str(path) for path in frame["path"]]
    hints = "".join(near_miss_hint(near_misses(list(table[key.name]), paths)) for key in keys if key.kind == "path")
    hints += "" if any(key.kind == "path" for key in keys) else " No column is known to name files."
    hints += _look_like_files(table, scanned, [key.name for key in keys])
    raise LabelTableError(
        f"None of the {len(table)} rows of the label table matches a file by the column {tried}. Expected {expected}. "
        f"Correct that column, or scan the folder that the table belongs to.{hints}",
        key=keys[0].name,
    )


def _look_like_files(table: pd.DataFrame, scanned: _Scanned, tried: Sequence[str]) -> str:
    """End of a message: the column, of those not tried, most of whose values name scanned files."""
    for name in [str(column) for column in table.columns if str(column) not in tried]:
        try:
            rows = match_paths(scanned.places(), _texts(table[name], "path"), root=scanned.root)
        except LabelTableError:  # a name of several files
            continue
        if sum(map(bool, rows)) > len(table) / 2:
            return f" The values of {name!r} look like the names of scanned files: rename it to 'file'."
    return ""


def near_misses(values: Sequence[Any], paths: Sequence[str]) -> dict[str, int]:
    """Number of values that would name a file, were it not for letter case, suffix or folder."""
    names = {PurePosixPath(path).name for path in paths}
    cases, stems = {name.lower() for name in names}, {stem_of(name) for name in names}
    counts = {"the folder": 0, "letter case": 0, "the suffix": 0}
    for value in values:
        name = PurePosixPath(id_text(value).replace("\\", "/")).name
        if name in names or name in stems:
            counts["the folder"] += 1
        elif name.lower() in cases or name.lower() in {stem.lower() for stem in stems}:
            counts["letter case"] += 1
        elif name and stem_of(name) in stems:
            counts["the suffix"] += 1
    return counts


def _texts(values: pd.Series[Any], kind: str) -> list[str]:
    """Text of each key, "" where it names nothing; a file may be called "unknown", a patient may not."""
    texts = [id_text(value) for value in values]
    return texts if kind in _ONE_IMAGE else ["" if is_unknown(text) else text for text in texts]


def _rows(scanned: _Scanned, kind: str, texts: Sequence[str]) -> list[list[int]]:
    """Rows of the manifest that each row of the label table names."""
    frame = scanned.frame
    if kind == "path":
        return match_paths(scanned.places(), texts, root=scanned.root)
    if kind == "image_id":
        places = places_of([*scanned.base_ids], list(frame["image_id"]))
        return [places.get(text, []) for text in texts]
    if kind == "image":
        places = places_of(list(scanned.base_ids))
        return [places.get(pseudonym("image", text), []) if text else [] for text in texts]
    places = places_of(list(frame[f"{kind}_id"].astype(object).where(frame[f"{kind}_id"].notna(), None)))
    return [places.get(pseudonym(kind, text), []) if text else [] for text in texts]  # type: ignore[arg-type]


def _by_name(scanned: _Scanned, key: KeyColumn, texts: Sequence[str]) -> list[Match]:
    """The same values as names of files; plain numbers of patients and series are no file names."""
    if key.kind == "path":
        return []
    names = texts if key.kind in _ONE_IMAGE else ["" if text.isdecimal() else text for text in texts]
    rows = match_paths(scanned.places(), names, root=scanned.root) if any(names) else []
    return [Match(KeyColumn("path", key.name), rows)]


def places_of(*columns: Sequence[Any]) -> dict[Any, list[int]]:
    """Row numbers by value; of several columns, a row counts once for each value."""
    places: dict[Any, list[int]] = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        for value in dict.fromkeys(values):
            if value is not None:
                places.setdefault(value, []).append(row)
    return places
