"""Volumes of several channels from the scan to the score."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.inference import predict
from lepton_vision.manifest.table import Manifest
from lepton_vision.scoring.batch import score
from lepton_vision.transforms import make_loader
from tests.scoring.bundles import ORGAN, SICK, random_bundle

SPECS = {"four": ["t1", "t2"], "files": ["_0000", "_0001"]}
VALUES = {
    "targets": [{"name": "sick", "kind": "binary", "classes": ["no", "yes"]}],
    "preprocess": {"size": [16, 16], "windows": [{"center": 100, "width": 200, "function": "LINEAR_EXACT"}]},
    "model": {"backbone": "resnet10", "width": 4, "stem": "small"},
    "train": {"batch_size": 2, "precision": "fp32"},
    "augment": {"preset": "none"},
}


def config(kind: str, *changes: str, view: str = "3d") -> Config:
    volume = {"channels": SPECS[kind], "patch": [6, 5, 4], "view": view}
    return Config.from_dict({**VALUES, "volume": volume}).override(*changes)


def voxels(number: int) -> np.ndarray:
    """(W, H, D, C) between 0 and 200."""
    return np.random.default_rng(number).integers(0, 201, (4, 5, 6, 2)).astype(np.int16)


@pytest.fixture(params=SPECS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Three volumes as files of four axes, or of two files each; the last one lacks a channel."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        whole = voxels(number)
        if request.param == "four":
            whole = whole if number < 3 else whole[..., 0]
            nib.save(nib.Nifti1Image(whole, np.eye(4)), folder / f"c{number}.nii.gz")
            continue
        for channel in range(2 if number < 3 else 1):
            nib.save(nib.Nifti1Image(whole[..., channel], np.eye(4)), folder / f"c{number}_000{channel}.nii.gz")
    return str(request.param)


def test_scan_gives_a_row_a_case_and_a_reason_for_what_lacks_a_channel(kind: str, tmp_path: Path) -> None:
    manifest = Manifest.scan(tmp_path / "data", channels=SPECS[kind], workers=1)
    frame = manifest.frame
    assert frame["status"].tolist() == ["ok", "ok", "ok", "rejected"]
    assert manifest.rejected == {"channels" if kind == "four" else "missing_channel": 1}
    assert manifest.ok.frame["member"].unique().tolist() == [",".join(SPECS[kind])]
    without = Manifest.scan(tmp_path / "data", workers=1) if kind == "files" else None
    assert without is None or len(without.ok) == 7


def test_batches_hold_each_channel_through_its_window(kind: str, tmp_path: Path) -> None:
    manifest = Manifest.scan(tmp_path / "data", channels=SPECS[kind], workers=1).ok
    manifest = Manifest(manifest.frame.assign(sick=[0, 1, 0]), manifest.root, ("sick",))
    settings = config(kind, "preprocess.mean=[0.0, 0.5]", "preprocess.std=[1.0, 0.25]")
    assert settings.channels == 2
    batch = next(iter(make_loader(manifest.select([0]), settings, targets=settings.targets)))
    # The affine grows to the right and to the front; the network sees left and back (LPS).
    shown = voxels(0).transpose(3, 2, 1, 0)[:, :, ::-1, ::-1] / 200.0
    wanted = np.stack([shown[0], (shown[1] - 0.5) / 0.25])
    assert np.allclose(batch.images[0].numpy(), wanted, atol=1e-3)
    for other in (["b", "a"], ["_0001", "_0000"]):
        with pytest.raises(ReadError, match="Scan with these --channels"):
            next(iter(make_loader(manifest, settings.override(f"volume.channels={other}"), targets=settings.targets)))


@pytest.mark.parametrize("view", ["3d", "2.5d", "slices"])
def test_folders_and_manifests_are_scored_alike(kind: str, view: str, tmp_path: Path) -> None:
    bundle = random_bundle(config(kind, view=view).model_copy(update={"targets": (SICK, ORGAN)}))
    assert bundle.channels == (6 if view == "2.5d" else 2)
    summary = score(bundle, tmp_path / "data", tmp_path / "out")
    assert (summary.scored, sum(summary.failed.values())) == (3, 1)
    manifest = Manifest.scan(tmp_path / "data", channels=SPECS[kind], workers=1)
    manifest.save(tmp_path / "manifest.parquet")
    assert score(bundle, tmp_path / "manifest.parquet", tmp_path / "out2").scored == 3
    columns = [pd.read_parquet(tmp_path / name)["sick_probability"].dropna() for name in ("out", "out2")]
    of_files = predict(bundle, tmp_path / "data").y_prob["sick"]
    assert np.allclose(sorted(columns[0]), sorted(columns[1]), atol=1e-6)
    assert np.allclose(sorted(columns[0]), np.sort(of_files.ravel()), atol=1e-6)
    assert len(set(columns[0].round(6))) == 3


def test_cases_in_archives_and_stores_are_scored_as_in_a_folder(kind: str, tmp_path: Path) -> None:
    bundle = random_bundle(config(kind).model_copy(update={"targets": (SICK, ORGAN)}))
    inputs = {"folder": str(tmp_path / "data"), "store": f"file://{tmp_path / 'data'}"}
    for form in ("zip", "gztar"):
        inputs[form] = shutil.make_archive(str(tmp_path / "packed"), form, tmp_path, "data")
    found = {}
    for name, named in inputs.items():
        score(bundle, named, tmp_path / name)
        rows = pd.read_parquet(tmp_path / name)
        assert Counter(rows["reason"].fillna("")) == {"": 3, "channels" if kind == "four" else "missing_channel": 1}
        found[name] = rows[rows["status"] == "ok"].set_index("image_id")["sick_probability"].to_dict()
    assert found["folder"] == found["store"] == found["zip"] == found["gztar"]


@pytest.mark.parametrize(
    "change",
    ["volume.channels=[t1]", "volume.channels=[t1, _0001]", "volume.channels=[t1, t1]", "preprocess.color=rgb"],
)
def test_channels_that_cannot_be_are_refused(change: str) -> None:
    with pytest.raises(ConfigError):
        config("four", change)


def test_names_of_endings_are_taken_too_and_bundles_without_keep_their_id() -> None:
    named = config("four", "volume.channels={t1: _0000, t2: _0001}")
    assert named.volume is not None
    assert named.volume.channels == ("t1=_0000", "t2=_0001")
    assert Config.from_dict(named.to_dict()).preprocess == named.preprocess
    assert named.override("volume.channels=[]").channels == 1


def test_a_case_changes_where_any_of_its_files_does(kind: str, tmp_path: Path) -> None:
    bundle = random_bundle(config(kind).model_copy(update={"targets": (SICK, ORGAN)}))
    Manifest.scan(tmp_path / "data", channels=SPECS[kind], workers=1).save(tmp_path / "manifest.parquet")
    inputs = {"out": tmp_path / "data", "out2": tmp_path / "manifest.parquet"}
    for name, named in inputs.items():
        score(bundle, named, tmp_path / name)
    last = sorted((tmp_path / "data").glob("c1*"))[-1]
    nib.save(nib.load(last), last)
    os.utime(last, (1, 1))
    for name, named in inputs.items():
        summary = score(bundle, named, tmp_path / name)
        assert (summary.replaced, summary.new_rows) == (1, 1)


@pytest.mark.parametrize("ending", ["", ".nii.gz"])
def test_a_label_table_names_the_case(kind: str, ending: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"image": [f"c{number}{ending}" for number in range(4)], "sick": [0, 1, 0, 1]})
    manifest = Manifest.scan(tmp_path / "data", labels=table, channels=SPECS[kind], workers=1)
    assert manifest.ok.frame["sick"].tolist() == [0, 1, 0]
    assert manifest.label_notes == ()
