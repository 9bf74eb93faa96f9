"""Encoders of timm: to the bit what its own networks compute, in all that a backbone has to do."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.errors import BundleError, ConfigError, WeightsError
from lepton_vision.inference.explain import grad_cam
from lepton_vision.manifest import Manifest
from lepton_vision.models import provenance
from lepton_vision.models.encoders import check_chain, lower, make_encoder, upper
from lepton_vision.models.weights import load_weights
from lepton_vision.training.optim import set_frozen
from lepton_vision.types import Target

timm: Any = pytest.importorskip("timm")
BASE = Config(targets=(Target("label", "binary", ("0", "1")),)).override(
    "preprocess.size=[32, 32]", "train.precision=fp32"
)
SWIN = "model.options={img_size: 64, embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}"
PYRAMIDS = {  # channels and strides as their papers and timm's ``feature_info`` have them, the last map as it is pooled
    "resnet18": ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    "tf_efficientnet_lite0": ((16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
    "convnext_atto": ((40, 80, 160, 320), (4, 8, 16, 32)),
    "mobilenetv3_small_050": ((16, 8, 16, 24, 288), (2, 4, 8, 16, 32)),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def config_of(name: str, *settings: str) -> Config:
    return BASE.override(f"model.backbone=timm:{name}", *settings)


def encoder_of(name: str, *settings: str, channels: int = 1) -> Any:
    return make_encoder(config_of(name, *settings), channels=channels)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    rng, made = np.random.default_rng(0), {}
    for split, n in (("train", 16), ("val", 8), ("test", 8)):
        labels = np.arange(n) % 2
        images = rng.integers(0, 160, (n, 32, 32))
        images[labels == 1, 8:24, 8:24] += 80
        made |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    folder = tmp_path_factory.mktemp("timm")
    np.savez(folder / "tiny.npz", **made)
    return Manifest.scan(folder / "tiny.npz", workers=0)


@pytest.mark.parametrize("name", sorted(PYRAMIDS))
def test_features_and_maps_are_timms_from_its_own_file(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name).eval()
    pyramid = timm.create_model(name, features_only=True).eval()
    flat = {re.sub(r"^(stem|stages)\.", r"\1_", key): one for key, one in theirs.state_dict().items()}
    pyramid.load_state_dict(theirs.state_dict() if "blocks" in dict(pyramid.named_children()) else flat, strict=False)
    torch.save({"state_dict": {f"module.{key}": one for key, one in theirs.state_dict().items()}}, tmp_path / "w.pt")
    encoder = encoder_of(name, channels=3).eval()
    said = load_weights(encoder, str(tmp_path / "w.pt"))
    assert "not in it" not in said
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        last = theirs.forward_features(images)
        maps, features = encoder.skips(images), encoder.features(images)
        assert torch.equal(features, theirs.forward_head(last, pre_logits=True))
        assert torch.equal(encoder.pool(maps[-1]), features)
        assert torch.equal(maps[-1], last)
        if name != "mobilenetv3_small_050":  # features_only has its maps before the norms of others
            for ours, other in zip(maps[:-1], pyramid(images)[:-1], strict=True):
                assert torch.equal(ours, other)
    assert (encoder.depths, encoder.strides) == PYRAMIDS[name]
    assert [(one.shape[1], 64 // one.shape[-1]) for one in maps] == list(zip(*PYRAMIDS[name], strict=True))
    assert encoder.width == features.shape[1]


def test_stages_hold_each_tensor_once_and_make_the_features_one_after_another() -> None:
    encoder = encoder_of("tf_efficientnet_lite0").eval()
    stages, images = encoder.stages(), torch.randn(1, 1, 64, 64)
    names = [key for stage in stages.values() for key in stage.state_dict()]
    assert len(names) == len(encoder.state_dict())
    assert next(iter(stages["stage1"].state_dict())) == "conv_stem.weight"
    with torch.inference_mode():
        for count in range(1, len(stages) + 1):
            check_chain(encoder, images, count)
            below = lower(encoder, images, count)
            torch.testing.assert_close(upper(encoder, below, below=count), encoder.features(images))
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for one in twin.stages()["stage1"].parameters():
            one.zero_()
    assert not twin.net.conv_stem.weight.any()
    assert encoder.net.conv_stem.weight.any()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_a_network_without_a_pyramid_has_features_alone(name: str) -> None:
    config = config_of(name, "model.options={img_size: 32, depth: 2}", "preprocess.size=[32, 32]")
    network = lv.build_model(config).eval()
    assert network(torch.randn(2, 1, 32, 32)).logits["label"].shape == (2, 1)
    with pytest.raises(ConfigError, match="gives pooled features alone"):
        lv.build_model(config.override("segmentation.structures={lesion: 1}"))
    with pytest.raises(ConfigError, match="map of places"):
        grad_cam(network, torch.randn(1, 1, 32, 32), target="label")


def test_a_network_for_one_size_of_images_says_so() -> None:
    with pytest.raises(ConfigError, match=r"cannot take images of 32 x 32.*img_size"):
        lv.build_model(config_of("vit_tiny_patch16_224"))


def test_masks_and_heat_maps_of_a_transformer_with_maps_of_several_sizes() -> None:
    config = config_of("swin_tiny_patch4_window7_224", SWIN, "preprocess.size=[64, 64]")
    network = lv.build_model(config.override("segmentation.structures={lesion: 1}")).eval()
    images = torch.randn(2, 1, 64, 64)
    output = network(images)
    assert output.mask_logits.shape == (2, 2, 64, 64)
    theirs = network.encoder.net
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(network(images).features, expected)
    heat = grad_cam(network, images, target="label")
    assert heat.shape == (2, 64, 64)
    assert np.isfinite(heat).all()
    assert heat.max() > 0


def test_grad_cam_is_the_gradient_of_the_last_map() -> None:
    network = lv.build_model(config_of("resnet18", "preprocess.size=[64, 64]")).eval()
    images = torch.randn(1, 1, 64, 64)
    net = network.encoder.net
    last = net.forward_features(images).detach().requires_grad_()
    logit = network.heads(net.forward_head(last, pre_logits=True))["label"][:, 0]
    (gradient,) = torch.autograd.grad(logit.sum(), last)
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * last).sum(1, keepdim=True)).detach()
    expected = torch.nn.functional.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(grad_cam(network, images, target="label"), expected.numpy(), rtol=1e-4, atol=1e-7)


def test_a_study_from_training_to_scores(study: Manifest, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    state = {key: one.contiguous() for key, one in timm.create_model("mobilenetv3_small_050").state_dict().items()}
    facts = {"license": "Apache-2.0", "source": "https://example.org/w"}
    safetensors.torch.save_file(state, start, metadata=facts)
    config = config_of(
        "mobilenetv3_small_050",
        f"model.weights={start}",
        "train.epochs=2",
        "train.batch_size=8",
        "train.ema_decay=0.9",
        "train.freeze_stages=3",
        "train.cache_features=true",
        "augment.preset=none",
    )
    bundle = lv.fit(config, study, run_dir=tmp_path / "run", device="cpu")
    assert bundle.provenance["initial_weights"] == {
        "file": "start.safetensors",
        "source": facts["source"],
        "licence": "Apache-2.0",
    }
    network = lv.build_model(config)
    own = network.state_dict()
    frozen = [key for key in own if re.match(r"encoder\.net\.(conv_stem|bn1|blocks\.[01])\.", key)]
    assert len(frozen) > 10
    assert all(torch.equal(own[key], bundle.state[key]) for key in frozen if "num_batches" not in key)
    assert not torch.equal(own["encoder.net.conv_head.weight"], bundle.state["encoder.net.conv_head.weight"])
    facts = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())
    assert (facts["encoder"]["name"], facts["encoder"]["distribution"]) == ("timm:mobilenetv3_small_050", "timm")
    assert facts["encoder"]["version"] == timm.__version__
    loaded = lv.Bundle.load(tmp_path / "run" / "bundle")
    predicted = lv.predict(loaded, study.subset("test"), progress=False)
    assert np.isfinite(predicted.y_prob["label"]).all()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(inbox / "a.png")
    summary = lv.score(loaded, inbox, tmp_path / "scores.parquet")
    assert (summary.rows, dict(summary.failed)) == (1, {})


def test_stages_are_fixed_by_number() -> None:
    network = lv.build_model(config_of("resnet18"))
    set_frozen(network, 2)
    free = {key.split(".")[2] for key, one in network.named_parameters() if one.requires_grad and "encoder" in key}
    assert free == {"layer2", "layer3", "layer4"}
    assert not network.encoder.net.bn1.training


def test_files_of_a_networks_authors_fill_it(tmp_path: Path) -> None:
    """Names as facebookresearch/ConvNeXt has them; timm's rule for them is applied below a prefix too."""
    encoder = encoder_of("convnext_atto", "model.options={conv_mlp: false}", channels=3)
    old = {}
    for key, one in encoder.net.state_dict().items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", key)
        name = re.sub(r"^stages\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2.", name)
        name = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        old[f"model.{name.replace('head.norm', 'norm')}"] = one + 1
    torch.save(old, tmp_path / "fb.pth")
    assert "stages.0.0.dwconv.weight" in " ".join(old)
    before = encoder.net.state_dict()["stages.0.blocks.0.conv_dw.weight"].clone()
    said = load_weights(encoder, str(tmp_path / "fb.pth"))
    assert re.search(r": (\d+) of \1 tensors", said)
    torch.testing.assert_close(encoder.net.state_dict()["stages.0.blocks.0.conv_dw.weight"], before + 1)


