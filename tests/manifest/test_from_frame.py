"""Manifests of tables: the files that are named, in their order, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

import lepton_vision as lv
from lepton_vision.errors import ManifestError
from lepton_vision.types import Target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("b/1.png", "a/2.png", "a/3.png", "other.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Picture.fromarray(rng.integers(0, 255, (8, 9), np.uint8)).save(tmp_path / name)
    Picture.fromarray(np.eye(8, 9, dtype=np.uint8)).save(tmp_path / "b" / "m.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_rows_are_those_of_the_table_in_its_order_typed_and_with_pseudonyms(root: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["b/1.png", str(root / "a/3.png"), "a/../a/2.png", "gone.png", "broken.png"],
            "patient_id": [7, 7, 8, 9, 9],
            "split": ["train", "train", "validation", "test", "test"],
            "site": ["x", "y", None, "x", "x"],
            "mask": ["b/m.png", None, None, None, None],
            "label": ["no", "yes", "yes", "no", None],
        },
        index=[10, 11, 12, 13, 14],
    )
    manifest = lv.Manifest.from_frame(table, root=root, workers=0)
    frame = manifest.frame
    assert list(frame["path"]) == ["b/1.png", "a/3.png", "a/2.png", "gone.png", "broken.png"]
    assert list(frame["status"]) == ["ok", "ok", "ok", "rejected", "rejected"]
    assert list(frame["reason"][3:]) == ["missing", "not_an_image"]
    assert list(frame["split"].fillna("")) == ["train", "train", "val", "test", "test"]
    assert frame["patient_id"][0] == frame["patient_id"][1] != frame["patient_id"][2]
    assert "7" not in set(frame["patient_id"])
    assert manifest.label_columns == ("label",)
    assert (frame["mask_path"].notna().tolist(), str(frame["patient_id"].dtype)) == ([True] + [False] * 4, "string")
    labels = manifest.labels(Target("label", "binary", ("no", "yes")))
    np.testing.assert_array_equal(labels[:3], [0.0, 1.0, 1.0])


def test_it_is_the_scan_of_the_folder_where_the_table_names_all(root: Path) -> None:
    names = ["a/2.png", "a/3.png", "b/1.png"]
    table = pd.DataFrame({"path": names, "label": [0, 1, 0]})
    (root / "other.png").unlink()
    (root / "broken.png").unlink()
    (root / "b" / "m.png").unlink()
    scanned = lv.Manifest.scan(root, labels=table, workers=0)
    made = lv.Manifest.from_frame(table, root=root, workers=0)
    pd.testing.assert_frame_equal(made.frame, scanned.frame)
    assert made.fingerprint == scanned.fingerprint


def test_what_is_no_table_of_files_below_the_root_is_refused(root: Path) -> None:
    with pytest.raises(ManifestError, match="Did you mean 'paths'") as caught:
        lv.Manifest.from_frame(pd.DataFrame({"paths": ["b/1.png"]}), root=root)
    assert caught.value.key == "path"
    with pytest.raises(ManifestError, match=r"2 rows .*\(counted from 0: 1, 2\)"):
        lv.Manifest.from_frame(pd.DataFrame({"path": ["b/1.png", None, "../elsewhere.png"]}), root=root)
    with pytest.raises(ManifestError, match="root is no folder"):
        lv.Manifest.from_frame(pd.DataFrame({"path": ["b/1.png"]}), root=root / "gone")
    with pytest.raises(ManifestError, match="None of the 1 files"):
        lv.Manifest.from_frame(pd.DataFrame({"path": ["broken.png"]}), root=root, workers=0)
    with pytest.raises(ManifestError, match="split"):
        lv.Manifest.from_frame(pd.DataFrame({"path": ["b/1.png"], "split": ["trian"]}), root=root, workers=0)
