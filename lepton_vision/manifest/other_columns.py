"""Columns of a label table that are not labels: an index, boxes, measurements, other facts about the image."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from lepton_vision.manifest.schema import COLUMNS
from lepton_vision.types.words import is_unknown, words

_MOST_FINDINGS: Final = 200
_X: Final = frozenset(["x", "xmin", "x1", "xc", "bboxx"])
_Y: Final = frozenset(["y", "ymin", "y1", "yc", "bboxy"])
_SIZE: Final = frozenset(["w", "h", "width", "height", "xmax", "ymax", "x2", "y2", "bboxw", "bboxh"])
# Spellings without case and marks; such columns stay in the manifest, for subgroups, or to be named as a column.
_FACTS: Final = words("""
    index, level0, row, rownumber, rowid, rowindex, side, eye, leftright, leftorrightbreast, imageview, abnormalityid,
    age, ages, ageyears, ageapprox, ageband, agegroup, patientage,
    patientageyears, sex, gender, patientsex, patientgender, patientweight, patientsize, race, ethnicity, ethnicgroup,
    view, viewposition, projection, frontallateral, appa, imagelaterality, followup, studydate, studytime, seriesdate,
    acquisitiondate, acquisitiontime, contentdate, date, time, year, studyid, seriesid, studydescription,
    seriesdescription, protocolname, performedprocedurestepdescription, modality, manufacturer, manufacturermodelname,
    model, siteid, institution, hospital, center, machineid, scanner, bodypart, bodypartexamined, rows, columns, width,
    height, originalimagewidth, originalimageheight, imagewidth, imageheight, pixelspacing, slicethickness,
    numberofimages, imagecount, filesize, filelocation, imagedir, collection, 3rdpartyanalysis, datadescriptionuri,
    sopclassname, sopclassuid, downloadtimestamp, license, radid, reader, readerid, annotator, bbox, boundingbox, boxes,
    encodedpixels, rle, report, reportid, methodlabel, methodprojection, pediatric, croppedimagefilepath,
    roimaskfilepath, viewcodesequencecodemeaning, procedurecodesequencecodemeaning,
    patientorientationcodesequencecodemeaning
""")
# Columns that the files themselves say: those of a table are left out.
MEASURED: Final = frozenset(["study_id", "series_id", "frame", "rows", "columns", "frames"])


def left_out(names: Sequence[str]) -> set[str]:
    """Columns that do not go into a manifest: without a name (an index of pandas, a comma at the end), and of boxes."""
    plain = {name: _plain(name) for name in names}
    has_boxes = all(set(plain.values()) & group for group in (_X, _Y, _SIZE))
    boxes = {name for name in names if has_boxes and plain[name] in _X | _Y | _SIZE}
    return boxes | {name for name in names if is_unnamed(name) or name in MEASURED}


def is_unnamed(name: str) -> bool:
    """Whether a column has no name, or the one that pandas makes up."""
    return not name.strip() or re.fullmatch(r"Unnamed: \d+(_level_\d+)?", name) is not None


def is_other_column(name: str) -> bool:
    """Whether a column holds facts about patient, image or file, by its name; NIH's has half a bracket."""
    return _plain(name).removesuffix("dicom") in _FACTS or name.count("[") != name.count("]")


def findings_of(values: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
    """One column of 0 and 1 for each finding of cells such as "Cardiomegaly|Effusion" (NIH) or "['mass', 'cyst']".

    Returns:
        By finding, Int64 with nulls where the cell is unknown; {} where the cells are no such lists.
    """
    texts = values.astype(object).map(lambda value: None if is_unknown(value) else str(value).strip())
    known = [text for text in texts.dropna().unique() if isinstance(text, str)]
    is_python = bool(known) and all(re.fullmatch(r"\[.*\]", text, re.DOTALL) for text in known)
    if not is_python and not any("|" in text.strip("|") for text in known):
        return {}
    try:
        parts = {text: _parts(text, is_python=is_python) for text in known}
    except (ValueError, SyntaxError):  # no list of Python after all
        return {}
    findings = sorted({part for group in parts.values() for part in group})
    if not 1 < len(findings) <= _MOST_FINDINGS or set(findings) & set(COLUMNS):
        return {}
    columns = {}
    for finding in findings:
        holds = {text: int(finding in group) for text, group in parts.items()}
        columns[finding] = texts.map(holds, na_action="ignore").astype("Int64")
    return columns


def _parts(text: str, *, is_python: bool) -> set[str]:
    parts = ast.literal_eval(text) if is_python else text.split("|")
    return {str(part).strip() for part in parts} - {""}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
