"""Instance norms: torch's own figures, independence of other samples, replacement of batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.assemble import make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.norms import InstanceNorm, fold_batch_norms
from lepton_vision.models.resnet import ResNet
from lepton_vision.types import Backbone


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
