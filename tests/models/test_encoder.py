"""The encoder against torchvision's ResNets: names, shapes and every bit of the output."""

from __future__ import annotations

import pytest
import torch
import torchvision

from lepton_vision.config import Config
from lepton_vision.models.encoder import DESIGNS, STAGES, Encoder, skeleton, stem_kind, torchvision_name

EXPECTED_WIDTH = {"resnet18": 512, "resnet34": 512}


def randomize(module: torch.nn.Module) -> None:
    """Running figures as after training: with mean 0 and variance 1 an exchanged norm layer would go unseen."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bias", "bn1.weight", "bn2.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def oracle(backbone: str) -> tuple[Encoder, torch.nn.Module]:
    """An encoder and torchvision's network with the same weights."""
    theirs = getattr(torchvision.models, backbone)(num_classes=7)
    randomize(theirs)
    theirs.fc = torch.nn.Identity()
    state = theirs.state_dict()
    ours = Encoder(backbone, channels=3)
    ours.load_state_dict({name: state[torchvision_name(name)] for name in ours.state_dict()})
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("backbone", sorted(DESIGNS))
def test_every_backbone_has_torchvisions_tensors_in_its_order(backbone: str) -> None:
    ours = skeleton(backbone).state_dict()
    with torch.device("meta"):
        theirs = getattr(torchvision.models, backbone)().state_dict()
    found = [(torchvision_name(name), tensor.shape) for name, tensor in ours.items()]
    assert found == [(name, tensor.shape) for name, tensor in theirs.items() if not name.startswith("fc.")]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_features_are_torchvisions_bit_by_bit(backbone: str) -> None:
    ours, theirs = oracle(backbone)
    images = torch.randn(2, 3, 72, 65, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("count", range(6))
def test_lower_and_upper_stages_make_the_whole(count: int) -> None:
    encoder = Encoder("resnet18", channels=1).eval()
    randomize(encoder)
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = encoder.lower(images, count)
        assert torch.equal(encoder.upper(maps, below=count), encoder.features(images))
    expected = [(1, 64, 64), (64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512,)]
    assert maps.shape[1:] == expected[count]


def test_training_mode_gives_torchvisions_gradients() -> None:
    ours, theirs = oracle("resnet18")
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for network in (ours.train(), theirs.train()):
        network(images).square().sum().backward()
    assert torch.equal(ours.layer1[0].conv1.weight.grad, theirs.layer1[0].conv1.weight.grad)
    assert torch.equal(ours.stem.bn1.running_mean, theirs.bn1.running_mean)


@pytest.mark.parametrize("backbone", sorted(DESIGNS))
def test_shapes_on_the_way(backbone: str) -> None:
    encoder = skeleton(backbone, channels=5).eval()
    maps = encoder.pyramid(torch.empty(2, 5, 64, 96, device="meta"))
    width = EXPECTED_WIDTH.get(backbone, 2048)
    assert tuple(maps) == STAGES
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(16, 24), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert maps["layer4"].shape[1] == width == encoder.width
    assert encoder.features(torch.empty(2, 5, 64, 96, device="meta")).shape == (2, width)


def test_the_small_stem_keeps_the_resolution() -> None:
    encoder = Encoder("resnet18", channels=1, stem="small")
    maps = encoder.pyramid(torch.zeros(1, 1, 28, 28))
    assert [m.shape[2] for m in maps.values()] == [28, 28, 14, 7, 4]


@pytest.mark.parametrize(
    ("size", "stem", "expected"),
    [
        ("[64, 64]", "auto", "small"),
        ("[64, 65]", "auto", "standard"),
        ("[224, 224]", "small", "small"),
        ("[28, 28]", "standard", "standard"),
    ],
)
def test_the_stem_follows_the_size_of_the_input(size: str, stem: str, expected: str) -> None:
    assert stem_kind(Config().override(f"preprocess.size={size}", f"model.stem={stem}")) == expected


def test_features_stay_float32_under_autocast() -> None:
    encoder = Encoder("resnet18", channels=1, stem="small").eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(torch.randn(2, 1, 32, 32))
    assert features.dtype == torch.float32
    assert not torch.equal(features, features.bfloat16().float())  # a mean of bf16 maps, not itself rounded to bf16
