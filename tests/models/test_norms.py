"""Norms per sample and per feature: torch's own figures, independence of other samples, folding into weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.assemble import make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.heads import Heads
from lepton_vision.models.norms import InstanceNorm, RunningNorm, fold_batch_norms, fold_running_norms
from lepton_vision.models.resnet import ResNet
from lepton_vision.types import Backbone, Target


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_it_gives_what_torch_gives_and_keeps_the_format(batch: int, dims: int, training: bool) -> None:
    ours = InstanceNorm(4).train(training)
    theirs = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(4, affine=True).train(training)
    with torch.no_grad():
        for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            mine.copy_(torch.randn(4))
            other.copy_(mine)  # type: ignore[arg-type]
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    maps = (torch.randn(batch, 4, *(6,) * dims) * 3 + 1).contiguous(memory_format=layout)
    found = ours(maps)
    assert torch.allclose(found, theirs(maps), atol=1e-5)
    assert found.is_contiguous(memory_format=layout)
    assert torch.allclose(ours(maps[:1]), found[:1], atol=1e-6)


def test_a_map_of_one_position_gives_the_shift() -> None:
    layer = InstanceNorm(2)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
    found = layer(torch.randn(2, 2, 1, 1, 1)).flatten(1)
    assert torch.allclose(found, layer.bias.expand(2, 2), atol=1e-3)


def test_a_network_and_its_bundle_have_no_other_norm() -> None:
    config = Config().override(
        "model.norm=instance", "model.backbone=resnet10", "model.width=8", "volume.view=3d",
        "segmentation.structures={a: 1}", "model.stem=small",
    )  # fmt: skip
    network = make_network(config, targets=())
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert not any("running" in name for name in network.state_dict())
    volumes = torch.randn(2, 1, 16, 16, 16)
    loaded = Bundle(config=config, targets=(), state=network.state_dict()).network()
    with torch.inference_mode():
        both, alone = loaded(volumes).mask_logits, loaded(volumes[:1]).mask_logits
        trained = network.train()(volumes).mask_logits
    assert both is not None
    assert alone is not None
    assert trained is not None
    assert torch.allclose(both[:1], alone, atol=1e-5)
    assert torch.allclose(both, trained, atol=1e-5)
    with pytest.raises(ConfigError, match="batch norms"):
        config.override("model.weights=imagenet")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_folded_batch_norms_leave_the_function_as_it_is(backbone: Backbone) -> None:
    torch.manual_seed(0)
    encoder = ResNet(backbone, channels=3).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training: nothing is 0 or 1
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        true = encoder(images)
        fold_batch_norms(encoder)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
        torch.testing.assert_close(encoder(images), true, rtol=1e-3, atol=1e-3 * float(true.abs().max()))


def test_running_figures_become_those_of_all_features() -> None:
    norm, rng = RunningNorm(3), np.random.default_rng(0)
    whole = rng.normal((5.0, -8.0, 0.1), (0.5, 2.0, 3.0), (4000, 3)).astype(np.float32)
    for part in np.split(whole, 500):
        seen = norm(torch.from_numpy(part))
    assert torch.isfinite(seen).all()
    found = norm.eval()(torch.from_numpy(whole)).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.4)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=0.3)


def test_the_first_batches_count_alike_and_one_sample_will_do() -> None:
    """By hand: means 4, then (4 + 6) / 2; squares about the mean so far 0, then (0 + 1) / 2."""
    norm = RunningNorm(1)
    first, second = norm(torch.tensor([[4.0]])), norm(torch.tensor([[6.0]]))
    assert (norm.mean.item(), norm.variance.item()) == (5.0, 0.5)
    assert (first.item(), second.item()) == (0.0, pytest.approx(2.0**0.5, abs=1e-4))


def test_heads_say_the_same_once_their_norm_is_folded() -> None:
    targets = (Target("sick", "binary", ("no", "yes")), Target("organ", "multiclass", ("a", "b", "c")))
    heads, plain = Heads(4, targets), Heads(4, targets).eval()
    heads.standardise()
    for _ in range(5):
        heads(torch.randn(8, 4) * 2 - 7)
    plain.load_state_dict(fold_running_norms(heads.eval().state_dict()))
    features = torch.randn(6, 4) * 2 - 7
    for name, logits in heads(features).items():
        torch.testing.assert_close(plain(features)[name], logits)


def test_a_rare_class_is_told_by_what_raises_a_feature_not_by_its_mean() -> None:
    """One feature, about 7 where there is nothing and 9 where there is something, as one image in four."""
    torch.manual_seed(0)
    heads = Heads(1, (Target("sick", "binary", ("no", "yes")),))
    heads.standardise()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=0.01)
    for _ in range(60):
        truth = (torch.rand(8, 1) < 0.25).float()
        logits = heads(7.0 + 2.0 * truth + 0.5 * torch.randn(8, 1))["sick"]
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, truth).backward()
        optimizer.step()
    low, high = heads.eval()(torch.tensor([[7.0], [9.0]]))["sick"].flatten().tolist()
    assert high > low + 0.5
