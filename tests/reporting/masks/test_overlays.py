"""Overlays: the right colour at known pixels, the right slice, the right shape, told apart by everybody."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from lepton_vision.errors import EvaluationError, ReportError
from lepton_vision.reporting.masks.overlays import (
    FALSE,
    HIT,
    MISSED,
    OPACITY,
    Drawn,
    Overlay,
    choose_slice,
    draw_overlay,
)
from lepton_vision.types import Window
from tests.reporting.classes.test_gallery import decode

# What each pixel of this slice is, on purpose without any symmetry: . none, h hit, m missed, f false positive.
PLAN = """
................
.hhhhhhhhhhmmmm.
.hhhhhhhhhhmmmm.
.hhhhhhhhhhmmmm.
.hhhh...........
.hhhh...........
.hhhh......ffff.
.hhhh......ffff.
.mmmm......ffff.
.mmmm...........
.mmmm...........
................
"""
KINDS = np.array([list(line) for line in PLAN.split()])
TRUTH, PREDICTION = np.isin(KINDS, ["h", "m"]), np.isin(KINDS, ["h", "f"])
GRAY = 51  # a fifth of white
WINDOW = Window(50.0, 100.0, "LINEAR_EXACT")


def flat(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 20.0, np.float32)  # 20 of 0 to 100


def make(**changes: object) -> Overlay:
    values = {"image": flat(TRUTH.shape), "window": WINDOW, "dice": 0.5} | changes
    return Overlay("nodule", "a", TRUTH, PREDICTION, **values)  # type: ignore[arg-type]


def panels(drawn: Drawn) -> dict[str, np.ndarray]:
    return {panel.title: decode(panel.picture.uri) for panel in drawn.panels}


def test_each_region_has_its_colour_at_its_place() -> None:
    shown = panels(draw_overlay(make(), side=320))  # 16 columns: 20 pixels a voxel
    assert list(shown) == ["Image", "Truth", "Prediction against truth"]
    assert all(one.shape[:2] == (240, 320) for one in shown.values())
    colors = {"h": HIT, "m": MISSED, "f": FALSE}
    for (row, column), kind in np.ndenumerate(KINDS):
        pixel = shown["Prediction against truth"][20 * row + 10, 20 * column + 10]
        color = np.array(colors.get(kind, (GRAY,) * 3))
        opacity = OPACITY if kind in colors else 1.0
        np.testing.assert_allclose(pixel, opacity * color + (1 - opacity) * GRAY, atol=1.0)
    assert tuple(shown["Prediction against truth"][20, 20]) == HIT  # the corner of a region is opaque
    assert tuple(shown["Prediction against truth"][179, 20 * 11]) == FALSE
    assert (shown["Image"] == GRAY).all()


def test_the_truth_is_an_outline_white_inside_black_outside() -> None:
    truth = panels(draw_overlay(make(), side=320))["Truth"]
    assert truth.ndim == 2
    assert [truth[30, x] for x in (18, 19, 20, 21, 22, 30)] == [GRAY, 0, 255, 255, GRAY, GRAY]
    assert [truth[30, x] for x in (297, 298, 299, 300, 301)] == [GRAY, 255, 255, 0, GRAY]  # hit and missed are one
    assert (truth[130:170, 225:290] == GRAY).all()  # a false positive has no outline


def test_the_slice_is_the_one_with_the_largest_truth_or_else_prediction() -> None:
    areas = np.zeros((4, 3, 3), np.bool_)
    areas[1, 0, :2] = areas[2, 0, :] = areas[3, 1, :] = True
    assert choose_slice(areas, ~areas) == 2
    assert choose_slice(np.zeros_like(areas), areas) == 2
    assert choose_slice(np.zeros_like(areas), np.zeros_like(areas)) == 2
    volume = {"truth": np.stack([TRUTH & False, TRUTH & PREDICTION, TRUTH]), "prediction": np.stack([PREDICTION] * 3)}
    image = np.stack([flat(TRUTH.shape) * k for k in (1.0, 2.0, 3.0)])
    drawn = draw_overlay(Overlay("nodule", "a", **volume, image=image, window=WINDOW), side=320)
    assert (drawn.number, drawn.depth) == (3, 3)
    assert (panels(drawn)["Image"] == 153).all()
    assert (draw_overlay(make()).number, draw_overlay(make()).depth) == (0, 0)


def test_the_aspect_follows_the_spacing() -> None:
    tall = draw_overlay(make(spacing_mm=(2.0, 0.5)), side=300).panels[0].picture  # 24 by 8 mm
    assert (tall.height, tall.width) == (300, 100)
    volume = Overlay("nodule", "a", TRUTH[None], PREDICTION[None], spacing_mm=(9.0, 0.5, 1.5))  # 6 by 24 mm
    wide = draw_overlay(volume, side=320).panels[0].picture
    assert (wide.height, wide.width) == (80, 320)


def test_without_an_image_masks_alone_are_drawn_on_black() -> None:
    shown = panels(draw_overlay(make(image=None), side=320))
    assert list(shown) == ["Truth", "Prediction against truth"]
    assert (shown["Prediction against truth"][10, 10] == 0).all()


def test_without_a_window_the_percentiles_of_the_image_are_black_and_white() -> None:
    image = np.arange(TRUTH.size, dtype=np.float32).reshape(TRUTH.shape) * 1000.0 - 5.0
    shown = panels(draw_overlay(make(image=image, window=None), side=160))["Image"]  # 10 pixels a voxel
    low, high = np.percentile(image, [0.5, 99.5])
    expected = np.clip((image - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(shown[5::10, 5::10][2:-2, 2:-2], expected[2:-2, 2:-2], atol=2.0)
    assert (shown.min(), shown.max()) == (0, 255)


def test_a_small_structure_is_cut_out_where_it_lies() -> None:
    truth = np.zeros((100, 200), np.bool_)
    truth[80:90, 20:24] = True
    drawn = draw_overlay(Overlay("nodule", "a", truth, truth, image=flat(truth.shape), window=WINDOW), side=200)
    assert drawn.share == 0.25  # 2.5 boxes of 10 rows among 100
    shown = panels(drawn)["Prediction against truth"]
    assert shown.shape == (100, 200, 3)  # 25 x 50 voxels, 4 pixels each
    hit = np.argwhere(shown[..., 2] > 100)
    rows, columns = hit.min(axis=0), hit.max(axis=0) + 1
    assert (columns - rows).tolist() == [40, 16]
    assert rows.tolist() == [4 * (80 - 72), 4 * 20]  # rows 72 to 97; columns from 0, as the border is near
    assert draw_overlay(make()).share == 1.0


def test_colours_differ_for_every_colour_vision() -> None:
    """Simulated by Machado, Oliveira and Fernandes (IEEE TVCG 15:1291, 2009, severity 1.0), measured in CIELAB."""
    matrices = {
        "normal": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    srgb = np.array([HIT, MISSED, FALSE]) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for name, matrix in matrices.items():
        seen = np.clip(linear @ np.asarray(matrix).T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
        assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 30, name  # 2.3 can just be seen
    gray = cv2.cvtColor(np.array([[HIT, MISSED, FALSE]], np.uint8), cv2.COLOR_RGB2LAB)[0, :, 0] / 2.55
    assert np.diff(np.sort(gray)).min() > 10  # and in a black and white print


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ReportError, match=r"booleans.*Received: int64 and bool"):
        Overlay("a", "b", TRUTH.astype(int), PREDICTION)  # type: ignore[arg-type]
    with pytest.raises(ReportError, match=r"needs the shape of its masks, \(12, 16\). Received: \(1, 12, 16\)"):
        make(image=flat((1, 12, 16)))
    with pytest.raises(EvaluationError, match="shape of its truth"):
        Overlay("a", "b", TRUTH, PREDICTION[1:])
    with pytest.raises(EvaluationError, match="2 spacings"):
        make(spacing_mm=(1.0, 1.0, 1.0))
