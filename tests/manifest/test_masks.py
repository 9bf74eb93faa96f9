"""Masks in the label table: located, checked against their images, and their values."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as PilImage

from lepton_vision.config import Config
from lepton_vision.errors import ManifestError, ReadError
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.schema import conform
from lepton_vision.readers import read_image
from lepton_vision.readers.mask import check_grid, read_mask
from lepton_vision.transforms import make_loader
from lepton_vision.types import Target
from tests.readers.segmentation_files import SERIES, blobs, write_seg, write_series

nibabel = pytest.importorskip("nibabel")
SICK = Target("sick", "binary", ("no", "yes"), mask_values=(2, 3))


def save_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(values.astype(np.uint8)).save(path)


def mask_of(*values: int, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for place, value in enumerate(values):
        mask[place, 1] = value
    return mask


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Images and masks as PNG: one with both values, one empty, one without a mask, one of another size."""
    for number in range(4):
        save_png(tmp_path / f"images/{number}.png", np.arange(48).reshape(8, 6) * (number + 1))
    save_png(tmp_path / "masks/0.png", mask_of(1, 2))
    save_png(tmp_path / "masks/1.png", mask_of())
    save_png(tmp_path / "masks/3.png", mask_of(1, size=(6, 8)))
    rows = ["file,mask,site"] + [f"images/{k}.png,{'' if k == 2 else f'masks/{k}.png'},s{k}" for k in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_masks_become_facts_of_their_rows(study: Path) -> None:
    frame = Manifest.scan(study, labels=study / "labels.csv").frame
    assert frame["path"].tolist() == [f"images/{k}.png" for k in range(4)]  # masks are no images
    assert frame["mask_path"].fillna("").tolist() == ["masks/0.png", "masks/1.png", "", "masks/3.png"]
    assert frame["mask_values"].fillna("").tolist() == ["0,1,2", "0", "", ""]
    assert frame["status"].tolist() == ["ok", "ok", "ok", "rejected"]
    assert frame["reason"].fillna("").tolist() == ["", "", "", "mask_size"]
    assert frame["mask_hash"].notna().tolist() == [True, True, False, False]


def test_a_label_may_come_from_the_mask(study: Path) -> None:
    labels = Manifest.scan(study, labels=study / "labels.csv").labels(SICK)
    np.testing.assert_array_equal(labels, [1.0, 0.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("segmentation", "labels"),
    [
        (None, [1, 1, 0, np.nan, np.nan, 0]),  # 255 where nothing else is said
        ({"structures": {"core": 2}}, [1, 1, 0, np.nan, np.nan, 0]),
        ({"structures": {"core": 2}, "unknown": 7}, [1, 1, 0, 0, 0, np.nan]),
        ({"structures": {"core": 2}, "unknown": None}, [1, 1, 0, 0, 0, 0]),
        ({"structures": {"core": 2, "rim": 255}}, [1, 1, 0, 0, 0, 0]),
    ],
)
def test_a_mask_that_is_unknown_gives_no_negative_label(
    segmentation: dict[str, object] | None, labels: list[float]
) -> None:
    sick = {"name": "sick", "kind": "binary", "classes": ["no", "yes"], "mask_values": [2]}
    config = Config.from_dict({"targets": [sick], "segmentation": segmentation})
    held = ["0,2", "2,255", "0", "255", "0,255", "0,7"]
    table = pd.DataFrame({"image_id": list("abcdef"), "path": list("abcdef"), "mask_values": held})
    manifest = Manifest(conform(table, label_columns=()), Path())
    np.testing.assert_array_equal(manifest.labels(config.targets[0]), labels)
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_masks_survive_saving_and_change_the_fingerprint(study: Path, tmp_path: Path, suffix: str) -> None:
    manifest = Manifest.scan(study, labels=study / "labels.csv")
    again = Manifest.load(manifest.save(tmp_path / f"m.{suffix}"))
    pd.testing.assert_frame_equal(again.frame, manifest.frame)
    assert again.fingerprint == manifest.fingerprint
    save_png(study / "masks/0.png", mask_of(1, 2, 2))
    assert Manifest.scan(study, labels=study / "labels.csv").fingerprint != manifest.fingerprint


def test_paths_may_be_relative_to_the_table(study: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    save_png(other / "drawn/0.png", mask_of(3))
    (other / "table.csv").write_text("file,mask\n0.png,drawn/0.png\n", encoding="utf-8")
    manifest = Manifest.scan(study / "images", labels=other / "table.csv")
    relative = Path(os.path.relpath(other / "drawn/0.png", study / "images")).as_posix()
    assert manifest.frame["mask_path"].dropna().tolist() == [relative]
    assert manifest.labels(SICK)[0] == 1.0


def test_arrays_of_an_npz_file_are_images_and_masks(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 8, 6), dtype=np.uint8)
    lesion = np.zeros_like(image)
    lesion[3, 2, 2] = 3
    np.savez_compressed(tmp_path / "v.npz", image=image, lesion=lesion, lung=np.ones_like(image))
    (tmp_path / "labels.csv").write_text("file,mask\nv.npz,v.npz#lesion\n", encoding="utf-8")
    manifest = Manifest.scan(tmp_path, labels=tmp_path / "labels.csv")
    assert manifest.frame["frame"].tolist() == [0, 1, 2, 3, 4]
    assert manifest.frame["mask_values"].tolist() == ["0", "0", "0", "0,3", "0"]
    assert manifest.frame["patient_id"].nunique() == 1
    assert manifest.labels(SICK).tolist() == [0, 0, 0, 1, 0]


def save_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


def affine(*, spacing: float = 1.0, flip: bool = False, shift: float = 0.0) -> np.ndarray:
    changed = AFFINE @ np.diag([spacing, 1.0, 1.0, 1.0])
    if flip:
        changed[0] *= -1.0
    changed[2, 3] += shift
    return changed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"spacing": 1.005}, ""),  # the last of 6 voxels is 0.025 mm beside its place
        ({"spacing": 1.05}, "mask_spacing"),
        ({"flip": True}, "mask_orientation"),
        ({"shift": 0.01}, ""),  # an origin rounded to 0.01 mm
        ({"shift": 0.5}, "mask_position"),
        ({"shift": 1.0}, "mask_position"),
    ],
)
def test_a_volumes_mask_must_lie_on_its_grid(tmp_path: Path, changes: dict[str, float], reason: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    save_nifti(tmp_path / "images/a.nii.gz", values, AFFINE)
    save_nifti(tmp_path / "labels/a.nii.gz", (values > 1).astype(np.uint8) * 2, affine(**changes))
    table = pd.DataFrame({"file": ["images/a.nii.gz"], "mask": ["labels/a.nii.gz"]})
    frame = Manifest.scan(tmp_path, labels=table).frame
    assert len(frame) == 1
    assert frame["reason"].fillna("").tolist() == [reason]
    assert frame["mask_values"].fillna("").tolist() == ["" if reason else "0,2"]


def gap_of(mask: Path, image: Path) -> str:
    """What a refusal says; "" where there is none."""
    try:
        check_grid(read_mask(mask), read_image(image))
    except ReadError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("codes", ["LAS", "PIR", "SAL"])
def test_a_mask_in_another_axis_order_is_turned_to_its_image(tmp_path: Path, codes: str) -> None:
    """The same voxels, turned by nibabel: what is learnt from is the mask as it was drawn on the image."""
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    truth = (values > 1).astype(np.uint8) * 2
    save_nifti(tmp_path / "images/a.nii.gz", values, AFFINE)
    orientations = nibabel.orientations
    way = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes))
    turned = nibabel.Nifti1Image(truth, AFFINE).as_reoriented(way)
    save_nifti(tmp_path / "labels/a.nii.gz", np.asarray(turned.dataobj), turned.affine)
    table = pd.DataFrame({"file": ["images/a.nii.gz"], "mask": ["labels/a.nii.gz"]})
    manifest = Manifest.scan(tmp_path, labels=table)
    assert manifest.frame[["status", "mask_values"]].values.tolist() == [["ok", "0,2"]]
    image = read_image(tmp_path / "images/a.nii.gz")
    found = read_mask(tmp_path / "labels/a.nii.gz", on=image)
    np.testing.assert_array_equal(found.pixels[0], truth.transpose(2, 1, 0))
    check_grid(found, image)
    config = Config().override("segmentation.structures={core: 2}", "volume.view=3d", "volume.patch=[4, 5, 6]")
    loaded = next(iter(make_loader(manifest, config)))
    shown = nibabel.as_closest_canonical(nibabel.Nifti1Image(truth, AFFINE)).get_fdata()[::-1, ::-1]  # RAS to LPS
    np.testing.assert_array_equal(loaded.masks[0], (shown > 0).transpose(2, 1, 0))  # type: ignore[index]


