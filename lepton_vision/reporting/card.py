"""One self-contained HTML page from an Evaluation: opens from disk, asks for nothing, prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_vision.evaluation.cases import WorstCase
from lepton_vision.evaluation.classification import Evaluation
from lepton_vision.reporting import view
from lepton_vision.reporting.charts import LARGEST_GRID, class_charts, curve_charts
from lepton_vision.reporting.gallery import LARGEST_SIDE, Thumbnail, make_thumbnail
from lepton_vision.reporting.notes import find_notes
from lepton_vision.reporting.page import check_place, render_template, write_page
from lepton_vision.reporting.wording import READING, split_name
from lepton_vision.types import Target

_MANY_PICTURES = 36
_SMALL_SIDE = 112


def write_report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file with everything inside it; it holds no path, no file name and no identifier of a header.

    Pictures of the most wrong cases are read again from where the predictions found them; a file that is gone leaves
    a placeholder. Text that is burned into pixels is shown with them. The same input gives the same file.

    Args:
        evaluation: what ``evaluate`` returned; a figure that is NaN is shown as undefined, with its reason.
        path: the file to write; its folder is made if it is missing.
        title: heading; None makes one of the split and the targets.
        data_flow: what ``pipeline.data_flow`` returns: ``rows``, ``rejected`` by reason code, ``splits`` with
            ``images``, ``patients`` and ``classes``; every part may be missing.
        provenance: plain facts, nested at will: versions, seeds, fingerprints, bundle id.

    Returns:
        The path of the page.

    Raises:
        ReportError: ``path`` is a folder, or cannot be written.

    Example:
        >>> write_report(evaluation, "runs/ct-01/report.html")  # doctest: +SKIP
    """
    check_place(path)
    return write_page(path, render_report(evaluation, title=title, data_flow=data_flow, provenance=provenance))


def render_report(
    evaluation: Evaluation,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return the page as text; arguments as for ``write_report``."""
    sections = [_section(evaluation, target, i) for i, target in enumerate(evaluation.targets)]
    heading = title or f"{', '.join(target.name for target in evaluation.targets)}"
    own = dict(evaluation.provenance)
    facts = {"bundle": own.pop("bundle_id", None), **dict(provenance or {})}
    return render_template(
        "report.html.j2",
        title=heading,
        evaluation=evaluation,
        confidence=f"{evaluation.confidence:.0%}".replace("%", " %"),
        split=split_name(evaluation.split),
        origin=view.point_origin(evaluation),
        bundle=view.show_value(facts["bundle"]),
        sections=sections,
        notes=find_notes(evaluation),
        flow=view.show_flow(data_flow),
        facts=view.show_facts(facts),
        method={key: view.show_value(own.get(key)) for key in ("intervals", "replicates", "seed")},
        preprocess=_preprocess_facts(evaluation),
        reading=READING,
        largest_grid=LARGEST_GRID,
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of the gallery."""

    case: WorstCase
    picture: Thumbnail
    badge: str
    truth: str
    called: str
    of: str
    probability: str
    percent: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about one target."""

    target: Target
    anchor: str
    headline: list[view.Shown]
    groups: list[tuple[str, list[view.Shown]]]
    columns: list[str]
    classes: list[tuple[str, str, list[view.Shown]]]
    rule: str
    curves: list[Any]
    by_class: list[Any]
    confusions: list[view.Confusion]
    plain: list[str]
    cases: list[Case]
    n_hidden: int


def _section(evaluation: Evaluation, target: Target, position: int) -> Section:
    anchor = f"target-{position}"
    columns, classes = view.class_table(evaluation, target)
    worst = evaluation.worst.get(target.name, ())
    pictures = sum(len(cases) for cases in evaluation.worst.values())
    side = LARGEST_SIDE if pictures <= _MANY_PICTURES else _SMALL_SIDE
    return Section(
        target=target,
        anchor=anchor,
        headline=view.headline(evaluation, target),
        groups=view.figure_groups(evaluation, target),
        columns=columns,
        classes=classes,
        rule=view.decision_rule(evaluation, target),
        curves=curve_charts(evaluation, target, name=anchor),
        by_class=class_charts(evaluation, target, name=anchor),
        confusions=view.confusion_tables(evaluation, target),
        plain=view.plain_numbers(evaluation, target),
        cases=[_case(evaluation, target, case, side=side) for case in worst],
        n_hidden=max(0, len(evaluation.curves.get(target.name, ())) - LARGEST_GRID),
    )


def _case(evaluation: Evaluation, target: Target, case: WorstCase, *, side: int) -> Case:
    called, of, badge = case.class_name, case.truth, "confused"
    thresholds = evaluation.operating_point.thresholds.get(target.name, ())
    threshold = thresholds[0] if target.kind == "binary" and thresholds else None
    if not target.is_exclusive:
        is_missed = case.y_true == 1
        badge, of = "missed" if is_missed else "false alarm", case.class_name
        names = target.classes if target.kind == "binary" else ("absent", "present")
        called = names[0 if is_missed else 1]
        if target.kind == "multilabel" and case.class_name in target.classes:
            k = target.classes.index(case.class_name)
            threshold = thresholds[k] if k < len(thresholds) else None
    percent = 100.0 * case.y_prob if view.is_known(case.y_prob) else 0.0
    return Case(
        case,
        make_thumbnail(case.address, evaluation.preprocess, side=side),
        badge,
        case.truth,
        called,
        of,
        view.number(case.y_prob),
        round(min(max(percent, 0.0), 100.0), 2),
        round(100.0 * min(threshold, 1.0), 2) if threshold is not None and view.is_known(threshold) else None,
    )


def _preprocess_facts(evaluation: Evaluation) -> view.Facts:
    if evaluation.preprocess is None:
        return []
    return view.show_facts(evaluation.preprocess.model_dump(mode="json"))
