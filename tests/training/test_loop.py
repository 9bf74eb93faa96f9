"""Training loop on a tiny network: learning, saved weights, refusals and files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    FINDING,
    KIND,
    TinyDataset,
    TinyNetwork,
    plain_descent,
    run_tiny,
    tiny_config,
    tiny_ensemble,
    tiny_loader,
    validate,
)

from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.models import build_model
from lepton_vision.training.distributed import World
from lepton_vision.training.loop import make_stepper


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_loss_falls_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    model = TinyNetwork()
    before = validate(model.eval())["val_loss"]
    result = run_tiny(tmp_path, tiny_config("train.epochs=6"), model=model)
    losses = [row["val_loss"] for row in result.history]
    assert min(losses) < 0.8 * before
    assert result.epoch == losses.index(min(losses))
    assert result.best["val_loss"] == min(losses)
    model.load_state_dict(result.state)
    assert validate(model.eval())["val_loss"] == min(losses)
    assert "val_loss" in result._repr_html_()


def test_same_seed_same_weights_and_global_random_state_is_untouched(tmp_path: Path) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = run_tiny(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second = run_tiny(tmp_path / "b")
    other = run_tiny(tmp_path / "c", tiny_config("train.seed=1"))
    assert same(first.state, second.state)
    assert not same(first.state, other.state), "dropout follows the seed"


def test_accumulated_steps_equal_one_large_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups of an epoch are ragged (22 images: 4 + 4, 4 + 4, 4 + 2), labels partly unknown."""
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    states = []
    for batch_size, accumulate in ((4, 2), (8, 1)):
        dataset = TinyDataset(targets=(FINDING, KIND), unknown=(1, 4, 5, 6, 17))
        model = TinyNetwork((FINDING, KIND), dropout=0.0, norms=False)
        config = tiny_config(f"train.accumulate_steps={accumulate}", targets=(FINDING, KIND))
        run_tiny(tmp_path / str(accumulate), config, model=model, loader=tiny_loader(dataset, batch_size=batch_size))
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-6)


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    model, seen = TinyNetwork(), []

    def watch(network: torch.nn.Module) -> dict[str, float]:
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return validate(network)

    result = run_tiny(tmp_path, tiny_config("train.ema_decay=0.9"), model=model, validate=watch)
    assert same(result.state, seen[result.epoch])
    assert not same(seen[-1], model.state_dict())


def test_early_stopping_waits_for_patience(tmp_path: Path) -> None:
    values = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    config = tiny_config("train.epochs=9", "train.patience=2", "train.monitor=val_auroc")
    result = run_tiny(tmp_path, config, validate=lambda _: {"val_auroc": next(values)})
    assert (result.epoch, len(result.history)) == (1, 4)


def test_an_undefined_figure_is_not_better_and_not_counted(tmp_path: Path) -> None:
    values = iter([math.nan, 0.5, math.nan, 0.4, math.nan, math.inf, 0.45, 0.9])
    config = tiny_config("train.epochs=9", "train.patience=2", "train.monitor=val_auroc")
    result = run_tiny(tmp_path, config, validate=lambda _: {"val_auroc": next(values)})
    assert (result.epoch, len(result.history), result.best) == (1, 7, {"val_auroc": 0.5})
    losses = iter([0.5, -math.inf, math.nan])
    result = run_tiny(tmp_path / "loss", tiny_config(), validate=lambda _: {"val_loss": next(losses)})
    assert result.epoch == 0


def test_the_count_of_epochs_survives_a_resumption(tmp_path: Path) -> None:
    values = iter([0.5, 0.4, math.nan, KeyboardInterrupt(), 0.3, 0.9])
    config = tiny_config("train.epochs=9", "train.patience=2", "train.monitor=val_auroc")

    def validate(_: torch.nn.Module) -> dict[str, float]:
        value = next(values)
        if isinstance(value, KeyboardInterrupt):
            raise value
        return {"val_auroc": value}

    config = config.override("train.checkpoint_seconds=0")
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, config, validate=validate)
    result = run_tiny(tmp_path, config, validate=validate, resume=True)
    assert (result.epoch, len(result.history)) == (0, 4)


