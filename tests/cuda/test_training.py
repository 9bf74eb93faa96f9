"""Training on a GPU: learning in every number format, resumption after a kill, out-of-memory messages."""

from __future__ import annotations

import gc
import json
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.evaluation.classes.figures import validation_figures
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.models.device import choose_device, choose_precision
from lepton_vision.pipeline import evaluate_bundle, fit
from lepton_vision.training.loop import fit_model
from tests.cuda.gpu import DEVICE, IMAGES, Killed, kill_at, kill_study_at, largest, needs_gpu
from tests.training.tiny import RICH, WATCHED, TinyDataset, TinyNetwork, plain_descent, tiny_config, tiny_loader

pytestmark = needs_gpu


def validate(model: torch.nn.Module) -> dict[str, float]:
    """Loss over all rows without noise, wherever the model is."""
    device = next(model.parameters()).device
    with torch.no_grad():
        batch = TinyDataset().__getitems__(range(22)).to(device)
        logits = model(batch.images).logits["finding"].squeeze(1).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels["finding"])
    return {"val_loss": loss.item(), "val_auroc": float("nan")}


def run_tiny(run_dir: Path, config: Config, **changes: object):  # type: ignore[no-untyped-def]
    given = {"model": TinyNetwork(), "train_loader": tiny_loader(), "device": DEVICE, "validate": validate}
    given |= {"watched": WATCHED} | changes
    return fit_model(config=config, run_dir=run_dir, **given)  # type: ignore[arg-type]


def epochs_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_auto_is_the_gpu() -> None:
    assert choose_device("auto").type == DEVICE
    with pytest.raises(ConfigError, match="Expected a CUDA GPU"):
        choose_device(f"cuda:{torch.cuda.device_count()}")


def test_a_study_on_auto_trains_on_the_gpu_and_is_judged_on_test(
    trained: Bundle, manifest: Manifest, tmp_path: Path
) -> None:
    assert trained.run_dir is not None
    facts = json.loads((trained.run_dir / "environment.json").read_text())
    assert facts["device"] == DEVICE
    assert facts["precision"] == choose_precision("auto", DEVICE)
    assert all(value.device.type == "cpu" for value in trained.state.values())
    losses = [row["train_loss"] for row in epochs_of(trained.run_dir)]
    assert losses[-1] < 0.5 * losses[0]
    result = evaluate_bundle(trained, manifest, split="test", out=tmp_path / "out")
    assert result.evaluation is not None
    assert result.evaluation.figures["label"]["auroc"].value > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_number_format_learns_what_the_cpu_learns(manifest: Manifest, tmp_path: Path, precision: str) -> None:
    bundle = fit(IMAGES.override(f"train.precision={precision}"), manifest, run_dir=tmp_path / "run", device=DEVICE)
    rows = epochs_of(tmp_path / "run")
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert bundle.provenance["validation"]["val_auroc"] > 0.9
    assert all(value.dtype in (torch.float32, torch.int64) for value in bundle.state.values())


def test_a_step_in_fp32_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    states = []
    for device in ("cpu", DEVICE):
        model = TinyNetwork(dropout=0.0)
        config = tiny_config("train.accumulate_steps=2", "train.epochs=2")
        run_tiny(tmp_path / device, config, model=model, device=device)
        states.append(model.state_dict())
    assert largest(states[1], states[0]) < 1e-4


def test_convolutions_of_fp32_are_never_rounded_to_tf32_nor_are_their_gradients(tmp_path: Path) -> None:
    seen: dict[str, set[bool]] = {"forward": set(), "backward": set()}
    model = TinyNetwork()
    conv = model.encoder.layer2[0]
    conv.register_forward_hook(lambda *_: seen["forward"].add(torch.backends.cudnn.allow_tf32))
    conv.register_full_backward_hook(lambda *_: seen["backward"].add(torch.backends.cudnn.allow_tf32))
    run_tiny(tmp_path, tiny_config("train.epochs=1"), model=model, validate=lambda _: validate(TinyNetwork().eval()))
    assert seen == {"forward": {False}, "backward": {False}}
    assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark


@pytest.fixture
def same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are added in one order: else AdamW makes a whole step of what rounding leaves of a gradient of 0."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def hot_scaler(monkeypatch: pytest.MonkeyPatch) -> list[torch.amp.GradScaler]:
    """Scalers that begin so high that the first gradients overflow, and grow after three steps that did not."""
    made: list[torch.amp.GradScaler] = []

    class HotScaler(torch.amp.GradScaler):
        def __init__(self, device: str) -> None:
            super().__init__(device, init_scale=2.0**24, growth_interval=3)
            made.append(self)

    monkeypatch.setattr("torch.amp.GradScaler", HotScaler)
    return made


@pytest.mark.usefixtures("same_order")
def test_fp16_scales_its_gradients_and_the_checkpoint_holds_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scalers = hot_scaler(monkeypatch)
    config = tiny_config("train.precision=fp16", "train.epochs=4", "train.checkpoint_seconds=0")
    whole = run_tiny(tmp_path / "whole", config)
    assert whole.history[0]["skipped_steps"] > 0
    assert whole.history[-1]["val_loss"] < whole.history[0]["val_loss"]
    assert scalers[0].get_scale() < 2.0**24
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", config, progress=kill_at(15))
    kept = torch.load(tmp_path / "cut" / "checkpoints" / "last.pt", weights_only=True)["parts"]["scaler"]
    assert 1.0 <= kept["scale"] < 2.0**24
    resumed = run_tiny(tmp_path / "cut", config, resume=True)
    assert scalers[-1].get_scale() == scalers[0].get_scale()
    assert largest(resumed.state, whole.state) < 1e-3


