"""Rows of patients, with copies of an image counted once."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.manifest import Manifest
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring.batch import score
from tests.scoring import bundles
from tests.scoring.bundles import SICK, image_bundle
from tests.scoring.dicom_series import write_series


@pytest.mark.parametrize("aggregation", ["mean", "noisy_or", "max"])
def test_copies_of_an_image_count_once(tmp_path: Path, aggregation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "POINT", OperatingPoint({"sick": (0.5,)}, "stated"))
    bundle = image_bundle("segmentation=null", f"evaluation.aggregation={aggregation}", targets=(SICK,))
    files = sorted(write_series(tmp_path / "once", [0.0, 2.0, 4.0], PatientID="P1").glob("*.dcm"))
    score(bundle, tmp_path / "once", tmp_path / "expected", device="cpu", precision="fp32")
    images = pd.read_parquet(tmp_path / "expected")["sick_probability"].to_numpy()
    by_hand = {"mean": images.mean(), "noisy_or": 1 - np.prod(1 - images), "max": images.max()}[aggregation]
    for number in range(4):
        shutil.copy(files[0], tmp_path / "once" / f"again{number}.dcm")
    with zipfile.ZipFile(tmp_path / "once" / "sent.zip", "w") as archive:
        archive.write(files[1], "1.dcm")
    Manifest.scan(tmp_path / "once").save(tmp_path / "rows.parquet")
    for place, name, rows in ((tmp_path / "once", "folder", 8), (tmp_path / "rows.parquet", "manifest", 7)):
        score(bundle, place, tmp_path / name, device="cpu", precision="fp32")
        assert (pd.read_parquet(tmp_path / name)["status"] == "ok").sum() == rows
        for unit in ("series", "study", "patient"):
            (case,) = pd.read_parquet(tmp_path / name / "_cases" / f"{unit}.parquet").to_dict("records")
            assert case["images"] == 3
            assert case["sick_probability"] == pytest.approx(by_hand, abs=1e-6)