def test_the_last_epoch_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    values = iter([0.5, 0.9, math.nan, 0.6])
    seen: list[dict[str, torch.Tensor]] = []

    def watch(network: torch.nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"val_auroc": next(values)}

    config = tiny_config("train.epochs=4", "train.keep=last", "train.monitor=val_auroc", "train.ema_decay=0.9")
    result = run_tiny(tmp_path, config, validate=watch)
    assert (result.epoch, result.best) == (3, {"val_auroc": 0.6})
    assert same(result.state, seen[3]), "the averaged weights, as they were validated"
    assert not same(result.state, seen[1])


def test_the_last_epoch_needs_no_figure_of_validation(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, tiny_config("train.keep=last"), validate=lambda _: {})
    assert (result.epoch, result.best, len(result.history)) == (2, {}, 3)
    plain = run_tiny(tmp_path / "watched", tiny_config("train.keep=last"))
    assert same(result.state, plain.state)


def test_stopping_early_and_keeping_the_last_epoch_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="patience"):
        tiny_config("train.keep=last", "train.patience=2")


def test_a_monitor_that_is_undefined_after_every_epoch_ends_the_run_with_an_error(tmp_path: Path) -> None:
    config = tiny_config("train.monitor=val_auroc", "train.patience=1")
    for resume in (False, True):  # no epoch was kept: the finished checkpoint says the same
        with pytest.raises(TrainingError, match=r"val_auroc was undefined.*train\.monitor \(val_loss") as caught:
            run_tiny(tmp_path, config, resume=resume)
        assert caught.value.key == "train.monitor"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_unknown_monitor_is_found_before_the_first_step(tmp_path: Path) -> None:
    dataset = TinyDataset()
    with pytest.raises(ConfigError, match=r"'val_los'.*'val_loss'") as caught:
        run_tiny(tmp_path, tiny_config("train.monitor=val_los"), loader=tiny_loader(dataset))
    assert caught.value.key == "train.monitor"
    assert not dataset.seen


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_class_weights_are_taken_from_the_training_labels(tmp_path: Path, smoothing: float) -> None:
    dataset = TinyDataset()
    dataset.values["finding"][:] = 0.0
    dataset.values["finding"][:2] = 1.0
    options = ("train.class_weights=balanced", f"train.label_smoothing={smoothing}", "train.epochs=1")
    weighted = run_tiny(tmp_path / "a", tiny_config(*options), loader=tiny_loader(dataset, batch_size=22))
    # 20 negatives of weight 22/40 and 2 positives of 22/4: at logits near 0 the mean loss is that of plain weights.
    assert weighted.history[0]["train_loss"] == pytest.approx(math.log(2.0), abs=0.1)
    dataset.values["finding"][:] = math.nan
    with pytest.raises(TrainingError, match="no known label"):
        run_tiny(tmp_path / "b", tiny_config(*options), loader=tiny_loader(dataset))


def test_batches_without_labels_change_nothing_else(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, loader=tiny_loader(TinyDataset(unknown=range(16))))
    assert all(math.isfinite(row["train_loss"]) for row in result.history)


def test_frozen_stages_end_as_they_began(tmp_path: Path) -> None:
    model = TinyNetwork()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = run_tiny(tmp_path, tiny_config("train.freeze_stages=3"), model=model)
    moved = {name.split(".")[1] for name, value in result.state.items() if not torch.equal(value, before[name])}
    assert moved == {"layer3", "layer4", "linear"}


def test_gradual_unfreezing_frees_one_stage_after_another(tmp_path: Path) -> None:
    moved: list[set[str]] = []
    last = TinyNetwork().state_dict()

    def watch(network: torch.nn.Module) -> dict[str, float]:
        nonlocal last
        now = {name: value.clone() for name, value in network.state_dict().items()}
        moved.append({name.split(".")[1] for name in now if not torch.equal(now[name], last[name])} - {"linear"})
        last = now
        return validate(network)

    run_tiny(tmp_path, tiny_config("train.freeze_stages=5", "train.unfreeze_every=1"), validate=watch)
    assert moved == [set(), {"layer4"}, {"layer3", "layer4"}]


