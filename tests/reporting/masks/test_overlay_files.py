"""Ranked cases read from files: flipped as radiologists look, shown through the window, or a reason instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from mask_studies import SPACING, STRUCTURES, make_labels, save_nifti, write_table
from PIL import Image as Picture

from lepton_vision.config.sections import EvaluationConfig, PreprocessConfig
from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.evaluation.masks.table import evaluate_mask_table, read_mask_table
from lepton_vision.readers import read_image
from lepton_vision.reporting.masks import overlay_files
from lepton_vision.reporting.masks.overlay_files import overlay_masks, read_overlays
from lepton_vision.reporting.masks.overlays import NoOverlay, Overlay, draw_overlay
from lepton_vision.types import Window

IMAGE = np.arange(5 * 24 * 32, dtype=np.int16).reshape(5, 24, 32)


def run(table: Path, *, structures: dict[str, int | tuple[int, ...]] | None = None) -> SegmentationEvaluation:
    return evaluate_mask_table(
        table, out=table.parent / "out", structures=structures or STRUCTURES, config=EvaluationConfig(replicates=100)
    )


def read(table: Path, **options: object) -> list[Overlay | NoOverlay]:
    return list(read_overlays(read_mask_table(table), run(table, **options)))  # type: ignore[arg-type]


@pytest.fixture
def masks(tmp_path: Path) -> tuple[str, str]:
    return save_nifti(tmp_path / "t.nii.gz", make_labels()), save_nifti(tmp_path / "p.nii.gz", make_labels(shift=1))


def test_a_volume_is_flipped_to_left_and_back(tmp_path: Path, masks: tuple[str, str]) -> None:
    image = save_nifti(tmp_path / "i.nii.gz", IMAGE)
    found = read(write_table(tmp_path, [("i0", "p", *masks, image)]))
    assert [(one.structure, one.image_id) for one in found] == [(name, "i0") for name in STRUCTURES]
    whole = found[2]
    assert isinstance(whole, Overlay)
    assert whole.image is not None
    np.testing.assert_array_equal(whole.truth, (make_labels() > 0)[:, ::-1, ::-1])  # RAS: both grow the other way
    np.testing.assert_array_equal(whole.prediction, (make_labels(shift=1) > 0)[:, ::-1, ::-1])
    np.testing.assert_array_equal(whole.image, IMAGE[:, ::-1, ::-1])
    assert whole.spacing_mm == pytest.approx(SPACING)
    low, high = np.percentile(IMAGE, [0.5, 99.5])  # a NIfTI file without cal_min and cal_max
    assert isinstance(whole.window, Window)
    assert (whole.window.center, whole.window.width) == pytest.approx(((low + high) / 2, high - low))
    both = np.count_nonzero((make_labels() > 0) & (make_labels(shift=1) > 0))
    assert whole.dice == pytest.approx(2 * both / (2 * np.count_nonzero(make_labels())))


def test_a_file_without_a_place_stays_as_it_is_stored(tmp_path: Path) -> None:
    names = []
    for name, values in (("t", make_labels()[2]), ("p", make_labels(shift=1)[2]), ("i", IMAGE[2].astype(np.uint8))):
        Picture.fromarray(values).save(tmp_path / f"{name}.png")
        names.append(f"{name}.png")
    rgb = np.stack([IMAGE[2].astype(np.uint8)] * 3, axis=-1)
    Picture.fromarray(rgb).save(tmp_path / "rgb.png")
    table = write_table(tmp_path, [("i0", "", *names), ("i1", "", names[0], names[0], "rgb.png")])
    found = read(table, structures={"whole": (1, 2)})
    assert [one.image_id for one in found] == ["i1", "i0"]  # best first; of two the median is the worst
    for one in found:
        assert isinstance(one, Overlay)
        assert one.image is not None
        np.testing.assert_allclose(one.image, IMAGE[2].astype(np.uint8), atol=1e-3)  # luma of equal parts
        assert one.window == Window(127.5, 255.0, "LINEAR_EXACT")
    np.testing.assert_array_equal(found[1].truth, make_labels()[2] > 0)  # type: ignore[union-attr]


def reasons(tmp_path: Path, masks: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
    np.savez(tmp_path / "short.npz", image=IMAGE[None, :4])
    yield "shape", "short.npz", "the image has the shape 4 × 24 × 32, its masks 5 × 24 × 32"
    yield "place", save_nifti(tmp_path / "there.nii", IMAGE, origin=(0.0, 0.0, 5.0)), "elsewhere in the patient"
    (tmp_path / "cut.nii").write_bytes((tmp_path / "there.nii").read_bytes()[:1000])
    yield "cut", "cut.nii", "the image cannot be read (truncated)"
    (tmp_path / "none.nii").write_bytes(b"")
    yield "empty", "none.nii", "the image cannot be read (empty)"


def test_an_image_that_does_not_fit_is_a_reason_and_the_evaluation_goes_on(
    tmp_path: Path, masks: tuple[str, str]
) -> None:
    for case, image, reason in reasons(tmp_path, masks):
        table = write_table(tmp_path, [(case, "p", *masks, image), ("plain", "q", *masks, "")])
        found = {one.image_id: one for one in read(table, structures={"whole": (1, 2)})}
        assert run(table).n == 2
        lost = found[case]
        assert isinstance(lost, NoOverlay), case
        assert lost.dice == run(table, structures={"whole": (1, 2)}).cases[0].figures.dice
        assert str(tmp_path) not in lost.reason
        assert isinstance(found["plain"], Overlay)
        assert found["plain"].image is None
        assert reason in lost.reason


def test_an_image_of_another_spacing_is_not_shown(tmp_path: Path, masks: tuple[str, str]) -> None:
    affine = np.diag([1.2, 0.8, 6.0, 1.0])  # thicker slices than the masks
    nibabel.Nifti1Image(IMAGE.transpose(2, 1, 0), affine).to_filename(tmp_path / "thick.nii")
    (found,) = read(write_table(tmp_path, [("i0", "p", *masks, "thick.nii")]), structures={"whole": (1, 2)})
    assert isinstance(found, NoOverlay)
    assert found.reason == "the image has another spacing than its masks"


def test_only_ranked_rows_are_read(tmp_path: Path, masks: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"i{k}", f"p{k}", masks[0], masks[1], "") for k in range(6)]
    table = write_table(tmp_path, rows)
    evaluation = run(table, structures={"whole": (1, 2)})
    seen: list[str] = []
    read_masks = overlay_files.read_masks
    monkeypatch.setattr(overlay_files, "read_masks", lambda row: seen.append(row.image_id) or read_masks(row))  # type: ignore[func-returns-value]
    found = list(read_overlays(read_mask_table(table), evaluation))
    assert [one.image_id for one in found] == ["i5", "i2", "i0"]
    assert seen == ["i5", "i2", "i0"]


def test_real_volumes_are_drawn_over_their_images(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "msd-hippocampus"
    rows = []
    for path in sorted((folder / "labels").glob("*.nii.gz"))[:3]:
        label = nibabel.load(path)
        moved = np.roll(np.asarray(label.dataobj), len(rows), axis=1)
        nibabel.Nifti1Image(moved, label.affine, label.header).to_filename(tmp_path / path.name)
        rows.append((f"i{len(rows)}", "", str(path), path.name, str(folder / "images" / path.name)))
    found = read(write_table(tmp_path, rows), structures={"anterior": 1, "posterior": 2})
    assert [one.image_id for one in found] == ["i0", "i1", "i2"] * 2  # the further it moved the worse
    for one, value in zip(found, [1, 1, 1, 2, 2, 2], strict=True):
        assert isinstance(one, Overlay)
        assert one.image is not None
        label, image = (np.asarray(nibabel.load(rows[int(one.image_id[1])][k]).dataobj) for k in (2, 4))
        np.testing.assert_array_equal(np.sort(one.image[one.truth]), np.sort(image[label == value]).astype(np.float32))
        drawn = draw_overlay(one)
        assert drawn.depth == label.shape[2]
        assert drawn.number == 1 + int((label == value).sum(axis=(0, 1)).argmax())


def test_pictures_of_a_turned_slice_name_its_sides_and_take_the_window_of_the_model(tmp_path: Path) -> None:
    """A NIfTI file whose rows grow to the right and front is shown with left at the right edge, and says so."""
    values = np.zeros((2, 8, 6), np.float32)
    image = read_image(tmp_path / save_nifti(tmp_path / "image.nii.gz", values))
    mask = np.zeros((2, 8, 6), np.bool_)
    shown = overlay_masks(Overlay("a", "i", mask, mask), image, preprocess=PreprocessConfig(windows=(Window(7, 10),)))
    assert shown.orientation == "LP"
    assert shown.window == Window(7, 10)
    assert {panel.picture.sides for panel in draw_overlay(shown).panels} == {("R", "L", "A", "P")}
    alone = draw_overlay(Overlay("a", "i", mask, mask))
    assert {panel.picture.sides for panel in alone.panels} == {()}
