"""Agreement of ids between a scan and a scoring of the same files, in any format and place."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.readers import read_image
from lepton_vision.readers.identity import original_id
from lepton_vision.scoring import score
from tests.scoring.bundles import image_bundle, volume_bundle
from tests.scoring.dicom_series import header, random_labels, save, write_enhanced, write_series

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
KEYS = ["path_id", "frame", "image_id"]


def write_images(folder: Path) -> Path:
    """A file of each kind that holds 2-D images, two of them a copy of another."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.tif", "sub/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (24, 32), dtype=np.uint8))
    cv2.imwritemulti(str(folder / "pages.tif"), list(rng.integers(0, 255, (3, 24, 32), dtype=np.uint8)))
    np.savez(folder / "one.npz", image=rng.integers(0, 255, (1, 24, 32), dtype=np.uint8))
    write_enhanced(folder / "frames.dcm", [0.0, 2.0])
    save(header(random_labels(24, 32, seed=1)), folder / "plain.dcm")
    nameless = header(random_labels(24, 32, seed=2))
    del nameless.SOPInstanceUID
    nameless.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    save(nameless, folder / "nameless.dcm")
    return folder


def ids(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows.loc[rows["status"] == "ok", KEYS]
    found = found.astype({"frame": "float64", "path_id": str, "image_id": str})
    return found.sort_values(KEYS, ignore_index=True)


def test_a_scan_and_scores_of_images_agree_wherever_they_lie(tmp_path: Path) -> None:
    bundle, folder = image_bundle("segmentation=null"), write_images(tmp_path / "here")
    scanned = Manifest.scan(folder).frame
    score(bundle, folder, tmp_path / "scores", **HOW)
    rows = pd.read_parquet(tmp_path / "scores")
    assert len(ids(rows)) == 12
    pd.testing.assert_frame_equal(ids(rows), ids(scanned))
    assert sorted(predict(bundle, folder).image_id.tolist()) == sorted(ids(rows)["image_id"])
    shutil.move(folder, tmp_path / "there")
    moved = Manifest.scan(tmp_path / "there").frame
    assert moved["image_id"].tolist() == scanned["image_id"].tolist()
    assert not set(moved["path_id"]) & set(scanned["path_id"])
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as archive:
        for file in sorted((tmp_path / "there").rglob("*.*")):
            archive.write(file, file.name)
    score(bundle, tmp_path / "sent.zip", tmp_path / "packed", **HOW)
    assert ids(pd.read_parquet(tmp_path / "packed"))["image_id"].sort_values().tolist() == sorted(ids(rows)["image_id"])


def test_copies_have_one_id_in_scores_and_are_told_apart_by_their_place_in_a_manifest(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "here")
    for name in ("pages.tif", "a.png", "nameless.dcm"):
        shutil.copy(folder / name, folder / f"copy-{name}")
    scanned = Manifest.scan(folder).frame.set_index("path")
    assert scanned["image_id"].is_unique
    first, later = scanned.loc["a.png"], scanned.loc["copy-a.png"]
    assert first["image_id"] == read_image(folder / "copy-a.png").image_id
    assert later["image_id"] == f"{first['image_id']}-{later['path_id']}"


def test_rows_of_a_scan_and_of_scores_join_by_their_place_copies_too(tmp_path: Path) -> None:
    bundle, folder = image_bundle("segmentation=null"), write_images(tmp_path / "here")
    for name in ("pages.tif", "a.png", "b.jpg", "one.npz", "plain.dcm", "frames.dcm", "nameless.dcm"):
        shutil.copy(folder / name, folder / f"copy-{name}")
    manifest = Manifest.scan(folder)
    score(bundle, folder, tmp_path / "scores", **HOW)
    scanned, rows = ids(manifest.frame), ids(pd.read_parquet(tmp_path / "scores"))
    assert len(rows) == len(scanned) == 22  # 12, and 10 in the copies
    joined = scanned.merge(rows, on=["path_id", "frame"], how="outer", validate="one_to_one", indicator=True)
    assert joined["_merge"].eq("both").all()
    assert joined["image_id_x"].map(original_id).tolist() == joined["image_id_y"].tolist()
    assert joined["image_id_x"].is_unique
    assert joined["image_id_y"].nunique() == 12
    score(bundle, manifest.save(tmp_path / "m.parquet"), tmp_path / "rows", **HOW)  # of a manifest's rows: its ids
    assert sorted(ids(pd.read_parquet(tmp_path / "rows"))["image_id"]) == sorted(scanned["image_id"])


def test_entries_of_npz_files_have_ids_of_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (4, 24, 32), dtype=np.uint8)
    values[3] = values[0]
    named = {f"{split}_images": values[k : k + 2] for k, split in ((0, "train"), (2, "val"))}
    np.savez(tmp_path / "a.npz", **named)
    np.savez_compressed(tmp_path / "b.npz", one=values[:1])
    frame = Manifest.scan(tmp_path / "a.npz").frame
    first = read_image(tmp_path / "b.npz").image_id
    assert frame["image_id"].tolist()[::3] == [first, f"{first}-{frame['path_id'].iloc[3]}"]
    assert frame["path_id"].is_unique
    Manifest.scan(tmp_path / "a.npz").save(tmp_path / "rows.parquet")
    score(image_bundle("segmentation=null"), tmp_path / "rows.parquet", tmp_path / "scores", **HOW)
    pd.testing.assert_frame_equal(ids(pd.read_parquet(tmp_path / "scores")), ids(frame))


@pytest.mark.parametrize("order", ["<", ">"])
def test_volumes_agree_with_and_without_gzip(tmp_path: Path, order: str) -> None:
    bundle, folder = volume_bundle(), tmp_path / "in"
    write_series(folder / "series", [2.0 * k for k in range(8)])
    image = nib.Nifti1Image(random_labels(16, 18, 8, seed=3).astype(f"{order}i2"), np.diag([2.0, 2.0, 2.0, 1.0]))
    nib.save(image, folder / "scan.nii")
    (folder / "scan.nii.gz").write_bytes(gzip.compress((folder / "scan.nii").read_bytes(), mtime=7))
    scanned = Manifest.scan(folder, volumes=True).frame
    score(bundle, folder, tmp_path / "scores", **HOW)
    rows, first = ids(pd.read_parquet(tmp_path / "scores")), read_image(folder / "scan.nii").image_id
    assert rows["image_id"].value_counts()[first] == 2
    expected = ids(scanned)
    expected["image_id"] = [one.partition("-")[0] for one in expected["image_id"]]
    pd.testing.assert_frame_equal(rows, expected.sort_values(KEYS, ignore_index=True))
    assert read_image(folder / "scan.nii.gz", frame=3).image_id == f"{first}-3"
