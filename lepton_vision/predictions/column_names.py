"""Column names of prediction tables: ours, and the synonyms of other tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.types import Target
from lepton_vision.types.columns import Column

Columns = dict[str, Any]
"""Cells by column: lists, or arrays of numbers."""

TABLE_COLUMNS: Final = (
    Column("image_id", "always", "", "unique id"),
    Column("patient_id", "where known", "", "the patient; a row without one counts as a patient of its own"),
    Column("series_id", "where known", "", "the series"),
    Column("study_id", "where studies are known", "", "the study"),
    Column("patient_known", "where some patient is not known", "0 or 1", "whether `patient_id` is of a patient"),
    Column("split", "where known", "", "train, val or test: one for the whole table"),
    Column("y_true", "the only target is binary", "0 or 1", "label; empty is unknown"),
    Column("y_prob", "the only target is binary", "0 to 1", "probability of the positive class"),
    Column(
        "y_value", "the only target is a number", "unit of the target", "predicted number; `y_true` is the true one"
    ),
    Column("y_true_<target>", "several targets, or multiclass and ordinal", "", "label; of classes their index from 0"),
    Column("y_prob_<target>", "several targets, binary", "0 to 1", "probability of the positive class"),
    Column("y_value_<target>", "several targets, regression", "unit of the target", "predicted number"),
    Column("y_true_<target>_<class>", "multilabel", "0 or 1", "label of the class; empty is unknown"),
    Column("y_prob_<target>_<class>", "multilabel, multiclass, ordinal", "0 to 1", "probability of the class"),
    Column("path", "Parquet of ours", "", "where the image lies: may hold a name"),
    Column("member", "Parquet of ours", "", "name of the array or series in it"),
    Column("frame", "Parquet of ours", "from 0", "number of the image in its file"),
    Column("repair", "Parquet of ours, repaired series", "", "tilt, gaps or both"),
)
"""Of a table of predictions."""

# Words that mean one thing only. A "prediction" may be a probability or a decision, so it is to be named.
_ALIASES: dict[str, tuple[str, ...]] = {
    "image_id": (
        *("image", "id", "imageid", "image_name", "image_path", "filename", "file_name", "file", "path", "case_id"),
        *("case", "sample_id", "sample", "uid", "sop_instance_uid", "sopinstanceuid", "accession_number"),
    ),
    "patient_id": ("patient", "patientid", "subject", "subject_id", "subjectid", "participant_id", "person_id"),
    "y_true": ("label", "truth", "ground_truth", "groundtruth", "gt", "true_label", "reference", "y", "outcome"),
    "y_prob": (
        *("prob", "probability", "score", "y_score", "y_pred_proba", "y_proba", "proba", "pred_prob", "prob_1"),
        *("probability_1", "predicted_probability", "positive_probability", "confidence", "likelihood"),
    ),
}
# Of a number a "prediction" can be nothing else.
_VALUE_ALIASES = (
    *("value", "prediction", "predicted", "predicted_value", "y_pred", "pred", "y_hat", "yhat", "estimate"),
    *("estimated", "estimated_value", "y_prob", "y_score", "score"),
)


def names_of(target: Target, is_only: bool) -> tuple[list[str], list[str]]:
    """Columns of the labels and of the probabilities, or the value, of one target."""
    if target.is_single:
        end = "" if is_only else f"_{target.name}"
        return [f"y_true{end}"], [f"{_output(target)}{end}"]
    prob = [f"y_prob_{target.name}_{name}" for name in target.classes]
    if not target.has_label_by_class:
        return [f"y_true_{target.name}"], prob
    return [f"y_true_{target.name}_{name}" for name in target.classes], prob


def _output(target: Target) -> str:
    return "y_value" if target.is_value else "y_prob"


def held_names(target: Target, table: Columns, *, is_only: bool) -> tuple[list[str], list[str]]:
    """Columns of labels and probabilities that the table has: with the target's name, or plain ones of the only target.

    Names that are not there are those of ``names_of``, for the message.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for names, kind, ours in zip(found, ("y_true", _output(target)), names_of(target, is_only), strict=True):
        per_class = target.has_label_by_class or (kind == "y_prob" and not target.is_single)
        ends = [f"_{one}" for one in target.classes] if per_class else [""]
        for own, end in zip(ours, ends, strict=True):
            plain = [f"{kind}{end}"] if is_only or target.has_label_by_class else []
            theirs = _theirs(target) if kind == "y_value" else ()
            names.append(next((one for one in (f"{kind}_{target.name}{end}", *plain, *theirs) if one in table), own))
    return found


