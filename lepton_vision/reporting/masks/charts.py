"""Charts of the mask page: spread by structure, volumes, FROC."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.evaluation.masks.froc import Froc
from lepton_vision.reporting.classes.charts import Chart, Legend
from lepton_vision.reporting.classes.view import is_known, number
from lepton_vision.reporting.figures import SERIES, to_svg
from lepton_vision.reporting.masks.figures import bland_altman_figure, froc_figure, spread_figure, volume_figure
from lepton_vision.reporting.masks.view import has_sense, show_mask_figure
from lepton_vision.reporting.masks.wording import MASK_READING
from lepton_vision.types import FloatArray

LARGEST_SPREAD = 24
"""Structures that get a row in the figures of spread."""
_NORMAL = 1.96  # standard deviations on each side that hold 95 % of a normal distribution


def spread_charts(evaluation: SegmentationEvaluation) -> list[Chart]:
    """Return the spread of Dice and of HD95 over the cases, one row by structure."""
    return [
        _spread(evaluation, "dice", title="Dice by structure", xlabel="Dice"),
        _spread(evaluation, "hd95_mm", title="HD95 by structure", xlabel="HD95 [mm]"),
    ]


def case_values(evaluation: SegmentationEvaluation, structure: str, name: str) -> FloatArray:
    """(N,) float64 of one figure of one structure, case by case; NaN where it is undefined."""
    rows = [row.figures for row in evaluation.cases if row.structure == structure]
    return np.array([getattr(row, name) for row in rows], dtype=np.float64)


def _spread(evaluation: SegmentationEvaluation, name: str, *, title: str, xlabel: str) -> Chart:
    structures = list(evaluation.structures)[:LARGEST_SPREAD]
    values = [case_values(evaluation, structure, name) for structure in structures]
    if not any(np.isfinite(one).any() for one in values):
        reasons = {reason for s in structures for reason in evaluation.undefined[s].get(name, {})}
        return Chart(title, "", (), "", f"Undefined in every case: {'; '.join(sorted(reasons))}.")
    keys, said = [], []
    for row, (structure, one) in enumerate(zip(structures, values, strict=True)):
        known = one[np.isfinite(one)]
        note = f"median {number(float(np.median(known)))}, n = {known.size:,}" if known.size else "undefined"
        keys.append(Legend(row % len(SERIES), "disc", f"{row + 1} · {structure}", note))
        said.append(f"{structure}: {note}")
    plot = spread_figure(values, xlabel=xlabel, is_share=name == "dice")
    svg = to_svg(plot, name=f"spread-{name}", label=f"{title}. {'. '.join(said)}")
    return Chart(title, svg, tuple(keys), MASK_READING["spread"])


def volume_charts(evaluation: SegmentationEvaluation, structure: str, *, name: str, series: int) -> list[Chart]:
    """Return predicted against true volume, and their difference against their mean; all cases with a volume."""
    truth, prediction = (case_values(evaluation, structure, f"volume_{key}_ml") for key in ("truth", "prediction"))
    is_there = np.isfinite(truth) & np.isfinite(prediction)
    truth, prediction = truth[is_there], prediction[is_there]
    titles = "Predicted and true volume", "Error of the volume (Bland–Altman)"
    if not has_sense(evaluation, "volume_error_ml"):
        return []
    if not truth.size:
        reasons = "; ".join(sorted(evaluation.undefined[structure].get("volume_error_ml", {})))
        return [Chart(title, "", (), "", f"Undefined: {reasons}.") for title in titles]
    color = series % len(SERIES)
    errors = prediction - truth
    bias = evaluation.figures[structure]["volume_error_ml"].value
    half = _NORMAL * float(errors.std(ddof=1)) if errors.size > 1 else np.nan
    lines = (bias, bias - half, bias + half) if is_known(half) else (bias,)
    shown = show_mask_figure(evaluation, structure, "volume_error_ml")
    ends = f"{number(bias - half)} to {number(bias + half)} ml" if is_known(half) else "undefined for one case"
    cases = Legend(color, "disc", "One case", f"n = {truth.size:,}")
    label = f"{titles[0]} of {structure}, {truth.size} cases"
    scatter = to_svg(volume_figure(truth, prediction, series=color), name=f"{name}-volume", label=label)
    label = f"{titles[1]} of {structure}: mean {shown.value} ml, limits of agreement {ends}"
    plot = bland_altman_figure((truth + prediction) / 2, errors, lines=lines, series=color)
    difference = to_svg(plot, name=f"{name}-error", label=label)
    keys = (
        cases,
        Legend(None, "level", "Mean error", f"{shown.value} ml"),
        Legend(None, "cut", "Limits of agreement", ends),
    )
    return [
        Chart(titles[0], scatter, (cases, Legend(None, "dots", "Same volume")), MASK_READING["volume"]),
        Chart(titles[1], difference, keys, MASK_READING["bland_altman"]),
    ]


def froc_chart(found: Froc, *, name: str, series: int) -> Chart:
    """Return the FROC curve of one structure."""
    title = "FROC curve"
    if not found.n_lesions or not found.thresholds.size:
        missing = "no lesion in the truth" if not found.n_lesions else "no candidate"
        return Chart(title, "", (), "", f"Undefined: {missing}.")
    cpm = found.figures.get("cpm")
    color = series % len(SERIES)
    note = f"{found.n_lesions:,} lesions, {found.n:,} cases"
    label = f"{title}: {note}" + ("" if cpm is None else f", mean sensitivity {number(cpm.value)}")
    svg = to_svg(froc_figure(found.false_per_case, found.sensitivity, series=color), name=f"{name}-froc", label=label)
    return Chart(title, svg, (Legend(color, "line", "Lesion sensitivity", note),), MASK_READING["froc"])
