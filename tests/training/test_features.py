"""Training on cached features: equal to the whole network, computed once, kept for the next run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TinyDataset, TinyNetwork, run_tiny, tiny_config, tiny_ensemble, tiny_loader

from lepton_vision.errors import ConfigError
from lepton_vision.training import features
from lepton_vision.training.features import FixedStages, UpperPart

PROBE = ("train.freeze_stages=5", "train.lr=0.05")
CACHED = (*PROBE, "train.cache_features=true")


class Still(TinyDataset):
    """Without augmentation, both ways show the upper stages the same images."""

    def _image(self, row: int, seed: int | None) -> np.ndarray:
        return self.images[row]


def network(members: int) -> torch.nn.Module:
    return TinyNetwork(dropout=0.0) if members == 1 else tiny_ensemble(members, dropout=0.0)


@pytest.mark.parametrize(
    ("count", "norms", "members"),
    [(5, False, 1), (4, True, 1), (4, False, 1), (1, True, 1), (5, False, 2), (4, True, 2)],
)
def test_upper_stages_learn_the_same_from_cached_maps_as_through_the_network(
    tmp_path: Path, count: int, norms: bool, members: int
) -> None:
    options = (f"train.freeze_stages={count}", f"train.freeze_norms={norms}", "train.lr=0.02")
    slow = run_tiny(tmp_path / "slow", tiny_config(*options), model=network(members), loader=tiny_loader(Still()))
    dataset = Still()
    fast = run_tiny(
        tmp_path / "fast",
        tiny_config(*options, "train.cache_features=true"),
        model=network(members),
        loader=tiny_loader(dataset),
    )
    assert dataset.seen == [(row, None) for row in range(22)], "each image once, without augmentation"
    assert fast.state.keys() == slow.state.keys()
    start = network(members).state_dict()
    assert any(not torch.equal(fast.state[name], value) for name, value in start.items())
    for name, value in slow.state.items():
        torch.testing.assert_close(fast.state[name], value, rtol=1e-4, atol=1e-5)
    assert [row["epoch"] for row in fast.history] == [0, 1, 2]


def test_only_the_heads_of_a_probe_move(tmp_path: Path) -> None:
    before = TinyNetwork().state_dict()
    found = run_tiny(tmp_path, tiny_config(*CACHED, "train.ema_decay=0.5")).state
    assert {name for name in before if not torch.equal(before[name], found[name])} == {
        "heads.linear.finding.weight",
        "heads.linear.finding.bias",
    }


def test_killed_probe_resumes_with_the_same_bits(tmp_path: Path) -> None:
    config = tiny_config(*CACHED, "train.checkpoint_seconds=0")

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


@pytest.mark.parametrize("option", ["train.freeze_stages=0", "train.unfreeze_every=2"])
def test_stages_that_move_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=r"freeze_stages of at least 1 and unfreeze_every=0") as caught:
        run_tiny(tmp_path, tiny_config(*CACHED, option))
    assert caught.value.key == "train.cache_features"


def test_features_that_memory_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_memory_bytes", lambda: 1000.0)
    with pytest.raises(ConfigError, match=r"5 fixed stages make of 22 images.*half of this machine's memory"):
        run_tiny(tmp_path, tiny_config(*CACHED))


def fixed(config_options: tuple[str, ...] = CACHED, *, folder: Path | None) -> FixedStages:
    return FixedStages(tiny_config(*config_options), device=torch.device("cpu"), precision="fp32", folder=folder)


def test_a_feature_does_not_depend_on_what_it_was_computed_beside() -> None:
    model = TinyNetwork()
    whole = fixed(folder=None).loader(model, tiny_loader(TinyDataset(22))).features
    ragged = fixed(folder=None).loader(model, tiny_loader(TinyDataset(21))).features
    assert torch.equal(whole[20], ragged[20]), "the last batch had four images, now one"


def test_the_next_run_reads_what_the_first_one_computed(tmp_path: Path) -> None:
    first, second = TinyDataset(), TinyDataset(26)
    model = TinyNetwork()
    found = fixed(folder=tmp_path).loader(model, tiny_loader(first)).features
    again = fixed(folder=tmp_path).loader(model, tiny_loader(second)).features
    assert second.seen == [(row, None) for row in range(22, 26)], "only rows that the store lacks are read"
    assert torch.equal(found, again[:22])


@pytest.mark.parametrize("change", ["weights", "preprocess", "stages"])
def test_other_weights_or_settings_never_meet_old_features(tmp_path: Path, change: str) -> None:
    model, options = TinyNetwork(), CACHED
    fixed(folder=tmp_path).loader(model, tiny_loader())
    if change == "weights":
        with torch.no_grad():
            model.encoder.layer4[0].bias += 1.0
    elif change == "preprocess":
        options = (*CACHED, "preprocess.fit=crop")
    else:
        options = (*CACHED, "train.freeze_stages=4")
    dataset = TinyDataset()
    fixed(options, folder=tmp_path).loader(model, tiny_loader(dataset))
    assert len(dataset.seen) == 22


def test_weights_above_the_fixed_stages_do_not_count(tmp_path: Path) -> None:
    model, options = TinyNetwork(), (*CACHED, "train.freeze_stages=4")
    fixed(options, folder=tmp_path).loader(model, tiny_loader())
    with torch.no_grad():
        model.encoder.layer4[0].bias += 1.0
    dataset = TinyDataset()
    fixed(options, folder=tmp_path).loader(model, tiny_loader(dataset))
    assert dataset.seen == []


def test_a_damaged_store_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TinyNetwork()
    expected = fixed(folder=tmp_path).loader(model, tiny_loader()).features
    (path,) = tmp_path.glob("*.features")
    with sqlite3.connect(path) as opened:
        (entry,) = opened.execute("SELECT entry FROM features WHERE key = 'image 3'").fetchone()
        flipped = bytes([*entry[:-40], entry[-40] ^ 1, *entry[-39:]])  # among the figures: safetensors would read it
        opened.executemany("UPDATE features SET entry = ? WHERE key = ?", [(flipped, "image 3"), (b"", "image 5")])
    opened.close()
    dataset = TinyDataset()
    assert torch.equal(fixed(folder=tmp_path).loader(model, tiny_loader(dataset)).features, expected)
    assert dataset.seen == [(3, None), (5, None)]
    assert caplog.messages == ["An entry of the store of features is damaged: computed anew."]
    whole = path.read_bytes()
    for damaged in (b"no database at all" * 100, whole[:5000], whole[:4100] + b"\xff" * 3000 + whole[7100:]):
        caplog.clear()
        path.write_bytes(damaged)
        assert torch.equal(fixed(folder=tmp_path).loader(model, tiny_loader()).features, expected)
        assert caplog.messages == ["The store of features is damaged: they are computed anew."]
        dataset = TinyDataset()
        assert torch.equal(fixed(folder=tmp_path).loader(model, tiny_loader(dataset)).features, expected)
        assert dataset.seen == []


def test_the_store_stops_growing_at_its_bound(tmp_path: Path) -> None:
    options = (*CACHED, "cache.max_gb=0.000001")
    model = TinyNetwork()
    expected = fixed(folder=None).loader(model, tiny_loader()).features
    assert torch.equal(fixed(options, folder=tmp_path).loader(model, tiny_loader()).features, expected)
    with sqlite3.connect(next(tmp_path.glob("*.features"))) as opened:
        assert opened.execute("SELECT COUNT(*) FROM features").fetchone() == (0,)
    opened.close()


def test_the_upper_part_shares_the_weights_of_the_network() -> None:
    model = TinyNetwork(dropout=0.0).eval()
    upper = UpperPart(model, 2).eval()
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(upper(model.lower(images, 2)).logits["finding"], model(images).logits["finding"])
    assert {id(p) for p in upper.parameters()} == {id(p) for p in model.parameters()}
