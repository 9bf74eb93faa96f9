"""Caveats ahead of the figures: unreliable figures and the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lepton_vision.evaluation.classes.evaluation import CountArray, Evaluation
from lepton_vision.reporting.classes.case_words import plural, unit_of
from lepton_vision.reporting.classes.view import is_known, is_of_class
from lepton_vision.reporting.wording import split_name, term
from lepton_vision.types import Target

# Below this many images of a class an interval of sensitivity or specificity spans more than 0.2 (Wilson, at 0.9).
FEW_IMAGES = 30
FEW_PATIENTS = 50
FEW_LOOKS = 3  # at a test split, until the page warns
_LISTED = 6


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence; ``kind`` says how loud."""

    kind: Literal["caution", "info"]
    text: str


def find_notes(evaluation: Evaluation) -> list[Note]:
    """List what weakens these figures, cautions first."""
    notes = [*_on_split(evaluation), *_on_looks(evaluation), *_on_size(evaluation)]
    for target in evaluation.targets:
        notes += _on_classes(evaluation, target)
        notes += _on_undefined(evaluation, target)
    return sorted(notes, key=lambda note: note.kind != "caution")


def class_counts(confusion: CountArray | None, target: Target) -> list[tuple[str, int, int]]:
    """Return (class, images of it, labelled images) for each class that is called positive somewhere."""
    if confusion is None or not np.size(confusion):
        return []
    table = np.asarray(confusion)
    if target.is_binary:
        return [(target.positive, int(table[1].sum()), int(table.sum()))]
    if target.is_exclusive:
        return [(name, int(table[k].sum()), int(table.sum())) for k, name in enumerate(target.classes)]
    return [(name, int(table[k, 1].sum()), int(table[k].sum())) for k, name in enumerate(target.classes)]


def _on_split(evaluation: Evaluation) -> list[Note]:
    split, point = evaluation.split, evaluation.operating_point
    notes, cases = [], plural(unit_of(evaluation))
    if split is None:
        notes.append(
            Note(
                "caution",
                f"It is not known which split these {cases} are. Only a test split that nobody "
                "chose anything on gives an honest figure.",
            )
        )
    elif split != "test":
        notes.append(
            Note(
                "caution",
                f"These are figures of the {split_name(split)} split. The model, its "
                f"calibration or its thresholds were chosen with these {cases}: expect worse on new ones.",
            )
        )
    is_decided = not all(target.is_value for target in evaluation.targets)
    if is_decided and point.chosen_on is not None and point.chosen_on == split:
        notes.append(
            Note(
                "caution",
                f"The operating point was chosen on this same {split_name(split)} split, so "
                "the figures at the threshold flatter the model.",
            )
        )
    if point.chosen_on is None and any(point.thresholds.get(t.name) for t in evaluation.targets):
        notes.append(Note("info", "The threshold was stated by hand, not chosen on validation."))
    return notes


def _on_looks(evaluation: Evaluation) -> list[Note]:
    looks = evaluation.provenance.get("test_looks")
    if looks is None or looks < 2:
        return []
    what = "the test split" if evaluation.split == "test" else "these cases"
    text = (
        f"This is look {looks:,} at {what}. Whatever was changed between the looks may have been chosen on it, and "
        "then the figures flatter the model."
    )
    return [Note("caution" if looks > FEW_LOOKS else "info", text)]


