"""Targets inferred from the label columns of a manifest, and checks of its labels before training."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lepton_vision.errors import LabelError, ManifestError
from lepton_vision.manifest.class_counts import find_problem
from lepton_vision.manifest.label_problems import is_number, likely_codes, not_classes, question, uncertain_values
from lepton_vision.types import Split, Target, TargetKind
from lepton_vision.types.words import is_unknown

if TYPE_CHECKING:
    from lepton_vision.manifest.table import Manifest

import numpy as np

from lepton_vision.manifest.label_columns import DASHES, LABEL_NAMES, canonical, is_negative_word, is_nothing

_LOGGER = logging.getLogger(__name__)


def unknown_name(target: Target) -> str:
    """Name of the unknown in counts of labels: "unknown", unless a class has this name."""
    return "no label" if "unknown" in target.classes else "unknown"


def infer_targets(manifest: Manifest) -> tuple[Target, ...]:
    """The one target that a manifest leaves no doubt about; otherwise an error that shows what to write.

    One label column (or the one of several that is named label, target, y or class, or that alone can hold classes):
    values 0 and 1 are a binary target; two words of which exactly one says "absent" (``NEGATIVE_WORDS``) too; three or
    more classes are multiclass, in sorted order. Words for the unknown are no classes (``words.UNKNOWN_WORDS``).

    Raises:
        LabelError: no label column, several of them, one class only, two words without a known negative, classes that
            differ in spelling only, what looks uncertain, or what are no classes (measurements, dates, ids, text).
    """
    column = _label_column(manifest)
    counts = _counts(manifest, column)
    values = sorted(counts, key=_order)
    name = _name_of(column)
    named = None if name == column else column
    if len(values) < 2:
        taken = [text for value in manifest.ok.frame[column].dropna().unique() if is_unknown(text := canonical(value))]
        hint = f" {taken[:5]} count as unknown, unless the configuration names them as classes." if taken else ""
        raise LabelError(
            f"Column {column!r} holds {len(values)} class among the usable rows: {values}. Expected at least 2.{hint}",
            key=column,
        )
    _check_values(column, counts, name=name)
    if len(values) > 2:
        return (Target(name, "multiclass", tuple(values), column=named),)
    if values == ["0", "1"]:
        return (Target(name, "binary", ("0", "1"), column=named),)
    negatives = [value for value in values if is_negative_word(value)]
    if len(negatives) != 1:
        raise LabelError(
            f"Column {column!r} holds {values[0]!r} and {values[1]!r}; which one is the finding is not known. "
            f"Write it in the configuration, negative class first:\n{_snippet(name, values, column=named)}",
            key=column,
        )
    positive = next(value for value in values if value != negatives[0])
    return (Target(name, "binary", (negatives[0], positive), column=named),)


def _check_values(column: str, counts: Counter[str], *, name: str) -> None:
    """Ask about values that are no classes, look uncertain, or stand for one class in two spellings."""
    if strange := not_classes(counts):
        raise LabelError(
            f"Column {column!r} holds {strange}. "
            + (
                "To predict the number itself, say so in the configuration (its unit may be left out):\n"
                + _snippet(name, [], column=None if name == column else column, kind="regression")
                if all(map(is_number, counts))
                else "Write a column of classes, name another column, or name the classes:\n"
                + _snippet("label", ["negative", "positive"], column="COLUMN")
            ),
            key=column,
        )
    values = sorted(counts, key=_order)
    if unsure := uncertain_values(values):
        rest = [value for value in values if value not in unsure]
        rows = sum(counts[value] for value in unsure)
        raise LabelError(
            f"Column {column!r} holds {', '.join(map(repr, unsure))} in {rows} rows, which looks like an uncertain "
            f"label. {_ASK_UNCERTAIN}\n"
            + _snippet(
                name,
                rest if len(rest) > 1 else ["0", "1"],
                column=None if name == column else column,
                uncertain=True,
            ),
            key=column,
        )
    if asked := question(counts):
        raise LabelError(f"Column {column!r} {asked}, or name the classes in the configuration.", key=column)


_ASK_UNCERTAIN: Final = (
    "Say in the configuration what it counts as, `uncertain:` unknown, positive or negative (or name it among the "
    "classes of a multiclass target):"
)


def evident_targets(manifest: Manifest) -> tuple[Target, ...]:
    """Result of ``infer_targets``; empty where there is a doubt, which is logged."""
    try:
        return infer_targets(manifest)
    except LabelError as doubt:
        if doubt.key in manifest.label_columns:
            _LOGGER.warning("No target is taken from the labels. %s", doubt)
        return ()


def require_labels(part: Manifest, targets: Sequence[Target], *, split: Split) -> Manifest:
    """Refuse a part that cannot be learnt from or judged on: empty, unlabelled, or of one class only.

    Every target must be learnt; on another split than train it is enough that one of several can be judged.

    Raises:
        ManifestError: no rows.
        LabelError: a target is of no use.
    """
    require_rows(part, split=split)
    problems = [found for target in targets if (found := find_problem(part, target, split=split)) is not None]
    if problems and (split == "train" or len(problems) == len(targets)):
        raise problems[0]
    return part


def require_rows(part: Manifest, *, split: Split) -> None:
    """Refuse a part without rows, as before a division.

    Raises:
        ManifestError: no rows.
    """
    if len(part) == 0:
        raise ManifestError(
            f"Expected rows in the {split} split. Received: none. Run `split`, or give a split column.", key="split"
        )


def _counts(manifest: Manifest, column: str) -> Counter[str]:
    """Usable rows by value of a label column, the unknown left out; a dash beside "+" is a class."""
    counts: Counter[str] = Counter()
    for value, count in manifest.frame.loc[manifest.is_ok, column].value_counts().items():
        counts[canonical(value)] += int(count)
    dashes = DASHES if any(re.fullmatch(r"\d?\++", value) for value in counts) else frozenset[str]()
    for value in [value for value in counts if is_unknown(value) and value not in dashes]:
        del counts[value]
    return Counter({value: n for value, n in counts.items() if not is_nothing(value, list(counts))})


def _label_column(manifest: Manifest) -> str:
    columns = manifest.label_columns
    named = [column for column in columns if column.lower() in LABEL_NAMES]
    if len(columns) == 1:
        return columns[0]
    if len(named) == 1:
        return named[0]
    if not columns:
        raise LabelError(
            "The manifest has no label column. Scan with a label table (labels=…), or keep one folder for each class. "
            "Columns that hold facts (age, sex, view, index …) are no labels unless the configuration names them."
        )
    counts = {column: _counts(manifest, column) for column in columns}
    likely = [name for name, found in counts.items() if len(found) > 1 and not not_classes(found)]
    if len(likely) == 1:
        return likely[0]
    findings = [name for name in likely if set(counts[name]) <= {"0", "1", "-1"}]
    if len(findings) > 1:
        is_unsure = any("-1" in counts[name] for name in findings)
        asked = f"-1 looks like an uncertain label. {_ASK_UNCERTAIN}" if is_unsure else "For example:"
        snippet = f"{asked}\n{_snippet('findings', findings, kind='multilabel', uncertain=is_unsure)}"
    else:
        snippet = f"For example:\n{_example(counts, likely or columns)}"
    raise LabelError(
        f"The manifest has several label columns: {(likely or list(columns))[:12]}. Name what to predict in the "
        f"configuration. {snippet}",
        key="targets",
    )


def _example(counts: Mapping[str, Counter[str]], columns: Sequence[str]) -> str:
    """YAML of a target of the first of these columns that leaves no doubt about its classes, or of the first one."""
    clear = [name for name in columns if not question(counts[name]) and not uncertain_values(list(counts[name]))]
    column = (clear or columns)[0]
    values = sorted(counts[column], key=_order)
    negatives = [value for value in values if is_negative_word(value)]
    classes = negatives + [value for value in values if value not in negatives] if len(values) == 2 else values
    named = len(values) > 1 and column in clear and not not_classes(counts[column])
    return _snippet(_name_of(column), classes if named else ["negative", "positive"], column=column)


def _name_of(column: str) -> str:
    """Name of a target of a column."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in column) or "label"


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    return (0, float(value), value) if is_number(value) else (1, 0.0, value)


