"""Column schema of a manifest: names and types, enforced before every use and every write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.errors import ManifestError
from lepton_vision.types import SPLITS

# Arrow-backed strings: one null (pd.NA) everywhere, and 100,000 rows stay small.
STRING: Final = pd.StringDtype("pyarrow")

_IDENTITY: Final[Mapping[str, tuple[Any, str]]] = {
    "image_id": (STRING, "pseudonym, unique among ok rows"),
    "path_id": (STRING, "pseudonym of the place at the scan, as in rows of scores; null in other tables"),
    "patient_id": (STRING, "pseudonym; where unknown, of the study, series or file (see `patient_known`)"),
    "patient_known": ("boolean", "whether `patient_id` is of a patient"),
    "study_id": (STRING, "pseudonym of the study"),
    "series_id": (STRING, "pseudonym of the series"),
    "path": (STRING, "relative to the root, with forward slashes"),
    "member": (STRING, "name of the array inside an .npz file; of a volume the id of its series, or its channels"),
    "frame": ("Int64", "position inside a file of several images, from 0; null where the file is one sample"),
    "repair": (STRING, "of a series: tilt, gaps or both, with a comma; null where its slices are as they were taken"),
    "status": (STRING, "ok or rejected"),
    "reason": (STRING, "[reason code](reason-codes.md) of a rejected row"),
    "split": (STRING, "train, val, test or null"),
    "fold": ("Int64", "fold of the cross-validation, from 0"),
    "source_format": (STRING, "dicom, nifti, png, jpeg, tiff or npz"),
    "modality": (STRING, "Modality of the header, such as CT"),
    "rows": ("Int64", "height in pixels"),
    "columns": ("Int64", "width in pixels"),
    "frames": ("Int64", "images in the file, or slices"),
    "pixel_hash": (STRING, "of the decoded pixels and their shape"),
    "mask_path": (STRING, "file of the mask, relative to the root; null where nothing is known"),
    "mask_member": (STRING, "name of the array inside an .npz file"),
    "mask_values": (STRING, "values that occur in the mask, such as 0,2"),
    "mask_hash": (STRING, "of the mask's values and shape"),
    "value_low": ("float64", "smallest decoded value, in the image's units"),
    "value_high": ("float64", "largest decoded value"),
    "range_low": ("float64", "smallest value that the file could hold"),
    "range_high": ("float64", "largest value that the file could hold"),
    "header_window": (STRING, "header: the file names a window; full: its full range is meant; none"),
    "phash": (STRING, "64-bit perceptual hash, 16 hexadecimal digits; null for a constant image"),
}
_FACTS: Final[Mapping[str, tuple[Any, str]]] = {
    "sex": (STRING, "F, M or O of the header"),
    "age_band": (STRING, "age in bands of ten years"),
    "manufacturer": (STRING, "of the device, or a category other-…"),
    "model_name": (STRING, "of the device, or a category other-…"),
    "site": (STRING, "pseudonym of the institution"),
    "kvp": ("float64", "peak kilovoltage"),
    "slice_thickness_mm": ("float64", "slice thickness in mm"),
    "body_part": (STRING, "Body Part Examined, or a category other-…"),
    "view_position": (STRING, "View Position, or a category other-…"),
    "laterality": (STRING, "L, R or B"),
    "photometric": (STRING, "Photometric Interpretation"),
    "transfer_syntax": (STRING, "UID of the transfer syntax"),
    "bits_stored": ("Int64", "bits of a stored pixel"),
    "burned_in_annotation": (STRING, "YES or NO of the header"),
    "object_kind": (STRING, "where a DICOM object is no usual image: secondary_capture, localizer, segmentation …"),
    "spacing_row_mm": ("float64", "distance of neighbouring rows in mm"),
    "spacing_column_mm": ("float64", "distance of neighbouring columns in mm"),
}
IDENTITY_COLUMNS: Final[Mapping[str, Any]] = {name: dtype for name, (dtype, _) in _IDENTITY.items()}
FACT_COLUMNS: Final[Mapping[str, Any]] = {name: dtype for name, (dtype, _) in _FACTS.items()}
COLUMNS: Final[Mapping[str, Any]] = {**IDENTITY_COLUMNS, **FACT_COLUMNS}
MEANINGS: Final[Mapping[str, str]] = {name: said for name, (_, said) in {**_IDENTITY, **_FACTS}.items()}
"""What each column means."""


def own_columns(frame: pd.DataFrame) -> list[str]:
    """Columns that the manifest has from a label table or from who made it, none of the schema."""
    return [str(name) for name in frame.columns if name not in COLUMNS]


_FURTHER_TYPES: Final = (STRING, "Int64", "float64", "boolean")


def conform(frame: pd.DataFrame, *, label_columns: Sequence[str]) -> pd.DataFrame:
    """Return a copy with all columns of the schema first, in fixed types, and rows numbered from 0.

    Other columns keep their place behind them and their values; blank text becomes null.

    Raises:
        ManifestError: a column stands twice, ``image_id`` or ``path`` is missing, a value does not fit its column,
            a label column is absent, or ok rows share an ``image_id``.
    """
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"A manifest names each column once. Received twice: {twice}. Rename one.", key=twice[0])
    for name in ("image_id", "path"):
        if name not in names:
            raise ManifestError(f"A manifest needs a column {name!r}. Received: {names}.", key=name)
    for name in label_columns:
        if name not in names:
            raise ManifestError(f"The label column {name!r} is not in the manifest. Received: {names}.", key=name)
    given = frame.set_axis(names, axis="columns").reset_index(drop=True)
    columns = {name: _column(given, name, dtype=dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: plain_column(given[name]) for name in names if name not in COLUMNS}
    table = pd.DataFrame(columns)
    _check(table)
    return table


def take_rows(frame: pd.DataFrame, positions: npt.NDArray[np.int64], *, label_columns: Sequence[str]) -> pd.DataFrame:
    """Return rows of a table that ``conform`` made, as it would; columns that kept their types are not made anew."""
    part = frame.iloc[positions]
    if not _is_typed(part):
        return conform(part, label_columns=label_columns)
    part = part.reset_index(drop=True)
    _check(part)
    return part


def _is_typed(frame: pd.DataFrame) -> bool:
    """Whether the schema's columns come first and every column has one of the types that ``conform`` gives."""
    given = {str(name): dtype for name, dtype in frame.dtypes.items()}
    return list(given)[: len(COLUMNS)] == list(COLUMNS) and all(
        dtype == COLUMNS[name] if name in COLUMNS else dtype in _FURTHER_TYPES for name, dtype in given.items()
    )


