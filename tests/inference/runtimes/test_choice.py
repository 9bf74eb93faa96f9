"""Runtimes other than torch: equal probabilities or a refusal, and the choice of the fastest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.inference import engine as engine_module
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes import choice as engine_choice
from lepton_vision.inference.runtimes.choice import calibration_pixels, choose_engine, load_engine
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.device import choose_precision, has_fast_bf16
from lepton_vision.predictions.calibration import Calibrator, Platt
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring import score
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.types import ModelOutput, Target
from tests.scoring.bundles import image_bundle

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))


def needs(engine: str) -> None:
    for package in {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}[engine]:
        if find_spec(package) is None:  # not imported: openvino would report its use unless ``no_telemetry`` is first
            pytest.skip(f"the extra {engine} is not installed")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    settings = ("preprocess.size=[64, 64]", "model.backbone=resnet10", "model.width=16")
    config = Config(targets=(SICK, ORGAN)).override(*settings)
    state = build_model(config).state_dict()
    for name, tensor in state.items():
        if name.startswith("heads.") and name.endswith("weight"):
            tensor.mul_(20.0)  # probabilities far from a half
    point = OperatingPoint({"sick": (0.5,), "organ": ()}, "stated")
    plain = Bundle(config=config, targets=config.targets, state=state, operating_point=point)
    return plain.with_temperatures({"sick": 2.0}).with_calibrators({"sick": Calibrator("platt", (Platt(1.5, 0.2),))})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lepton-vision" / "engines"


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_another_runtime_gives_the_probabilities_of_torch(bundle: Bundle, engine: str) -> None:
    needs(engine)
    images = np.random.default_rng(0).normal(size=(7, 1, 64, 64)).astype(np.float32)
    made = load_engine(bundle, engine=engine, batch_size=4)
    found, true = made.probabilities(images), Engine(bundle, device="cpu", precision="fp32").probabilities(images)
    assert true["sick"].std() > 1e-3
    for name in ("sick", "organ"):
        np.testing.assert_allclose(found[name], true[name], atol=1e-4)
    assert made.difference is not None
    assert made.difference <= 1e-4
    assert made.name.startswith({"openvino": "openvino", "onnx": "onnxruntime"}[engine])
    assert made.name.endswith("cpu fp32 batch 4")


def test_a_runtime_that_differs_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    from lepton_vision.inference.runtimes.onnx import OnnxNetwork

    right = OnnxNetwork.__call__

    def wrong(self: OnnxNetwork, images: torch.Tensor) -> ModelOutput:
        return ModelOutput({name: logits + 0.01 for name, logits in right(self, images).logits.items()})

    monkeypatch.setattr(OnnxNetwork, "__call__", wrong)
    with pytest.raises(ConfigError, match=r"within 0\.0001 of torch in float32.*onnxruntime"):
        load_engine(bundle, engine="onnx")


def test_what_a_runtime_cannot_run_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="Received: 'tensorrt'"):
        load_engine(bundle, engine="tensorrt")
    with pytest.raises(ConfigError, match="masks on"):
        load_engine(image_bundle(), engine="onnx")
    with pytest.raises(ConfigError, match="bf16"):
        load_engine(bundle, engine="onnx", precision="bf16")


def test_auto_is_torch_without_a_probe_where_nothing_else_is(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(engine_choice, "_versions", lambda name: ["1"] if name == "torch" else None)
    monkeypatch.setattr(engine_choice, "probe", lambda *_, **__: pytest.fail("probed"))
    assert choose_engine(bundle, device="cpu", precision="auto", batch_size=4) == "torch"
    assert not cache.exists()


def test_auto_measures_once_and_keeps_the_fastest(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    calls = []

    def probe(
        bundle: Bundle, names: tuple[str, ...], *, precision: str, batch_size: int, streams: int
    ) -> dict[str, float]:
        calls.append(batch_size)
        assert streams == 1
        return {"torch": 10.0, "onnx": 20.0}

    monkeypatch.setattr(engine_choice, "_versions", lambda name: None if name == "openvino" else ["1"])
    monkeypatch.setattr(engine_choice, "probe", probe)

    def choose(size: int) -> str:
        return choose_engine(bundle, device="cpu", precision="auto", batch_size=size)

    assert [choose(4), choose(4), choose(8)] == ["onnx", "onnx", "onnx"]
    assert calls == [4, 8]
    kept = sorted(cache.iterdir())
    assert len(kept) == 2
    assert json.loads(kept[0].read_text())["images_per_s"] == {"torch": 10.0, "onnx": 20.0}
    for file in kept:
        file.write_text("{")
    assert choose(4) == "onnx"
    assert calls == [4, 8, 4]


def test_the_probe_times_every_runtime(bundle: Bundle) -> None:
    needs("onnx")
    speeds = engine_choice.probe(bundle, ("torch", "onnx"), precision="fp32", batch_size=2)
    assert set(speeds) == {"torch", "onnx"}
    assert min(speeds.values()) > 0


def test_scoring_goes_on_with_the_engine_it_began_with(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")
    from PIL import Image

    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for k in range(2):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (64, 64)).astype(np.uint8)).save(inbox / f"{k}.png")
    first = score(bundle, inbox, tmp_path / "out", engine="onnx", device="cpu")
    assert first.engine_difference is not None
    assert str(first.to_dict()["engine"]).startswith("onnxruntime")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(inbox / "3.png")
    monkeypatch.setattr(engine_choice, "choose_engine", lambda *_, **__: pytest.fail("chosen anew"))
    again = score(bundle, inbox, tmp_path / "out", engine="auto", device="cpu")
    assert (again.new_rows, again.rows) == (1, 3)
    assert again.engine == first.engine
    with pytest.raises(ScoringError, match="differs in: engine"):
        score(bundle, inbox, tmp_path / "out", engine="torch", device="cpu")


def test_openvino_in_bf16_is_near_torch_and_another_network(bundle: Bundle) -> None:
    needs("openvino")
    if not has_fast_bf16():
        pytest.skip("this CPU does not multiply in bf16")
    images = np.random.default_rng(0).normal(size=(7, 1, 64, 64)).astype(np.float32)
    made = load_engine(bundle, engine="openvino", precision="bf16", batch_size=4)
    found, true = made.probabilities(images), Engine(bundle, device="cpu", precision="fp32").probabilities(images)
    difference = np.abs(found["organ"] - true["organ"]).max()
    assert 1e-4 < difference < 0.02  # above the rounding of float32: the hint is followed
    assert made.name.endswith("cpu bf16 batch 4")


@pytest.mark.slow
def test_compiled_torch_gives_the_probabilities_of_torch(bundle: Bundle) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    images = np.random.default_rng(0).normal(size=(5, 1, 64, 64)).astype(np.float32)
    made = load_engine(bundle, engine="torch-compile", device="cpu", precision="fp32", batch_size=4)
    true = Engine(bundle, device="cpu", precision="fp32").probabilities(images)
    np.testing.assert_allclose(made.probabilities(images)["organ"], true["organ"], atol=1e-4)
    assert made.name.startswith("torch-compile ")
    assert made.difference is not None


def test_torch_falls_back_to_float32_where_bf16_differs_too_much(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_fast_bf16():
        pytest.skip("this CPU does not multiply in bf16")
    assert load_engine(bundle, device="cpu").precision == "fp32"
    usual = lambda name, device, **_: choose_precision(name, device)  # noqa: E731  as on a GPU
    monkeypatch.setattr(engine_module, "decision_precision", usual)
    assert load_engine(bundle, device="cpu").precision == "bf16"
    monkeypatch.setitem(engine_choice.TOLERANCE, "bf16", 1e-9)
    assert load_engine(bundle, device="cpu").precision == "fp32"
    with pytest.raises(ConfigError, match="within 1e-09"):
        load_engine(bundle, device="cpu", precision="bf16")


def test_who_asks_for_another_format_is_told_how_far_it_is_from_evaluate(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    usual, coarse = load_engine(bundle, device="cpu"), load_engine(bundle, device="cpu", precision="bf16")
    pixels = to_input(calibration_pixels(bundle), bundle.config.preprocess)
    one, other = (engine.probabilities(pixels) for engine in (usual, coarse))
    largest = max(float(np.abs(one[name] - other[name]).max()) for name in one)
    assert largest > 1e-5
    engine_choice.warn_of_difference(usual, device="cpu")
    assert not caplog.messages
    engine_choice.warn_of_difference(coarse, device="cpu")
    assert f"differ by up to {largest:.2g}" in caplog.messages[0]


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_a_missing_package_names_its_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    package, module = {"openvino": ("openvino", "openvino"), "onnx": ("onnxruntime", "onnx")}[engine]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"lepton_vision.inference.runtimes.{module}", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install -e '\.\[{engine}\]'"):
        load_engine(bundle, engine=engine)


def test_other_runtimes_send_no_reports_of_their_use(tmp_path: Path) -> None:
    needs("openvino")
    code = "import sys, lepton_vision.inference.runtimes.openvino\n"
    code += "try:\n    import lepton_vision.inference.runtimes.int8\n"
    code += "except Exception as error:\n    assert 'nncf' in str(error)\n"
    code += "print('openvino_telemetry' in sys.modules)"
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home)
    assert done.stdout.strip() == "False"
    assert not (tmp_path / "intel").exists()
