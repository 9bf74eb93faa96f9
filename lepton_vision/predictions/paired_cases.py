"""Predictions of two models aligned on the same cases; differing cases are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.predictions.column_names import completed, names_in_file, renamed
from lepton_vision.predictions.files import fields_of, naming_table, read_columns
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.predictions.stated_targets import stated_targets
from lepton_vision.predictions.table_facts import targets_of
from lepton_vision.types.id_key import ENVIRONMENT_KEY, SAME_KEY, are_two_keys


def align(first: Predictions, second: Predictions) -> Predictions:
    """Return the second predictions in the order of the first, checked to be of the same cases.

    Raises:
        EvaluationError: other targets, another split, images that only one of them has, or patients or labels that
            differ; where ids of two keys are why, it says so.
    """
    _check_targets(first, second)
    if first.split is not None and second.split is not None and first.split != second.split:
        raise EvaluationError(
            f"Compare predictions of one split. Received: {first.split} and {second.split}.", key="split"
        )
    only = [np.setdiff1d(a.image_id, b.image_id).size for a, b in ((first, second), (second, first))]
    if any(only):
        _check_keys(first, second)
        raise EvaluationError(
            f"Compare predictions of the same images. Received: {only[0]} images only in the first, {only[1]} only in "
            "the second. Select the common ones in both, and report what was left out.",
            key="image_id",
        )
    order = np.argsort(second.image_id)
    second = second.select(order[np.searchsorted(second.image_id, first.image_id, sorter=order)])
    is_named = first.names_patient | second.names_patient  # what else stands there is of a study, series or file
    others = is_named & (first.patient_id != second.patient_id)
    if others.any():
        _check_keys(first, second)
        _refuse(others, "patients", key="patient_id")
    for target in first.targets:
        a, b = first.y_true[target.name], second.y_true[target.name]
        differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        if differs.any():
            _refuse(
                differs.any(axis=1) if differs.ndim == 2 else differs, f"labels of {target.name!r}", key=target.name
            )
    return second


def _check_targets(first: Predictions, second: Predictions) -> None:
    shapes = [[(t.name, t.kind, t.classes) for t in one.targets] for one in (first, second)]
    if sorted(shapes[0]) != sorted(shapes[1]):
        names = [", ".join(f"{name} ({kind})" for name, kind, _ in shape) for shape in shapes]
        raise EvaluationError(
            f"Compare predictions of the same targets with the same classes. Received: {names[0]} and {names[1]}.",
            key="targets",
        )
    units = [{t.name: t.unit for t in one.targets if t.unit} for one in (first, second)]
    for name in units[0].keys() & units[1].keys():
        if units[0][name] != units[1][name]:
            raise EvaluationError(
                f"Compare numbers in one unit. Received: {name!r} in {units[0][name]} and in {units[1][name]}. Convert "
                "one of them.",
                key=name,
            )


def record_looks(first: Predictions, second: Predictions, *, figures: Mapping[str, Sequence[str]]) -> None:
    """Note a look of both models at a test split in the ledgers of their runs, where they belong to one."""
    for ledger, model in dict.fromkeys((one.test_ledger, one.bundle_id) for one in (first, second)):
        if ledger is not None:
            replace(ledger, command="compare() in Python").record(model, figures, cases=first.cases)


def _check_keys(first: Predictions, second: Predictions) -> None:
    """Say that ids differ because they were made with two keys, where that is so."""
    if are_two_keys(first.id_key, second.id_key):
        raise EvaluationError(
            "Compare predictions whose ids were made with one key. Received: tables of two keys, in which one image "
            f"has two ids. {SAME_KEY}, then scan and predict again.",
            key=ENVIRONMENT_KEY,
        )


def load_pair(
    paths: tuple[Path, Path],
    *,
    columns: tuple[Mapping[str, str] | None, Mapping[str, str] | None] = (None, None),
    stated: Sequence[str] = (),
) -> tuple[Predictions, Predictions]:
    """Read the tables of two tools on the same images.

    What a table of another tool does not say is that of the other table: the targets, and by ``image_id`` the patients
    and labels. ``stated`` says what the first one's targets are, see ``stated_targets``.
    """
    told = stated_targets(paths[0], stated, columns=columns[0])
    read = [read_columns(path) for path in paths]
    targets = told or targets_of(read[0][1]) or targets_of(read[1][1]) or None
    tables = []
    for path, names, (found, _) in zip(paths, columns, read, strict=True):
        with naming_table(path):
            tables.append(renamed(found, names, targets=targets or ()))
    tables = [completed(tables[0], tables[1]), completed(tables[1], tables[0])]
    loaded = []
    for path, table, (found, facts) in zip(paths, tables, read, strict=True):
        with naming_table(path):
            loaded.append(Predictions(**fields_of(table, facts, targets=targets, theirs=names_in_file(table, found))))
    return loaded[0], loaded[1]


def _refuse(differs: np.ndarray[tuple[int], np.dtype[np.bool_]], what: str, *, key: str) -> None:
    row = int(np.flatnonzero(differs)[0])
    raise EvaluationError(
        f"Compare predictions of the same cases: the {what} differ. Received: {int(differs.sum())} such images, the "
        f"first in row {row} (from 0) of the first table. Correct the tables.",
        row=row,
        key=key,
    )
