"""The linear probe on cached features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyDataset, TinyNetwork, run_tiny, tiny_config, tiny_loader

from lepton_vision.errors import ConfigError

PROBE = ("train.freeze_stages=5", "train.lr=0.05")


def test_heads_learn_the_same_from_cached_features_as_through_the_encoder(tmp_path: Path) -> None:
    """Without augmentation and dropout, both ways show the heads the same features in the same order."""

    class Still(TinyDataset):
        def _image(self, row: int, seed: int | None) -> object:
            return self.images[row]

    slow = run_tiny(tmp_path / "slow", tiny_config(*PROBE), model=TinyNetwork(dropout=0.0), loader=tiny_loader(Still()))
    dataset = Still()
    fast = run_tiny(
        tmp_path / "fast",
        tiny_config(*PROBE, "train.cache_features=true"),
        model=TinyNetwork(dropout=0.0),
        loader=tiny_loader(dataset),
    )
    assert dataset.seen == [(row, None) for row in range(22)], "each image once, without augmentation"
    assert fast.state.keys() == slow.state.keys()
    for name, value in slow.state.items():
        torch.testing.assert_close(fast.state[name], value, rtol=1e-4, atol=1e-5)
    assert [row["epoch"] for row in fast.history] == [0, 1, 2]


def test_only_the_heads_move(tmp_path: Path) -> None:
    before = TinyNetwork().state_dict()
    found = run_tiny(tmp_path, tiny_config(*PROBE, "train.cache_features=true", "train.ema_decay=0.5")).state
    assert {name for name in before if not torch.equal(before[name], found[name])} == {
        "heads.linear.finding.weight",
        "heads.linear.finding.bias",
    }


def test_killed_probe_resumes_with_the_same_bits(tmp_path: Path) -> None:
    config = tiny_config(*PROBE, "train.cache_features=true", "train.checkpoint_seconds=0")

    class Killed(BaseException):
        pass

    def kill(row: dict[str, object]) -> None:
        if row["step"] == 8:
            raise Killed

    expected = run_tiny(tmp_path / "whole", config)
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", config, progress=kill)
    found = run_tiny(tmp_path / "cut", config, resume=True)
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())


@pytest.mark.parametrize("option", ["train.freeze_stages=4", "train.unfreeze_every=2"])
def test_encoder_that_moves_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match="freeze_stages=5 and unfreeze_every=0") as caught:
        run_tiny(tmp_path, tiny_config(*PROBE, "train.cache_features=true", option))
    assert caught.value.key == "train.cache_features"
