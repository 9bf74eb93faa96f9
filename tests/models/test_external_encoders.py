"""Encoders of torchvision and MONAI: to the bit what their own networks compute, and their files fill them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.config.model import SOURCES
from lepton_vision.errors import ConfigError, WeightsError
from lepton_vision.inference.explain import grad_cam
from lepton_vision.models.encoders import fold
from lepton_vision.models.external_encoders import make_from_source
from lepton_vision.models.weights import load_weights
from lepton_vision.types import Target

BASE = Config(targets=(Target("sick", "binary", ("no", "yes")),)).override("preprocess.size=[64, 64]")
SMALL = ["densenet121", "efficientnet_b0", "convnext_tiny", "mobilenet_v3_small"]


def pooled(name: str, theirs: Any, images: torch.Tensor) -> torch.Tensor:
    """What stands before the last layers of torchvision's own network, by its own modules."""
    maps = theirs.features(images)
    if name.startswith("densenet"):
        maps = torch.relu(maps)
    mean = nn.functional.adaptive_avg_pool2d(maps, 1)
    return (theirs.classifier[0](mean) if name.startswith("convnext") else mean).flatten(1)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_torchvisions_from_its_own_file(tmp_path: Path, name: str) -> None:
    theirs = torchvision.models.get_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    encoder = make_from_source(f"torchvision:{name}", channels=3, dims=2, options={}).eval()
    said = load_weights(encoder, str(tmp_path / "w.pt"))
    assert "not in it" not in said
    assert "classifier" in said
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.features(images), pooled(name, theirs, images))
        maps = encoder.skips(images)
        before = encoder.features(images)
        fold(encoder)
        torch.testing.assert_close(encoder.features(images), before, rtol=1e-3, atol=1e-4)
    assert [(one.shape[1], 64 // one.shape[-1]) for one in maps] == list(
        zip(encoder.depths, encoder.strides, strict=True)
    )


def test_stages_begin_where_maps_become_smaller() -> None:
    found = {
        name: make_from_source(f"torchvision:{name}", channels=1, dims=2, options={})
        for name in ("densenet121", "convnext_tiny", "efficientnet_b0")
    }
    assert {name: (one.depths, one.strides) for name, one in found.items()} == {  # counted in the papers' tables
        "densenet121": ((64, 256, 512, 1024, 1024), (2, 4, 8, 16, 32)),
        "convnext_tiny": ((96, 192, 384, 768), (4, 8, 16, 32)),
        "efficientnet_b0": ((16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
    }
    assert list(found["convnext_tiny"].stages()) == ["stage1", "stage2", "stage3", "stage4"]


def test_files_of_the_first_densenets_fill_it(tmp_path: Path) -> None:
    state = torchvision.models.densenet121().state_dict()
    old = dict(state)
    for part in ("norm1", "norm2", "conv1", "conv2"):
        old = {name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}."): one for name, one in old.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    encoder = make_from_source("torchvision:densenet121", channels=1, dims=2, options={})
    said = load_weights(encoder, str(tmp_path / "w.pth"))
    assert said == (
        "file w.pth: 604 of 604 tensors; first convolution 3 x 7x7 -> 1 x 7x7; "
        "dropped classifier.bias, classifier.weight"
    )
    gray = encoder.state_dict()["stage1.features_conv0.weight"]
    torch.testing.assert_close(gray, state["features.conv0.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("name", ["DenseNet121", "SEResNet50"])
def test_features_of_volumes_are_monais_from_its_own_file(tmp_path: Path, name: str) -> None:
    from monai.networks import nets

    how: dict[str, Any] = {"out_channels": 2} if name == "DenseNet121" else {"num_classes": 2}
    theirs = getattr(nets, name)(spatial_dims=3, in_channels=1, **how).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    encoder = make_from_source(f"monai:{name}", channels=1, dims=3, options={}).eval()
    assert "not in it" not in load_weights(encoder, str(tmp_path / "w.pt"))
    volumes = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        maps = torch.relu(theirs.features(volumes)) if name == "DenseNet121" else theirs.features(volumes)
        torch.testing.assert_close(encoder.features(volumes), maps.mean((2, 3, 4)))
    assert encoder.strides == (2, 4, 8, 16, 32)


def test_networks_of_others_have_heads_masks_and_heat_maps(tmp_path: Path) -> None:
    config = BASE.override("model.backbone=torchvision:mobilenet_v3_small", "segmentation.structures={lesion: 1}")
    model = lv.build_model(config).eval()
    output = model(torch.randn(2, 1, 64, 64))
    assert output.mask_logits.shape == (2, 2, 64, 64)
    heat = grad_cam(model, torch.randn(2, 1, 64, 64), target="sick")
    assert heat.shape == (2, 64, 64)
    assert np.isfinite(heat).all()
    bundle = lv.Bundle(config, config.targets, model.state_dict())
    again = lv.Bundle.load(bundle.save(tmp_path / "b"))
    assert again.bundle_id == bundle.bundle_id
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.network()(images).logits["sick"], model(images).logits["sick"])


def test_names_of_other_packages_are_checked_by_the_configuration() -> None:
    for name, told in (
        ("torchvision:densenet12", "Did you mean 'densenet121'"),
        ("monai:SEResNet5", "Did you mean 'SEResNet50'"),
        ("torchvison:densenet121", "Did you mean 'torchvision'"),
    ):
        with pytest.raises(ConfigError, match=told):
            BASE.override(f"model.backbone={name}")
    with pytest.raises(ConfigError, match="is for images"):
        lv.build_model(BASE.override("model.backbone=torchvision:densenet121", "volume.view=3d"))
    with pytest.raises(ConfigError, match="takes other options"):
        lv.build_model(BASE.override("model.backbone=torchvision:densenet121", "model.options={grow: 3}"))
    with pytest.raises(WeightsError, match="no ImageNet weights for an encoder of MONAI"):
        lv.build_model(BASE.override("model.backbone=monai:DenseNet121", "model.weights=imagenet"))


def test_every_name_of_the_configuration_is_one_of_its_package() -> None:
    from monai.networks import nets

    assert set(SOURCES["torchvision"]) <= set(torchvision.models.list_models(module=torchvision.models))
    assert all(hasattr(nets, name) for name in SOURCES["monai"])