@pytest.mark.parametrize(("digits", "refused"), [(None, 0), (2, 0), (0, 40)])
def test_an_origin_that_a_converter_rounded_is_the_same_grid(tmp_path: Path, digits: int | None, refused: int) -> None:
    """Masks that SimpleITK writes for oblique volumes of voxels from 0.3 mm, their origin rounded on the way."""
    sitk = pytest.importorskip("SimpleITK")
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        turned = np.eye(4)
        turned[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag(rng.uniform(0.3, 1.0, 3))
        turned[:3, 3] = rng.integers(-300, 300, 3) + 0.5 + rng.uniform(-0.14, 0.14, 3)
        save_nifti(tmp_path / "i.nii", rng.integers(0, 9, (5, 4, 3)).astype(np.int16), turned)
        mask = sitk.Cast(sitk.ReadImage(str(tmp_path / "i.nii")) > 4, sitk.sitkUInt8)
        if digits is not None:
            mask.SetOrigin([round(x, digits) for x in mask.GetOrigin()])
        sitk.WriteImage(mask, str(tmp_path / "m.nii"))
        found.append(gap_of(tmp_path / "m.nii", tmp_path / "i.nii"))
    far = [float(re.search(r"\(by ([\d.]+) mm", text)[1]) for text in found if text]  # type: ignore[index]
    assert len(far) == refused
    assert all(0.3 < one < 3**0.5 for one in far)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "mask_missing"), (b"", "mask_empty"), ("colour", "mask_values"), (b"text", "mask_not_an_image")],
)
def test_a_mask_that_cannot_be_used_rejects_its_row(study: Path, content: bytes | str | None, reason: str) -> None:
    path = study / "masks/0.png"
    if content is None:
        path.unlink()
    elif content == "colour":
        PilImage.fromarray(np.arange(144, dtype=np.uint8).reshape(8, 6, 3)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    frame = Manifest.scan(study, labels=study / "labels.csv").frame
    row = frame[frame["path"] == "images/0.png"].iloc[0]
    assert (row["status"], row["reason"]) == ("rejected", reason)


def test_fractions_are_no_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    for folder in ("images", "labels"):
        save_nifti(tmp_path / folder / "a.nii.gz", values, AFFINE)
    table = pd.DataFrame({"file": ["images/a.nii.gz"], "mask": ["labels/a.nii.gz"]})
    assert Manifest.scan(tmp_path, labels=table).frame["reason"].tolist() == ["mask_values"]


@pytest.mark.parametrize("volumes", [False, True])
def test_a_segmentation_lies_on_its_series_and_on_each_slice(tmp_path: Path, volumes: bool) -> None:
    """What the loader gives is the array that highdicom wrote, empty frames left out."""
    pytest.importorskip("highdicom")
    truth = blobs()
    write_seg(tmp_path / "seg.dcm", write_series(tmp_path / "ct"), truth)
    (tmp_path / "labels.csv").write_text(f"SeriesInstanceUID,mask\n{SERIES},seg.dcm\n", encoding="utf-8")
    manifest = Manifest.scan(tmp_path / "ct", labels=tmp_path / "labels.csv", volumes=volumes)
    assert (manifest.frame["status"] == "ok").all()
    values = ["0,1,2"] if volumes else ["0", "0,1", "0,1,2", "0,1,2", "0,2", "0"]
    assert manifest.frame["mask_values"].tolist() == values
    view = ["volume.view=3d", "volume.patch=[6, 7, 9]"] if volumes else ["preprocess.size=[7, 9]"]
    config = Config().override("segmentation.structures={a: 1, b: 2}", *view)
    for _ in range(2):
        loader = make_loader(manifest, config, cache_dir=tmp_path / "cache")
        found = np.concatenate([batch.masks.reshape(-1, 7, 9) for batch in loader])  # type: ignore[union-attr]
        np.testing.assert_array_equal(found, truth)
    both = np.stack([truth == 1, truth == 2], axis=-1)
    both[2] |= both[2].any(axis=-1, keepdims=True)
    write_seg(tmp_path / "seg.dcm", write_series(tmp_path / "ct"), both)
    again = Manifest.scan(tmp_path / "ct", labels=tmp_path / "labels.csv", volumes=volumes).frame
    assert again["reason"].dropna().tolist() == ["mask_overlap"]


def test_masks_that_are_all_missing_are_an_error(study: Path) -> None:
    table = pd.DataFrame({"file": ["images/0.png"], "mask": ["nowhere/0.png"]})
    with pytest.raises(ManifestError, match="None of the 1 masks of the label table is there"):
        Manifest.scan(study, labels=table)


def test_two_columns_of_masks_are_an_error(study: Path) -> None:
    table = pd.DataFrame({"file": ["images/0.png"], "mask": ["masks/0.png"], "segmentation": ["masks/1.png"]})
    with pytest.raises(ManifestError, match="two columns"):
        Manifest.scan(study, labels=table)


def test_progress_counts_the_masks(study: Path) -> None:
    seen: list[tuple[int, int]] = []
    Manifest.scan(study, labels=study / "labels.csv", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
