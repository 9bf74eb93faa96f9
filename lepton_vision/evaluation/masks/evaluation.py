"""Evaluation of a segmentation: figures by structure with patient-level intervals, one case at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.evaluation.masks.case import STATUSES, CaseFigures, compare_masks
from lepton_vision.evaluation.masks.lesions import check_min_iou
from lepton_vision.evaluation.masks.measures import STATISTICS, MaskMeasures
from lepton_vision.evaluation.masks.surfaces import BoolArray, bounding_box, check_geometry, check_tolerance
from lepton_vision.evaluation.masks.volumes import pool_slices
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.predictions.cells import Failure
from lepton_vision.types import Displayed, Figure, Result, Table

_LOGGER = logging.getLogger(__name__)
LabelArray = npt.NDArray[np.integer[Any]] | BoolArray
Structures = Mapping[str, int | tuple[int, ...]]
_VOID = " A value of a table's truth that means that nobody knows: --unknown (evaluate_mask_table: unknown)."


@dataclass(frozen=True, eq=False)
class MaskCase(Displayed):
    """One case: label maps of truth and prediction on one grid.

    Attributes:
        image_id: pseudonymous id.
        truth: (H, W) or (D, H, W) integers or booleans; 0 is background.
        prediction: the same for what was predicted.
        spacing_mm: distance of voxel centres along each axis, or None where unknown.
        patient_id: "" where unknown: then a patient of its own.
        volume_id: the volume that the case is a slice of, "" where it is none.

    Raises:
        EvaluationError: shapes that differ, real numbers, no 2 or 3 axes, or a spacing that does not fit.

    Example:
        >>> MaskCase("a", np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8), spacing_mm=(1.0, 1.0)).truth.shape
        (4, 4)
    """

    image_id: str
    truth: LabelArray
    prediction: LabelArray
    spacing_mm: tuple[float, ...] | None = None
    patient_id: str = ""
    volume_id: str = ""

    def __post_init__(self) -> None:
        for name in ("truth", "prediction"):
            kind = getattr(self, name).dtype
            if kind.kind not in "biu":
                raise EvaluationError(
                    f"Expected whole numbers in a mask. Received: {kind} in the {name}. Take the argmax of "
                    "probabilities, or round labels, first.",
                    key=name,
                )
        check_geometry(self.truth.shape, self.prediction.shape, spacing_mm=self.spacing_mm)


class RankedCases(NamedTuple):
    """Ids of the best, the median and the worst case by Dice; None where no case has one."""

    best: str | None
    median: str | None
    worst: str | None


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation(Result):
    """Result of ``evaluate_masks``.

    Attributes:
        structures: by name, the value or values of the label maps.
        tolerance_mm: of the surface Dice.
        n: cases.
        n_patients: patients among them; an unknown patient id counts as a patient of its own.
        failures: cases that could not be read, and are in no figure.
        figures: by structure and name (``measures.STATISTICS``); n counts the cases in which it is defined.
        undefined: by structure, figure and reason, in how many cases a figure is undefined.
        statuses: by structure, how many cases are present, missed, false_positive and absent (see ``case``).
        ranked: by structure, best, median and worst case.
        cases: one row for each case and structure, in the order they came.
        confidence: of the intervals, e.g. 0.95.
        provenance: plain facts: method and number of the replicates, seed, rule of lesion hits.
        by_volume: the same with the slices of each volume pooled (``volumes``): its cases are volumes, and ``n``
            counts them. None where no case is a slice of a volume.
    """

    structures: Structures
    tolerance_mm: float
    n: int
    n_patients: int
    failures: tuple[Failure, ...]
    figures: Mapping[str, Mapping[str, Figure]]
    undefined: Mapping[str, Mapping[str, Mapping[str, int]]]
    statuses: Mapping[str, Mapping[str, int]]
    ranked: Mapping[str, RankedCases]
    cases: tuple[CaseFigures, ...]
    confidence: float = 0.95
    provenance: Mapping[str, Any] = field(default_factory=dict)
    by_volume: SegmentationEvaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the table of cases: undefined numbers are None."""
        structures = {
            name: {
                "values": list(_values_of(self.structures[name])),
                "cases": dict(self.statuses[name]),
                "figures": {key: self._figure(name, key) for key in self.figures[name]},
                "ranked": self.ranked[name]._asdict(),
            }
            for name in self.structures
        }
        counts = self._plain("n", "n_patients") | {"n_failed": len(self.failures)}
        counts |= self._plain("confidence", "tolerance_mm") | {"structures": structures}
        counts |= {"provenance": dict(self.provenance)}
        return counts | ({} if self.by_volume is None else self._plain("by_volume"))

    def _figure(self, structure: str, name: str) -> dict[str, Any]:
        plain = self.figures[structure][name].to_dict() | {"statistic": STATISTICS[name]}
        reasons = self.undefined[structure].get(name, {})
        return plain | ({"n_undefined": sum(reasons.values()), "undefined": dict(reasons)} if reasons else {})

    def _tables(self) -> Iterator[Table]:
        yield Table(
            f"Segmentation · {self.n} cases of {self.n_patients} patients, {len(self.failures)} failed · surface "
            f"tolerance {self.tolerance_mm:g} mm · {self.confidence:.0%} intervals"
        )
        head = ("figure", "value [interval]", "n", "undefined", "statistic")
        for structure, figures in self.figures.items():
            reasons = self.undefined[structure]
            rows = [
                (name, figure, figure.n, sum(reasons.get(name, {}).values()), STATISTICS[name])
                for name, figure in figures.items()
            ]
            counts = ", ".join(f"{count} {status}" for status, count in self.statuses[structure].items())
            yield Table(f"{structure} ({counts})", rows, head)
        if self.by_volume is not None:
            yield Table("By volume:")
            yield from self.by_volume._tables()


