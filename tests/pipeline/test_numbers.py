"""Regression from files to scores: training, choices on validation, bundle, prediction, export, volumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import r2_score

import lepton_vision as lv
from lepton_vision.inference.runtimes.export import export_bundle
from lepton_vision.models import Bundle
from lepton_vision.models.heads import value_scales
from lepton_vision.pipeline import run_study
from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.scoring import score

SETTINGS = (
    "preprocess.size=[32, 32]",
    "model.backbone=resnet10",
    "model.width=8",
    "model.stem=small",
    "augment.preset=none",
    "train.epochs=12",
    "train.batch_size=16",
    "train.lr=0.01",
    "train.ema_decay=0",
    "train.keep=last",
    "evaluation.replicates=200",
)
TARGETS = (
    {"name": "dose", "kind": "regression", "unit": "mGy"},
    {"name": "is_bright", "kind": "binary", "classes": ("no", "yes")},
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 grey images whose brightness is the dose, in tenths from 3 to 23; two doses are not known."""
    folder, rng = tmp_path_factory.mktemp("numbers"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for k in range(120):
        dose = float(rng.uniform(3.0, 23.0).__round__(1))
        pixels = np.clip(rng.normal(dose * 10, 8, (32, 32)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{k:03d}.png")
        known = "" if k in (5, 50) else f"{dose}"
        rows.append((f"{k:03d}.png", f"p{k // 2}", known, int(dose > 12)))
    pd.DataFrame(rows, columns=["path", "patient_id", "dose", "is_bright"]).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def manifest(study: Path) -> lv.Manifest:
    scanned = lv.Manifest.scan(study / "images", labels=study / "labels.csv", workers=0)
    config = lv.Config.from_dict({"targets": TARGETS, "split": {"val": 0.25, "test": 0.25}})
    return lv.split_manifest(scanned, config)


@pytest.fixture(scope="module")
def trained(study: Path, manifest: lv.Manifest) -> Bundle:
    config = lv.Config.from_dict({"targets": TARGETS}).override(*SETTINGS)
    return lv.fit(config, manifest, run_dir=study / "run", progress=None)


def test_what_was_learnt_is_the_number_in_its_unit(trained: Bundle, manifest: lv.Manifest) -> None:
    found = lv.predict(trained, manifest.subset("test"), progress=None)
    known = ~np.isnan(found.y_true["dose"])
    assert r2_score(found.y_true["dose"][known], found.y_prob["dose"][known]) > 0.8
    assert set(np.round(found.y_true["dose"][known] * 10) / 10) == set(found.y_true["dose"][known])  # as in the table


def test_the_figures_of_the_training_labels_are_in_the_bundle(trained: Bundle, manifest: lv.Manifest) -> None:
    labels = manifest.subset("train").frame["dose"].dropna().astype(float).to_numpy()
    scale = dict(value_scales(trained.network()))["dose"]
    assert (float(scale.mean), float(scale.deviation)) == pytest.approx((labels.mean(), labels.std()), rel=1e-5)


def test_every_part_gets_doses_from_each_quarter(manifest: lv.Manifest) -> None:
    doses = manifest.ok.frame["dose"].astype(float)
    edges = doses.quantile([0.25, 0.5, 0.75]).to_numpy()
    for split in ("train", "val", "test"):
        part = manifest.subset(split).frame["dose"].dropna().astype(float)
        assert len(np.unique(np.searchsorted(edges, part))) == 4


def test_scores_hold_value_and_interval_and_no_decision(trained: Bundle, study: Path, tmp_path: Path) -> None:
    score(trained, study / "images", tmp_path / "scores", workers=1)
    rows = pd.read_parquet(tmp_path / "scores")
    assert {"dose_value", "dose_low", "dose_high", "is_bright_probability", "is_bright_positive"} <= set(rows)
    assert not {"dose_positive", "dose_threshold", "dose_probability", "dose_set"} & set(rows)
    (rule,) = trained.set_rules["dose"]
    np.testing.assert_allclose(rows["dose_high"] - rows["dose_low"], 2 * rule.half_width, rtol=1e-6)
    inside = (rows["dose_low"] <= rows["dose_value"]) & (rows["dose_value"] <= rows["dose_high"])
    assert inside.all()
    assert len(rows) == 120


def test_a_saved_bundle_gives_the_same_values(trained: Bundle, manifest: lv.Manifest, study: Path) -> None:
    again = Bundle.load(study / "run" / "bundle")
    part = manifest.subset("val")
    first, second = (lv.predict(one, part, progress=None).y_prob["dose"] for one in (trained, again))
    assert np.array_equal(first, second)
    assert again.targets[0].unit == "mGy"
    assert again.operating_point is not None
    assert again.operating_point.thresholds["dose"] == ()


@pytest.mark.parametrize(("to", "name"), [("onnx", "model.onnx"), ("openvino", "model.xml")])
def test_an_exported_file_gives_the_values(
    trained: Bundle, manifest: lv.Manifest, tmp_path: Path, to: str, name: str
) -> None:
    pytest.importorskip("onnxruntime" if to == "onnx" else "openvino")
    plain = trained.with_calibrators({})
    export_bundle(plain, tmp_path / name, to=to)
    part = manifest.subset("test")
    theirs = lv.predict(plain, part, engine=str(tmp_path / name), progress=None).y_prob["dose"]
    ours = lv.predict(plain, part, precision="fp32", progress=None).y_prob["dose"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)


def test_numbers_alone_need_no_setting(study: Path, tmp_path: Path) -> None:
    manifest = lv.Manifest.scan(study / "images", labels=study / "labels.csv", workers=0)
    config = lv.Config.from_dict({"targets": TARGETS[:1]}).override(*SETTINGS, "train.epochs=2")
    assert config.train.monitor == "val_r2"
    result = run_study(config, manifest, run_dir=tmp_path / "run", progress=None)
    figures = json.loads((tmp_path / "run" / "evaluation" / "figures.json").read_text())
    assert {"mae", "rmse", "r2", "pearson", "spearman"} <= set(figures["targets"]["dose"]["figures"])
    assert result.test.report.is_file()
    facts = inspect_path(tmp_path / "run" / "bundle")
    assert "operating_point" not in facts
    assert facts["interval_dose"].endswith("patients of val")
    epochs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"val_r2", "val_mae", "val_loss"} <= set(epochs[-1])


def test_what_is_told_of_a_model_of_numbers_is_its_interval_and_no_threshold(study: Path, trained: Bundle) -> None:
    facts = inspect_path(study / "run" / "bundle")
    assert facts["targets"] == "dose (regression: mGy); is_bright (binary: no, yes)"
    (rule,) = trained.set_rules["dose"]
    patients = rule.n_patients if isinstance(rule.n_patients, int) else None
    assert facts["interval_dose"] == f"± {rule.half_width:.4g} mGy, holds 90%, from {patients} patients of val"
    assert facts["operating_point"]["thresholds"]["dose"] == []


def test_grad_cam_of_a_number_shows_what_raises_it(trained: Bundle, study: Path) -> None:
    found = lv.explain(trained, study / "images" / "000.png", target="dose")
    assert found.class_name == ""
    assert found.heat.shape == (32, 32)
