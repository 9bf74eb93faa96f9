"""The encoder against torchvision's ResNets: names, shapes and every bit of the output."""

from __future__ import annotations

import pytest
import torch
import torchvision

from lepton_vision.config import Config
from lepton_vision.models.encoders import lower, upper
from lepton_vision.models.resnet import DESIGNS, ResNet, Widen, global_average, meta_resnet, stem_kind, torchvision_name

EXPECTED_WIDTH = {"resnet10": 512, "resnet18": 512, "resnet34": 512}
TORCHVISION = sorted(set(DESIGNS) - {"resnet10"})
VOLUMES = ["resnet10", "resnet18", "resnet34", "resnet50"]


def randomize(module: torch.nn.Module) -> None:
    """Running figures as after training: with mean 0 and variance 1 an exchanged norm layer would go unseen."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bias", "bn1.weight", "bn2.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def oracle(backbone: str) -> tuple[ResNet, torch.nn.Module]:
    """An encoder and torchvision's network with the same weights."""
    theirs = getattr(torchvision.models, backbone)(num_classes=7)
    randomize(theirs)
    theirs.fc = torch.nn.Identity()
    state = theirs.state_dict()
    ours = ResNet(backbone, channels=3)
    ours.load_state_dict({name: state[torchvision_name(name)] for name in ours.state_dict()})
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_every_backbone_has_torchvisions_tensors_in_its_order(backbone: str) -> None:
    ours = meta_resnet(backbone).state_dict()
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
    encoder = ResNet("resnet18", channels=1).eval()
    randomize(encoder)
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = lower(encoder, images, count)
        assert torch.equal(upper(encoder, maps, below=count), encoder.features(images))
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
    encoder = meta_resnet(backbone, channels=5).eval()
    maps = encoder.skips(torch.empty(2, 5, 64, 96, device="meta"))
    width = EXPECTED_WIDTH.get(backbone, 2048)
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // stride, 96 // stride) for stride in encoder.strides]
    assert tuple(m.shape[1] for m in maps) == encoder.depths
    assert maps[-1].shape[1] == width == encoder.width
    assert encoder.features(torch.empty(2, 5, 64, 96, device="meta")).shape == (2, width)


def test_the_small_stem_keeps_the_resolution() -> None:
    encoder = ResNet("resnet18", channels=1, stem="small")
    maps = encoder.skips(torch.zeros(1, 1, 28, 28))
    assert [m.shape[2] for m in maps] == [28, 28, 14, 7, 4]


def test_the_maps_of_a_decoder_are_those_of_the_stages() -> None:
    encoder = ResNet("resnet18", channels=1).eval()
    randomize(encoder)
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = encoder.skips(images)
        assert torch.equal(encoder.stem.pool(maps[0]), lower(encoder, images, 1))
        for count in range(2, 5):
            assert torch.equal(maps[count - 1], lower(encoder, images, count))
        assert torch.equal(global_average(maps[-1]), encoder.features(images))


@pytest.mark.parametrize("backbone", VOLUMES)
def test_volumes_go_through_monais_network_bit_by_bit(backbone: str) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    kind = {"resnet18": "A", "resnet34": "A"}.get(backbone, "B")
    theirs = getattr(nets, backbone)(
        spatial_dims=3, n_input_channels=2, conv1_t_stride=2, shortcut_type=kind, bias_downsample=False, num_classes=3
    )
    randomize(theirs)
    theirs.fc = torch.nn.Identity()
    state = theirs.eval().state_dict()
    ours = ResNet(backbone, channels=2, dims=3).eval()
    assert [torchvision_name(name) for name in ours.state_dict()] == list(state)
    ours.load_state_dict({name: state[torchvision_name(name)] for name in ours.state_dict()})
    volumes = torch.randn(2, 2, 33, 40, 36, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(volumes), theirs(volumes))


def test_a_shortcut_without_weights_lets_the_gradient_through() -> None:
    maps = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    widened = Widen(6, stride=2)(maps)
    assert widened.shape == (1, 6, 2, 2, 2)
    widened.sum().backward()
    assert maps.grad is not None
    assert maps.grad.sum() == 2 * 8


def test_a_narrow_encoder_has_fewer_channels_everywhere() -> None:
    encoder = meta_resnet("resnet10", channels=1, dims=3, planes=16, stem="small")
    assert encoder.depths == (16, 16, 32, 64, 128)
    assert encoder.width == 128


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
    encoder = ResNet("resnet18", channels=1, stem="small").eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(torch.randn(2, 1, 32, 32))
    assert features.dtype == torch.float32
    assert not torch.equal(features, features.bfloat16().float())  # a mean of bf16 maps, not itself rounded to bf16
