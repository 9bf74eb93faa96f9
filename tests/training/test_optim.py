"""Groups, schedule, frozen stages, averaged weights."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import TinyNetwork, tiny_config, tiny_ensemble
from torch import nn

from lepton_vision.models import build_model
from lepton_vision.models.norms import RunningNorm
from lepton_vision.training.optim import (
    WeightAverage,
    frozen_stages,
    make_optimizer,
    rate_at,
    set_frozen,
    set_rate,
    standardise_heads,
)


def test_norms_and_biases_are_not_decayed_and_every_parameter_is_in_one_group() -> None:
    model = TinyNetwork()
    config = tiny_config("train.weight_decay=0.3", "train.encoder_lr_scale=0.1").train
    optimizer = make_optimizer(model, config, device=torch.device("cpu"))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    weights = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert decayed == weights
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.3}


def test_encoder_gets_its_share_of_the_rate() -> None:
    model = TinyNetwork()
    optimizer = make_optimizer(model, tiny_config("train.encoder_lr_scale=0.1").train, device=torch.device("cpu"))
    set_rate(optimizer, 0.5)
    encoder = {id(p) for p in model.encoder.parameters()}
    for group in optimizer.param_groups:
        is_encoder = {id(p) in encoder for p in group["params"]}
        assert is_encoder == {math.isclose(group["lr"], 0.05)}


def test_schedule_is_torchs_warm_up_and_cosine() -> None:
    steps, warmup, floor = 20, 5, 0.1
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - 1 - warmup, eta_min=floor)
    expected = [(step + 1) / warmup for step in range(warmup)]
    for _ in range(steps - warmup):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    found = [rate_at(step, steps=steps, warmup=warmup, floor=floor) for step in range(steps)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (3, 10), (2, 1)])
def test_schedule_of_a_tiny_run_stays_in_range(steps: int, warmup: int) -> None:
    assert all(0.0 < rate_at(step, steps=steps, warmup=warmup, floor=0.01) <= 1.0 for step in range(steps))


def test_stages_are_freed_from_the_top() -> None:
    config = tiny_config("train.freeze_stages=4", "train.unfreeze_every=2").train
    assert [frozen_stages(config, epoch) for epoch in range(10)] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert frozen_stages(tiny_config("train.freeze_stages=4").train, 9) == 4


def test_frozen_norms_keep_their_running_figures() -> None:
    model = TinyNetwork()
    set_frozen(model, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(4, 1, 8, 8)).logits["finding"].sum().backward()
    moved = {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"layer2", "layer3", "layer4"}
    has_gradient = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert has_gradient == {"layer2", "layer3", "layer4", "linear"}
    set_frozen(model, 0)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norms_of_a_trained_stage_stay_fixed_where_asked_for() -> None:
    model = TinyNetwork()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_frozen(model, 3, norms=True)
    model(torch.randn(4, 1, 8, 8)).logits["finding"].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    has_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    convolutions = {f"encoder.layer{k}.0.{kind}" for k in (3, 4) for kind in ("weight", "bias")}
    assert has_gradient == convolutions | {"heads.linear.finding.weight", "heads.linear.finding.bias"}
    set_frozen(model, 0)
    assert all(module.training for module in model.modules()), "a later epoch without it frees them"


def test_all_members_of_an_ensemble_are_frozen_and_slowed_down_alike() -> None:
    model, config = tiny_ensemble(2), tiny_config("train.encoder_lr_scale=0.1", "train.weight_decay=0.3").train
    optimizer = make_optimizer(model, config, device=torch.device("cpu"))
    found = {
        id(p): (group["lr_scale"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        expected = (0.1 if ".encoder." in name else 1.0, 0.3 if parameter.ndim > 1 else 0.0)
        assert found[id(parameter)] == expected, name
    set_frozen(model, 2, norms=True)
    for member in model.members:
        trained = {name.rpartition(".")[0] for name, p in member.named_parameters() if p.requires_grad}
        assert trained == {"encoder.layer2.0", "encoder.layer3.0", "encoder.layer4.0", "heads.linear.finding"}
        assert not any(module.training for module in member.modules() if isinstance(module, nn.BatchNorm2d))
        assert not member.encoder.layer1.training
        assert member.encoder.layer2.training
    set_frozen(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_average_is_torchs_own_with_copied_buffers() -> None:
    model = TinyNetwork()
    ours = WeightAverage(model, 0.999)
    theirs = torch.optim.swa_utils.AveragedModel(
        model,
        avg_fn=lambda old, new, n: torch.lerp(old, new, 1.0 - min(0.999, (1 + n) / (10 + n))),
    )
    theirs.update_parameters(model)  # the first call copies: it sets the same start
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            model(torch.randn(4, 1, 8, 8))
        ours.update(model)
        theirs.update_parameters(model)
    for mine, other in zip(ours.model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(ours.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, other)
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())


def test_heads_that_see_evidence_learn_at_ten_times_the_rate() -> None:
    settings = ("model.backbone=resnet10", "model.width=4", "segmentation.structures={a: 1}")
    for mode, rates in (("evidence", {10.0}), ("joint", {1.0})):
        config = tiny_config(*settings, f"segmentation.mode={mode}")
        model = build_model(config)
        optimizer = make_optimizer(model, config.train, device=torch.device("cpu"))
        rate = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
        assert {rate[id(p)] for p in model.heads.parameters()} == rates
        assert {rate[id(p)] for p in (*model.encoder.parameters(), *model.decoder.parameters())} == {1.0}


@pytest.mark.parametrize(
    ("change", "is_standardised"),
    [
        ((), True),
        (("model.members=2",), True),
        (("segmentation.mode=joint",), False),
        (("model.init_from=a_bundle", "model.keep_heads=true"), False),
    ],
)
def test_heads_that_see_evidence_learn_on_figures_around_0(change: tuple[str, ...], is_standardised: bool) -> None:
    """Unless they are taken over: their weights are for the figures as they are."""
    small = ("model.backbone=resnet10", "model.width=4", "segmentation.structures={a: 1}", "segmentation.mode=evidence")
    config = tiny_config(*small, *change)
    model = build_model(config.override("model.init_from=null", "model.keep_heads=false"))
    standardise_heads(model, config)
    assert {isinstance(member.heads.norm, RunningNorm) for member in model.members} == {is_standardised}
