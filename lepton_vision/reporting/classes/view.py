"""Formatted content of the classification page, so that its template formats no numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.classes.figure_table import SPECS, names_for, parse_key
from lepton_vision.reporting.classes.case_words import plural, unit_of
from lepton_vision.reporting.wording import (
    GROUPS,
    METHOD_NAMES,
    REASON_NAMES,
    split_name,
    term,
)
from lepton_vision.types import SPLITS, Figure, Target, decimals
from lepton_vision.types.figure import FigureSpec, unknown_spec

NOTHING = "–"
_LARGEST_CONFUSION = 50  # classes: nobody reads a table of more, and a thousand make a page of 100 MB
_UNKNOWN = Figure(math.nan, math.nan, math.nan, 0, "not computed")
_ROUNDING = 1e-12  # a difference of equal shares is no exact 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure as text.

    Attributes:
        key: name in ``Evaluation.figures``.
        name: name in the page.
        meaning: one plain sentence, or "".
        value: "0.931" or "–".
        interval: "0.902 – 0.955" or "".
        n: "1,234".
        reason: why undefined, or a caveat; or "".
        others: intervals by other methods, "DeLong 0.901 – 0.956".
        scale: value, low and high in percent of a scale from 0 to 1, each clipped; None where it has no such scale.
    """

    key: str
    name: str
    meaning: str
    value: str
    interval: str
    n: str
    reason: str
    scale: tuple[float, float, float] | None
    others: tuple[str, ...] = ()


def show_figure(
    key: str,
    figure: Figure | None,
    *,
    target: Target | None = None,
    wording: str | None = None,
    own: Mapping[str, FigureSpec] | None = None,
) -> Shown:
    """Format one figure; ``wording`` is the name whose words to use where the key carries a class."""
    return format_figure(key, figure, words=term(wording or key, target, own))


def format_figure(key: str, figure: Figure | None, *, words: FigureSpec) -> Shown:
    """Format one figure under the name and with the meaning that ``words`` gives it."""
    one = figure or _UNKNOWN
    has_interval = has_width(one)
    scale = None
    if words.scale == "share" and is_known(one.value):
        low, high = (one.low, one.high) if has_interval else (one.value, one.value)
        value, low, high = (round(100.0 * min(max(x, 0.0), 1.0), 2) for x in (one.value, low, high))
        scale = (value, low, high)
    digits = digits_of(words, one.value, one.low, one.high)
    interval = range_text(one.low, one.high, digits=digits).replace("-", "−") if has_interval else ""
    shown = number(one.value, digits=digits).replace("-", "−")
    others = tuple(
        f"{METHOD_NAMES.get(other.method, other.method)} {range_text(other.low, other.high)}"
        for other in one.others
        if is_known(other.low) and is_known(other.high)
    )
    return Shown(key, words.title, words.meaning, shown, interval, f"{one.n:,}", one.reason, scale, others)


def has_width(figure: Figure) -> bool:
    """Whether a figure has an interval to show: one without width (the same in every replicate) claims too much."""
    return is_known(figure.low) and is_known(figure.high) and figure.high > figure.low


def headline(evaluation: Evaluation, target: Target) -> list[Shown]:
    """Return the figures that the summary opens with."""
    figures = evaluation.figures.get(target.name, {})
    return [show_figure(key, figures.get(key), target=target) for key in names_for("headline", target.kind)]


def describe_target(target: Target) -> str:
    """Say what is predicted, beside the name of the target."""
    if target.is_value:
        return f"a number, in {target.unit}" if target.unit else "a number"
    if target.is_binary:
        return f"positive: {target.positive}"
    if target.is_exclusive:
        return f"{len(target.classes)} classes, one is true"
    return f"{len(target.classes)} classes, each present or absent; means over the classes"


def figure_groups(evaluation: Evaluation, target: Target) -> list[tuple[str, list[Shown]]]:
    """Return all figures of a target but those of single classes, in groups of one question each."""
    figures = evaluation.figures.get(target.name, {})
    whole = [key for key in figures if not is_of_class(key, target)]
    specs, groups = {**SPECS, **evaluation.own_figures}, []
    specs |= {key: unknown_spec(key) for key in whole if key not in specs}
    for group, title in GROUPS.items():
        keys = [key for key, spec in specs.items() if spec.group == group and key in whole]
        if keys:
            has_point = not target.is_exclusive or group != "decisions"
            own = evaluation.own_figures
            shown = [show_figure(key, figures[key], target=target, own=own) for key in keys]
            groups.append((title if has_point else "Decisions", shown))
    return groups


