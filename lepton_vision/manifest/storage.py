"""Manifest files: Parquet or CSV with the same content, written atomically with mode 0600."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_vision.errors import ManifestError, explain_os_error
from lepton_vision.files import atomic_file, check_place, csv_bytes, guarded, sidecar, unguarded
from lepton_vision.manifest.schema import COLUMNS, IDENTITY_COLUMNS, STRING

VERSION: Final = 1
_KEY: Final = b"lepton_vision_manifest"
_DTYPES: Final[dict[str, Any]] = {"text": STRING, "Int64": "Int64", "float64": "float64", "boolean": "boolean"}


def check_output(path: Path) -> None:
    """Refuse a place that no manifest can be written to, before any work.

    Raises:
        ManifestError: another suffix, a folder, or a place that cannot be written.
    """
    _suffix(path)
    check_place(path, what="manifest", error=ManifestError)


def write(
    frame: pd.DataFrame,
    path: Path,
    *,
    root: Path,
    label_columns: Sequence[str],
    unmatched_labels: int,
    label_notes: Sequence[str],
    id_key: str = "",
) -> Path:
    """Write a conformed table with its facts; the suffix decides between Parquet and CSV."""
    suffix = _suffix(path)
    facts = {
        "version": VERSION,
        "root": root.resolve().as_posix(),
        "root_from_here": _relative(root, path),
        "label_columns": list(label_columns),
        "unmatched_labels": unmatched_labels,
        "label_notes": list(label_notes),
        "id_key": id_key,
        "dtypes": {str(name): _dtype_name(dtype) for name, dtype in frame.dtypes.items()},
    }

    def write_parquet(file: BinaryIO) -> None:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(facts).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), file)

    def write_csv(file: BinaryIO) -> None:
        file.write(table_csv(frame))
        file.flush()
        os.fsync(file.fileno())  # what is left to do is two renames: both files are written, or neither
        _write_whole(sidecar(path), lambda beside: beside.write(json.dumps(facts, indent=1).encode()))

    if suffix == ".parquet":
        _write_whole(path, write_parquet)
    else:
        _write_whole(path, write_csv)
    return path


def table_csv(frame: pd.DataFrame) -> bytes:
    """A table as CSV whose cells no spreadsheet computes."""
    safe = frame.set_axis([guarded(str(name)) for name in frame.columns], axis="columns")
    texts = [name for name in safe.columns if not pd.api.types.is_numeric_dtype(safe[name].dtype)]
    safe = safe.assign(**{name: safe[name].astype("object").map(_safe, na_action="ignore") for name in texts})
    return csv_bytes(safe.to_csv(index=False, lineterminator="\r\n"))  # with "\n" pandas leaves a bare "\r" unquoted


def _safe(value: Any) -> Any:
    return guarded(value) if isinstance(value, str) else value


def read(path: Path) -> dict[str, Any]:
    """Arguments of the Manifest that ``write`` was given.

    Raises:
        ManifestError: no such file, another suffix, damaged, not a manifest, or of a newer version.
    """
    suffix = _suffix(path)
    if not path.is_file():
        raise ManifestError(
            "There is no such manifest. Give the path of a file that `scan` or `split` wrote.", path=path
        )
    try:
        frame, facts = _read_parquet(path) if suffix == ".parquet" else _read_csv(path)
        _check_version(int(facts.get("version", 0)), path)
        return {
            "frame": frame,
            "root": _root(facts, path, frame=frame),
            "label_columns": tuple(facts.get("label_columns", ())),
            "unmatched_labels": int(facts.get("unmatched_labels", 0)),
            "label_notes": tuple(facts.get("label_notes", ())),
            "id_key": str(facts.get("id_key", "")),
        }
    except OSError as error:
        if isinstance(error, PermissionError):
            raise ManifestError("No permission to read the manifest. Ask for it, or scan anew.", path=path) from None
        raise _damaged(path) from None
    except (pa.ArrowException, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise _damaged(path) from None


def _check_version(version: int, path: Path) -> None:
    if version > VERSION:
        raise ManifestError(
            f"The manifest has format version {version}; this lepton_vision reads up to {VERSION}. "
            "Update lepton_vision, or write the manifest with the older one.",
            path=path,
        )


def _write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Fill a file that appears whole or not at all, for its owner alone: paths may hold names of patients.

    Trouble of the disk becomes one clear error.
    """
    advice = "Nothing was written. Free space or choose another place."
    with explain_os_error("write the manifest", error=ManifestError, advice=advice, path=path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, private=True) as file:
            fill(file)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ManifestError(
            f"A manifest is a .parquet or a .csv file. Received the suffix {suffix or '(none)'!r}.", path=path
        )
    return suffix