def test_non_finite_loss_names_the_place_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    dataset = TinyDataset()
    good: list[bytes] = []

    def poison(row: dict[str, Any]) -> None:
        good.append((tmp_path / "checkpoints/last.pt").read_bytes() if row["step"] > 1 else b"")
        if row["step"] == 8:
            dataset.images[:] = math.nan

    with pytest.raises(TrainingError, match=r"loss is not finite in epoch 1 \(from 0\), step 2, at learning rate 0\.0"):
        run_tiny(tmp_path, tiny_config("train.checkpoint_seconds=0"), loader=tiny_loader(dataset), progress=poison)
    kept = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)
    assert kept["position"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in kept["parts"]["model"].values())


@pytest.mark.parametrize(("width", "is_last"), [(4, False), (8, True)])
def test_narrow_networks_keep_channels_first(width: int, is_last: bool) -> None:
    """With fewer than 8 channels the backward pass of torch 2.14.1 ended the process on a CPU ("double free")."""
    config = tiny_config(f"model.width={width}")
    stepper = make_stepper(build_model(config), config, world=World(0, 1, torch.device("cpu")))
    weight = dict(stepper.model.named_parameters())["encoder.layer1.0.conv1.weight"]
    assert stepper.config.channels_last is is_last
    assert weight.is_contiguous(memory_format=torch.channels_last) is is_last


def test_bf16_and_channels_last_learn_too(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, tiny_config("train.precision=bf16", "train.epochs=4"))
    assert result.precision == "bf16"
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]
    assert all(value.dtype != torch.bfloat16 for value in result.state.values())


def test_fp16_steps_that_overflow_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device rule refuses fp16 on a CPU because it is slow there; the scaler works all the same."""
    monkeypatch.setattr("lepton_vision.training.loop.choose_precision", lambda name, device: "fp16")
    scalers: list[torch.amp.GradScaler] = []

    class HotScaler(torch.amp.GradScaler):
        def __init__(self, device: str) -> None:
            super().__init__(device, init_scale=2.0**24)
            scalers.append(self)

    monkeypatch.setattr("torch.amp.GradScaler", HotScaler)
    result = run_tiny(tmp_path, tiny_config("train.epochs=4"))
    assert result.history[0]["skipped_steps"] > 0
    assert scalers[0].get_scale() < 2.0**24
    assert result.history[-1]["skipped_steps"] == 0
    assert math.isfinite(result.history[-1]["train_loss"])


def test_fp16_gives_up_when_the_scale_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_vision.training.loop.choose_precision", lambda name, device: "fp16")
    dataset = TinyDataset()
    dataset.images[:] = math.nan
    with pytest.raises(TrainingError, match="not finite"):
        run_tiny(tmp_path, tiny_config("train.epochs=20"), loader=tiny_loader(dataset))


def test_rows_and_progress_say_where_the_run_is(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    logged: list[dict[str, Any]] = []
    run_tiny(tmp_path, progress=told.append, log=logged.append)
    assert [row["step"] for row in told] == list(range(1, 19))
    assert {row["steps"] for row in told} == {18}
    assert {"epoch", "epochs", "loss", "images_per_s"} <= told[0].keys()
    assert [row["updates"] for row in logged] == [6, 12, 18]
    assert [row["epoch"] for row in rows_of(tmp_path)] == [0, 1, 2]
    assert rows_of(tmp_path)[0]["val_auroc"] is None


def test_empty_loader_is_refused(tmp_path: Path) -> None:
    loader = tiny_loader(TinyDataset(rows=3), batch_size=4, drop_last=True)
    with pytest.raises(TrainingError, match="at least one training batch"):
        run_tiny(tmp_path, loader=loader)


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_compiled_network_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: int) -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("torch.compile needs a C++ compiler")
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    options = ("train.epochs=1", "train.channels_last=false")
    models = [TinyNetwork(dropout=0.0) if members == 1 else tiny_ensemble(members, dropout=0.0) for _ in range(2)]
    plain = run_tiny(tmp_path / "a", tiny_config(*options), model=models[0])
    compiled = run_tiny(tmp_path / "b", tiny_config(*options, "train.compile=true"), model=models[1])
    for name, value in plain.state.items():
        torch.testing.assert_close(value, compiled.state[name], rtol=1e-3, atol=1e-4)
