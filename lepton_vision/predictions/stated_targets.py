"""Targets and subgroups of other tools' tables, from their column names or from command-line options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from lepton_vision.errors import EvaluationError, InvalidValueError, nearest
from lepton_vision.predictions.column_names import Columns, columns_present, renamed
from lepton_vision.predictions.files import infer_targets, naming_table, read_columns
from lepton_vision.predictions.table_facts import targets_of
from lepton_vision.types import Target, TargetKind
from lepton_vision.types.kinds import kind_called
from lepton_vision.types.words import is_unknown

_EXAMPLE = (
    "Write --target kind=ordinal, --target grade:kind=ordinal,classes=none+mild+severe, or --target "
    "age:kind=regression,unit=years."
)


def stated_targets(
    path: str | Path, stated: Sequence[str], *, columns: Mapping[str, str] | None = None
) -> tuple[Target, ...] | None:
    """Targets of a table, changed by what is stated; None where nothing is.

    Args:
        path: the table.
        stated: ``[NAME:]kind=…[,classes=a+b+c]`` each, or ``[NAME:]kind=regression[,unit=years]`` of a number. Without
            a name it is of the only target, or of all; a multilabel target gathers the columns ``y_true_<class>``, or
            ``y_true_<name>_<class>``.
        columns: as for ``Predictions.load``.

    Raises:
        EvaluationError: a text that cannot be read, or a target or class that the table does not have.
    """
    if not stated:
        return None
    with naming_table(path):
        found, facts = read_columns(path)
        table = renamed(found, columns, targets=targets_of(facts))
        targets = targets_of(facts) or infer_targets(table)
        for text in stated:
            targets = _changed(targets, _parsed(text), table=table)
    return targets


class _Stated(NamedTuple):
    name: str
    kind: TargetKind | None
    classes: tuple[str, ...]
    unit: str


def _parsed(text: str) -> _Stated:
    name, _, rest = text.rpartition(":")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if not set(parts) <= {"kind", "classes", "unit"} or not all(parts.values()):
        raise EvaluationError(f"{_EXAMPLE} Received: {text!r}.", key="target")
    kind = parts.get("kind")
    if kind is not None and kind not in get_args(TargetKind):
        raise EvaluationError(f"Unknown kind {kind!r}. {nearest(kind, list(get_args(TargetKind)))}", key="target")
    classes = parts.get("classes")
    named = tuple(classes.split("+")) if classes else ()
    return _Stated(name.strip(), kind, named, parts.get("unit", ""))  # type: ignore[arg-type]


def _changed(targets: tuple[Target, ...], stated: _Stated, *, table: Columns) -> tuple[Target, ...]:
    name, kind, classes, unit = stated
    if kind is not None and kind_called(kind).has_label_by_class:
        return _gathered(targets, name, classes, table=table)
    known = [target.name for target in targets]
    is_number = kind is not None and kind_called(kind).is_value
    has_labels = "y_true" in table or (is_number and name in table)  # a column "age" may be the true age
    if name and name not in known and not (len(known) == 1 and has_labels):
        raise EvaluationError(f"The table has no target {name!r}. {nearest(name, known)}", key="target")
    is_asked = [not name or name == target.name or len(known) == 1 for target in targets]
    return tuple(
        _made(name or one.name, kind or one.kind, classes or _kept(one, kind), unit or one.unit) if asked else one
        for one, asked in zip(targets, is_asked, strict=True)
    )


def _kept(target: Target, kind: TargetKind | None) -> tuple[str, ...]:
    """Its classes, where it keeps any in another kind."""
    return () if kind is not None and kind_called(kind).is_value else target.classes


def _gathered(
    targets: tuple[Target, ...], name: str, classes: tuple[str, ...], *, table: Columns
) -> tuple[Target, ...]:
    """The targets with one multilabel target in place of the columns of its classes."""
    named = f"y_true_{name}_"
    prefix = named if name and any(column.startswith(named) for column in table) else "y_true_"
    there = tuple(column.removeprefix(prefix) for column in table if column.startswith(prefix))
    missing = [one for one in classes if one not in there]
    if missing or len(there) < 2:
        raise EvaluationError(
            f"A multilabel target needs a column {prefix}<class> and y_prob for each of two or more classes. Missing: "
            f"{', '.join(missing) or 'such columns'}. {columns_present(table, prefix)}",
            key="target",
        )
    classes = classes or there
    taken = {prefix.removeprefix("y_true_") + one for one in classes}
    return (*(one for one in targets if one.name not in taken), _made(name or "y", "multilabel", classes))


def _made(name: str, kind: TargetKind, classes: tuple[str, ...], unit: str = "") -> Target:
    try:
        return Target(name, kind, classes, unit=unit)
    except InvalidValueError as error:
        raise EvaluationError(str(error), key="target") from None


def table_subgroups(
    path: str | Path, names: Sequence[str], *, columns: Mapping[str, str] | None = None
) -> dict[str, list[Any]]:
    """Values of the columns by which subgroups are asked for, in the order of the rows; what is unknown is None.

    Raises:
        EvaluationError: a column that the table does not have.
    """
    if not names:
        return {}
    with naming_table(path):
        table = read_columns(path)[0]
        table |= renamed(table, columns, targets=())
        for name in names:
            if name not in table:
                raise EvaluationError(f"No column {name!r} for subgroups. {nearest(name, list(table))}", key=name)
        return {name: _values(table[name]) for name in names}


def _values(cells: Sequence[Any]) -> list[Any]:
    """Numbers where every known cell is one, text otherwise."""
    known = [None if one is None or one != one or is_unknown(str(one)) else one for one in cells]
    try:
        numbers = [None if one is None else float(one) for one in known]
    except ValueError:
        return [None if one is None else str(one) for one in known]
    is_whole = all(one is None or (np.isfinite(one) and one == int(one)) for one in numbers)
    return [int(one) if is_whole and one is not None else one for one in numbers]
