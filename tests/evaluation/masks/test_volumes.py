"""Slices judged by the volume they are slices of: by hand, against MONAI on the stacked volume, and with intervals."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import MaskCase, evaluate_masks
from lepton_vision.evaluation.masks.table import write_mask_results


def row(*values: int) -> np.ndarray:
    """(1, N) uint8."""
    return np.array([values], np.uint8)


# Volume v of patient p: 3 of 4 + 0 of 1 true pixels found, one stray pixel in a slice without any. w: missed.
SLICES = [
    MaskCase("v-0", row(1, 1, 1, 1), row(1, 1, 1, 0), None, "p", "v"),
    MaskCase("v-1", row(0, 0, 0, 0), row(0, 1, 0, 0), None, "p", "v"),
    MaskCase("v-2", row(0, 0, 1, 0), row(0, 0, 0, 0), None, "p", "v"),
    MaskCase("w-0", row(0, 1, 1, 0), row(0, 0, 0, 0), None, "q", "w"),
    MaskCase("w-1", row(0, 0, 0, 0), row(0, 0, 0, 0), None, "q", "w"),
    MaskCase("alone", row(0, 1, 1, 0), row(0, 1, 1, 0), None, "r"),
]


def test_voxels_of_all_slices_are_counted_together() -> None:
    found = evaluate_masks(SLICES, structures={"lesion": 1}, config=EvaluationConfig(replicates=200))
    assert (found.n, found.n_patients) == (6, 3)
    # By slice: 6/7, 0 for the stray pixel, 0, 0, undefined, 1
    assert found.figures["lesion"]["dice"].value == pytest.approx((6 / 7 + 1) / 5)
    volumes = found.by_volume
    assert volumes is not None
    assert (volumes.n, volumes.n_patients) == (3, 3)
    by_id = {case.image_id: case.figures for case in volumes.cases}
    assert list(by_id) == ["v", "w", "alone"]
    assert by_id["v"].voxels == (3, 5, 4)
    assert by_id["v"].dice == pytest.approx(2 * 3 / (5 + 4))
    assert (by_id["v"].sensitivity, by_id["v"].precision, by_id["v"].iou) == (3 / 5, 3 / 4, 3 / 6)
    assert (by_id["w"].status, by_id["w"].dice, by_id["alone"].dice) == ("missed", 0.0, 1.0)
    assert volumes.figures["lesion"]["dice"].value == pytest.approx((6 / 9 + 0 + 1) / 3)
    assert volumes.statuses["lesion"] == {"present": 2, "missed": 1, "false_positive": 0, "absent": 0}
    assert np.isnan(volumes.figures["lesion"]["hd95_mm"].value)
    assert "slices" in next(iter(volumes.undefined["lesion"]["hd95_mm"]))
    assert "By volume" in found._repr_html_()


def test_images_that_are_no_slices_have_no_volumes() -> None:
    plain = [MaskCase(c.image_id, c.truth, c.prediction, None, c.patient_id) for c in SLICES]
    found = evaluate_masks(plain, structures={"lesion": 1})
    assert found.by_volume is None
    assert "by_volume" not in found.to_dict()


def test_it_is_monai_s_dice_of_the_stacked_volume() -> None:
    with warnings.catch_warnings(action="ignore"):
        metrics: Any = pytest.importorskip("monai.metrics", exc_type=ImportError)
    import torch

    rng = np.random.default_rng(0)
    truth, prediction = (rng.integers(0, 3, (5, 20, 24)).astype(np.uint8) for _ in range(2))
    truth[3] = prediction[1] = 0
    slices = [MaskCase(f"s{k}", truth[k], prediction[k], (1.0, 1.0), "p", "v") for k in range(5)]
    found = evaluate_masks(slices, structures={"one": 1, "two": 2})
    assert found.by_volume is not None
    for case, value in zip(found.by_volume.cases, (1, 2), strict=True):
        y, y_pred = (torch.from_numpy((mask == value)[None, None]).float() for mask in (truth, prediction))
        assert case.figures.dice == pytest.approx(float(metrics.DiceMetric(ignore_empty=True)(y_pred, y)))
        assert case.figures.iou == pytest.approx(float(metrics.MeanIoU(ignore_empty=True)(y_pred, y)))
        rates = metrics.get_confusion_matrix(y_pred, y)
        for name, theirs in (("sensitivity", "sensitivity"), ("precision", "precision")):
            assert getattr(case.figures, name) == pytest.approx(
                float(metrics.compute_confusion_matrix_metric(theirs, rates))
            )


def test_the_interval_draws_patients_with_all_their_volumes() -> None:
    """Against a plain loop over the replicates' patients."""
    rng, cases, dice = np.random.default_rng(1), [], []
    for volume in range(12):
        truth = np.zeros((4, 8, 8), np.uint8)
        truth[:, 2:6, 2:6] = 1
        shift = int(rng.integers(0, 4))
        prediction = np.roll(truth, shift, axis=2)
        ids = f"p{volume // 3}", f"v{volume}"
        cases += [MaskCase(f"{volume}-{k}", truth[k], prediction[k], None, *ids) for k in range(4)]
        dice.append(1 - shift / 4)
    plain = EvaluationConfig(replicates=500, seed=3, interval="percentile")
    found = evaluate_masks(cases, structures={"x": 1}, config=plain).by_volume
    assert found is not None
    figure = found.figures["x"]["dice"]
    assert (figure.value, figure.n, found.n_patients) == (pytest.approx(np.mean(dice)), 12, 4)
    of_patient = np.reshape(dice, (4, 3)).mean(axis=1)  # three volumes each
    drawn = [rng.choice(of_patient, 4).mean() for _ in range(20_000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (figure.low, figure.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_a_volume_of_two_patients_is_refused() -> None:
    torn = [SLICES[0], MaskCase("v-9", row(1), row(1), None, "q", "v")]
    with pytest.raises(EvaluationError, match="one patient for the slices") as caught:
        evaluate_masks(torn, structures={"lesion": 1})
    assert caught.value.key == "volume_id"


def test_volumes_have_a_table_of_their_own(tmp_path: Path) -> None:
    found = evaluate_masks(SLICES, structures={"lesion": 1}, config=EvaluationConfig(replicates=100))
    figures = json.loads(write_mask_results(found, tmp_path).read_text())
    assert figures["by_volume"]["n"] == 3
    assert figures["by_volume"]["structures"]["lesion"]["figures"]["dice"]["value"] == pytest.approx(5 / 9)
    with (tmp_path / "volumes.csv").open(newline="") as file:
        rows = {one["image_id"]: one for one in csv.DictReader(file)}
    assert [rows["v"][f"voxels_{name}"] for name in ("shared", "truth", "prediction")] == ["3", "5", "4"]
    with (tmp_path / "cases.csv").open(newline="") as file:
        cases = list(csv.DictReader(file))
    assert [one["volume_id"] for one in cases] == ["v", "v", "v", "w", "w", ""]
    assert "voxels_shared" not in cases[0]
