"""HTML report page of an Evaluation: one self-contained file without network requests, fit for printing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.predictions.ledger import Ledger, find_ledger, names_of
from lepton_vision.reporting.classes import view
from lepton_vision.reporting.classes.analyses import Panel, external_panel, target_panels
from lepton_vision.reporting.classes.case_words import facts_of_unit
from lepton_vision.reporting.classes.charts import LARGEST_GRID, class_charts, curve_charts
from lepton_vision.reporting.classes.explorer import Explorer, make_explorers
from lepton_vision.reporting.classes.forest import forest_groups
from lepton_vision.reporting.classes.gallery_view import Gallery, make_galleries
from lepton_vision.reporting.classes.notes import find_notes
from lepton_vision.reporting.classes.operating_point import describe_operating_point
from lepton_vision.reporting.page import check_place, read_script, render_template, write_page
from lepton_vision.reporting.values.charts import describe_error, interval_panel, value_charts
from lepton_vision.reporting.wording import READING, split_name
from lepton_vision.types import HeatMaps, Target


def write_report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    maps: HeatMaps | None = None,
) -> Path:
    """Write one HTML file with everything inside it; it holds no path, no file name and no identifier of a header.

    A page of a test split that no ledger counts yet is a look at it, and noted in the ledger of the run that holds the
    file or, where there is none, in one beside it (``ledger.Ledger.note``).

    Pictures of the most wrong cases are read again from where the predictions found them; a file that is gone leaves
    a placeholder. Text that is burned into pixels is shown with them. The same input gives the same file.

    Args:
        evaluation: what ``evaluate`` returned; a figure that is NaN is shown as undefined, with its reason.
        path: the file to write; its folder is made if it is missing.
        title: heading; None makes one of the split and the targets.
        data_flow: what ``facts.data_flow`` returns: ``rows``, ``rejected`` by reason code, ``splits`` with
            ``images``, ``patients`` and ``classes``; every part may be missing.
        provenance: plain facts, nested at will: versions, seeds, fingerprints, bundle id.
        maps: where the evidence lies in the cases of the galleries (``inference.explain.explain_samples``); None
            shows the pictures alone.

    Returns:
        The path of the page.

    Raises:
        ReportError: ``path`` is a folder, or cannot be written.

    Example:
        >>> write_report(evaluation, "runs/ct-01/report.html")  # doctest: +SKIP
    """
    check_place(path)
    with _recording_look(evaluation, Path(path).parent) as looks:
        evaluation = replace(evaluation, provenance={**evaluation.provenance, **looks})
        page = render_report(evaluation, title=title, data_flow=data_flow, provenance=provenance, maps=maps)
        return write_page(path, page)


def _recording_look(evaluation: Evaluation, folder: Path) -> contextlib.AbstractContextManager[Mapping[str, Any]]:
    """Note a look at a test split that nobody has noted, as in a notebook, once the page is there."""
    if evaluation.split != "test" or "test_looks" in evaluation.provenance:
        return contextlib.nullcontext({})
    ledger = Ledger(find_ledger(folder), "", "write_report", makes_folder=True)
    return ledger.recording(evaluation.provenance.get("bundle_id"), names_of(evaluation.figures))


def render_report(
    evaluation: Evaluation,
    *,
    title: str | None = None,
    data_flow: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    maps: HeatMaps | None = None,
) -> str:
    """Return the page as text; arguments as for ``write_report``."""
    sections = [_section(evaluation, target, i, maps=maps) for i, target in enumerate(evaluation.targets)]
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
        looks=view.show_looks(evaluation),
        forests=forest_groups(evaluation),
        external=external_panel(evaluation.analyses.external, evaluation.own_figures, targets=evaluation.targets),
        has_decisions=not all(target.is_value for target in evaluation.targets),
        script=read_script("explorer.js"),
        flow=view.show_flow(data_flow),
        facts=view.show_facts(facts),
        method={key: view.show_value(own.get(key)) for key in ("intervals", "replicates", "seed", "aggregation")},
        preprocess=_preprocess_facts(evaluation),
        reading=READING,
        largest_grid=LARGEST_GRID,
        **facts_of_unit(evaluation),
    )


@dataclass(frozen=True, slots=True)
class TargetSection:
    """Content of the page for one target."""

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
    n_hidden: int
    story: str
    about: str
    explorers: list[Explorer]
    panels: list[Panel]
    galleries: tuple[Gallery, ...]


def _section(evaluation: Evaluation, target: Target, position: int, *, maps: HeatMaps | None) -> TargetSection:
    anchor = f"target-{position}"
    columns, classes = view.class_table(evaluation, target)
    return TargetSection(
        target=target,
        anchor=anchor,
        headline=view.headline(evaluation, target),
        groups=view.figure_groups(evaluation, target),
        columns=columns,
        classes=classes,
        rule=view.decision_rule(evaluation, target),
        curves=(value_charts if target.is_value else curve_charts)(evaluation, target, name=anchor),
        by_class=class_charts(evaluation, target, name=anchor),
        confusions=view.confusion_tables(evaluation, target),
        plain=view.plain_numbers(evaluation, target),
        n_hidden=max(0, target.outputs - LARGEST_GRID),
        story=(describe_error if target.is_value else describe_operating_point)(evaluation, target),
        about=view.describe_target(target),
        explorers=make_explorers(evaluation, target, anchor=anchor),
        panels=_panels(evaluation, target, anchor=anchor),
        galleries=make_galleries(evaluation, target, anchor=anchor, maps=maps),
    )


def _panels(evaluation: Evaluation, target: Target, *, anchor: str) -> list[Panel]:
    intervals = (evaluation.analyses.intervals or {}).get(target.name)
    return (
        target_panels(evaluation, target, anchor=anchor) if intervals is None else [interval_panel(intervals, target)]
    )


def _preprocess_facts(evaluation: Evaluation) -> view.Facts:
    if evaluation.preprocess is None:
        return []
    return view.show_facts(evaluation.preprocess.model_dump(mode="json"))
