"""Attention pooling over slices: weights, padding, and learning of the decisive slice."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.assemble import empty_network, make_network
from lepton_vision.models.attention import AttentionPool, as_slices
from lepton_vision.models.network import Network
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


def bag_config() -> Config:
    return Config(targets=(SICK,)).override(
        "volume.view=slices", "model.backbone=resnet10", "model.width=8", "model.stem=small"
    )


def network() -> Network:
    torch.manual_seed(0)
    return make_network(bag_config())


def test_weights_are_those_of_the_paper() -> None:
    torch.manual_seed(1)
    pool = AttentionPool(6)
    features = torch.randn(2, 5, 6)
    is_there = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = pool.weights(features, is_there)
    for bag in range(2):
        scores = []
        for h in features[bag][is_there[bag]]:
            left = torch.tanh(pool.value.weight @ h + pool.value.bias)
            right = torch.sigmoid(pool.gate.weight @ h + pool.gate.bias)
            scores.append(torch.dot(pool.score.weight[0], left * right) + pool.score.bias[0])
        expected = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        assert torch.allclose(found[bag][is_there[bag]], expected, atol=1e-6)
    assert found[1, 3:].tolist() == [0.0, 0.0]
    joined = pool(features, is_there)
    assert torch.allclose(joined[1], (found[1, :3, None] * features[1, :3]).sum(dim=0), atol=1e-6)
    nothing = pool.weights(features, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.allclose(nothing, torch.full((2, 5), 0.2))


def test_padding_changes_nothing_and_neither_does_the_order() -> None:
    model = network().eval()
    volume = torch.randn(2, 1, 4, 16, 16)
    padded = torch.cat([volume, torch.full((2, 1, 3, 16, 16), -2.0)], dim=2)
    with torch.inference_mode():
        expected = model(volume).logits["sick"]
        assert torch.allclose(model(padded).logits["sick"], expected, atol=1e-5)
        assert torch.allclose(model(padded.flip(2)).logits["sick"], expected, atol=1e-5)
        assert not torch.allclose(model(volume * 1.5).logits["sick"], expected, atol=1e-5)
    slices, is_there = as_slices(padded)
    assert is_there.tolist() == [[True] * 4 + [False] * 3] * 2
    assert torch.equal(slices[8], padded[1, :, 1])


def test_other_axes_are_refused_and_the_empty_network_has_the_same_tensors() -> None:
    with pytest.raises(ConfigError, match="D, H, W"):
        network()(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ConfigError, match=r"volume\.view 3d"):
        bag_config().override("segmentation.structures={a: 1}")
    with pytest.raises(ConfigError, match="not of volumes"):
        bag_config().override("train.cache_features=true", "train.freeze_stages=5")
    full, empty = network().state_dict(), empty_network(bag_config(), channels=1, targets=(SICK,)).state_dict()
    assert {name: t.shape for name, t in full.items()} == {name: t.shape for name, t in empty.items()}
    model = network()
    parts = [id(p) for stage in model.parameter_stages().values() for p in stage.parameters()]
    assert sorted(parts) == sorted(id(p) for p in model.parameters())


def test_attention_learns_which_slice_matters_from_the_label_of_the_volume() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        volumes = torch.randn(count, 1, 8, 12, 12, generator=generator)
        labels = torch.arange(count) % 2
        places = torch.randint(0, 8, (count,), generator=generator)
        for number in range(count):
            if labels[number]:
                volumes[number, 0, places[number], 3:9, 3:9] += 2.0
        return volumes, labels.float(), places

    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        volumes, labels, _ = draw(8)
        loss = functional.binary_cross_entropy_with_logits(model(volumes).logits["sick"].squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    volumes, labels, places = draw(40)
    model.eval()
    assert model.attention is not None
    with torch.inference_mode():
        found = model(volumes).logits["sick"].squeeze(1)
        slices, is_there = as_slices(volumes)
        weights = model.attention.weights(model.encoder.features(slices).reshape(40, 8, -1), is_there)
    assert ((found > 0) == (labels > 0)).float().mean() >= 0.9
    is_sick = labels > 0
    assert (weights.argmax(dim=1) == places)[is_sick].float().mean() >= 0.9
