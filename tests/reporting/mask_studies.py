"""Mask evaluations with every status, and tables of files with an image, for the tests of their page."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.masks.evaluation import MaskCase, SegmentationEvaluation, evaluate_masks
from lepton_vision.evaluation.masks.froc import Froc, froc
from lepton_vision.evaluation.masks.lesions import LesionScores
from lepton_vision.predictions.cells import Failure
from lepton_vision.reporting.masks.overlays import NoOverlay, Overlay

STRUCTURES = {"liver": 1, "lesion": 2, "whole": (1, 2)}
SPACING = (5.0, 0.8, 1.2)


def make_labels(*, shift: int = 0, lesion: bool = True) -> np.ndarray:
    """(D, H, W) labels: an L that is no mirror image of itself, largest in slice 2 of 5, and a lesion in it."""
    labels = np.zeros((5, 24, 32), np.uint8)
    for depth, size in ((1, 6), (2, 10), (3, 8)):
        labels[depth, 4 : 4 + size, 6 + shift : 9 + shift] = 1
        labels[depth, 4 + size - 3 : 4 + size, 6 + shift : 14 + shift] = 1
    if lesion:
        labels[2, 5:8, 7 + shift : 9 + shift] = 2
    return labels


def make_cases() -> list[MaskCase | Failure]:
    """Twelve cases: the lesion is present, missed, false positive and absent; two failures."""
    plans = [(True, True), (True, False), (False, True), (False, False)] * 3
    cases: list[MaskCase | Failure] = [
        MaskCase(
            f"case-{k:02d}",
            make_labels(lesion=truth),
            make_labels(shift=k % 4, lesion=prediction),
            SPACING,
            f"patient-{k // 2}",
        )
        for k, (truth, prediction) in enumerate(plans)
    ]
    return [*cases, Failure("lost-1", "prediction: truncated"), Failure("lost-2", "prediction: geometry")]


def make_mask_evaluation(**options: object) -> SegmentationEvaluation:
    settings = {"structures": STRUCTURES, "tolerance_mm": 1.5, "lesions": ["lesion"]} | options
    return evaluate_masks(make_cases(), config=EvaluationConfig(replicates=100), **settings)  # type: ignore[arg-type]


def make_overlays(evaluation: SegmentationEvaluation) -> list[Overlay | NoOverlay]:
    """The ranked cases from arrays; the last one carries a reason instead."""
    by_id = {case.image_id: case for case in make_cases() if isinstance(case, MaskCase)}
    dice = {(row.structure, row.image_id): row.figures.dice for row in evaluation.cases}
    overlays: list[Overlay | NoOverlay] = []
    for name, ranked in evaluation.ranked.items():
        for image_id in dict.fromkeys(ranked):
            case, value = by_id[str(image_id)], evaluation.structures[name]
            masks = [np.isin(labels, value) for labels in (case.truth, case.prediction)]
            image = np.random.default_rng(0).normal(40, 10, case.truth.shape).astype(np.float32)
            overlays.append(
                Overlay(name, case.image_id, *masks, image=image, spacing_mm=SPACING, dice=dice[name, case.image_id])
            )
    last = overlays[-1]
    return [*overlays[:-1], NoOverlay(last.structure, last.image_id, last.dice, "the image has another spacing")]


def make_froc() -> Froc:
    """Three lesions; found at 0.9, at 0.4 and never; false candidates at 0.7 and 0.2 in two cases."""
    cases = [
        LesionScores("a", "p", np.array([0.9, np.nan]), np.array([0.7])),
        LesionScores("b", "q", np.array([0.4]), np.array([0.2])),
    ]
    return froc(cases, rates=(0.5, 1.0), config=EvaluationConfig(replicates=100))


def save_nifti(path: Path, values: np.ndarray, *, origin: tuple[float, ...] = (0.0, 0.0, 0.0)) -> str:
    """Save (D, H, W) as NIfTI whose W grows to the right and H to the front ("RAS"), with ``SPACING``."""
    affine = np.diag([*SPACING[::-1], 1.0])
    affine[:3, 3] = origin
    nibabel.Nifti1Image(values.transpose(2, 1, 0), affine).to_filename(path)
    return path.name


def write_table(folder: Path, rows: list[tuple[str, ...]]) -> Path:
    path = folder / "DOE^JANE.csv"
    text = ["image_id,patient_id,truth,prediction,image", *(",".join(row) for row in rows)]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path