def _on_size(evaluation: Evaluation) -> list[Note]:
    notes = []
    if evaluation.n == 0:
        notes.append(Note("caution", f"No {unit_of(evaluation)} has a label: there is nothing to measure."))
    elif evaluation.n_patients < FEW_PATIENTS:
        notes.append(
            Note(
                "caution",
                f"Only {evaluation.n_patients:,} patients: the intervals are rough, and another "
                "sample could look quite different.",
            )
        )
    if evaluation.n_failed:
        words = "image could not be read and is" if evaluation.n_failed == 1 else "images could not be read and are"
        notes.append(Note("caution", f"{evaluation.n_failed:,} {words} in no figure."))
    unit, unknown = unit_of(evaluation), evaluation.provenance.get("unknown_patient", 0)
    if unknown:
        notes.append(on_unknown_patients(unknown, evaluation.n, unit=unit))
    elif evaluation.n and evaluation.n_patients == evaluation.n and unit != "patient":
        notes.append(
            Note(
                "info",
                f"Every {unit} counts as a patient of its own. If patients have several {plural(unit)} here "
                "and their ids were not given, the intervals are too narrow.",
            )
        )
    return notes


def on_unknown_patients(unknown: int, n: int, *, unit: str) -> Note:
    """Note on cases that name no patient."""
    cases = "cases" if unit == "patient" else plural(unit)
    text = (
        f"{unknown:,} of {n:,} {cases} name no patient: each file, series or study counts as a patient of its own. If "
        f"patients have several {cases} here, the intervals are too narrow; that images of one patient were trained on "
        "cannot be excluded."
    )
    return Note("caution", text)


def _on_classes(evaluation: Evaluation, target: Target) -> list[Note]:
    where = f"“{target.name}”: " if len(evaluation.targets) > 1 else ""
    unit = unit_of(evaluation)
    counts = class_counts(evaluation.confusion.get(target.name), target)
    absent = [name for name, n, labelled in counts if labelled and n == 0]
    full = [name for name, n, labelled in counts if labelled and n == labelled]
    few = [f"{name} ({n})" for name, n, _ in counts if 0 < n < FEW_IMAGES]
    rest = [f"not {name} ({m - n})" for name, n, m in counts if 0 < m - n < FEW_IMAGES]
    notes = []
    if absent or full:
        which = _enumerate([f"no {unit} is {name}" for name in absent] + [f"every {unit} is {name}" for name in full])
        means = "" if target.is_binary else ", and means are over the other classes"
        notes.append(Note("caution", f"{where}{which}. Figures that compare the classes are undefined there{means}."))
    undecided = [f"no {unit} is decided for {name}" for name in _undecided(evaluation, target)]
    if undecided:
        text = f"{where}{_enumerate(undecided)}: validation had no samples to choose an operating point on."
        notes.append(Note("caution", text))
    if few or rest:
        notes.append(
            Note(
                "caution",
                f"{where}fewer than {FEW_IMAGES} {plural(unit)} of {_enumerate(few + rest)}: read their "
                "figures together with the intervals.",
            )
        )
    unlabelled = evaluation.n_unlabelled.get(target.name, 0)
    if unlabelled:
        words = f"{unit} without a label is" if unlabelled == 1 else f"{plural(unit)} without a label are"
        notes.append(Note("info", f"{where}{unlabelled:,} {words} left out."))
    return notes


def _undecided(evaluation: Evaluation, target: Target) -> list[str]:
    """Classes without an operating point."""
    thresholds = evaluation.operating_point.thresholds.get(target.name, ()) if target.is_yes_no else ()
    return [name for name, threshold in zip(target.answers, thresholds, strict=False) if not is_known(threshold)]


def _on_undefined(evaluation: Evaluation, target: Target) -> list[Note]:
    where = f"“{target.name}”: " if len(evaluation.targets) > 1 else ""
    figures = evaluation.figures.get(target.name, {})
    undefined = [name for name, figure in figures.items() if not is_known(figure.value)]
    names = [term(name, own=evaluation.own_figures).title for name in undefined if not is_of_class(name, target)]
    if len(names) < len(undefined):
        names.append("some figures of single classes")
    if not names:
        return []
    verb = "is" if len(undefined) == 1 else "are"
    return [Note("info", f"{where}{_enumerate(names)} {verb} undefined; the reasons stand in the tables.")]


def _enumerate(names: list[str]) -> str:
    shown = names[:_LISTED]
    return ", ".join(shown) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