@pytest.mark.usefixtures("same_order")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("step", [2, 7])
def test_a_run_killed_on_the_gpu_goes_on_to_the_same_weights(tmp_path: Path, precision: str, step: int) -> None:
    """Averaged weights, unfreezing, dropout and sample seeds."""
    config = tiny_config(*RICH, f"train.precision={precision}")
    before = torch.cuda.get_rng_state()
    whole = run_tiny(tmp_path / "whole", config)
    assert torch.equal(torch.cuda.get_rng_state(), before), "the random state of the GPU is left as it was"
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", config, progress=kill_at(step))
    resumed = run_tiny(tmp_path / "cut", config, resume=True)
    assert largest(resumed.state, whole.state) < 2e-3
    first = largest(whole.state, TinyNetwork().state_dict())
    assert first > 0.02, "the weights moved further than the tolerance"


def test_a_run_written_on_the_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    config = tiny_config(*RICH)
    models = [TinyNetwork(dropout=0.0, norms=False) for _ in range(3)]  # a bias before a norm has a gradient of noise
    whole = run_tiny(tmp_path / "whole", config, model=models[0])
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", config, model=models[1], progress=kill_at(4))
    moved = run_tiny(tmp_path / "cut", config, model=models[2], resume=True, device="cpu")
    assert largest(moved.state, whole.state) < 5e-3


@pytest.mark.usefixtures("same_order")
def test_an_interrupted_study_goes_on_on_the_gpu(manifest: Manifest, tmp_path: Path) -> None:
    small = ("model.backbone=resnet10", "model.width=8")  # a checkpoint is written after every step
    config = IMAGES.override(*small, "train.precision=fp32", "train.checkpoint_seconds=0", "train.workers=1")
    whole = fit(config, manifest, run_dir=tmp_path / "whole", device=DEVICE)
    with pytest.raises(Killed):
        fit(config, manifest, run_dir=tmp_path / "cut", device=DEVICE, progress=kill_study_at(6))
    resumed = fit(config, manifest, run_dir=tmp_path / "cut", device=DEVICE, resume=True)
    rows = manifest.subset("test")
    found = [predict(one, rows, device=DEVICE, precision="fp32").y_prob["label"] for one in (whole, resumed)]
    assert np.abs(found[0] - found[1]).mean() < 0.05, "the gradient of a maximum pool is added in any order"


@pytest.mark.parametrize(("stages", "precision"), [(5, "fp32"), (3, "bf16")])
def test_cached_features_are_computed_on_the_gpu_and_validated_like_the_whole_network(
    manifest: Manifest, tmp_path: Path, stages: int, precision: str
) -> None:
    options = (f"train.freeze_stages={stages}", "train.cache_features=true", f"train.precision={precision}")
    config = IMAGES.override(*options, "augment.preset=none", "evaluation.calibrate=false", "train.epochs=2")
    bundle = fit(config, manifest, run_dir=tmp_path / "run", device=DEVICE)
    whole = validation_figures(predict(bundle, manifest.subset("val"), device=DEVICE, precision=precision))
    for name, value in whole.items():
        near = 1e-4 if precision == "fp32" else 0.03
        assert bundle.provenance["validation"][name] == pytest.approx(value, abs=near)


def test_gradual_unfreezing_moves_one_stage_after_the_other(tmp_path: Path) -> None:
    moved: list[set[str]] = []
    model, start = TinyNetwork(), TinyNetwork().state_dict()

    def watch(network: torch.nn.Module) -> dict[str, float]:
        state = network.state_dict()
        moved.append({name.split(".")[1] for name in start if not torch.equal(state[name].cpu(), start[name])})
        return validate(network)

    options = ("train.freeze_stages=3", "train.unfreeze_every=1", "train.epochs=3", "train.precision=bf16")
    run_tiny(tmp_path, tiny_config(*options), model=model, validate=watch)
    stages = [{f"layer{k}" for k in range(low, 5)} for low in (3, 2, 1)]
    assert [one - {"linear"} for one in moved] == stages


@pytest.mark.filterwarnings("ignore")  # what torch's compiler says of its own parts and of this GPU
def test_a_compiled_step_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not any(shutil.which(name) for name in ("gcc", "clang", "cc")) or not header.is_file():
        pytest.skip("torch.compile on a GPU needs a C compiler and Python's headers")
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    config, states = tiny_config("train.epochs=1", "train.batch_size=11"), []
    for compiled in (False, True):
        model = TinyNetwork(dropout=0.0)
        loader = tiny_loader(batch_size=11)
        given = config.override(f"train.compile={compiled}")
        states.append(run_tiny(tmp_path / str(compiled), given, model=model, train_loader=loader).state)
    assert largest(states[1], states[0]) < 1e-3


@pytest.fixture
def full_memory() -> Iterator[None]:
    """As if other processes held all memory of the GPU: what is taken stays, nothing new is given."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("full_memory")
def test_full_memory_is_one_clear_error(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"memory of cuda.* is full with train\.batch_size=16") as caught:
        fit(IMAGES, manifest, run_dir=tmp_path / "run", device=DEVICE)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
