"""Formatted content of the mask page, so that its template formats no numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lepton_vision.evaluation.masks.case import EMPTY_RULES, NO_THICKNESS, STATUSES, CaseFigures
from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.evaluation.masks.froc import CPM, Froc
from lepton_vision.evaluation.masks.measures import MASK_SPECS, STATISTICS
from lepton_vision.reporting.classes.notes import FEW_PATIENTS, Note, on_unknown_patients
from lepton_vision.reporting.classes.view import Shown, format_figure, is_known, number
from lepton_vision.reporting.masks.wording import (
    MASK_GROUPS,
    MASK_HEADLINES,
    OVERVIEW,
    STATUS_NAMES,
    failure_words,
)
from lepton_vision.reporting.wording import split_name
from lepton_vision.types.figure import FigureSpec, unknown_spec

WORST_CASES = 10
LISTED_VOLUMES = 20
VOLUME_COLUMNS = ("dice", "sensitivity", "precision")
VOLUME_FIGURES = ("dice", "iou", "sensitivity", "precision", "missed_rate", "false_positive_rate")
_LISTED = 8  # ids of failures by reason
_CASE_COLUMNS = ("dice", "hd95_mm", "surface_dice", "sensitivity", "precision", "volume_error_ml")
_RULED = ("dice", "iou", "hd95_mm", "surface_dice", "sensitivity", "precision")


@dataclass(frozen=True, slots=True)
class MaskRowShown:
    """One figure of a structure: the figure, how it sums up, and in how many cases it is undefined."""

    figure: Shown
    statistic: str
    undefined: str
    reasons: tuple[str, ...]


def mask_term(key: str, tolerance_mm: float) -> FigureSpec:
    """Describe a figure; the surface Dice names its tolerance."""
    words = MASK_SPECS.get(key) or unknown_spec(key)
    return replace(words, title=f"{words.title} at {tolerance_mm:g} mm") if key.startswith("surface_dice") else words


def has_sense(evaluation: SegmentationEvaluation, key: str) -> bool:
    """Whether a figure is one of these cases: flat ones have no volume, and nothing is said of it."""
    found: list[str | None] = []
    for figures in evaluation.undefined.values():
        found += figures.get(key) or [None]
    return not found or any(reason != NO_THICKNESS for reason in found)


def show_mask_figure(evaluation: SegmentationEvaluation, structure: str, key: str) -> Shown:
    """Format one figure of one structure."""
    figure = evaluation.figures[structure].get(key)
    return format_figure(key, figure, words=mask_term(key, evaluation.tolerance_mm))


def mask_headline(evaluation: SegmentationEvaluation, structure: str) -> list[Shown]:
    """Return the figures that the summary opens with; of slices of volumes, also the Dice by volume."""
    shown = [show_mask_figure(evaluation, structure, key) for key in MASK_HEADLINES if has_sense(evaluation, key)]
    if evaluation.by_volume is not None:
        shown.insert(1, replace(show_mask_figure(evaluation.by_volume, structure, "dice"), name="Dice by volume"))
    return shown


def mask_groups(evaluation: SegmentationEvaluation, structure: str) -> list[tuple[str, list[MaskRowShown]]]:
    """Return all figures of a structure, in groups of one question each."""
    groups = []
    left = [key for key in evaluation.figures[structure] if has_sense(evaluation, key)]
    for group, title in MASK_GROUPS.items():
        found = [key for key, spec in MASK_SPECS.items() if spec.group == group and key in left]
        if found:
            groups.append((title, [_row(evaluation, structure, key) for key in found]))
    return groups


@dataclass(frozen=True, slots=True)
class VolumesShown:
    """What is known of a structure when the slices of each volume are counted together."""

    rows: list[MaskRowShown]
    cases: list[tuple[str, str, str, tuple[str, ...]]]
    n_hidden: int


def volumes_of(evaluation: SegmentationEvaluation, structure: str) -> VolumesShown | None:
    """Figures by volume, and (volume, slices, status, cells) of each, lowest Dice first; None without slices."""
    volumes = evaluation.by_volume
    if volumes is None:
        return None
    slices = Counter(row.volume_id or row.image_id for row in evaluation.cases if row.structure == structure)
    found = [row for row in volumes.cases if row.structure == structure]
    found.sort(key=lambda row: (row.figures.dice if is_known(row.figures.dice) else math.inf, row.image_id))
    cases = [
        (
            row.image_id,
            f"{slices[row.image_id]:,}",
            STATUS_NAMES[row.figures.status][0],
            tuple(number(getattr(row.figures, key)) for key in VOLUME_COLUMNS),
        )
        for row in found[:LISTED_VOLUMES]
    ]
    keys = [key for key in VOLUME_FIGURES if key in volumes.figures[structure]]
    rows = [_row(volumes, structure, key) for key in keys]
    return VolumesShown(rows, cases, max(0, len(found) - LISTED_VOLUMES))


def volume_columns() -> list[str]:
    """Return the names of the cells of ``VolumesShown.cases``."""
    return [MASK_SPECS[key].title for key in VOLUME_COLUMNS]


def _row(evaluation: SegmentationEvaluation, structure: str, key: str) -> MaskRowShown:
    counts = Counter(evaluation.undefined[structure].get(key, {}))
    reasons = tuple(f"{reason} ({count:,})" for reason, count in counts.most_common())
    shown = show_mask_figure(evaluation, structure, key)
    if not is_known(evaluation.figures[structure][key].value) and reasons:
        shown = replace(shown, reason="")  # the reasons say it, with their counts
    statistic = STATISTICS.get(key, "")
    statistic = "" if statistic.startswith("share") else statistic  # the meaning of a rate says it
    return MaskRowShown(shown, statistic, f"{counts.total():,}" if counts else "", reasons)


def overview_table(evaluation: SegmentationEvaluation) -> tuple[list[str], list[tuple[str, list[Shown]]]]:
    """Return column names and a row of figures for each structure."""
    keys = [key for key in OVERVIEW if has_sense(evaluation, key)]
    columns = [mask_term(key, evaluation.tolerance_mm).title for key in keys]
    rows = [(name, [show_mask_figure(evaluation, name, key) for key in keys]) for name in evaluation.structures]
    return columns, rows


def status_table(evaluation: SegmentationEvaluation, structure: str) -> list[tuple[str, str, str]]:
    """Return (status, meaning, count), all four of them."""
    return [(*STATUS_NAMES[status], f"{evaluation.statuses[structure].get(status, 0):,}") for status in STATUSES]


@dataclass(frozen=True, slots=True)
class CaseShown:
    """One row of the table of the worst cases."""

    image_id: str
    status: str
    cells: tuple[str, ...]
    reason: str


def worst_cases(evaluation: SegmentationEvaluation, structure: str) -> list[CaseShown]:
    """Return the cases with the lowest Dice, lowest first; equal ones by id, as in ``evaluation.ranked``."""
    rows = [row for row in evaluation.cases if row.structure == structure and is_known(row.figures.dice)]
    rows.sort(key=lambda row: (row.figures.dice, row.image_id))
    return [_case(row, _case_keys(evaluation)) for row in rows[:WORST_CASES]]


def case_columns(evaluation: SegmentationEvaluation) -> list[str]:
    """Return the names of the columns of ``CaseShown.cells``."""
    return [mask_term(key, evaluation.tolerance_mm).title for key in _case_keys(evaluation)]


def _case_keys(evaluation: SegmentationEvaluation) -> list[str]:
    return [key for key in _CASE_COLUMNS if has_sense(evaluation, key)]


def _case(row: CaseFigures, keys: Sequence[str]) -> CaseShown:
    figures = row.figures
    cells = tuple(number(getattr(figures, key)) for key in keys)
    reasons = dict.fromkeys(reason for reason in figures.reasons.values() if reason != NO_THICKNESS)
    return CaseShown(row.image_id, STATUS_NAMES[figures.status][0], cells, "; ".join(reasons))


def show_failures(evaluation: SegmentationEvaluation) -> list[tuple[str, str, str]]:
    """Return (reason in words, count, ids), most frequent first."""
    by_reason: dict[str, list[str]] = {}
    for failure in evaluation.failures:
        by_reason.setdefault(failure.reason, []).append(failure.image_id)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(failure_words(reason), f"{len(ids):,}", _enumerate(ids)) for reason, ids in ordered]


def _enumerate(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest:,} more" if rest > 0 else "")


def empty_rules() -> tuple[list[str], list[tuple[str, str, list[tuple[str, str]]]]]:
    """Return column names and, by status, (status, meaning, cells); a cell is (value, reason why it is undefined)."""
    keys = _RULED
    rows = []
    for status in STATUSES:
        rules = EMPTY_RULES.get(status, {})
        cells = []
        for key in keys:
            rule = rules.get(key, "computed")
            is_number = isinstance(rule, float)
            text = f"{rule:g}" if is_number else str(rule)
            cells.append((text, "") if is_number or key not in rules else ("undefined", text))
        rows.append((*STATUS_NAMES[status], cells))
    return [MASK_SPECS[key].title for key in keys], rows


def froc_rows(found: Froc) -> list[Shown]:
    """Return the sensitivity at each rate and their mean."""
    rows = []
    for key, figure in found.figures.items():
        rate = key.removeprefix("sensitivity_at_")
        words = CPM if key == CPM.name else FigureSpec(key, f"Sensitivity at {rate} false positives per case")
        rows.append(format_figure(key, figure, words=words))
    return rows


def mask_notes(
    evaluation: SegmentationEvaluation, *, split: str | None, frocs: Mapping[str, Froc] | None = None
) -> list[Note]:
    """List what weakens these figures, cautions first."""
    notes = [*_on_split(split), *_on_size(evaluation)]
    if evaluation.failures:
        count = len(evaluation.failures)
        words = "case failed and is" if count == 1 else "cases failed and are"
        notes.append(Note("caution", f"{count:,} {words} in no figure; the reasons stand below."))
    for structure in evaluation.structures:
        notes += _on_structure(evaluation, structure)
    notes += _on_undefined(evaluation)
    if frocs and any(found.n != evaluation.n for found in frocs.values()):
        notes.append(Note("info", "The FROC curve was made from another number of cases than the other figures."))
    return sorted(notes, key=lambda note: note.kind != "caution")


def _on_split(split: str | None) -> list[Note]:
    if split is None:
        text = (
            "It is not known which split these cases are. Only a test split that nobody chose anything on gives an "
            "honest figure."
        )
        return [Note("caution", text)]
    if split == "test":
        return []
    text = (
        f"These are figures of the {split_name(split)} split. The model or its thresholds were chosen with these "
        "cases: expect worse on new ones."
    )
    return [Note("caution", text)]


def _on_size(evaluation: SegmentationEvaluation) -> list[Note]:
    notes = []
    if evaluation.n_patients < FEW_PATIENTS:
        few = "one patient" if evaluation.n_patients == 1 else f"{evaluation.n_patients:,} patients"
        text = f"Only {few}: the intervals are rough, and another sample could look quite different."
        notes.append(Note("caution", text))
    unknown = evaluation.provenance.get("unknown_patient", 0)
    if unknown:
        notes.append(on_unknown_patients(unknown, evaluation.n, unit="image"))
    elif evaluation.n > 1 and evaluation.n_patients == evaluation.n:
        text = (
            "Every case counts as a patient of its own. If patients have several cases here and their ids were not "
            "given, the intervals are too narrow."
        )
        notes.append(Note("info", text))
    return notes


def _on_structure(evaluation: SegmentationEvaluation, structure: str) -> list[Note]:
    counts = evaluation.statuses[structure]
    total = counts["present"] + counts["missed"]
    if not total:
        return [Note("caution", f"“{structure}”: the structure is in no true mask; nothing says how well it is found.")]
    if not counts["missed"]:
        return []
    of_others = " HD95 is of the others only." if is_known(evaluation.figures[structure]["hd95_mm"].value) else ""
    return [Note("caution", f"“{structure}”: missed in {counts['missed']:,} of {total:,} cases.{of_others}")]


def _on_undefined(evaluation: SegmentationEvaluation) -> list[Note]:
    """Say once which figures are undefined; rates are left out, as the counts of statuses show what is missing."""
    by_names: dict[str, list[str]] = {}
    for structure, figures in evaluation.figures.items():
        unknown = [key for key, one in figures.items() if not (is_known(one.value) or key.endswith("_rate"))]
        undefined = [key for key in unknown if has_sense(evaluation, key)]
        if undefined:
            names = ", ".join(mask_term(key, evaluation.tolerance_mm).title for key in undefined)
            by_names.setdefault(f"{names} {'is' if len(undefined) == 1 else 'are'} undefined", []).append(structure)
    only = len(evaluation.structures) == 1
    return [
        Note("info", f"{text}{'' if only else f' for {_enumerate(found)}'}; the reasons stand in the tables.")
        for text, found in by_names.items()
    ]
