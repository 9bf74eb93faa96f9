"""Optimiser step of an ensemble: each member moves as it would alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny import plain_descent, run_tiny, tiny_config

from lepton_vision.models import build_model

SMALL = (
    "preprocess.size=[8, 8]",
    "model.backbone=resnet10",
    "model.width=4",
    "train.epochs=2",
    "train.ema_decay=0.5",
    "train.freeze_stages=1",
    "train.unfreeze_every=1",
)


@pytest.mark.parametrize("change", ["train.clip_norm=0", "train.clip_norm=0.02", "train.balance=uncertainty"])
def test_members_learn_as_they_would_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """The mean of two losses halves the gradient; twice the rate makes up for it where the gradient is followed."""
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    config = tiny_config(*SMALL, change, "model.members=2", "train.lr=0.02")
    model = build_model(config)
    alone = [copy.deepcopy(member) for member in model.members]
    before = copy.deepcopy(model.state_dict())
    together = run_tiny(tmp_path / "together", config, model=model)
    after = model.state_dict()
    assert together.state.keys() == before.keys() == after.keys()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert not {name for name in still if "conv" in name or name.endswith("target_finding.weight")}
    for place, single in enumerate(alone):
        run_tiny(tmp_path / str(place), config.override("model.members=1", "train.lr=0.01"), model=single)
        for name, value in single.state_dict().items():
            torch.testing.assert_close(after[f"members.{place}.{name}"], value, rtol=1e-4, atol=1e-5)
    if model.log_variance is not None:
        assert not torch.equal(model.log_variance[0], model.log_variance[1])
