"""Inference on a GPU: the CPU's probabilities, independent of the other images in the batch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lepton_vision.errors import ConfigError
from lepton_vision.evaluation import evaluate
from lepton_vision.inference import grad_cam, predict
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.inference.runtimes.choice import load_engine
from lepton_vision.inference.streams import Streams
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.models.device import true_float32
from lepton_vision.scoring import score
from tests.cuda.gpu import DEVICE, Killed, needs_gpu
from tests.scoring.bundles import image_bundle, read, same_rows

pytestmark = needs_gpu
NEAR = {"fp32": 1e-4, "bf16": 0.03, "fp16": 0.005}  # largest difference of a probability


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(43, 1, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def clear() -> Bundle:
    """Random weights whose probabilities are spread from 0 to 1, and masks of every structure."""
    bundle = image_bundle()
    state = {name: value * (30.0 if name.startswith("heads.") else 1.0) for name, value in bundle.state.items()}
    return Bundle(config=bundle.config, targets=bundle.targets, state=state, operating_point=bundle.operating_point)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_probabilities_and_figures_are_those_of_the_cpu(trained: Bundle, manifest: Manifest, precision: str) -> None:
    rows = manifest.subset("test")
    there = predict(trained, rows, device=DEVICE, precision=precision)
    here = predict(trained, rows, device="cpu", precision="fp32")
    assert np.abs(there.y_prob["label"] - here.y_prob["label"]).max() < NEAR[precision]
    assert here.y_prob["label"].std() > 0.1, "the probabilities differ from each other by more than that"
    point = trained.operating_point
    assert point is not None
    figures = [evaluate(one, operating_point=point).figures["label"]["auroc"].value for one in (there, here)]
    assert figures[0] == pytest.approx(figures[1], abs=0.02)


@pytest.mark.parametrize("has_masks", [False, True])
def test_fp32_on_the_gpu_is_float32(clear: Bundle, images: np.ndarray, has_masks: bool) -> None:
    """TF32 would differ by some 1e-3 of a feature."""
    bundle = clear if has_masks else image_bundle("segmentation=null")
    there = Engine(bundle, device=DEVICE, precision="fp32", batch_size=16).examine(images)
    here = Engine(bundle, device="cpu", precision="fp32", batch_size=16).examine(images)
    for name, values in here.probabilities.items():
        np.testing.assert_allclose(there.probabilities[name], values, atol=NEAR["fp32"])
    assert here.features is not None
    assert there.features is not None
    assert np.abs(there.features - here.features).max() < 1e-4 * np.abs(here.features).max()
    if here.masks is not None and there.masks is not None:
        np.testing.assert_allclose(there.masks, here.masks, atol=1e-4)


def test_torch_rounds_convolutions_to_tf32_and_we_do_not() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a GPU with TF32: Ampere or later")
    generator = torch.Generator().manual_seed(0)
    images, weight = (torch.randn(*s, generator=generator).to(DEVICE) for s in ((16, 64, 32, 32), (64, 64, 3, 3)))
    true = torch.nn.functional.conv2d(images.double(), weight.double(), padding=1)

    def error() -> float:
        return float((torch.nn.functional.conv2d(images, weight, padding=1) - true).abs().max() / true.abs().max())

    rounded = error()
    with true_float32(torch.device(DEVICE)):
        exact = error()
    assert exact < 1e-5
    assert rounded > 10 * exact


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch_size", [4, 16])
@pytest.mark.parametrize("is_timed", [False, True])
def test_the_order_and_company_of_images_change_no_bit(
    clear: Bundle,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    batch_size: int,
    is_timed: bool,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", is_timed)
    engine = Engine(clear, device=DEVICE, precision=precision, batch_size=batch_size)
    whole = engine.examine(images)
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = engine.examine(images[order])
    alone = [engine.examine(images[k : k + 1]) for k in range(len(images))]
    again = Engine(clear, device=DEVICE, precision=precision, batch_size=batch_size).examine(images)
    for name, values in whole.probabilities.items():
        np.testing.assert_array_equal(shuffled.probabilities[name], values[order])
        np.testing.assert_array_equal(np.concatenate([one.probabilities[name] for one in alone]), values)
        np.testing.assert_array_equal(again.probabilities[name], values)
    assert whole.masks is not None
    assert shuffled.masks is not None
    np.testing.assert_array_equal(shuffled.masks, whole.masks[order])


@pytest.mark.parametrize("size", [32, 224])
def test_company_changes_no_bit_of_a_resnet_18(size: int) -> None:
    bundle = image_bundle(
        "segmentation=null",
        "model.backbone=resnet18",
        "model.width=64",
        "model.stem=auto",
        f"preprocess.size=[{size}, {size}]",
    )
    given = np.random.default_rng(2).normal(size=(40, 1, size, size)).astype(np.float32)
    engine = Engine(bundle, device=DEVICE, batch_size=32)
    whole, order = engine.examine(given).features, np.random.default_rng(3).permutation(len(given))
    assert whole is not None
    np.testing.assert_array_equal(engine.examine(given[order]).features, whole[order])
    np.testing.assert_array_equal(engine.examine(given[:3]).features, whole[:3])


def test_steps_come_from_one_thread_with_the_gpu_of_the_engine(clear: Bundle, images: np.ndarray) -> None:
    engine = load_engine(clear, device="auto", batch_size=8, streams=4)
    assert engine.device == torch.device(DEVICE, torch.cuda.current_device())
    assert engine.streams == 1
    expected = engine.probabilities(images)["sick"]
    with closing(Streams(engine)) as streams:
        steps = [streams.submit(engine.probabilities, images[k : k + 8]) for k in range(0, len(images), 8)]
        found = np.concatenate([step.result()["sick"] for step in steps])
    np.testing.assert_array_equal(found, expected)


def test_a_scoring_run_that_was_killed_ends_with_the_same_rows(clear: Bundle, inbox: Path, tmp_path: Path) -> None:
    def die(done: int, total: int, failures: int) -> None:
        if done == 13:
            raise Killed

    how = {"device": DEVICE, "batch_size": 4, "shard_rows": 4}
    for name in ("whole", "cut"):
        masks = tmp_path / f"{name}-masks"
        if name == "cut":
            with pytest.raises(Killed):
                score(clear, inbox, tmp_path / name, masks=masks, progress=die, **how)
            assert 0 < len(pd.read_parquet(tmp_path / name)) < 24
        score(clear, inbox, tmp_path / name, masks=masks, **how)
    same_rows(tmp_path / "whole", tmp_path / "cut")
    rows = read(tmp_path / "cut")
    assert rows["status"].value_counts().to_dict() == {"ok": 23, "failed": 1}
    assert rows["engine"].str.contains(f" {DEVICE} ").all()
    near = score(clear, inbox, tmp_path / "cpu", masks=tmp_path / "cpu-masks", device="cpu", precision="fp32")
    assert near.scored == 23
    columns = [name for name in rows if name.endswith("_probability")]
    here = read(tmp_path / "cpu")
    assert np.nanmax(np.abs(rows[columns].to_numpy(float) - here[columns].to_numpy(float))) < 2 * NEAR["bf16"]


def test_masks_of_images_are_those_of_the_cpu(clear: Bundle, inbox: Path) -> None:
    found = [list(predict_masks(clear, inbox, device=device, precision="fp32")) for device in (DEVICE, "cpu")]
    for one, other in zip(*found, strict=True):
        assert type(one) is type(other)
        if isinstance(one, MaskPrediction) and isinstance(other, MaskPrediction):
            assert (one.labels != other.labels).mean() < 0.001
            np.testing.assert_allclose(one.share(1), other.share(1), atol=1e-4)


@pytest.mark.parametrize("mode", ["joint", "roi"])
def test_regions_and_their_probabilities_are_those_of_the_cpu(images: np.ndarray, mode: str) -> None:
    bundle = image_bundle(f"segmentation.mode={mode}")
    found = [Engine(bundle, device=device, precision="fp32").examine(images) for device in (DEVICE, "cpu")]
    for name, values in found[1].probabilities.items():
        apart = np.abs(found[0].probabilities[name] - values)
        assert np.quantile(apart, 0.9) < NEAR["fp32"], "a pixel that two structures share may move a box"


def test_grad_cam_is_that_of_the_cpu(trained: Bundle, images: np.ndarray) -> None:
    here, there = trained.network(), trained.network().to(DEVICE)
    expected = grad_cam(here, torch.from_numpy(images), target="label")
    with torch.autocast(DEVICE, torch.bfloat16):
        found = grad_cam(there, torch.from_numpy(images), target="label")
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max())
    assert all(parameter.grad is None for parameter in there.parameters())


@pytest.fixture
def full_memory() -> Iterator[None]:
    """Nothing new is given from now on, see ``test_training``."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("full_memory")
def test_full_memory_is_told_with_the_batch_size(clear: Bundle) -> None:
    engine = Engine(clear, device=DEVICE, batch_size=4096)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    with pytest.raises(ConfigError, match=r"memory of cuda:0 is full with 4096 samples.*below 4096"):
        engine.probabilities(np.zeros((1, 1, 32, 32), np.float32))
