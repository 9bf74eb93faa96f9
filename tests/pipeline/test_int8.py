"""Quantisation to 8 bits: a file that ranks as float32 is written and scores, any other is refused."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import Config
from lepton_vision.errors import BundleError, ConfigError
from lepton_vision.inference import predict
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes.choice import load_engine
from lepton_vision.inference.runtimes.open import open_exported
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.pipeline.int8 import export_int8
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
FILES = {"openvino": "model.xml", "onnx": "model.onnx"}


def needs(to: str) -> None:
    for package in ("nncf", "onnx", "onnxruntime", "openvino"):
        if find_spec(package) is None and (package != "openvino" or to == "openvino"):
            pytest.skip(f"the extra int8 or {to} is not installed")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    settings = ("preprocess.size=[32, 32]", "model.backbone=resnet10", "model.width=16", "model.stem=small")
    config = Config(targets=(SICK,)).override(*settings)
    state = build_model(config).state_dict()
    for name, tensor in state.items():
        if name.startswith("heads.") and name.endswith("weight"):
            tensor.mul_(20.0)
    point = OperatingPoint({"sick": (0.5,)}, "stated")
    return Bundle(config=config, targets=config.targets, state=state, operating_point=point)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Manifest:
    """Noise of three grains on 24 + 24 images; the label is what float32 says, but for a quarter of the images.

    The images of the test split are black: they show no range of any activation.
    """
    root, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for k in range(52):
        split = "train" if k < 24 else "val" if k < 48 else "test"
        grain = 1 + k % 3 * 3
        noise = rng.integers(0, 256, (-(-32 // grain),) * 2) * rng.uniform(0.3, 1.0)
        pixels = np.kron(noise, np.ones((grain, grain)))[:32, :32] * (split != "test")
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{k}.png")
        rows.append({"image_id": f"id{k}", "path": f"{k}.png", "patient_id": f"p{k}", "split": split})
    table = pd.DataFrame(rows)
    plain = Manifest(table, root=root)
    parts = [predict(bundle, plain.subset(name), device="cpu", precision="fp32") for name in ("train", "val", "test")]
    prob = np.concatenate([part.y_prob["sick"] for part in parts])
    called = (prob > np.median(prob)) ^ (np.arange(52) % 4 == 0)
    table["sick"] = np.where(called, "yes", "no")
    return Manifest(table, root=root, label_columns=("sick",))


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_an_int8_file_ranks_as_float32_does_and_scores(
    bundle: Bundle, manifest: Manifest, tmp_path: Path, to: str
) -> None:
    needs(to)
    path = tmp_path / FILES[to]
    told = export_int8(bundle, path, to=to, manifest=manifest, tolerance=0.05)  # type: ignore[arg-type]
    part = manifest.subset("val")
    truth = part.frame["sick"].to_numpy() == "yes"
    true = predict(bundle, part, device="cpu", precision="fp32").y_prob["sick"]
    found = predict(bundle, part, engine=str(path)).y_prob["sick"]
    assert told["auroc"]["sick"]["n"] == 24
    assert told["auroc"]["sick"]["fp32"] == pytest.approx(roc_auc_score(truth, true))
    assert told["auroc"]["sick"]["int8"] == pytest.approx(roc_auc_score(truth, found))
    assert told["max_difference"] == pytest.approx(np.abs(found - true).max())
    assert 1e-5 < told["max_difference"] < 0.1  # it is another network, and nearly the same
    assert open_exported(path).facts["int8"] | {"difference": told["difference"]} == told
    engine = load_engine(bundle, engine=str(path), batch_size=4)
    assert engine.number_format == "int8"
    assert " cpu int8 " in engine.name
    pixels = np.random.default_rng(2).integers(0, 65536, (7, 1, 32, 32)).astype(np.uint16)
    as_floats = engine.examine(to_input(pixels, bundle.config.preprocess)).probabilities["sick"]
    np.testing.assert_array_equal(engine.examine_pixels(pixels).probabilities["sick"], as_floats)
    data = (path.with_suffix(".bin") if to == "openvino" else path).stat().st_size
    assert data < 0.5 * sum(tensor.numel() * 4 for tensor in bundle.state.values())


def test_a_network_that_ranks_otherwise_is_refused_and_leaves_no_file(
    bundle: Bundle, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")
    import onnx

    from lepton_vision.inference.runtimes import int8

    right = int8.quantize

    def damaged(model: Any, samples: Any) -> Any:
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4:  # convolutions: other features, the same ranges
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), tensor.name))
        return right(model, samples)

    monkeypatch.setattr(int8, "quantize", damaged)
    with pytest.raises(BundleError, match=r"AUROC of sick within 0\.002 of 0.* \(n 24\)\. Nothing was written"):
        export_int8(bundle, tmp_path / "model.onnx", to="onnx", manifest=manifest)
    assert list(tmp_path.iterdir()) == []


def test_one_split_cannot_do_both(bundle: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'val' for both"):
        export_int8(bundle, tmp_path / "model.xml", to="openvino", manifest=manifest, calibrate_on="val")


def test_ranges_of_black_images_are_refused(bundle: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    needs("openvino")
    with pytest.raises(BundleError):
        export_int8(bundle, tmp_path / "model.xml", to="openvino", manifest=manifest, calibrate_on="test")
    assert list(tmp_path.iterdir()) == []


def test_rows_of_one_class_judge_nothing(bundle: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    needs("onnx")
    table = manifest.frame.assign(sick="yes")
    sure = Manifest(table, root=manifest.root, label_columns=("sick",))
    with pytest.raises(BundleError, match="Received: nan"):
        export_int8(bundle, tmp_path / "model.onnx", to="onnx", manifest=sure)


def test_a_float32_file_scores_as_torch_and_that_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    needs("onnx")
    from lepton_vision.inference.runtimes.export import export_bundle

    path = tmp_path / "model.onnx"
    export_bundle(bundle, path, to="onnx")
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1.0, 1.0, (5, 1, 32, 32)).astype(np.float32))
    made = load_engine(bundle, engine=str(path), batch_size=2)
    true = Engine(bundle, device="cpu", precision="fp32").probabilities(images)
    np.testing.assert_allclose(made.probabilities(images)["sick"], true["sick"], atol=2e-4)  # pixels are rounded
    with pytest.raises(ConfigError, match="one from"):
        load_engine(bundle.with_temperatures({"sick": 3.0}), engine=str(path))
    path.write_bytes(b"no graph")
    with pytest.raises(ConfigError, match="onnx cannot read"):
        load_engine(bundle, engine=str(path))


def test_the_command_line_exports_int8_and_scores_with_the_file(
    bundle: Bundle, manifest: Manifest, tmp_path: Path
) -> None:
    needs("openvino")
    manifest.save(tmp_path / "m.parquet")
    bundle.save(tmp_path / "bundle")
    model = tmp_path / "model.xml"

    def run(*words: object, code: int = 0) -> dict[str, object]:
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        assert done.exit_code == code, done.output
        return dict(json.loads(done.stdout)) if code == 0 else {"error": done.exception}

    export = ("export", tmp_path / "bundle", "--format", "openvino", "--out", model, "--int8")
    told = run(*export, "--manifest", tmp_path / "m.parquet", "--tolerance", "0.05")
    assert told["images"] == 24
    assert "--manifest go together" in str(run(*export, code=1)["error"])
    score = ("score", "--bundle", tmp_path / "bundle", "--input", manifest.root, "--output", tmp_path / "out")
    told = run(*score, "--engine", model)
    assert (told["rows"], told["scored"]) == (52, 52)
    rows = pd.read_parquet(tmp_path / "out")
    assert rows["engine"].str.contains("openvino .* cpu int8").all()
    assert "does not know 'torhc'" in str(run(*score, "--engine", "torhc", code=1)["error"])