def overlap_figures(overlap: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Compute what training watches: ``val_dice`` and ``val_dice_<structure>``, over all voxels of all images.

    Voxels are pooled, so that an image without a structure needs no rule of its own.

    Args:
        overlap: (N, M, 3) voxels in both masks, in the predicted and in the true one.
        names: of the M structures.

    Returns:
        The mean over the structures that are there, then each one; NaN for one that is neither there nor predicted.

    Example:
        >>> overlap_figures(np.array([[[2, 3, 2]], [[0, 1, 0]]]), ["liver"])["val_dice"]
        0.6666666666666666
    """
    both, predicted, true = overlap.sum(axis=0).T.astype(np.float64)
    size = predicted + true
    dice = np.divide(2.0 * both, size, out=np.full(len(names), np.nan), where=size > 0)
    figures = {f"val_dice_{name}": float(value) for name, value in zip(names, dice, strict=True)}
    return {"val_dice": float(dice[true > 0].mean()) if true.any() else float("nan"), **figures}


def evaluate_masks(
    cases: Iterable[MaskCase | Failure],
    *,
    structures: Structures,
    tolerance_mm: float = 1.0,
    lesions: Sequence[str] = (),
    min_iou: float = 0.0,
    config: EvaluationConfig | None = None,
) -> SegmentationEvaluation:
    """Compare predicted masks with the truth, case by case, and sum up by structure.

    Cases are taken one at a time and dropped, so that memory holds the pixels of one. Slices of volumes are also summed
    up by volume (``by_volume``). Rules for empty masks: see ``case``; a figure that is undefined in a case is not in
    the mean, and is counted. Intervals come from a bootstrap that resamples patients (``intervals.bootstrap_figures``).

    Args:
        cases: label maps, each image once; a Failure is counted and is in no figure.
        structures: by name, the value of the label maps, or several that count as one structure.
        tolerance_mm: surfaces at most so far apart agree.
        lesions: names of structures whose components are counted as lesions (see ``lesions``).
        min_iou: IoU of a lesion hit; 0 for any shared voxel.
        config: replicates, confidence, seed, and ``surface_area``: the surface Dice by area too.

    Raises:
        EvaluationError: no case, an id that stands twice, a value in a mask that no structure has, an unknown name.

    Example:
        >>> truth, shifted = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
        >>> truth[:, 2:6, 2:6], shifted[:, 2:6, 3:7] = 1, 1
        >>> case = MaskCase("a", truth, shifted, spacing_mm=(5.0, 1.0, 1.0))
        >>> evaluate_masks([case], structures={"liver": 1}).figures["liver"]["dice"].value
        0.75
    """
    settings = config or EvaluationConfig()
    _check_request(structures, lesions, tolerance_mm=tolerance_mm, min_iou=min_iou)
    hits, rows = dict.fromkeys(lesions, min_iou), list[CaseFigures]()
    failures: list[Failure] = []
    seen: set[str] = set()
    for number, case in enumerate(cases):
        if case.image_id in seen or not case.image_id:
            problem = "has no image_id" if not case.image_id else "repeats an image_id"
            raise EvaluationError(
                f"Case {number} (from 0) {problem}. Give each case one of its own.", row=number, key="image_id"
            )
        seen.add(case.image_id)
        if isinstance(case, Failure):
            failures.append(case)
            continue
        _check_values(case, structures, row=number)
        rows += _compare(case, structures, tolerance_mm=tolerance_mm, hits=hits, by_area=settings.surface_area)
    if not rows:
        raise EvaluationError(
            f"Expected at least one case that can be read. Received: {len(failures)} failed, none read."
            + (f" The first reason: {failures[0].reason}" if failures else ""),
            key="cases",
        )
    facts = {"lesion_hit": f"IoU >= {min_iou:g}" if min_iou else "any shared voxel"} if lesions else {}
    shared: dict[str, Any] = {"structures": structures, "tolerance_mm": tolerance_mm, "settings": settings}
    evaluation = _sum_up(tuple(rows), tuple(failures), facts=facts, **shared)
    volumes = pool_slices(rows)
    return replace(evaluation, by_volume=_sum_up(volumes, (), facts={}, **shared)) if volumes else evaluation


def check_occurrence(evaluation: SegmentationEvaluation) -> None:
    """Refuse figures of a structure that no truth and no prediction holds, and warn of one that no truth holds.

    Raises:
        EvaluationError: with the values that were looked for.
    """
    for name, counts in evaluation.statuses.items():
        values = "+".join(map(str, _values_of(evaluation.structures[name])))
        if counts["absent"] == evaluation.n:
            others = [
                f"{other} ({'+'.join(map(str, _values_of(evaluation.structures[other])))})"
                for other, found in evaluation.statuses.items()
                if found["absent"] < evaluation.n
            ]
            raise EvaluationError(
                f"No truth and no prediction of {evaluation.n} cases holds the structure {name!r} (value {values}). "
                f"Received: {', '.join(['0 (background)', *others])}. State the value that the files have, or leave "
                "the structure out.",
                key="structures",
            )
        if not counts["present"] + counts["missed"]:
            _LOGGER.warning("No truth of %d cases holds the structure %r (value %s).", evaluation.n, name, values)


def _sum_up(
    rows: tuple[CaseFigures, ...],
    failures: tuple[Failure, ...],
    *,
    structures: Structures,
    tolerance_mm: float,
    settings: EvaluationConfig,
    facts: Mapping[str, Any],
) -> SegmentationEvaluation:
    by_name = {name: [row for row in rows if row.structure == name] for name in structures}
    patients = np.array([row.patient_id for row in next(iter(by_name.values()))], dtype=np.str_)
    unit, units = patient_units(patients)
    bootstrap = Bootstrap.of(settings)
    measures = {
        name: MaskMeasures([row.figures for row in part], unit=unit, units=units) for name, part in by_name.items()
    }
    return SegmentationEvaluation(
        structures=dict(structures),
        tolerance_mm=tolerance_mm,
        n=patients.size,
        n_patients=units,
        failures=failures,
        figures={name: bootstrap_figures(part, bootstrap) for name, part in measures.items()},
        undefined={
            name: {key: found for key in STATISTICS if (found := part.undefined(key))}
            for name, part in measures.items()
        },
        statuses={name: _count_statuses(part) for name, part in by_name.items()},
        ranked={name: _rank(part) for name, part in by_name.items()},
        cases=rows,
        confidence=settings.confidence,
        provenance={
            "intervals": bootstrap.name,
            "replicates": settings.replicates,
            "seed": settings.seed,
            **({"unknown_patient": int((patients == "").sum())} if (patients == "").any() else {}),
            **facts,
        },
    )


def _count_statuses(rows: Sequence[CaseFigures]) -> dict[str, int]:
    return {status: sum(row.figures.status == status for row in rows) for status in STATUSES}


def _compare(
    case: MaskCase, structures: Structures, *, tolerance_mm: float, hits: Mapping[str, float], by_area: bool
) -> list[CaseFigures]:
    box = bounding_box((case.truth != 0) | (case.prediction != 0))  # one pass over the whole grid for all structures
    truth, prediction = case.truth[box], case.prediction[box]
    return [
        CaseFigures(
            case.image_id,
            case.patient_id,
            name,
            compare_masks(
                structure_mask(truth, value),
                structure_mask(prediction, value),
                spacing_mm=case.spacing_mm,
                tolerance_mm=tolerance_mm,
                min_iou=hits.get(name),
                by_area=by_area,
            ),
            case.volume_id,
        )
        for name, value in structures.items()
    ]


def structure_mask(labels: LabelArray, value: int | tuple[int, ...]) -> BoolArray:
    """Return where a label map holds the value, or one of the values, of a structure; bool of the same shape."""
    values = _values_of(value)
    mask: BoolArray = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def _values_of(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check_values(case: MaskCase, structures: Structures, *, row: int) -> None:
    """Refuse values that no structure has: they would be taken for background without a word."""
    known = {value for values in structures.values() for value in _values_of(values)}
    for name, labels in (("truth", case.truth), ("prediction", case.prediction)):
        count = sum(int(np.count_nonzero(labels == value)) for value in known)
        if count != np.count_nonzero(labels):
            unknown = [int(value) for value in np.unique(labels) if int(value) not in known | {0}]
            shown = ", ".join(map(str, unknown[:5])) + (" …" if len(unknown) > 5 else "")
            raise EvaluationError(
                f"Unknown values in the {name} of case {row} (from 0). Expected: 0, "
                f"{', '.join(map(str, sorted(known)))}. Received: {shown}. Name every value that stands in the masks "
                f"as a structure, or correct the masks.{_VOID if name == 'truth' else ''}",
                row=row,
                key=name,
            )


def _check_request(structures: Structures, lesions: Sequence[str], *, tolerance_mm: float, min_iou: float) -> None:
    if not structures:
        raise EvaluationError("Name at least one structure and its value. Received: none.", key="structures")
    for name, value in structures.items():
        values = _values_of(value)
        if not name or not values or not all(isinstance(v, int | np.integer) and v > 0 for v in values):
            raise EvaluationError(
                f"A structure has a name and whole values above 0 (0 is background). Received: {name!r}: {value!r}.",
                key="structures",
            )
    for name in lesions:
        if name not in structures:
            raise EvaluationError(f"Unknown structure {name!r}. {nearest(name, list(structures))}", key="lesions")
    check_tolerance(tolerance_mm)
    check_min_iou(min_iou)


def _rank(rows: Sequence[CaseFigures]) -> RankedCases:
    """Best, median (the lower middle one of an even number) and worst by Dice; equal ones by id."""
    defined = [row for row in rows if not np.isnan(row.figures.dice)]
    order = sorted(defined, key=lambda row: (row.figures.dice, row.image_id))
    if not order:
        return RankedCases(None, None, None)
    return RankedCases(order[-1].image_id, order[(len(order) - 1) // 2].image_id, order[0].image_id)
