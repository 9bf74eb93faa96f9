"""Weights of 3-D networks from files as MedicalNet publishes them, made on the spot from MONAI's networks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import WeightsError
from lepton_vision.models import build_model
from lepton_vision.models.resnet import ResNet
from lepton_vision.models.weights import load_weights
from lepton_vision.types import Target

nets = pytest.importorskip("monai.networks.nets")
SHORTCUTS = {"resnet10": "B", "resnet18": "A", "resnet50": "B"}
SICK = Target("sick", "binary", ("no", "yes"))


def published(backbone: str, path: Path) -> Any:
    """A file with MedicalNet's layout (a state dict with prefixes under one key), and the network it is of."""
    torch.manual_seed(3)
    model = getattr(nets, backbone)(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        feed_forward=False,
        shortcut_type=SHORTCUTS[backbone],
        bias_downsample=False,
    ).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, path)
    return model


@pytest.mark.parametrize("backbone", sorted(SHORTCUTS))
def test_a_file_of_medicalnet_gives_its_features(backbone: str, tmp_path: Path) -> None:
    model = published(backbone, tmp_path / "start.pth")
    encoder = ResNet(backbone, channels=1, dims=3).eval()  # type: ignore[arg-type]
    said = load_weights(encoder, str(tmp_path / "start.pth"))
    assert said == f"file start.pth: {len(encoder.state_dict())} tensors"
    volume = torch.randn(1, 1, 33, 40, 36)
    with torch.inference_mode():
        assert torch.allclose(encoder(volume), model(volume), atol=1e-5)


def test_the_configuration_names_it_and_further_windows_share_the_stem(tmp_path: Path) -> None:
    model = published("resnet18", tmp_path / "start.pth")
    config = Config(targets=(SICK,)).override(
        "model.backbone=resnet18", f"model.weights={tmp_path / 'start.pth'}", "volume.view=3d",
        "preprocess.windows=[lung, bone]", "model.stem=standard",
    )  # fmt: skip
    network = build_model(config).eval()
    assert network.start.endswith("stem 1 x 7x7x7 -> 2 x 7x7x7")
    volume = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        found = network.features(volume.expand(1, 2, 32, 32, 32))
        assert torch.allclose(found, model(volume), atol=1e-4)


def test_the_small_stem_keeps_the_response_to_an_even_volume(tmp_path: Path) -> None:
    model = published("resnet10", tmp_path / "start.pth")
    encoder = ResNet("resnet10", channels=1, dims=3, stem="small")
    load_weights(encoder, str(tmp_path / "start.pth"))
    total = model.conv1.weight.sum(dim=(2, 3, 4))
    assert encoder.stem.conv1.weight.shape == (64, 1, 3, 3, 3)
    assert torch.allclose(encoder.stem.conv1.weight.sum(dim=(2, 3, 4)), total, atol=1e-4)


def test_what_does_not_fit_is_refused_with_advice(tmp_path: Path) -> None:
    published("resnet18", tmp_path / "start.pth")
    with pytest.raises(WeightsError, match=r"Set model\.backbone to 'resnet18'"):
        load_weights(ResNet("resnet34", channels=1, dims=3), str(tmp_path / "start.pth"))
    with pytest.raises(WeightsError, match="Use weights of a 2-D network"):
        load_weights(ResNet("resnet18", channels=1), str(tmp_path / "start.pth"))
    with pytest.raises(WeightsError, match="no ImageNet weights for resnet18 in 3 dimensions"):
        load_weights(ResNet("resnet18", channels=1, dims=3), "imagenet")


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code of the file ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(1)}, "optimizer": Harm()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        load_weights(ResNet("resnet18", channels=1, dims=3), str(tmp_path / "bad.pth"))
    assert capsys.readouterr().out == ""
    assert pickle.dumps(Harm())
