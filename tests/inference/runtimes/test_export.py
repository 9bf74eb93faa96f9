"""A bundle as a file of another runtime: uint16 pixels in, the probabilities of torch out, facts beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from lepton_vision.config import Config
from lepton_vision.errors import BundleError, ConfigError
from lepton_vision.inference.runtimes.export import check_export, export_bundle
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions.calibration import Calibrator, Platt
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.transforms.preprocess import normalisation
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    settings = ("preprocess.size=[64, 64]", "preprocess.mean=[0.4]", "preprocess.std=[0.2]", "model.backbone=resnet10")
    config = Config(targets=(SICK, ORGAN)).override(*settings, "model.width=16")
    state = build_model(config).state_dict()
    for name, tensor in state.items():
        if name.startswith("heads.") and name.endswith("weight"):
            tensor.mul_(20.0)
    point = OperatingPoint({"sick": (0.3,), "organ": ()}, "stated")
    plain = Bundle(config=config, targets=config.targets, state=state, operating_point=point)
    return plain.with_temperatures({"sick": 2.0})


def test_an_onnx_file_gives_what_torch_gives(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    path = tmp_path / "model.onnx"
    assert export_bundle(bundle, path, to="onnx") <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 65536, (5, 1, 64, 64)).astype(np.uint16)
    sick, organ = session.run(["sick", "organ"], {"images": pixels})
    with torch.inference_mode():
        found = bundle.network()(torch.from_numpy(((pixels / 65535.0 - 0.4) / 0.2).astype(np.float32)))
    logits = found.logits
    (features,) = session.run(["pooled features"], {"images": pixels})
    np.testing.assert_allclose(features, found.features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sick, expit(logits["sick"].numpy() / 2.0), atol=1e-4)
    np.testing.assert_allclose(organ, softmax(logits["organ"].numpy(), axis=1), atol=1e-4)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["lepton_vision"])
    assert facts["bundle_id"] == bundle.bundle_id
    assert facts["targets"][1] == {"name": "organ", "kind": "multiclass", "classes": ["a", "b", "c"]}
    assert facts["operating_point"]["thresholds"]["sick"] == [0.3]
    assert facts["preprocess"]["mean"] == [0.4]


def test_an_openvino_file_gives_what_torch_gives(bundle: Bundle, tmp_path: Path) -> None:
    if find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    assert export_bundle(bundle, tmp_path / "model.xml", to="openvino") <= 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_mirrored_bundles_are_exported_whole(bundle: Bundle, tmp_path: Path) -> None:
    mirrored = replace(bundle, config=bundle.config.override("model.mirrored=true"))
    assert mirrored.bundle_id != bundle.bundle_id
    for to, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        if find_spec(to) is not None:
            assert export_bundle(mirrored, tmp_path / name, to=to) <= 1e-4


def test_bundles_that_decide_by_their_masks_are_exported_without_them(bundle: Bundle, tmp_path: Path) -> None:
    config = bundle.config.override(
        "segmentation.structures={a: 1, b: 2}", "segmentation.mode=evidence", "segmentation.channels=4"
    )
    evident = replace(bundle, config=config, state=build_model(config).state_dict(), temperatures={})
    for to, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        if find_spec(to) is not None:
            assert export_bundle(evident, tmp_path / name, to=to) <= 1e-4


def test_perturbed_weights_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    path = tmp_path / "model.onnx"
    export_bundle(bundle, path, to="onnx")
    model = onnx.load(path)
    first = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(first) * np.float32(1.5)
    first.CopyFrom(onnx.numpy_helper.from_array(values, first.name))
    onnx.save(model, path)
    with pytest.raises(BundleError, match="a difference of"):
        check_export(bundle, path)
    with pytest.raises(BundleError, match="other facts"):
        check_export(bundle.with_temperatures({"sick": 2.0001}), path)


def test_a_mismatch_leaves_no_file(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    wrong = tuple(1.3 * part for part in normalisation(bundle.config.preprocess.mean, bundle.config.preprocess.std))
    monkeypatch.setattr("lepton_vision.inference.runtimes.export.normalisation", lambda mean, std: wrong)
    with pytest.raises(BundleError, match="a difference of"):
        export_bundle(bundle, tmp_path / "model.onnx", to="onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_cannot_say_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    corrected = bundle.with_calibrators({"sick": Calibrator("platt", (Platt(1.5, 0.2),))})
    with pytest.raises(ConfigError, match="sick corrected"):
        export_bundle(corrected, tmp_path / "model.onnx", to="onnx")
    with pytest.raises(ConfigError, match=r"ends in \.xml"):
        export_bundle(bundle, tmp_path / "model.onnx", to="openvino")
