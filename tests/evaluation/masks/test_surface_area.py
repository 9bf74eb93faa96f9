"""Surface Dice by area against MONAI's, which has DeepMind's table, and by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics.surface_dice import SurfaceDiceMetric
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.masks.evaluation import MaskCase, evaluate_masks
from lepton_vision.evaluation.masks.surface_area import area_surface_dice, piece_area
from lepton_vision.evaluation.masks.table import write_mask_results


def theirs(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    metric = SurfaceDiceMetric(class_thresholds=[tolerance], include_background=True, use_subvoxels=True)
    found = metric(
        torch.tensor(prediction)[None, None].float(), torch.tensor(truth)[None, None].float(), spacing=list(spacing)
    )
    return float(found)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI itself
@pytest.mark.parametrize("shape", [(40, 40), (8, 12, 12)])
@pytest.mark.parametrize("tolerance", [1.0, 2.5])
def test_blobs_have_the_surface_dice_of_monai(shape: tuple[int, ...], tolerance: float) -> None:
    spacing, rng = (3.0, 0.7, 1.3)[-len(shape) :], np.random.default_rng(0)
    for _ in range(2):
        masks = [ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.02 for _ in range(2)]
        masks[1] = np.where(rng.random() < 0.5, masks[1], np.roll(masks[0], 1, axis=-1))
        masks[1] = masks[1].astype(bool)
        found = area_surface_dice(masks[0], masks[1], spacing_mm=spacing, tolerance_mm=tolerance)
        exact = len(shape) == 2
        assert found == pytest.approx(theirs(*masks, spacing, tolerance), abs=1e-5 if exact else 0.01)


def test_two_voxels_apart_by_hand() -> None:
    """Each voxel has eight cells around it; the four between the two are one step from the other's nearest."""
    truth = np.zeros((9, 9, 9), dtype=np.bool_)
    prediction = truth.copy()
    truth[4, 4, 3] = prediction[4, 4, 5] = True
    assert area_surface_dice(truth, prediction, spacing_mm=(3.0, 2.0, 1.0), tolerance_mm=1.0) == pytest.approx(0.5)
    assert area_surface_dice(truth, prediction, spacing_mm=(3.0, 2.0, 1.0), tolerance_mm=2.0) == pytest.approx(1.0)


def test_areas_by_geometry() -> None:
    assert piece_area(0b00000001, (1.0, 1.0, 1.0)) == pytest.approx(3**0.5 / 8)  # a triangle of sides sqrt(1/2)
    assert piece_area(0b00001111, (2.0, 3.0, 5.0)) == pytest.approx(15.0)  # one side of the cell
    assert piece_area(0b0001, (3.0, 4.0)) == pytest.approx(2.5)
    for code in range(256):
        assert piece_area(code, (1.0, 1.0, 1.0)) == pytest.approx(piece_area(255 - code, (1.0, 1.0, 1.0)))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI itself
@pytest.mark.parametrize(
    ("spacing", "share"), [((1.0, 1.0, 1.0), 0.13), ((3.0, 0.7, 1.3), 1 / 3), ((1.0, 10.0, 10.0), 0.46)]
)
def test_twisted_pieces_differ_from_deepminds_as_said(spacing: tuple[float, ...], share: float) -> None:
    """Against the areas of DeepMind's own table, whose bits go from the last corner to the first."""
    table = np.asarray(get_code_to_measure_table(spacing)[0])
    codes = range(1, 255)
    theirs = np.array([table[int(f"{code:08b}"[::-1], 2)] for code in codes])
    apart = np.abs(np.array([piece_area(code, spacing) for code in codes]) / theirs - 1)
    assert share * 0.9 < apart.max() < share * 1.02
    assert np.mean(apart < 1e-3) > 0.5


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 4), dtype=np.bool_), np.ones((4, 4), dtype=np.bool_)
    assert np.isnan(area_surface_dice(empty, empty, spacing_mm=(1.0, 1.0)))
    assert area_surface_dice(empty, full, spacing_mm=(1.0, 1.0)) == 0.0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI itself
def test_an_evaluation_has_it_where_it_is_asked_for(tmp_path: Path) -> None:
    """A case that is there, one that is missed, one without the structure, and one without a spacing."""
    rng, step = np.random.default_rng(1), (0.7, 1.3)
    truth = ndimage.gaussian_filter(rng.normal(size=(40, 40)), 3) > 0.05
    moved, empty = np.roll(truth, 1, axis=1), np.zeros_like(truth)
    cases = [MaskCase(name, *pair, spacing_mm=step) for name, pair in (("a", (truth, moved)), ("b", (truth, empty)))]
    cases += [MaskCase("c", empty, empty, spacing_mm=step), MaskCase("d", truth, moved)]
    plain = evaluate_masks(cases, structures={"x": 1})
    found = evaluate_masks(cases, structures={"x": 1}, config=EvaluationConfig(surface_area=True))
    assert "surface_dice_area" not in plain.figures["x"]
    exact = theirs(truth, moved, step, 1.0)
    assert found.figures["x"]["surface_dice_area"].value == pytest.approx(exact / 2, abs=1e-5)
    assert found.figures["x"]["surface_dice"] == plain.figures["x"]["surface_dice"]
    shown = json.loads(write_mask_results(found, tmp_path).read_text())["structures"]["x"]["figures"]
    assert shown["surface_dice_area"]["value"] == pytest.approx(exact / 2, abs=1e-5)
    assert shown["surface_dice_area"]["undefined"] == shown["surface_dice"]["undefined"]
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert float(rows[0]["surface_dice_area"]) == pytest.approx(exact, abs=1e-5)
    assert [row["surface_dice_area"] for row in rows[1:]] == ["0.0", "", ""]
    write_mask_results(plain, tmp_path)
    assert "surface_dice_area" not in (tmp_path / "cases.csv").read_text()