def _column(frame: pd.DataFrame, name: str, *, dtype: Any) -> pd.Series[Any]:
    """One schema column in its type; filled with its default where the table lacks it."""
    if name not in frame.columns:
        if name == "patient_id":
            return _text(frame["image_id"])
        if name == "patient_known" and "patient_id" in frame.columns:
            return _text(frame["patient_id"]).notna().astype(dtype)
        default: Any = {"status": "ok", "patient_known": False}.get(name)
        values = [default] * len(frame)
        return pd.Series(values, dtype="float64" if dtype == "float64" else dtype, index=frame.index, name=name)
    values_given = frame[name]
    try:
        if dtype is STRING:
            return _text(values_given)
        if dtype == "float64":
            return _floats(values_given)
        return values_given.astype(dtype)
    except (TypeError, ValueError) as error:
        raise ManifestError(
            f"Column {name!r} holds {dtype} values. Received: {values_given.dtype}. Correct or leave out the column.",
            key=name,
        ) from error


def _floats(values: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series(pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan), index=values.index)


def _text(values: pd.Series[Any]) -> pd.Series[Any]:
    """Text with one null; the empty string is null, because CSV cannot tell them apart."""
    text = values.astype(STRING)
    is_empty = text == ""
    return text.mask(is_empty) if is_empty.any() else text  # pandas silences warnings of all threads in ``mask``


def plain_column(values: pd.Series[Any]) -> pd.Series[Any]:
    """Bring a label or further column to Int64, float64, boolean or text, whichever holds its values exactly."""
    kind = values.dtype
    if isinstance(kind, pd.StringDtype | pd.CategoricalDtype):
        return _text(values)
    if pd.api.types.is_bool_dtype(kind):
        return values.astype("boolean")
    if pd.api.types.is_integer_dtype(kind):
        return _whole(values)
    if pd.api.types.is_float_dtype(kind):
        return _floats(values)
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred == "boolean":
        return values.astype("boolean")
    if inferred == "integer":
        return _whole(values)
    if inferred in ("floating", "mixed-integer-float"):
        return _floats(values)
    return _text(values)


def _whole(values: pd.Series[Any]) -> pd.Series[Any]:
    """Whole numbers as Int64; as text where one is longer, as numbers of studies are that were made from UIDs."""
    if str(values.dtype).lower().startswith("int"):
        return values.astype("Int64")
    known = values.dropna()
    is_long = len(known) > 0 and max(int(known.max()), -int(known.min())) >= 2**63
    return _text(values.astype(object).map(str, na_action="ignore")) if is_long else values.astype("Int64")


def objects(values: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """(N,) Python values of a column, None where unknown."""
    plain: npt.NDArray[np.object_] = np.array(values, dtype=object)
    plain[values.isna().to_numpy()] = None
    return plain


def _check(table: pd.DataFrame) -> None:
    """Refuse values that no stage could use."""
    ok = table["status"] == "ok"
    if not table["status"].isin(["ok", "rejected"]).all():
        raise ManifestError("Column 'status' holds 'ok' or 'rejected'. Received another value.", key="status")
    is_other = table["split"].notna() & ~table["split"].isin(SPLITS)
    if is_other.any():  # whose text may be anything, a name too
        row = int(table.index[is_other][0])
        raise ManifestError(
            f"Column 'split' holds {', '.join(SPLITS)} or nothing. Received: another value in {int(is_other.sum())} "
            f"rows, the first in row {row}. Correct the column.",
            row=row,
            key="split",
        )
    ids = table.loc[ok, "image_id"]
    if ids.isna().any():
        raise ManifestError("Every row with status 'ok' needs an image_id. Received an empty one.", key="image_id")
    if ids.duplicated().any():
        row = int(ids.index[ids.duplicated()][0])
        raise ManifestError(
            f"image_id is unique among rows with status 'ok'. Received {int(ids.duplicated().sum())} repeated ids, "
            f"the first in row {row}. Was a table joined twice?",
            row=row,
            key="image_id",
        )
