"""Parts of the caller: they do what ours would, resume bit by bit, and are told what they must not give."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    FINDING,
    KIND,
    RICH,
    TinyDataset,
    TinyNetwork,
    plain_loss,
    run_tiny,
    steep_descent,
    tiny_config,
    tiny_ensemble,
    tiny_loader,
)
from torch import Tensor, nn

import lepton_vision as lv
from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.training.losses import multitask_loss, segmentation_loss, target_loss
from lepton_vision.training.own_parts import OwnParts, own_loss
from lepton_vision.types import Batch, ModelOutput
from tests.squares import planted_squares

Function = Callable[..., Any]
UNKNOWN = (1, 4, 5, 6, 17)
SCRIPT = Path(__file__).with_name("tiny.py")


def torchrun(run_dir: Path, **options: object) -> subprocess.CompletedProcess[str]:
    run_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command += [str(run_dir), json.dumps(options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)


def noisy_loss(output: ModelOutput, batch: Batch) -> Tensor:
    return plain_loss(output, batch) * (1.0 + 0.1 * torch.rand(()))


def momentum(network: nn.Module) -> torch.optim.Optimizer:
    heads = [one for name, one in network.named_parameters() if "heads" in name]
    others = [one for name, one in network.named_parameters() if "heads" not in name]
    return torch.optim.SGD([{"params": heads, "lr": 0.1}, {"params": others, "lr": 0.02}], momentum=0.9)


def falling(step: int, steps: int) -> float:
    return 1.0 - step / steps


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("members", "precision"), [(1, "fp32"), (2, "fp32"), (1, "bf16")])
def test_an_own_loss_that_is_ours_trains_to_the_same_weights(tmp_path: Path, members: int, precision: str) -> None:
    def model() -> nn.Module:
        return TinyNetwork() if members == 1 else tiny_ensemble(members)

    config = tiny_config("train.accumulate_steps=2", "train.ema_decay=0.9", f"train.precision={precision}")
    ours = run_tiny(tmp_path / "ours", config, model=model())
    own = run_tiny(tmp_path / "own", config, model=model(), own=OwnParts(loss=plain_loss))
    for name, value in ours.state.items():
        torch.testing.assert_close(own.state[name], value, rtol=1e-4, atol=1e-5)
    told = [[row["train_loss"] for row in result.history] for result in (ours, own)]
    assert told[0] == pytest.approx(told[1], rel=1e-5)


def test_ragged_and_accumulated_batches_count_by_their_images(tmp_path: Path) -> None:
    """22 rows in batches of 4 are 4+4+4+4+4+2: two and two accumulated are the mean over all of their images."""
    seen: list[tuple[int, float]] = []

    def mean(output: ModelOutput, batch: Batch) -> Tensor:
        loss = plain_loss(output, batch)
        seen.append((len(batch.images), loss.item()))
        return loss

    result = run_tiny(tmp_path, tiny_config("train.epochs=1", "train.accumulate_steps=4"), own=OwnParts(loss=mean))
    assert [count for count, _ in seen] == [4, 4, 4, 4, 4, 2]
    by_hand = sum(count * loss for count, loss in seen) / 22
    assert result.history[0]["train_loss"] == pytest.approx(by_hand, rel=1e-6)


def test_unequal_shards_of_two_processes_are_one_mean(tmp_path: Path) -> None:
    """Two processes of 6 + 5 and 8 + 3 images, an optimiser step for all, are one batch of 22."""
    shared: dict[str, Any] = {"dropout": 0.0, "norms": False}
    overrides = ("train.accumulate_steps=4", "train.epochs=6", "train.clip_norm=0")
    done = torchrun(tmp_path / "two", batch_sizes=[6, 8], own=True, overrides=overrides, unknown=UNKNOWN, **shared)
    assert done.returncode == 0, done.stderr[-3000:]
    own, loader = OwnParts(plain_loss, steep_descent), tiny_loader(TinyDataset(unknown=UNKNOWN), batch_size=22)
    one = run_tiny(tmp_path / "one", tiny_config(*overrides), model=TinyNetwork(**shared), loader=loader, own=own)
    two = torch.load(tmp_path / "two" / "weights1.pt", weights_only=True)
    start = TinyNetwork(**shared).state_dict()
    for name, value in one.state.items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-5, atol=1e-6)
    assert (one.state["encoder.layer4.0.weight"] - start["encoder.layer4.0.weight"]).abs().max() > 1e-3


def test_what_a_loss_does_not_look_at_gets_a_gradient_of_zero() -> None:
    logits = {"finding": torch.zeros(2, 1, requires_grad=True), "kind": torch.zeros(2, 3, requires_grad=True)}
    batch = Batch(torch.zeros(2, 1, 4, 4), {"finding": torch.tensor([0.0, 1.0])}, torch.arange(2), ("a", "b"))
    own_loss(plain_loss, ModelOutput(logits), batch).backward()  # type: ignore[no-untyped-call]
    assert logits["kind"].grad is not None
    assert logits["kind"].grad.abs().sum() == 0
    assert logits["finding"].grad is not None
    assert logits["finding"].grad.tolist() == [[0.25], [-0.25]]  # (0.5 - y) / 2


def test_half_precision_reaches_an_own_loss_as_float32(tmp_path: Path) -> None:
    kinds = set[torch.dtype]()

    def look(output: ModelOutput, batch: Batch) -> Tensor:
        kinds.add(output.logits["finding"].dtype)
        return plain_loss(output, batch)

    result = run_tiny(tmp_path, tiny_config("train.precision=bf16"), own=OwnParts(loss=look))
    assert (kinds, result.precision) == ({torch.float32}, "bf16")


def test_the_schedule_scales_the_rates_of_each_group(tmp_path: Path) -> None:
    made: list[torch.optim.Optimizer] = []
    rates: list[tuple[float, ...]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(tuple(group["lr"] for group in self.param_groups))
            return super().step(closure)

    def make(network: nn.Module) -> torch.optim.Optimizer:
        groups = momentum(network).param_groups
        made.append(Watched([{"params": group["params"], "lr": group["lr"]} for group in groups]))
        return made[-1]

    result = run_tiny(tmp_path, tiny_config("train.epochs=2"), own=OwnParts(optimizer=make, schedule=falling))
    expected = [(0.1 * (1 - step / 12), 0.02 * (1 - step / 12)) for step in range(12)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert [row["lr"] for row in result.history] == pytest.approx([0.1 * (1 - 5 / 12), 0.1 * (1 - 11 / 12)])
    assert len(made) == 1


def test_a_resumed_run_with_own_parts_gives_the_same_bits(tmp_path: Path) -> None:
    own = OwnParts(loss=noisy_loss, optimizer=momentum, schedule=falling)
    whole = run_tiny(tmp_path / "whole", tiny_config(*RICH), own=own)

    for at in (2, 7):
        steps = iter(range(100))

        def stop(row: dict[str, Any], at: int = at, steps: Any = steps) -> None:
            if next(steps) == at:
                raise KeyError(at)

        with pytest.raises(KeyError):
            run_tiny(tmp_path / f"{at}", tiny_config(*RICH), own=own, progress=stop)
        with pytest.raises(ConfigError, match=r"started with loss=, optimizer=, schedule=, and is given loss="):
            run_tiny(tmp_path / f"{at}", tiny_config(*RICH), own=OwnParts(loss=noisy_loss), resume=True)
        other = OwnParts(loss=noisy_loss, optimizer=lambda net: torch.optim.AdamW(net.parameters()), schedule=falling)
        with pytest.raises(ConfigError, match=r"optimiser AdamW: the run has SGD"):
            run_tiny(tmp_path / f"{at}", tiny_config(*RICH), own=other, resume=True)
        resumed = run_tiny(tmp_path / f"{at}", tiny_config(*RICH), own=own, resume=True)
        assert same(resumed.state, whole.state)


def test_an_epoch_is_told_with_its_figures_and_may_be_the_last(tmp_path: Path) -> None:
    told: list[tuple[int, dict[str, Any]]] = []

    def look(epoch: int, figures: Mapping[str, Any]) -> bool | None:
        told.append((epoch, dict(figures)))
        return True if epoch == 1 else None

    result = run_tiny(tmp_path, tiny_config("train.epochs=5"), own=OwnParts(on_epoch=look))
    assert [epoch for epoch, _ in told] == [0, 1]
    written = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["val_loss"] for row in written] == [figures["val_loss"] for _, figures in told]
    assert {"train_loss", "lr", "val_loss", "val_auroc"} <= set(told[0][1])
    assert result.epoch == int(np.argmin([row["val_loss"] for row in written]))
    again = run_tiny(tmp_path, tiny_config("train.epochs=5"), resume=True)
    assert same(again.state, result.state), "it is finished"


def constant(*_: Any) -> Tensor:
    return torch.tensor(1.0)


BAD_LOSSES: dict[str, tuple[Function, str]] = {
    "vector": (lambda output, batch: output.logits["finding"].squeeze(1), r"shape \(4,\)"),
    "number": (lambda output, batch: 0.5, r"Received: float"),
    "constant": (constant, r"one without any"),
    "infinite": (lambda output, batch: output.logits["finding"].sum() * math.inf, r"The loss is not finite"),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_what_is_no_loss_is_refused(tmp_path: Path, name: str) -> None:
    function, said = BAD_LOSSES[name]
    with pytest.raises(TrainingError, match=said):
        run_tiny(tmp_path, own=OwnParts(loss=function))


BAD_OPTIMIZERS: dict[str, tuple[Function, str]] = {
    "nothing": (lambda net: None, r"Received: NoneType"),
    "heads": (lambda net: torch.optim.SGD(net.heads.parameters(), lr=0.1), r"lacks 20: encoder\.stem\.0\.weight"),
    "copy": (
        lambda net: torch.optim.SGD([*net.parameters(), nn.Parameter(torch.zeros(1))], lr=0.1),
        r"Received: others, too",
    ),
    "closure": (lambda net: torch.optim.LBFGS(net.parameters()), r"needs no closure\. Received: LBFGS"),
    "rate": (lambda net: torch.optim.SGD(net.parameters(), lr=0.0), r"learning rate above 0\. Received: 0\.0"),
}


@pytest.mark.parametrize("name", BAD_OPTIMIZERS)
def test_what_is_no_optimizer_of_this_network_is_refused(tmp_path: Path, name: str) -> None:
    function, said = BAD_OPTIMIZERS[name]
    with pytest.raises(TrainingError, match=said):
        run_tiny(tmp_path, own=OwnParts(optimizer=function))
    assert not (tmp_path / "checkpoints").exists()


def test_parameters_that_stay_fixed_may_be_left_out(tmp_path: Path) -> None:
    own = OwnParts(optimizer=lambda net: torch.optim.SGD(net.heads.parameters(), lr=0.1))
    run_tiny(tmp_path, tiny_config("train.freeze_stages=5"), own=own)
    with pytest.raises(TrainingError, match=r"lacks 8: encoder\.layer3"):  # two stages are freed by the third epoch
        run_tiny(tmp_path / "freed", tiny_config("train.freeze_stages=5", "train.unfreeze_every=1"), own=own)


@pytest.mark.parametrize("share", [math.nan, math.inf, -0.1, "1", None])
def test_what_is_no_share_is_refused(tmp_path: Path, share: Any) -> None:
    if share == "1":
        share = object()
    with pytest.raises(TrainingError, match=r"schedule: expected a finite number of at least 0.* at step 0"):
        run_tiny(tmp_path, own=OwnParts(schedule=lambda step, steps: share))


def test_an_answer_that_is_no_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"on_epoch: expected True to stop.*Received: float"):
        run_tiny(tmp_path, own=OwnParts(on_epoch=lambda epoch, figures: 0.7))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("part", ["loss", "optimizer", "schedule", "on_epoch"])
def test_an_error_of_the_caller_comes_through_with_its_own_traceback(tmp_path: Path, part: str) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a typing error")

    with pytest.raises(KeyError, match="a typing error") as caught:
        run_tiny(tmp_path, own=OwnParts(**{part: broken}))
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "broken"
    assert caught.value.__notes__ == [f"Raised by the function that was given as {part}=."]
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("setting", ["label_smoothing=0.1", "class_weights=balanced", "balance=uncertainty"])
def test_settings_of_our_losses_are_refused_beside_an_own_one(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{setting.split('=')[0]}: of the losses of this package"):
        run_tiny(tmp_path, tiny_config(f"train.{setting}"), own=OwnParts(loss=plain_loss))
    assert not list(tmp_path.iterdir())


def test_our_losses_are_there_to_build_on() -> None:
    generator = torch.Generator().manual_seed(0)
    output = ModelOutput(
        {"finding": torch.randn(3, 1, generator=generator), "kind": torch.randn(3, 3, generator=generator)},
        torch.randn(3, 2, 4, 4, generator=generator),
    )
    labels = {"finding": torch.tensor([0.0, 1.0, math.nan]), "kind": torch.tensor([0.0, 2.0, 1.0])}
    masks = torch.randint(0, 2, (3, 4, 4), generator=generator, dtype=torch.uint8)
    batch = Batch(torch.zeros(3, 1, 4, 4), labels, torch.arange(3), ("a", "b", "c"), masks)
    x, y = output.logits["finding"][:2, 0].double().numpy(), np.array([0.0, 1.0])
    by_hand = np.mean(np.log1p(np.exp(-x * (2 * y - 1))))
    assert target_loss(output, batch, target=FINDING).item() == pytest.approx(by_hand, rel=1e-6)
    parts = [target_loss(output, batch, target=one) for one in (FINDING, KIND)] + [segmentation_loss(output, batch)]
    whole = multitask_loss(output, labels, targets=[FINDING, KIND], masks=masks).total
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), rel=1e-6)
    with pytest.raises(TrainingError, match="Expected masks in the output"):
        segmentation_loss(ModelOutput(output.logits), batch)


def test_a_planted_signal_is_learnt_with_own_parts(tmp_path: Path) -> None:
    manifest = planted_squares(tmp_path, counts={"train": 64, "val": 32, "test": 32}, side=16, brighter=100)
    config = lv.Config().override(
        "preprocess.size=[16, 16]", "model.stem=small", "model.backbone=resnet10", "model.width=8"
    )
    config = config.override("train.precision=fp32", "train.epochs=8", "train.batch_size=16")
    told: list[float] = []

    def hinge(output: ModelOutput, batch: Batch) -> Tensor:
        sign = batch.labels["label"] * 2.0 - 1.0
        return torch.relu(1.0 - sign * output.logits["label"].squeeze(1)).mean()

    def look(epoch: int, figures: Any) -> bool:
        told.append(figures["val_auroc"])
        return bool(told[-1] == 1.0)

    bundle = lv.fit(
        config,
        manifest,
        run_dir=tmp_path / "run",
        device="cpu",
        loss=hinge,
        optimizer=lambda network: torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9),
        schedule=lambda step, steps: 1.0 - step / steps,
        on_epoch=look,
    )
    assert bundle.provenance["own_parts"] == ["loss", "optimizer", "schedule"]
    assert lv.Bundle.load(tmp_path / "run" / "bundle").provenance["own_parts"] == ["loss", "optimizer", "schedule"]
    test = lv.predict(bundle, manifest.subset("test"), device="cpu")
    assert bundle.operating_point is not None
    found = lv.evaluate(test, operating_point=bundle.operating_point, config=lv.Config().evaluation)
    assert found.figures["label"]["auroc"].value > 0.9
    assert (told[-1] == 1.0) or len(told) == 8