def _theirs(target: Target) -> tuple[str, ...]:
    """What the column of one of several numbers may be called: as in our tables of scores, or as others have it."""
    return f"{target.name}_value", f"y_pred_{target.name}", f"{target.name}_pred", f"y_prob_{target.name}"


def renamed(columns: Columns, stated: Mapping[str, str] | None, *, targets: Sequence[Target]) -> Columns:
    """Columns under our names: those that are ``stated``, and those that only one column can be.

    Args:
        columns: by the names of the file.
        stated: name in the file by our name.
        targets: what is predicted; () where it is not known.

    Raises:
        EvaluationError: a stated column is not there, or two columns may be the same.
    """
    stated = dict(stated or {})
    for name in stated.values():
        if name not in columns:
            raise EvaluationError(f"The column {name!r} is missing. {columns_present(columns, name)}", key=name)
    ours = {theirs: name for name, theirs in stated.items()}
    table = {ours.get(name, name): values for name, values in columns.items() if name not in stated or name in ours}
    only = targets[0] if len(targets) == 1 and targets[0].is_single else None
    has_other = any(name.startswith(("y_true_", "y_prob_", "y_value_")) for name in table)
    for name, aliases in _aliases(only).items():
        if name in table or (name.startswith("y_") and has_other and only is None):
            continue
        found = [one for one in table if one not in stated and _plain(one) in map(_plain, aliases)]
        if len(found) > 1:
            raise EvaluationError(
                f"Expected one column {name!r}. Received: {', '.join(map(repr, found))}, which may all be meant. "
                f"Name it: --columns {name}={found[0]} (columns= in Python).",
                key=name,
            )
        table = {name if one in found else one: values for one, values in table.items()}
    return table


def names_in_file(table: Columns, found: Columns) -> dict[str, str]:
    """Names of the file by ours, from a table of ``renamed`` and the columns that it was made of; no others."""
    names = {id(values): name for name, values in found.items()}
    return {name: names[id(values)] for name, values in table.items() if id(values) in names}


def _aliases(only: Target | None) -> dict[str, tuple[str, ...]]:
    """Other names of each column, by ours; ``only``: the one target, where it has one output."""
    if only is None:
        return _ALIASES
    output = _output(only)
    known = {name: _ALIASES.get(name, _VALUE_ALIASES) for name in ("image_id", "patient_id", "y_true", output)}
    known["y_true"] = *known["y_true"], f"y_true_{only.name}", *([only.name] if only.is_value else [])
    # as our own tables of scores and of several targets have it
    own = _theirs(only) if only.is_value else (f"{only.name}_probability",)
    known[output] = *known[output], f"{output}_{only.name}", *own
    return known


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def completed(table: Columns, other: Columns) -> Columns:
    """The table with the patients and labels of ``other`` where it has none, by ``image_id``.

    An image that ``other`` does not have gets none; whoever compares the two refuses it.
    """
    lacks = [name for name in other if name == "patient_id" or name.startswith("y_true")]
    lacks = [name for name in lacks if name not in table]
    if not lacks or "image_id" not in table or "image_id" not in other:
        return table
    row = {str(one): k for k, one in enumerate(other["image_id"])}
    places = [row.get(str(one)) for one in table["image_id"]]
    return table | {name: [None if k is None else other[name][k] for k in places] for name in lacks}


def columns_present(columns: Iterable[str], name: str) -> str:
    """End of a message about a missing column: the nearest one that is there, or all of them, and how to name it."""
    return nearest(name, list(columns)).replace("Expected one of", "Columns present")