def _damaged(path: Path) -> ManifestError:
    return ManifestError(
        "The file is no manifest of lepton_vision, or is damaged. Expected a table written by `scan` or `split`; "
        "scan the folder again. (A label table is given to `scan` as labels.)",
        path=path,
    )


def _dtype_name(dtype: Any) -> str:
    return "text" if isinstance(dtype, pd.StringDtype) else str(dtype)


def _relative(root: Path, path: Path) -> str | None:
    try:
        return Path(os.path.relpath(root.resolve(), path.resolve().parent)).as_posix()
    except ValueError:  # another drive
        return None


def _root(facts: dict[str, Any], path: Path, *, frame: pd.DataFrame) -> Path:
    """Folder of the images: beside the manifest as when written (both may have moved), else the place of that time."""
    absolute = Path(facts["root"])
    if facts.get("root_from_here") is None or not len(frame):
        return absolute
    here = Path(os.path.normpath(path.resolve().parent / facts["root_from_here"]))
    return here if (here / str(frame["path"].iloc[0])).exists() else absolute


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    table = pq.read_table(path)
    facts = json.loads((table.schema.metadata or {})[_KEY])
    frame = table.to_pandas(types_mapper={pa.string(): STRING, pa.large_string(): STRING}.get)
    return frame, facts


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        if first.startswith("# {"):  # as manifests of before began
            facts = json.loads(first[2:])
        else:
            file.seek(0)
            facts = json.loads(sidecar(path).read_text(encoding="utf-8")) if sidecar(path).is_file() else {}
        # Decimal figures are read as text and turned by Python's own float(): pandas' parser may miss the last bit.
        kinds = facts.get("dtypes") or {name: _dtype_name(dtype) for name, dtype in COLUMNS.items()}
        floats = [name for name, kind in kinds.items() if kind == "float64"]
        dtypes = {name: STRING if name in floats else _DTYPES[kind] for name, kind in kinds.items()}
        dtypes = {guarded(name): kind for name, kind in dtypes.items()}
        frame = pd.read_csv(file, dtype=dtypes, keep_default_na=False, na_values=[""])
    frame = frame.set_axis([unguarded(str(name)) for name in frame.columns], axis="columns")
    for name in (name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name].dtype)):
        frame[name] = frame[name].astype("object").map(unguarded, na_action="ignore").astype(STRING)
    for name in (name for name in floats if name in frame.columns):
        frame[name] = frame[name].astype("object").fillna("nan").map(float).astype("float64")
    if not {"image_id", "path"} <= set(frame.columns) & set(COLUMNS):
        raise ValueError("no manifest")
    return frame, facts or _facts_of(frame, path)


def _facts_of(frame: pd.DataFrame, path: Path) -> dict[str, Any]:
    """What a manifest without the file beside it tells: images lie below its folder, other columns are labels.

    Raises:
        ValueError: this is a table of something else.
        ManifestError: the images are elsewhere.
    """
    if not set(IDENTITY_COLUMNS) <= set(frame.columns):
        raise ValueError("no manifest")
    if len(frame) and not (path.resolve().parent / str(frame["path"].iloc[0])).exists():
        raise ManifestError(
            f"{sidecar(path).name} says where the images of this manifest are. Found: none beside it. Put it there, "
            "put the manifest into the folder of the images, or scan again.",
            path=path,
        )
    return {
        "version": VERSION,
        "root": path.resolve().parent.as_posix(),
        "label_columns": [name for name in frame.columns if name not in COLUMNS],
    }