def class_table(evaluation: Evaluation, target: Target) -> tuple[list[str], list[tuple[str, str, list[Shown]]]]:
    """Return column names and a row (class, threshold, figures) per class; no row where there is one output."""
    if target.is_single:
        return [], []
    figures = evaluation.figures.get(target.name, {})
    columns = [key for key, spec in SPECS.items() if spec.is_by_class]
    keys = [key for key in columns if any(f"{key}_{name}" in figures for name in target.classes)]
    rows = []
    for k, name in enumerate(target.classes):
        cells = [show_figure(f"{key}_{name}", figures.get(f"{key}_{name}"), wording=key) for key in keys]
        rows.append((name, threshold_text(evaluation, target, k), cells))
    return [term(key).title for key in keys], rows


def threshold_text(evaluation: Evaluation, target: Target, k: int = 0) -> str:
    """Return the threshold of class ``k``, or "" where the largest probability wins."""
    thresholds = evaluation.operating_point.thresholds.get(target.name, ())
    return number(thresholds[k]) if k < len(thresholds) else ""


def decision_rule(evaluation: Evaluation, target: Target) -> str:
    """Say in one sentence when the model calls what."""
    if target.is_exclusive:
        return "The class with the largest probability is called; there is no threshold."
    if target.is_value:
        return f"A number is predicted{f', in {target.unit}' if target.unit else ''}: nothing is decided."
    if target.has_label_by_class:
        return "A class is called present where its probability reaches its own threshold, listed by class below."
    text = threshold_text(evaluation, target) or "unknown"
    if text == NOTHING:
        return f"There is no operating point for “{target.positive}”: nothing is decided."
    return f"“{target.positive}” is called where its probability is {text} or more."


def point_origin(evaluation: Evaluation) -> str:
    """Say where the operating point comes from."""
    point = evaluation.operating_point
    criterion = point.criterion.replace(">=", "≥").replace("<=", "≤")
    if point.chosen_on is None:
        return criterion or "stated by hand"
    cases = f"{point.n:,} {plural(unit_of(evaluation))}"
    return f"{criterion}, chosen on the {split_name(point.chosen_on)} split ({cases}), then frozen"


def show_looks(evaluation: Evaluation) -> str:
    """Number of looks at this test split until now, from the ledger of the run; "" where nobody counted."""
    looks = evaluation.provenance.get("test_looks")
    return "" if looks is None else f"{int(looks):,}"


@dataclass(frozen=True, slots=True)
class Confusion:
    """One table of decisions.

    Attributes:
        title: class that it is about, or "".
        columns: what was called.
        rows: (truth, n, cells); a cell is (count, percent of the row as text, share of the row, kind), the kind is
            "right", "wrong", or "zero" where nothing is in it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str, float, str], ...]], ...]


def confusion_tables(evaluation: Evaluation, target: Target) -> list[Confusion]:
    """Return one table, or one per class of a multilabel target."""
    counts = evaluation.confusion.get(target.name)
    if counts is None or not np.size(counts):
        return []
    table = np.asarray(counts)
    if not target.has_label_by_class:
        return [_confusion("", target.classes, table)] if len(table) <= _LARGEST_CONFUSION else []
    limits = evaluation.operating_point.thresholds.get(target.name, ())
    decided = [k for k in range(len(target.classes)) if k >= len(limits) or is_known(limits[k])]
    return [_confusion(target.classes[k], ("absent", "present"), table[k]) for k in decided]


def _confusion(title: str, names: tuple[str, ...], table: Any) -> Confusion:
    rows = []
    for i, name in enumerate(names):
        total = int(table[i].sum())
        cells = []
        for j in range(len(names)):
            count = int(table[i, j])
            share = count / total if total else 0.0
            kind = "zero" if not count else "right" if i == j else "wrong"
            cells.append((f"{count:,}", f"{share:.1%}" if total else NOTHING, round(share, 3), kind))
        rows.append((name, f"{total:,}", tuple(cells)))
    return Confusion(title, names, tuple(rows))


def plain_numbers(evaluation: Evaluation, target: Target) -> list[str]:
    """Put the confusion of a binary target into sentences about 100 cases; nothing for other kinds."""
    cases = plural(unit_of(evaluation))
    counts = evaluation.confusion.get(target.name)
    if not target.is_binary or counts is None or np.shape(counts) != (2, 2):
        return []
    (tn, fp), (fn, tp) = np.asarray(counts).tolist()
    positive, sentences = target.positive, []
    if tp + fn:
        sentences.append(f"Of 100 {cases} that are {positive}, {_of_100(tp, tp + fn)} are found and "
                         f"{_of_100(fn, tp + fn)} are missed.")  # fmt: skip
    if tn + fp:
        sentences.append(f"Of 100 that are not, {_of_100(fp, tn + fp)} are called {positive} by mistake.")
    if tp + fp and tp + fn:
        sentences.append(f"Of 100 calls “{positive}”, {_of_100(tp, tp + fp)} are correct, where as many {cases} are "
                         f"{positive} as here ({(tp + fn) / (tp + fn + tn + fp):.0%}).")  # fmt: skip
    return sentences


def _of_100(part: int, whole: int) -> str:
    share = 100.0 * part / whole
    if 0 < share < 0.5:
        return "fewer than 1"
    return "more than 99" if 99.5 <= share < 100 else f"{share:.0f}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Numbers of images at each step from files to results.

    Attributes:
        rows: samples found, as text; "" where unknown.
        usable: samples that could be used; "" where unknown.
        rejected: (what is wrong, code, count) most frequent first.
        n_rejected: their sum.
        splits: (split, patients, images, [(target, "no 12, yes 3")]).
    """

    rows: str
    usable: str
    rejected: tuple[tuple[str, str, str], ...]
    n_rejected: str
    splits: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...]


