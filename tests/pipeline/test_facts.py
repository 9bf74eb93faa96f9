"""Output of ``inspect`` on an image's window and on a manifest's labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import Config
from lepton_vision.errors import ReadError
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.pipeline import facts as inspection
from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring import score
from lepton_vision.types import Image, Target, VoiLut, Window


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window(-600.0, 1500.0), "center -600, width 1500, LINEAR"),
        (VoiLut(np.zeros(4096, np.float32), -1024.0), "table of 4,096 values"),
        (None, None),
    ],
)
def test_a_window_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, window: Window | VoiLut | None, text: str | None
) -> None:
    image = Image(np.zeros((1, 4, 4), np.float32), window=window)
    monkeypatch.setattr(inspection, "read_image", lambda _path, **_how: image)
    assert inspect_path(tmp_path / "plain.npy")["window"] == text


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["0", "1", "1", None], {"label": {"0": 1, "1": 2, "unknown": 1}}),
        (["a", "b", "b", None], {}),  # which of the two is the finding is not known
    ],
)
def test_classes_of_a_manifest_are_counted_where_there_is_no_doubt(
    tmp_path: Path, values: list[str | None], classes: dict[str, dict[str, int]]
) -> None:
    names = [f"{k}.png" for k in range(4)]
    table = pd.DataFrame({"image_id": names, "path": names, "status": "ok", "split": "train", "label": values})
    Manifest(table, root=tmp_path, label_columns=("label",)).save(tmp_path / "m.parquet")
    assert inspect_path(tmp_path / "m.parquet")["splits"]["train"]["classes"] == classes


def test_images_without_a_split_are_counted_in_none(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(4)]
    table = pd.DataFrame({"image_id": names, "path": names, "status": "ok", "label": ["0", "1", "1", "0"]})
    table["split"] = ["train", "train", "test", None]
    Manifest(table, root=tmp_path, label_columns=("label",)).save(tmp_path / "m.parquet")
    splits = inspect_path(tmp_path / "m.parquet")["splits"]
    assert {name: part["images"] for name, part in splits.items()} == {"train": 2, "test": 1}
    assert splits["train"]["classes"] == {"label": {"0": 1, "1": 1, "unknown": 0}}


def test_channels_of_a_volume_are_inspected_together(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4 * 2, dtype=np.int16).reshape(2, 3, 4, 2)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "four.nii.gz")
    for number in range(2):
        nib.save(nib.Nifti1Image(values[..., number], np.eye(4)), tmp_path / f"c_000{number}.nii.gz")
    whole = inspect_path(tmp_path / "four.nii.gz", channels=["t1", "t2"])
    case = inspect_path(tmp_path / "c_0001.nii.gz", channels=["_0000", "_0001"])
    assert whole["shape"] == case["shape"] == [2, 4, 3, 2]
    assert whole["range"] == case["range"] == [0.0, 47.0]
    with pytest.raises(ReadError, match="inspect: --channels"):
        inspect_path(tmp_path / "four.nii.gz")
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "c_0000.nii.gz"), "--channels", "_0000,_0001"])
    assert "2, 4, 3, 2" in shown.stdout


def test_a_folder_of_scores_says_whose_ids_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTON_VISION_ID_KEY", "one")
    config = Config(targets=(Target("sick", "binary", ("no", "yes")),)).override("preprocess.size=[16, 16]")
    bundle = Bundle(config, config.targets, build_model(config).state_dict())
    bundle = bundle.with_operating_point(OperatingPoint({"sick": (0.5,)}, "stated"))
    (tmp_path / "inbox").mkdir()
    Picture.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "inbox" / "a.png")
    score(bundle, tmp_path / "inbox", tmp_path / "scores", device="cpu")
    found = inspect_path(tmp_path / "scores")
    assert (found["kind"], found["bundle"], found["files"]) == ("scores", bundle.bundle_id, 1)
    assert found["ids"] == "made with this key"
    monkeypatch.setenv("LEPTON_VISION_ID_KEY", "another")
    assert inspect_path(tmp_path / "scores")["ids"] == "made with another key"
