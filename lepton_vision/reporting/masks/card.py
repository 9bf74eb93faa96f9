"""HTML report page of a mask evaluation: one self-contained file in the design of ``classes.card``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_vision.errors import ReportError, nearest
from lepton_vision.evaluation.masks.agreement import HeadAgreement
from lepton_vision.evaluation.masks.evaluation import RankedCases, SegmentationEvaluation
from lepton_vision.evaluation.masks.froc import Froc
from lepton_vision.evaluation.masks.pointing import PointingGame
from lepton_vision.reporting.classes.charts import Chart
from lepton_vision.reporting.classes.notes import Note
from lepton_vision.reporting.classes.view import Shown, number, show_facts, show_value
from lepton_vision.reporting.masks import view
from lepton_vision.reporting.masks.charts import LARGEST_SPREAD, froc_chart, spread_charts, volume_charts
from lepton_vision.reporting.masks.heads import show_heads
from lepton_vision.reporting.masks.overlays import (
    AGREEMENT,
    LARGEST_SIDE,
    MOST_STRUCTURES,
    NoOverlay,
    Overlay,
    Panel,
    draw_overlay,
)
from lepton_vision.reporting.masks.wording import MASK_READING
from lepton_vision.reporting.page import check_place, render_template, write_page
from lepton_vision.reporting.wording import split_name

_MANY_STRUCTURES = 4  # from here on pictures are smaller: three cases of three pictures for each of them
_SMALL_SIDE = 200
_MOST_TILES = 3


def write_segmentation_report(
    evaluation: SegmentationEvaluation,
    path: str | Path,
    *,
    overlays: Iterable[Overlay | NoOverlay] = (),
    froc: Mapping[str, Froc] | None = None,
    agreement: Mapping[str, HeadAgreement] | None = None,
    pointing: Mapping[str, PointingGame] | None = None,
    split: str | None = None,
    title: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file with everything inside it; it holds no path and no identifier of a header.

    The ids are those of the evaluation. Text that is burned into pixels is shown with them. The same input gives the
    same file.

    Args:
        evaluation: what ``evaluate_masks`` returned; a figure that is NaN is shown as undefined, with its reason.
        path: the file to write; its folder is made if it is missing.
        overlays: cases to draw, taken one at a time, in the order of the page; best, median and worst get a badge.
            From files: ``overlay_files.read_overlays``; from arrays: any ``Overlay``.
        froc: by structure, what ``froc`` returned; the evaluation itself has no scores.
        agreement: by target of a joint model, what ``agree_heads`` returned.
        pointing: by some of these targets, what ``play_pointing_game`` returned.
        split: "train", "val", "test", or None where it is not known.
        title: heading; None makes one of the structures.
        provenance: plain facts, nested at will: versions, seeds, fingerprints, bundle id.

    Returns:
        The path of the page.

    Raises:
        ReportError: ``path`` is a folder or cannot be written, or a structure that the evaluation does not have.

    Example:
        >>> write_segmentation_report(evaluation, "runs/liver-01/report.html", split="test")  # doctest: +SKIP
    """
    check_place(path)
    frocs = dict(froc or {})
    for name in frocs:
        _check_structure(name, evaluation, key="froc")
    drawn = _draw_all(evaluation, overlays)
    own = dict(evaluation.provenance)
    sections = [_section(evaluation, name, drawn[name], position=k, froc=frocs.get(name))
                for k, name in enumerate(evaluation.structures)]  # fmt: skip
    page = render_template(
        "segmentation.html.j2",
        title=title or ", ".join(evaluation.structures),
        split=split_name(split),
        evaluation=evaluation,
        confidence=f"{evaluation.confidence:.0%}".replace("%", " %"),
        tolerance=f"{evaluation.tolerance_mm:g} mm",
        sections=sections,
        heads=[show_heads(name, one, (pointing or {}).get(name)) for name, one in (agreement or {}).items()],
        has_tiles=len(sections) <= _MOST_TILES,
        overview=view.overview_table(evaluation),
        spread=spread_charts(evaluation),
        n_hidden=max(0, len(sections) - LARGEST_SPREAD),
        failures=view.show_failures(evaluation),
        case_columns=view.case_columns(evaluation),
        volume_columns=view.volume_columns(),
        notes=[*view.mask_notes(evaluation, split=split, frocs=frocs), *_on_pictures(drawn)],
        rules=view.empty_rules(),
        reading=MASK_READING,
        agreement=[(f"rgb({' '.join(map(str, color))})", words) for color, words in AGREEMENT],
        facts=show_facts(provenance),
        method={key: show_value(own.get(key)) for key in ("intervals", "replicates", "seed", "lesion_hit")},
    )
    return write_page(path, page)