def _snippet(
    name: str, classes: list[str], *, column: str | None = None, kind: TargetKind | None = None, uncertain: bool = False
) -> str:
    """YAML of one target, ready to be copied; binary where there are two classes."""
    kind = kind or ("binary" if len(classes) == 2 else "multiclass")
    lines = ["targets:", f"  - name: {name}", f"    kind: {kind}"]
    lines += [f"    classes: {classes}"] if classes else ["    unit: years"]
    lines += [f"    column: {json.dumps(column, ensure_ascii=False)}"] if column else []
    return "\n".join([*lines, *(["    uncertain: unknown"] if uncertain else [])])


def warn_lost(manifest: Manifest, targets: Sequence[Target]) -> None:
    """Tell rows of the label table without an image, images without a row, and images without a label of a target."""
    for note in manifest.label_notes:
        _LOGGER.warning("%s", note)
    usable = manifest.ok
    for target in targets:
        if target.is_value and (codes := likely_codes(usable.labels(target))):
            _LOGGER.warning(
                "Target %r holds %s far from all other values, which looks like a code for unknown, and counts as a "
                "value. Leave these cells blank in the label table if they are not known.",
                target.name,
                ", ".join(codes),
            )
        if not target.mask_values:
            unknown = int(np.isnan(usable.labels(target).reshape(len(usable), -1)).all(axis=1).sum())
            if unknown:
                _LOGGER.warning(
                    "%d of %d usable images have no known label of target %r and take no part in it.",
                    unknown,
                    len(usable),
                    target.name,
                )
