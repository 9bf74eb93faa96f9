"""MONAI as the independent source for overlap, HD95 and surface Dice, with anisotropic spacing, and for the FROC."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_vision.evaluation import MaskCase, compare_masks, evaluate_masks, froc
from lepton_vision.evaluation.masks.lesions import LesionScores
from lepton_vision.readers import read_image

# Its import takes seconds, and both the import and its metrics on empty masks warn.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CLOSE = 2e-6  # MONAI keeps distances in float32


@pytest.fixture(scope="module")
def metrics() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("monai.metrics", exc_type=ImportError)


@pytest.fixture(scope="module")
def expected(metrics: Any) -> Callable[..., dict[str, float]]:
    """Our names, MONAI's numbers, for one pair of boolean masks."""
    import torch

    def compute(
        truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...], tolerance: float
    ) -> dict[str, float]:
        y, y_pred = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (truth, prediction))
        sums = {
            "hd95_mm": metrics.HausdorffDistanceMetric(include_background=True, percentile=95),
            "surface_dice": metrics.SurfaceDiceMetric(class_thresholds=[tolerance], include_background=True),
        }
        found = {name: float(metric(y_pred, y, spacing=spacing)) for name, metric in sums.items()}
        found["dice"] = float(metrics.DiceMetric(ignore_empty=True)(y_pred, y))
        found["iou"] = float(metrics.MeanIoU(ignore_empty=True)(y_pred, y))
        return found

    return compute


def blob(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random ellipsoid with ragged edges that may touch the border, and a few lone voxels."""
    if shape[0] == 1:
        return blob(shape[1:], rng)[None]
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    center, radius = rng.uniform(0.3, 0.7, len(shape)) * shape, rng.uniform(0.15, 0.5, len(shape)) * shape
    distance = (((grid - center) / radius) ** 2).sum(axis=-1)
    return (distance + rng.normal(0, 0.15, shape) < 1) | (rng.random(shape) < 0.001)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((17, 30, 24), (5.0, 0.7, 0.9)), ((12, 20, 16), (1.0, 1.0, 1.0)), ((40, 33), (0.4, 1.5)), ((1, 9, 30), (3, 1, 2))],
)
def test_random_masks(
    expected: Callable[..., dict[str, float]], shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = blob(shape, rng), blob(shape, rng)
    assert truth.any()
    assert prediction.any()
    for tolerance in (0.0, 1.0, 2.0):  # 2 lies on distances that occur
        found = compare_masks(truth, prediction, spacing_mm=spacing, tolerance_mm=tolerance)
        for name, value in expected(truth, prediction, spacing, tolerance).items():
            assert getattr(found, name) == pytest.approx(value, rel=CLOSE, abs=CLOSE), name


def test_empty_masks_where_monai_has_a_rule(expected: Callable[..., dict[str, float]]) -> None:
    """Undefined in both where a surface is missing; the Dice of a false positive is where we differ, on purpose."""
    full, empty = np.zeros((4, 5, 6), dtype=np.bool_), np.zeros((4, 5, 6), dtype=np.bool_)
    full[1:3, 1:3, 1:3] = True
    step = (1.0, 1.0, 1.0)
    missed, theirs = compare_masks(full, empty, spacing_mm=step), expected(full, empty, step, 1.0)
    assert [missed.dice, missed.iou, missed.surface_dice] == [theirs[k] for k in ("dice", "iou", "surface_dice")]
    assert np.isnan(theirs["hd95_mm"])
    assert np.isnan(missed.hd95_mm)
    absent, theirs = compare_masks(empty, empty, spacing_mm=step), expected(empty, empty, step, 1.0)
    assert all(np.isnan(theirs[name]) and np.isnan(getattr(absent, name)) for name in theirs)
    # Truth empty, prediction not: MONAI leaves the case out of the Dice; here it is 0, a false positive.
    false = compare_masks(empty, full, spacing_mm=step)
    assert np.isnan(expected(empty, full, step, 1.0)["dice"])
    assert (false.dice, false.surface_dice, expected(empty, full, step, 1.0)["surface_dice"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("number", range(3))
def test_a_real_hippocampus_against_itself_shifted(
    shared: Path, expected: Callable[..., dict[str, float]], number: int
) -> None:
    paths = sorted((shared / "data" / "msd-hippocampus").rglob("labels*/*.nii*"))
    if not paths:
        pytest.skip("msd-hippocampus is not here")
    image = read_image(paths[number])
    truth = image.pixels[0].astype(np.uint8)
    shifted = np.roll(truth, 1, axis=number)
    assert image.spacing_mm is not None
    spacing = tuple(step * factor for step, factor in zip(image.spacing_mm, (1.0, 1.5, 0.7), strict=True))
    result = evaluate_masks(
        [MaskCase("a", truth, shifted, spacing)], structures={"anterior": 1, "posterior": 2}, tolerance_mm=0.8
    )
    for row, value in zip(result.cases, (1, 2), strict=True):
        for name, theirs in expected(truth == value, shifted == value, spacing, 0.8).items():
            assert getattr(row.figures, name) == pytest.approx(theirs, rel=CLOSE, abs=CLOSE), name
        assert row.figures.hd95_mm <= spacing[number] + 1e-9
        assert row.figures.volume_error_ml == 0.0
        assert 0.5 < row.figures.dice < 1.0


def test_the_froc_curve(metrics: Any) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for case in range(20):
        hit = rng.random(3)
        hit[rng.random(3) < 0.3] = np.nan
        cases.append(LesionScores(f"i{case}", f"p{case}", hit, rng.random(int(rng.integers(0, 5)))))
    assert any(np.isnan(case.lesion_scores).any() for case in cases)  # then MONAI's first threshold, left out, is 0
    false = np.concatenate([case.false_scores for case in cases])
    true = np.nan_to_num(np.concatenate([case.lesion_scores for case in cases]))
    per_case, sensitivity = metrics.compute_froc_curve_data(false, true, num_targets=true.size, num_images=20)
    found = froc(cases)
    np.testing.assert_allclose(found.false_per_case, per_case[-2::-1])  # ascending thresholds, then a point at none
    np.testing.assert_allclose(found.sensitivity, sensitivity[-2::-1])
    # MONAI interpolates between points; a step never promises more.
    rates = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    theirs = metrics.compute_froc_score(per_case, sensitivity, rates)
    assert theirs - 0.05 < found.figures["cpm"].value <= theirs