@dataclass(frozen=True, slots=True)
class OverlayShown:
    """One entry of the gallery of a structure."""

    badge: str
    image_id: str
    dice: str
    place: str
    panels: tuple[Panel, ...]
    reason: str
    has_image: bool


@dataclass(frozen=True, slots=True)
class MaskSection:
    """Content of the page for one structure."""

    name: str
    anchor: str
    values: str
    headline: list[Shown]
    groups: list[tuple[str, list[view.MaskRowShown]]]
    statuses: list[tuple[str, str, str]]
    by_volume: view.VolumesShown | None
    volumes: list[Chart]
    froc: Chart | None
    froc_rows: list[Shown]
    worst: list[view.CaseShown]
    overlays: list[OverlayShown]


def _section(
    evaluation: SegmentationEvaluation, name: str, overlays: list[OverlayShown], *, position: int, froc: Froc | None
) -> MaskSection:
    anchor = f"structure-{position}"
    values = evaluation.structures[name]
    return MaskSection(
        name=name,
        anchor=anchor,
        values=" + ".join(map(str, values)) if isinstance(values, tuple) else str(values),
        headline=view.mask_headline(evaluation, name),
        groups=view.mask_groups(evaluation, name),
        statuses=view.status_table(evaluation, name),
        by_volume=view.volumes_of(evaluation, name),
        volumes=volume_charts(evaluation, name, name=anchor, series=position),
        froc=None if froc is None else froc_chart(froc, name=anchor, series=position),
        froc_rows=[] if froc is None else view.froc_rows(froc),
        worst=view.worst_cases(evaluation, name),
        overlays=overlays,
    )


def _draw_all(
    evaluation: SegmentationEvaluation, overlays: Iterable[Overlay | NoOverlay]
) -> dict[str, list[OverlayShown]]:
    """Draw one case after the other, so that memory holds the pixels of one."""
    side = LARGEST_SIDE if len(evaluation.structures) < _MANY_STRUCTURES else _SMALL_SIDE
    shown: dict[str, list[OverlayShown]] = {name: [] for name in evaluation.structures}
    drawn = set(list(evaluation.structures)[:MOST_STRUCTURES])
    for overlay in overlays:
        _check_structure(overlay.structure, evaluation, key="overlays")
        if overlay.structure not in drawn:
            continue
        badge = _badge(overlay.image_id, evaluation.ranked[overlay.structure])
        shown[overlay.structure].append(_draw(overlay, badge, side=side))
    return shown


def _draw(overlay: Overlay | NoOverlay, badge: str, *, side: int) -> OverlayShown:
    dice = number(overlay.dice)
    if isinstance(overlay, NoOverlay):
        return OverlayShown(badge, overlay.image_id, dice, "", (), overlay.reason, has_image=False)
    drawn = draw_overlay(overlay, side=side)
    parts = [f"slice {drawn.number:,} of {drawn.depth:,}"] if drawn.depth else []
    parts += [f"part of it, {1 / drawn.share:.1f} × enlarged"] if drawn.share < 1 else []
    has_image = overlay.image is not None
    return OverlayShown(badge, overlay.image_id, dice, ", ".join(parts), drawn.panels, "", has_image)


def _badge(image_id: str, ranked: RankedCases) -> str:
    found = [place for place, name in ranked._asdict().items() if name == image_id]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _check_structure(name: str, evaluation: SegmentationEvaluation, *, key: str) -> None:
    if name not in evaluation.structures:
        raise ReportError(f"Unknown structure {name!r}. {nearest(name, list(evaluation.structures))}", key=key)


def _on_pictures(drawn: Mapping[str, list[OverlayShown]]) -> list[Note]:
    shown = [one for some in drawn.values() for one in some]
    lost = sum(bool(one.reason) for one in shown)
    bare = sum(bool(one.panels) and not one.has_image for one in shown)
    notes = []
    if not shown:
        notes.append(Note("info", "No masks were given to draw, so there are no pictures."))
    elif len(drawn) > MOST_STRUCTURES:
        notes.append(
            Note("info", f"Cases of the first {MOST_STRUCTURES} structures are drawn, to keep the page small.")
        )
    if lost:
        words = "case could" if lost == 1 else "cases could"
        notes.append(Note("info", f"{lost:,} ranked {words} not be drawn; the reasons stand in place of the pictures."))
    if bare:
        text = "The pictures show masks alone" if bare == len(shown) - lost else f"{bare:,} pictures show masks alone"
        notes.append(Note("info", f"{text}: no image was named for them."))
    return notes
