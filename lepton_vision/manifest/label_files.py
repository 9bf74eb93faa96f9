"""Reading of label tables from files, with ids kept as text."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from lepton_vision.errors import LabelTableError
from lepton_vision.manifest.key_columns import KEYS
from lepton_vision.manifest.patients import is_identifier, plain_name
from lepton_vision.types.words import BLANKS, without

_BLANK = sorted({spelling for word in BLANKS for spelling in (word, word.upper(), word.title())} | {"NaN", "-NaN"})
_SEPARATOR = re.compile(r'"?sep=(?P<mark>[,;\t|])"?[,;\t]*(\r\n|\r|\n)', re.IGNORECASE)  # Excel's first line


def read_table(labels: str | Path | pd.DataFrame, *, patient_from: str | None = None) -> pd.DataFrame:
    """A label table as a DataFrame, rows numbered from 0; the words of ``words.BLANKS`` are nulls in every column.

    Args:
        labels: a DataFrame, or the path of a CSV file (comma, semicolon or tab; UTF-8, or UTF-16 with its mark as
            Excel's "Unicode text" has it; a first line ``sep=;`` is Excel's too) or a Parquet file.
        patient_from: name of a further column of ids.

    Raises:
        LabelTableError: no such file, not readable, empty, or a column name that stands twice.
    """
    if isinstance(labels, pd.DataFrame):
        return _finished(labels, path=None)
    path = Path(labels)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt", ".parquet"):
        raise LabelTableError(
            f"A label table is a .csv or .parquet file. Received: {suffix or 'no suffix'!r}.", path=path
        )
    try:
        table = pd.read_parquet(path) if suffix == ".parquet" else _read_csv(path, patient_from=patient_from)
    except OSError as error:
        raise LabelTableError(
            f"Cannot read the label table: {error.strerror or 'damaged file'}. Give the path of a CSV or Parquet file.",
            path=path,
        ) from None
    except UnicodeDecodeError:
        raise LabelTableError(
            "The label table is neither UTF-8 nor UTF-16 text. Save it as CSV in UTF-8.", path=path
        ) from None
    except (ValueError, csv.Error) as error:  # pandas' and Arrow's parser errors are ValueErrors
        raise LabelTableError(
            f"The label table cannot be parsed ({type(error).__name__}). Expected a header row and as many cells in "
            "every row.",
            path=path,
        ) from None
    return _finished(table, path=path)


def _finished(table: pd.DataFrame, *, path: Path | None) -> pd.DataFrame:
    """The table with its named index as columns, names without white space, rows numbered, and blank cells as nulls."""
    named = [name for name in table.index.names if name is not None and name not in table.columns]
    table = table.reset_index(level=named).reset_index(drop=True) if named else table.reset_index(drop=True)
    names = [str(column).strip() for column in table.columns]
    _check_columns([name for name in names if name], path=path)
    if not len(table):
        raise LabelTableError("The label table has no rows.", path=path)
    table = table.set_axis(names, axis="columns")
    return table.loc[:, [bool(name) for name in names]].assign(
        **{name: without(table[name], BLANKS) for name in names if name}
    )


def _read_csv(path: Path, *, patient_from: str | None) -> pd.DataFrame:
    data = path.read_bytes()
    # UTF-16 begins with a mark, in either order of bytes; nothing else that is text does.
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    said = _SEPARATOR.match(text)
    text = text[said.end() :] if said else text
    first = io.StringIO(text, newline="").readline()
    separator = said["mark"] if said else max(",;\t", key=first.count)
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    _check_columns([name.strip() for name in header if name.strip()], path=path)  # pandas numbers those without a name
    # Ids such as 0012 are text; pandas would make them numbers.
    ids = {name: str for name in header if _is_id(name) or name.strip() == patient_from}
    return pd.read_csv(
        io.StringIO(text, newline=""),
        sep=separator,
        dtype=ids,
        keep_default_na=False,
        na_values=_BLANK,
        skipinitialspace=True,
        index_col=False,
    )


def _is_id(name: str) -> bool:
    plain = plain_name(name)
    return plain == "site" or is_identifier(name) or any(plain in spellings for spellings in KEYS.values())


def _check_columns(names: list[str], *, path: Path | None) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabelTableError(f"The label table names a column twice: {twice}. Rename one.", path=path, key=twice[0])
    if not any(names):
        raise LabelTableError("The label table is empty. Expected a header row.", path=path)


def source_of(labels: Any) -> Path | None:
    """File of a label table, or None for a DataFrame."""
    return Path(labels) if isinstance(labels, str | Path) else None
