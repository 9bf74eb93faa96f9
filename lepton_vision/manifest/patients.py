"""Patient ids from a column or a part of the path named by the user, for headers without one."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.errors import ManifestError, nearest
from lepton_vision.manifest.patient_paths import suggest_pattern
from lepton_vision.manifest.schema import COLUMNS, objects, own_columns
from lepton_vision.readers.identity import pseudonym
from lepton_vision.types.words import is_blank, is_unknown

_LOGGER = logging.getLogger(__name__)

# Spellings without case, blanks, "_" and "-". Such columns hold identifiers and never a label.
_WHO: Final = "(?:patient|subject|subj|participant|person|individual|case|proband|volunteer|bdmap|empi)"
_NUMBER: Final = "(?:id|ids|number|num|no|nr|code|key|identifier|uid|hash|anon|index)"
_IDENTIFIER: Final = re.compile(
    rf"(?:[a-z]*{_WHO}{_NUMBER}|{_NUMBER}{_WHO}|(?:medical)?record(?:number|no|id)|hospital(?:number|no|id)"
    r"|id|lesionid|mrn|pid|ptid|ptno|patid|patno|patnr|eid|empi|participant|volunteer|subj)"
)
_PERHAPS: Final = frozenset({"case", "person", "individual", "proband", "pat"})  # which may be a label too


def plain_name(column: Any) -> str:
    """Name of a column without case and signs."""
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def is_identifier(column: Any) -> bool:
    """Whether a column is named as one that tells patients apart."""
    return _IDENTIFIER.fullmatch(plain_name(column)) is not None


def id_text(value: Any) -> str:
    """Text of an id; a whole number that a spreadsheet turned into 12.0 is 12 again."""
    if is_blank(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def pseudonymous(values: Iterable[Any]) -> list[str | None]:
    """Pseudonyms of patients, None where there is no id, or a word for the unknown."""
    return [None if is_unknown(text) else pseudonym("patient", text) for text in map(id_text, values)]


def name_patients(frame: pd.DataFrame, source: str, *, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Take the patients from a column, or from the part of the relative path that a regular expression finds.

    Args:
        frame: conformed rows.
        source: name of a column of ``frame``; else a regular expression, whose group (or whole match) is the patient.
        columns: further names to tell in a message.

    Returns:
        A copy; rows that the source says nothing of keep what they have.

    Raises:
        ManifestError: neither a column nor a regular expression, more than one group, or no row named.
    """
    values = list(frame[source]) if source in frame.columns else _parts(frame, source, columns=columns)
    is_ok = objects(frame["status"]) == "ok"
    ids = objects(pd.Series(pseudonymous(values), dtype=object))
    is_named = np.asarray([one is not None for one in ids], dtype=bool)
    lacking = int((is_ok & ~is_named).sum())
    if not (is_ok & is_named).any():
        raise ManifestError(
            f"--patient-from '{source}' names the patient of none of the {int(is_ok.sum())} usable images. Expected a "
            "column of the label table or manifest, or a regular expression that a part of each relative path matches. "
            + _nearest_column(source, frame, columns),
            key="patient_from",
        )
    if lacking:
        _LOGGER.warning(
            "--patient-from %s names no patient for %d of %d usable images: they keep what was known of them.",
            source,
            lacking,
            int(is_ok.sum()),
        )
    patients = np.where(is_named, ids, objects(frame["patient_id"]))
    known = is_named | known_patients(frame)
    return frame.assign(
        patient_id=pd.Series(patients, dtype=COLUMNS["patient_id"], index=frame.index),
        patient_known=pd.Series(known, dtype=COLUMNS["patient_known"], index=frame.index),
    )


def _parts(frame: pd.DataFrame, source: str, *, columns: Sequence[str]) -> list[str | None]:
    """Matches of the expression in each relative path."""
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise ManifestError(
            f"--patient-from '{source}' is neither a column nor a regular expression ({error.msg}). "
            + _nearest_column(source, frame, columns),
            key="patient_from",
        ) from None
    if pattern.groups > 1:
        raise ManifestError(
            f"--patient-from takes a regular expression with at most one group. Received: {pattern.groups}. Write "
            "(?:…) for those that are not the patient.",
            key="patient_from",
        )
    found = (pattern.search(path) if isinstance(path, str) else None for path in objects(frame["path"]))
    return [None if match is None else match.group(pattern.groups) for match in found]


def _nearest_column(source: str, frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """End of a message: the nearest column of the label table, or all of them."""
    listed = list(dict.fromkeys([*own_columns(frame), *columns]))
    return nearest(source, listed) if listed else "No label table gave any column."


def known_patients(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """(N,) rows whose patient is named."""
    return np.asarray(frame["patient_known"].fillna(False).to_numpy(dtype=bool))


def warn_unknown(frame: pd.DataFrame) -> None:
    """Say how many usable images name no patient, and what looks as if it did."""
    usable = frame[objects(frame["status"]) == "ok"]
    unknown = usable[~known_patients(usable)]
    if len(usable) > 1 and len(unknown):
        _LOGGER.warning(
            "%d of %d images name no patient: each file, series or study counts as a patient of its own, and images of "
            "one patient may stand in train and test. %s",
            len(unknown),
            len(usable),
            advise(unknown),
        )


def advise(unknown: pd.DataFrame) -> str:
    """How to name the patients of rows that name none: the columns and the part of the path that look like one."""
    columns = [str(name) for name in unknown.columns if _may_name(unknown, str(name))]
    pattern = suggest_pattern([path for path in objects(unknown["path"]) if path is not None])
    found = [f"The column {name!r} looks like a patient id: --patient-from {shlex.quote(name)}." for name in columns]
    if pattern is not None:
        found.append(f"A part of the paths looks like one: --patient-from {shlex.quote(pattern)}.")
    if not found:
        found = ["Give patient_id in the label table, or --patient-from with a column or a regular expression."]
    return " ".join([*found, "(scan, split and run take it; in Python it is patient_from.)"])


def _may_name(frame: pd.DataFrame, name: str) -> bool:
    if name in COLUMNS:
        return False
    count = frame[name].nunique()
    is_many = count > max(2, len(frame) / 20)
    if plain_name(name) == "id" and count == len(frame):  # of the images
        return False
    return bool(count and (is_identifier(name) or (plain_name(name) in _PERHAPS and is_many)))
