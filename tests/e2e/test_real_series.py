"""Real MR series of ninety-six slices on the whole path: scan, loader, a few training steps, scoring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lepton_vision as lv
from lepton_vision.config import Config

pytestmark = pytest.mark.slow


def test_a_real_series_goes_from_files_to_scores(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mr-dicom-t1-pddl" / "dicoms"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 96
    # One patient cannot be split: blocks of eight slices stand for patients; the upper half of the stack is the label.
    table = pd.DataFrame(
        {
            "path": [path.relative_to(folder).as_posix() for path in files],
            "upper": [int(k >= 48) for k in range(96)],
            "patient_id": [f"block {k // 8}" for k in range(96)],
            "split": [("train", "train", "val", "test")[k // 8 % 4] for k in range(96)],
        }
    )
    manifest = lv.Manifest.scan(folder, labels=table, workers=0)
    assert len(manifest.ok) == 96
    assert manifest.frame["modality"].eq("MR").all()
    config = Config.from_dict(
        {
            "targets": [{"name": "upper", "kind": "binary", "classes": ["lower half", "upper half"]}],
            "preprocess": {"size": [64, 64], "windows": ["header"]},
            "augment": {"preset": "mr"},
            "model": {"stem": "standard"},
            "train": {"epochs": 2, "batch_size": 16},
            "audit": {"near_duplicates": False},  # neighbouring slices of one head are alike by nature
        }
    )
    manifest = lv.split_manifest(manifest, config)
    batch = next(iter(lv.make_loader(manifest.subset("train"), config, training=True)))
    assert batch.images.shape == (16, 1, 64, 64)
    assert torch.isfinite(batch.images).all()
    assert float(batch.images.std()) > 0.1
    bundle = lv.fit(config, manifest, run_dir=tmp_path / "run")
    summary = lv.score(bundle, folder, tmp_path / "scores")
    assert (summary.scored, summary.failed) == (96, {})
    rows = pd.read_parquet(tmp_path / "scores")
    assert rows["upper_probability"].between(0, 1).all()
    predicted = lv.predict(bundle, manifest.subset("test"), batch_size=32)
    scored = rows.set_index("image_id")["upper_probability"]
    np.testing.assert_array_equal(scored[predicted.image_id].to_numpy(np.float32), predicted.y_prob["upper"])
