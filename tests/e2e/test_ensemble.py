"""Ensembles on the whole path: train, choose, save, predict, evaluate, score, export."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit

import lepton_vision as lv
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.masks import VolumeSegmenter
from lepton_vision.inference.runtimes.export import export_bundle
from lepton_vision.models import Bundle
from lepton_vision.pipeline import evaluate_bundle, fit
from lepton_vision.pipeline.facts import describe
from lepton_vision.transforms.preprocess import to_input
from tests.squares import planted_squares
from tests.transforms.volumes import planted_volumes, volume_config

CONFIG = lv.Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=8",
    "model.members=2",
    "train.epochs=4",
    "train.keep=last",
    "train.ema_decay=0.5",
    "train.precision=fp32",
    "evaluation.replicates=100",
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> lv.Manifest:
    counts = {"train": 48, "val": 24, "test": 24}
    return planted_squares(tmp_path_factory.mktemp("planted"), counts=counts, side=16, brighter=60)


@pytest.fixture(scope="module")
def bundle(manifest: lv.Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fit(CONFIG, manifest, run_dir=tmp_path_factory.mktemp("run"))


def alone(bundle: Bundle, place: int) -> Bundle:
    """One of the members as a bundle of its own, without calibration."""
    config = bundle.config.override("model.members=1")
    return Bundle(config, bundle.targets, bundle.member_states[place])


def logits(bundle: Bundle, manifest: lv.Manifest) -> np.ndarray:
    prob = lv.predict(bundle, manifest, device="cpu", precision="fp32").y_prob["label"]
    return np.log(prob) - np.log1p(-prob)


def test_members_differ_and_their_mean_is_calibrated_and_decided_on(bundle: Bundle, manifest: lv.Manifest) -> None:
    val = manifest.subset("val")
    one, other = (logits(alone(bundle, place), val) for place in (0, 1))
    assert np.abs(one - other).min() > 1e-4
    found = lv.predict(bundle, val, device="cpu", precision="fp32").y_prob["label"]
    expected = expit((one + other) / 2 / bundle.temperature("label"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert bundle.temperature("label") != 1.0
    assert bundle.operating_point is not None
    assert bundle.novelty is not None
    assert bundle.novelty.reference.shape == (48, 2 * 64)
    assert describe(bundle)["members"] == 2


def test_rows_of_scores_are_those_of_predict_and_of_exported_files(
    bundle: Bundle, manifest: lv.Manifest, tmp_path: Path
) -> None:
    rng, inbox = np.random.default_rng(1), tmp_path / "inbox"
    inbox.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 40 * (number + 1), (16, 16)).astype(np.uint8)).save(inbox / f"{number}.png")
    saved = Bundle.load(bundle.save(tmp_path / "bundle"))
    assert lv.score(saved, inbox, tmp_path / "rows", device="cpu", precision="fp32").scored == 6
    rows = pd.read_parquet(tmp_path / "rows").set_index("image_id")
    assert rows["novelty"].notna().all()
    predicted = lv.predict(bundle, inbox, device="cpu", precision="fp32")
    found = rows.loc[predicted.image_id.tolist(), "label_probability"]
    np.testing.assert_allclose(found, predicted.y_prob["label"], atol=1e-6)
    kinds: tuple[tuple[Literal["onnx", "openvino"], str, str], ...] = (
        ("onnx", "onnxruntime", "model.onnx"),
        ("openvino", "openvino", "model.xml"),
    )
    for to, package, name in kinds:
        if find_spec(package) is None:
            continue
        assert export_bundle(saved, tmp_path / name, to=to) <= 1e-4
        lv.score(saved, inbox, tmp_path / to, engine=str(tmp_path / name), device="cpu")
        again = pd.read_parquet(tmp_path / to).set_index("image_id").loc[rows.index]
        np.testing.assert_allclose(again["label_probability"], rows["label_probability"], atol=1e-4)
        np.testing.assert_allclose(again["novelty"], rows["novelty"], rtol=1e-3)


def test_every_member_is_folded_in_half_precision(bundle: Bundle) -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (8, 1, 16, 16)).astype(np.uint16)
    images = to_input(pixels, bundle.config.preprocess)
    full, half = (Engine(bundle, device="cpu", precision=name) for name in ("fp32", "bf16"))
    network = half._network
    assert isinstance(network, torch.nn.Module)
    assert not [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    found = half.probabilities(images)["label"]
    np.testing.assert_allclose(found, full.probabilities(images)["label"], atol=0.05)


def test_the_report_says_what_was_combined_and_shows_where_it_looks(
    bundle: Bundle, manifest: lv.Manifest, tmp_path: Path
) -> None:
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out", device="cpu")
    assert '<img class="heat"' in result.report.read_text(encoding="utf-8")
    checklist = (tmp_path / "out/checklist_claim_2024.md").read_text(encoding="utf-8")
    assert "One model of 2 networks" in checklist


@pytest.mark.parametrize("view", ["3d", "2.5d"])
def test_masks_of_volumes_are_the_mean_of_the_members(tmp_path: Path, view: str) -> None:
    config = volume_config(f"volume.view={view}", "model.members=2", "train.epochs=1", "train.keep=last")
    if view == "2.5d":
        config = config.override("preprocess.size=[16, 16]")
    bundle = fit(
        config.override("split.val=0"), split_all(planted_volumes(tmp_path / "data", count=4)), run_dir=tmp_path / "run"
    )
    pixels = np.random.default_rng(0).integers(0, 65536, (1, 18, 16, 16)).astype(np.uint16)
    found = VolumeSegmenter(bundle, device="cpu", precision="fp32").probabilities(pixels)
    both = [
        np.log(VolumeSegmenter(alone(bundle, place), device="cpu", precision="fp32").probabilities(pixels))
        for place in (0, 1)
    ]
    mean = np.exp((both[0] + both[1]) / 2)
    np.testing.assert_allclose(found, mean / mean.sum(axis=0), atol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 1e-2


def split_all(manifest: lv.Manifest) -> lv.Manifest:
    return replace(manifest, frame=manifest.frame.assign(split="train"))
