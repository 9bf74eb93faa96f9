"""Inference engine: one shape for every step, so that other images never change a probability."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.engine import Engine
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions.calibration import Calibrator, Isotonic, Platt
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config(targets=(SICK, ORGAN)).override("preprocess.size=[32, 32]")
    return Bundle(config=config, targets=config.targets, state=build_model(config).state_dict())


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(11, 1, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_order_and_company_of_images_change_no_bit(bundle: Bundle, images: np.ndarray, precision: str) -> None:
    engine = Engine(bundle, device="cpu", precision=precision, batch_size=4)
    whole = engine.probabilities(images)
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = engine.probabilities(images[order])
    one_by_one = [engine.probabilities(images[k : k + 1]) for k in range(len(images))]
    for name in ("sick", "organ"):
        np.testing.assert_array_equal(shuffled[name], whole[name][order])
        np.testing.assert_array_equal(np.concatenate([part[name] for part in one_by_one]), whole[name])


def test_probabilities_are_sigmoid_and_softmax_of_the_tempered_logits(bundle: Bundle, images: np.ndarray) -> None:
    tempered = bundle.with_temperatures({"sick": 2.0, "organ": 0.5})
    found = Engine(tempered, device="cpu", precision="fp32").probabilities(images)
    with torch.inference_mode():
        logits = bundle.network()(torch.from_numpy(images)).logits
    np.testing.assert_allclose(found["sick"], expit(logits["sick"][:, 0].numpy() / 2.0), rtol=1e-4)
    np.testing.assert_allclose(found["organ"], softmax(logits["organ"].numpy() / 0.5, axis=1), rtol=1e-4)
    assert found["sick"].shape == (11,)
    assert found["organ"].shape == (11, 3)


def test_calibrators_come_after_sigmoid_and_softmax(bundle: Bundle, images: np.ndarray) -> None:
    platt = Calibrator("platt", (Platt(0.5, 0.3),))
    risen = Calibrator("isotonic", tuple(Isotonic((0.2, 0.6), (0.1, high)) for high in (0.9, 0.8, 0.7)))
    calibrated = bundle.with_temperatures({"sick": 2.0}).with_calibrators({"sick": platt, "organ": risen})
    found = Engine(calibrated, device="cpu", precision="fp32").probabilities(images)
    with torch.inference_mode():
        logits = bundle.network()(torch.from_numpy(images)).logits
    np.testing.assert_allclose(found["sick"], expit(0.3 + 0.5 * logits["sick"][:, 0].numpy() / 2.0), rtol=1e-4)
    raw = softmax(logits["organ"].numpy(), axis=1)
    highs = enumerate((0.9, 0.8, 0.7))
    against_rest = np.stack([np.interp(raw[:, k], [0.2, 0.6], [0.1, high]) for k, high in highs], 1)
    np.testing.assert_allclose(found["organ"], against_rest / against_rest.sum(1, keepdims=True), rtol=1e-4)
    assert found["organ"].dtype == np.float32


def test_bf16_stays_near_fp32(bundle: Bundle, images: np.ndarray) -> None:
    fine = Engine(bundle, device="cpu", precision="fp32").probabilities(images)["sick"]
    coarse = Engine(bundle, device="cpu", precision="bf16").probabilities(images)["sick"]
    assert np.abs(logit(fine) - logit(coarse)).max() < 0.05
    assert not np.array_equal(fine, coarse)


@pytest.mark.parametrize(("runtime", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32")])
@pytest.mark.parametrize("count", [0, 3, 4, 11])
def test_pixels_give_the_bits_of_what_they_become(bundle: Bundle, runtime: str, precision: str, count: int) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    engine = Engine(bundle, engine=runtime, device="cpu", precision=precision, batch_size=4)
    pixels = np.random.default_rng(2).integers(0, 65536, (count, 1, 32, 32)).astype(np.uint16)
    expected, found = engine.examine(to_input(pixels, bundle.config.preprocess)), engine.examine_pixels(pixels)
    for name in ("sick", "organ"):
        np.testing.assert_array_equal(found.probabilities[name], expected.probabilities[name])
    assert (found.features is None) == (expected.features is None) == (count == 0)
    if found.features is not None and expected.features is not None:
        np.testing.assert_array_equal(found.features, expected.features)


def test_no_image_gives_no_probability(bundle: Bundle) -> None:
    found = Engine(bundle, device="cpu").probabilities(np.zeros((0, 1, 32, 32), np.float32))
    assert found["sick"].shape == (0,)
    assert found["organ"].shape == (0, 3)


def test_a_wrong_setting_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="batch size"):
        Engine(bundle, batch_size=0)
    with pytest.raises(ConfigError):
        Engine(bundle, device="cpu", precision="fp16")


def test_the_name_says_what_ran(bundle: Bundle) -> None:
    assert Engine(bundle, device="cpu", precision="fp32", batch_size=8).name.endswith("cpu fp32 batch 8")


def test_an_overflow_is_no_certainty(bundle: Bundle, images: np.ndarray) -> None:
    state = dict(bundle.state)
    state["heads.linear.target_sick.bias"] = torch.tensor([float("inf")])
    broken = Bundle(config=bundle.config, targets=bundle.targets, state=state)
    found = Engine(broken, device="cpu", precision="fp32").probabilities(images)
    assert np.isnan(found["sick"]).all()
    assert np.isfinite(found["organ"]).all()


def test_an_image_that_is_not_a_number_spoils_no_other(bundle: Bundle, images: np.ndarray) -> None:
    spoilt = images.copy()
    spoilt[4, 0, 3, 3] = np.nan
    engine = Engine(bundle, device="cpu", precision="fp32")
    clean, found = engine.probabilities(images), engine.probabilities(spoilt)
    others = np.arange(len(images)) != 4
    assert np.isnan(found["sick"][4])
    assert np.isnan(found["organ"][4]).all()
    np.testing.assert_array_equal(found["sick"][others], clean["sick"][others])


def test_the_way_to_the_first_score_loads_no_heavy_stranger(bundle: Bundle, tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
from lepton_vision.inference.engine import Engine
from lepton_vision.models.bundle import Bundle
engine = Engine(Bundle.load({str(bundle.save(tmp_path / "bundle"))!r}), device="cpu", batch_size=2)
engine.probabilities(np.zeros((1, 1, 32, 32), np.float32))
heavy = {{"torchvision", "torch._dynamo", "monai", "albumentations", "sklearn", "matplotlib", "pandas", "scipy"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_full_memory_is_told_with_the_batch_size(
    bundle: Bundle, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(bundle, device="cpu", precision="fp32", batch_size=4)

    def greedy(batch: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(engine, "_network", greedy)
    with pytest.raises(ConfigError, match=r"memory of cpu is full with 4 samples.*batch size below 4") as caught:
        engine.probabilities(images)
    assert caught.value.key == "batch_size"
