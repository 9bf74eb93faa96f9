"""Vocabulary of label tables for cells that are no classes: blank, unknown, uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd


def words(text: str) -> frozenset[str]:
    """The words between commas of a text of several lines."""
    return frozenset(" ".join(text.split()).split(", "))


# What programs write for a missing value (pandas, R, SQL, spreadsheets): a blank cell in every column of every table.
# "None" is not here: it may be a class ("no finding"), see ``label_columns.class_index``.
BLANKS: Final = frozenset({""}) | words("""
    nan, -nan, na, n/a, <na>, nat, null, nil, #n/a, #na, #n/a n/a, 1.#ind, -1.#ind, 1.#qnan, -1.#qnan, #null!, #ref!,
    #div/0!, #value!, #name?, #num!
""")
# What people write where they do not know. In a label column the text is kept and means unknown, unless a class of the
# configuration has this name; elsewhere (patient, site, sex …) it is a blank cell.
UNKNOWN_WORDS: Final = BLANKS | words("""
    unknown, unk, unkn, not known, not available, unavailable, missing, not recorded, not reported, not specified,
    unspecified, not stated, not applicable, not assessed, not evaluated, not done, no data, unlabeled, unlabelled,
    unannotated, undefined, tbd, n.a., n. a., n.a, n.d., n/d, ?, ??, ???, -, --, ---, \u2013, \u2014, ., .., ...,
    unbekannt, nicht bekannt, keine angabe, k.a., k. a., inconnu, inconnue, desconocido, desconocida, desconhecido,
    desconhecida, sconosciuto, onbekend
""")
# What looks as if a reader could not decide; -1 is CheXpert's. It is never read without being told how.
UNCERTAIN_WORDS: Final = words("""
    -1, uncertain, unsure, equivocal, indeterminate, inconclusive, undetermined, possible, possibly, maybe,
    questionable, doubtful, not sure, unclear, unklar, fraglich, unsicher, incertain, incertaine, douteux, douteuse,
    incierto, incierta, dudoso, dudosa
""")


def is_blank(value: Any) -> bool:
    """Whether a cell is empty: a null of any kind, white space, or a word of ``BLANKS``."""
    return folded(value) in BLANKS if isinstance(value, str) else _is_null(value)


def is_unknown(value: Any) -> bool:
    """Whether a cell says nothing: blank, or a word of ``UNKNOWN_WORDS``."""
    return folded(value) in UNKNOWN_WORDS if isinstance(value, str) else _is_null(value)


def _is_null(value: Any) -> bool:
    import pandas as pd  # tables of predictions are read without it

    return bool(pd.isna(value))


def folded(text: str) -> str:
    """A word without case, white space around it, and "_" for a space."""
    return " ".join(text.replace("_", " ").split()).lower()


def without(values: pd.Series[Any], words: frozenset[str]) -> pd.Series[Any]:
    """The values with nulls in place of these words; a column without such words as it was."""
    import pandas as pd

    if not (pd.api.types.is_object_dtype(values) or isinstance(values.dtype, pd.StringDtype | pd.CategoricalDtype)):
        return values
    texts = [value for value in values.dropna().unique() if isinstance(value, str) and folded(value) in words]
    if not texts:
        return values
    return values.astype(object).mask(values.isin(texts).to_numpy(dtype=bool), None)