def test_weights_that_cannot_be_had_say_what_to_do() -> None:
    with pytest.raises(WeightsError, match=r"timm/resnet18\.a1_in1k.*HF_HOME"):
        lv.build_model(config_of("resnet18", "model.weights=imagenet"))
    with pytest.raises(WeightsError, match=r"no ImageNet weights for resnet14t in timm|HF_HOME"):
        lv.build_model(config_of("resnet14t", "model.weights=imagenet"))


def test_unknown_names_options_and_volumes_are_refused() -> None:
    for name, told in (
        ("convnext_tyny", "Did you mean 'convnext_tiny'"),
        ("resnet18", "takes other options"),
    ):
        with pytest.raises(ConfigError, match=told):
            lv.build_model(config_of(name, "model.options={grow: 3}"))
    with pytest.raises(ConfigError, match="is for images"):
        lv.build_model(config_of("resnet18", "volume.view=3d"))
    for name in ("hf-hub:someone/net", "../net", " "):
        with pytest.raises(ConfigError, match=r"timm\.list_models"):
            BASE.override(f"model.backbone='timm:{name}'")


def test_a_bundle_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_of("mobilenetv3_small_050")
    bundle = lv.Bundle(config, config.targets, lv.build_model(config).state_dict())
    folder = bundle.save(tmp_path / "b")
    assert lv.Bundle.load(folder).bundle_id == bundle.bundle_id
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=rf"Install the package timm \({re.escape(timm.__version__)}\)"):
        lv.Bundle.load(folder)
