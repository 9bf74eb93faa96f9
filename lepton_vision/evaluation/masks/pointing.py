"""Pointing game: share of heat maps whose maximum lies in the structure that the truth marks.

After Zhang et al., International Journal of Computer Vision 126:1084 (2018), who count a hit within 15 pixels. Here the
tolerance is stated, and beside the hits stands what a point drawn at random would reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.agreement import Shares, bootstrap_facts
from lepton_vision.evaluation.masks.surfaces import ROUNDING_MM, BoolArray
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.types import Figure, FloatArray, Result, Table, figures_table
from lepton_vision.types.figure import FigureSpec

Spacing = tuple[float, ...]
_Case = tuple[npt.NDArray[np.floating], BoolArray, Spacing | None]


POINTING: tuple[FigureSpec, ...] = (
    FigureSpec(
        "hit_rate", "Hottest point in the true mask", "Share of the cases with a mask where Grad-CAM points at it."
    ),
    FigureSpec("chance", "A point at random", "Mean share of the image that the mask covers, tolerance included."),
    FigureSpec("gain", "Gain over chance", "The difference of both, case by case.", scale="number"),
)


@dataclass(frozen=True, eq=False)
class PointingGame(Result):
    """Result of ``play_pointing_game``.

    Attributes:
        figures: ``hit_rate`` (share of the cases whose maximum lies in the dilated mask), ``chance`` (mean share of
            the image that the dilated mask covers), ``gain`` (their difference, case by case).
        hits: (N,) float64 by case: 1 a hit, 0 none, between where several pixels share the maximum; NaN without a mask.
        chance: (N,) float64 by case; NaN without a mask.
        n: cases with a mask.
        n_patients: patients among them.
        n_empty: cases with an empty mask: there is nothing to point at, and they are in no figure.
        tolerance: how far beside the mask is a hit.
        unit: of the tolerance.
        confidence: of the intervals.
        provenance: method and number of the replicates, seed.
    """

    figures: Mapping[str, Figure]
    hits: FloatArray
    chance: FloatArray
    n: int
    n_patients: int
    n_empty: int
    tolerance: float
    unit: Literal["pixels", "mm"]
    confidence: float = 0.95
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _json = ("n", "n_patients", "n_empty", "tolerance", "unit", "confidence", "figures", "provenance")

    def _tables(self) -> tuple[Table, ...]:
        caption = (
            f"Pointing game · {self.n} cases of {self.n_patients} patients, {self.n_empty} without a mask · tolerance "
            f"{self.tolerance:g} {self.unit} · {self.confidence:.0%} intervals"
        )
        return (figures_table(caption, self.figures),)


def play_pointing_game(
    heat_maps: Iterable[npt.NDArray[np.floating]],
    masks: Iterable[BoolArray],
    *,
    tolerance_pixels: float | None = None,
    tolerance_mm: float | None = None,
    spacing_mm: Spacing | Sequence[Spacing] | None = None,
    patient_id: npt.NDArray[np.str_] | None = None,
    config: EvaluationConfig | None = None,
) -> PointingGame:
    """Ask of each heat map whether it is hottest where the truth is.

    Pixels that share the maximum count by the share of them that hits, so that a map without any contrast reaches what
    chance does. Intervals come from a bootstrap that resamples patients.

    Args:
        heat_maps: N arrays (H, W) of finite numbers, larger is hotter, e.g. of ``inference.explain.grad_cam``;
            taken one at a time.
        masks: N arrays bool of the shape of their heat map.
        tolerance_pixels: pixels at most so far (Euclidean) from the mask are hits too. Give this or the next.
        tolerance_mm: the same in millimeters.
        spacing_mm: for ``tolerance_mm``: (H, W) distances of pixel centres, one for all cases or one for each.
        patient_id: (N,) str, "" where unknown; None takes each case for a patient of its own.
        config: replicates, confidence and seed.

    Raises:
        EvaluationError: no mask that is not empty, numbers of arrays or shapes that differ, values that are not finite,
            or not exactly one tolerance.

    Example:
        >>> mask = np.array([[1, 1, 0, 0]], dtype=np.bool_)
        >>> found = play_pointing_game([np.array([[0.1, 0.9, 0.0, 0.0]])], [mask], tolerance_pixels=0)
        >>> found.figures["hit_rate"].value, found.figures["chance"].value
        (1.0, 0.5)
    """
    settings = config or EvaluationConfig()
    tolerance, in_mm = _check_tolerance(tolerance_pixels, tolerance_mm, has_spacing=spacing_mm is not None)
    hits, chance = _play_all(_together(heat_maps, masks, spacing_mm), tolerance=tolerance)
    is_there = ~np.isnan(hits)
    patients = np.full(hits.size, "", np.str_) if patient_id is None else np.asarray(patient_id, np.str_)
    if patients.shape != hits.shape:
        raise EvaluationError(f"Expected shape {hits.shape}. Received: {patients.shape}.", key="patient_id")
    unit, units = patient_units(patients[is_there])
    measures = _PointingMeasures(
        {"hit_rate": hits[is_there], "chance": chance[is_there], "gain": (hits - chance)[is_there]},
        unit=unit,
        units=units,
    )
    return PointingGame(
        figures=bootstrap_figures(measures, Bootstrap.of(settings)),
        hits=hits,
        chance=chance,
        n=int(is_there.sum()),
        n_patients=units,
        n_empty=int((~is_there).sum()),
        tolerance=tolerance,
        unit="mm" if in_mm else "pixels",
        confidence=settings.confidence,
        provenance=bootstrap_facts(settings),
    )


class _PointingMeasures(Shares):
    """Means over the cases; only hits that are all 0 or 1 are a plain proportion."""

    def __init__(self, values: Mapping[str, FloatArray], *, unit: npt.NDArray[np.intp], units: int) -> None:
        parts = {name: (value, np.ones_like(value)) for name, value in values.items()}
        super().__init__(parts, unit=unit, units=units, n=unit.size)

    def denominator_units(self, name: str) -> int | None:
        """Patients, for the share of hits."""
        return super().denominator_units(name) if name == "hit_rate" else None


def _check_tolerance(pixels: float | None, mm: float | None, *, has_spacing: bool) -> tuple[float, bool]:
    if (pixels is None) == (mm is None):
        raise EvaluationError("Give exactly one of tolerance_pixels and tolerance_mm.", key="tolerance_pixels")
    if (mm is not None) != has_spacing:
        raise EvaluationError(
            "A tolerance in mm needs spacing_mm, and one in pixels takes none. Give both or neither.", key="spacing_mm"
        )
    tolerance = float(pixels if mm is None else mm)  # type: ignore[arg-type]
    if not (np.isfinite(tolerance) and tolerance >= 0.0):
        raise EvaluationError(f"Expected a tolerance of 0 or more. Received: {tolerance:g}.", key="tolerance")
    return tolerance, mm is not None


def _together(
    heat_maps: Iterable[npt.NDArray[np.floating]],
    masks: Iterable[BoolArray],
    spacing_mm: Spacing | Sequence[Spacing] | None,
) -> Iterator[_Case]:
    """Walk through maps, masks and spacings side by side."""
    is_one = spacing_mm is None or all(isinstance(step, int | float) for step in spacing_mm)
    spacings = None if is_one else iter(spacing_mm)  # type: ignore[arg-type]
    others = iter(masks)
    for row, heat in enumerate(heat_maps):
        mask = next(others, None)
        spacing: Any = spacing_mm if spacings is None else next(spacings, ())
        if mask is None or spacing == ():
            raise EvaluationError(
                f"Expected as many masks and spacings as heat maps. Received: none for map {row}.", row=row, key="masks"
            )
        yield heat, mask, spacing
    if next(others, None) is not None:
        raise EvaluationError("Expected as many heat maps as masks. Received: more masks.", key="heat_maps")


def _play_all(cases: Iterable[_Case], *, tolerance: float) -> tuple[FloatArray, FloatArray]:
    """(N,) hits and (N,) chances; at least one of them is defined."""
    points = [
        _play(heat, mask, tolerance=tolerance, spacing=spacing, row=row)
        for row, (heat, mask, spacing) in enumerate(cases)
    ]
    hits, chance = np.array(points, dtype=np.float64).reshape(-1, 2).T
    if np.isnan(hits).all():
        raise EvaluationError(
            f"Expected at least one case with a mask to point at. Received: {hits.size} cases, all empty.", key="masks"
        )
    return hits, chance


def _play(
    heat: npt.NDArray[np.floating], mask: BoolArray, *, tolerance: float, spacing: Spacing | None, row: int
) -> tuple[float, float]:
    """Hit and chance of one case; NaN for an empty mask."""
    if heat.shape != mask.shape or mask.dtype != np.bool_ or (spacing is not None and len(spacing) != mask.ndim):
        raise EvaluationError(
            f"Expected a mask of booleans of the shape of its heat map, {heat.shape}, and a spacing for each axis. "
            f"Received: {mask.dtype} {mask.shape}, {spacing}.",
            row=row,
            key="masks",
        )
    if not heat.size or not np.isfinite(heat).all():
        raise EvaluationError(
            "A heat map must be finite. Received: none, NaN or infinity in one.", row=row, key="heat_maps"
        )
    if not mask.any():
        return np.nan, np.nan
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    near: BoolArray = distance <= tolerance + ROUNDING_MM
    return float(near[heat == heat.max()].mean()), float(near.mean())
