"""Forest plot of subgroup figures, built of table rows so that names stay text and fit a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lepton_vision.evaluation.classes.analyses import Gap, Subgroup, SubgroupColumn
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.classes.figure_table import names_for
from lepton_vision.reporting.classes.analyses import show
from lepton_vision.reporting.classes.case_words import count_cases, unit_of
from lepton_vision.reporting.classes.view import Shown, has_width, is_known, number, show_figure
from lepton_vision.reporting.wording import term
from lepton_vision.types import Figure, Target
from lepton_vision.types.figure import FigureSpec


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One subgroup.

    Attributes:
        value: its name.
        n: "120 images of 40 patients".
        is_small: too small to judge.
        figure: what was found.
    """

    value: str
    n: str
    is_small: bool
    figure: Shown


@dataclass(frozen=True, slots=True)
class Forest:
    """One figure of one target in the subgroups of one column.

    Attributes:
        title: the figure, with its target where there are several.
        lowest: where the scale begins, as text. "" where the figure has none.
        whole: the figure of all images.
        rows: one by subgroup.
        gap: the largest difference in words, or "".
        highest: where the scale ends, as text.
    """

    title: str
    lowest: str
    whole: Shown
    rows: tuple[ForestRow, ...]
    gap: str
    highest: str = "1"


@dataclass(frozen=True, slots=True)
class ForestGroup:
    """All forests of one column.

    Attributes:
        column: name of the column.
        forests: by figure.
        warnings: what limits the comparison.
    """

    column: str
    forests: tuple[Forest, ...]
    warnings: tuple[str, ...]


def forest_groups(evaluation: Evaluation) -> list[ForestGroup]:
    """Return one group for each column that subgroups were formed by."""
    return [_group(evaluation, column) for column in evaluation.analyses.subgroups or ()]


def _group(evaluation: Evaluation, column: SubgroupColumn) -> ForestGroup:
    forests = []
    for target in evaluation.targets:
        brought = [name for name, spec in evaluation.own_figures.items() if target.is_among(spec.tested)]
        keys = (*names_for("tested", target.kind), *brought)
        forests += [_forest(evaluation, target, column, key=key) for key in keys if _has(column, target, key)]
    return ForestGroup(column.column, tuple(forests), column.warnings)


def _has(column: SubgroupColumn, target: Target, key: str) -> bool:
    return any(key in one.figures.get(target.name, {}) for one in column.subgroups)


def _forest(evaluation: Evaluation, target: Target, column: SubgroupColumn, *, key: str) -> Forest:
    own = evaluation.own_figures
    words = term(key, target, own)
    title = f"{target.name}: {words.title}" if len(evaluation.targets) > 1 else words.title
    gaps = [gap for gap in column.gaps if (gap.target, gap.figure) == (target.name, key)]
    whole = show_figure(key, evaluation.figures.get(target.name, {}).get(key), target=target, own=own)
    rows = [_row(one, target, key=key, unit=unit_of(evaluation), own=own) for one in column.subgroups]
    if target.is_value and key not in own:
        found = [evaluation.figures[target.name][key], *(one.figures[target.name][key] for one in column.subgroups)]
        return _number_forest(
            title, [whole, *(row.figure for row in rows)], found, rows, _gap(gaps[0], words) if gaps else ""
        )
    known = [shown.scale[1] for shown in (whole, *(row.figure for row in rows)) if shown.scale]
    lowest = min(10.0 * math.floor(min(known, default=0.0) / 10.0), 90.0)
    return Forest(
        title,
        f"{lowest / 100.0:g}" if words.scale == "share" else "",
        _stretch(whole, lowest),
        tuple(replace(row, figure=_stretch(row.figure, lowest)) for row in rows),
        _gap(gaps[0], words) if gaps else "",
    )


def _number_forest(title: str, shown: list[Shown], figures: list[Figure], rows: list[ForestRow], gap: str) -> Forest:
    """Forest of a figure that is no share, from the lowest to the highest end of its intervals; whole figure first."""
    ends = [end for one in figures for end in (one.value, one.low, one.high) if is_known(end)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if not low < high:
        return Forest(title, "", shown[0], tuple(rows), gap)
    placed = [replace(one, scale=_place(figure, low, high)) for one, figure in zip(shown, figures, strict=True)]
    rows = [replace(row, figure=one) for row, one in zip(rows, placed[1:], strict=True)]
    lowest, highest = (f"{end:.3g}".replace("-", "−") for end in (low, high))
    return Forest(title, lowest, placed[0], tuple(rows), gap, highest)


def _place(figure: Figure, low: float, high: float) -> tuple[float, float, float] | None:
    if not is_known(figure.value):
        return None
    ends = (figure.low, figure.high) if has_width(figure) else (figure.value, figure.value)
    value, left, right = (round(100.0 * (x - low) / (high - low), 2) for x in (figure.value, *ends))
    return value, left, right


def _stretch(shown: Shown, lowest: float) -> Shown:
    """The same figure on a scale that begins at ``lowest`` percent."""
    if shown.scale is None:
        return shown
    value, low, high = (round(100.0 * (x - lowest) / (100.0 - lowest), 2) for x in shown.scale)
    return replace(shown, scale=(value, low, high))


def _row(subgroup: Subgroup, target: Target, *, key: str, unit: str, own: Mapping[str, FigureSpec]) -> ForestRow:
    figure = show_figure(key, subgroup.figures.get(target.name, {}).get(key), target=target, own=own)
    counted = count_cases(subgroup.n, subgroup.n_patients, unit=unit)
    return ForestRow(subgroup.value, counted, subgroup.is_small, figure)


def _gap(gap: Gap, words: FigureSpec) -> str:
    if not is_known(gap.difference.value):
        return ""
    text = f"Largest gap: {gap.highest} less {gap.lowest}, {show(gap.difference, words)}"
    if not is_known(gap.p):
        return f"{text}; not tested."
    return (
        f"{text}; p {_p(gap.p)}, corrected for all gaps tested {_p(gap.p_holm).removeprefix('= ')} ({gap.test}, Holm)."
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {number(value)}"