def show_flow(data_flow: Mapping[str, Any] | None) -> Flow | None:
    """Format ``{"rows": …, "rejected": {code: n}, "splits": {split: {"images", "patients", "classes"}}}``."""
    if not data_flow:
        return None
    rejected = {str(code): int(n or 0) for code, n in (data_flow.get("rejected") or {}).items()}
    ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    splits = dict(data_flow.get("splits") or {})
    names = [name for name in SPLITS if name in splits] + [str(name) for name in splits if name not in SPLITS]
    rows = data_flow.get("rows")
    total = sum(rejected.values())
    return Flow(
        NOTHING if rows is None else f"{int(rows):,}",
        NOTHING if rows is None else f"{int(rows) - total:,}",
        tuple((REASON_NAMES.get(code, code.replace("_", " ")), code, f"{n:,}") for code, n in ordered),
        f"{total:,}",
        tuple(_show_split(name, splits[name] or {}) for name in names),
    )


def _show_split(name: str, counts: Mapping[str, Any]) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    classes = []
    for target, by_class in (counts.get("classes") or {}).items():
        shown = [f"{key} {int(n):,}" for key, n in by_class.items() if key != "unknown" or n]
        classes.append((str(target), " · ".join(shown)))
    return split_name(name), show_value(counts.get("patients")), show_value(counts.get("images")), tuple(classes)


Facts = list[tuple[str, "str | Facts"]]


def show_facts(facts: Mapping[str, Any] | None) -> Facts:
    """Turn nested plain facts into (name, text or further facts); what is unknown is left out."""
    shown: Facts = []
    for key, value in (facts or {}).items():
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            if value:
                shown.append((name, show_facts(value)))
        elif value is not None and value != "":
            shown.append((name, show_value(value)))
    return shown


def show_value(value: Any) -> str:
    """Print one plain value; a path keeps its last part only, as folder names may hold a patient's name."""
    if value is None:
        return NOTHING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return number(float(value), digits=4)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, Mapping):
        return " ".join(f"{key} {show_value(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(show_value(one) for one in value)
    text = str(value)
    if PurePosixPath(text).is_absolute():
        return PurePosixPath(text).name
    return PureWindowsPath(text).name if PureWindowsPath(text).is_absolute() else text


def number(value: float, *, digits: int = 3) -> str:
    """Print a figure with three decimals; "–" for NaN, 0 for what rounding has left of it."""
    if not is_known(value):
        return NOTHING
    value = 0.0 if abs(value) < _ROUNDING else value
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}" if abs(value) >= 10_000.0 else f"{value:.{digits}f}"


def range_text(low: float, high: float, *, digits: int = 3) -> str:
    """Print the ends of an interval with as many decimals as they need to differ."""
    digits = decimals(low, high, least=digits)
    return f"{number(low, digits=digits)} – {number(high, digits=digits)}"


def digits_of(words: FigureSpec, *values: float) -> int:
    """Decimals to print a figure with: three, or of one in the unit of the target as many as give four digits."""
    largest = max((abs(value) for value in values if is_known(value)), default=0.0)
    if not words.has_unit or not largest:
        return 3
    return min(max(3 - math.floor(math.log10(largest)), 0), 6)


def is_known(value: float | None) -> bool:
    """Whether a number can be shown: neither absent, nor NaN, nor infinite."""
    return value is not None and math.isfinite(value)


def is_of_class(key: str, target: Target) -> bool:
    """Whether a figure is of a single class, not of the target as a whole."""
    return parse_key(key, target)[1] in target.classes
