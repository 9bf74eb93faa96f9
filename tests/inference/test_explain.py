"""Grad-CAM: by hand on a tiny network, by another formula on a ResNet, of files, and without side effects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference.explain import explain_samples, grad_cam
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.heads import Heads
from lepton_vision.models.network import Network
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import CaseKey, SampleAddress, Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))


class TinyEncoder(nn.Module):
    """One stage: sums of 2 x 2 blocks, and the same negated; then the mean over all places."""

    channels, dims = 1, 2

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Conv2d(1, 2, 2, stride=2, bias=False)
        with torch.no_grad():
            self.layer4.weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 1, 2, 2))

    def stages(self) -> dict[str, nn.Module]:
        return {"layer4": self.layer4}

    def features(self, images: Tensor) -> Tensor:
        return self.layer4(images).mean(dim=(2, 3))


def tiny() -> Network:
    heads = Heads(2, [SICK])
    with torch.no_grad():
        heads.head("sick").weight.copy_(torch.tensor([[3.0, -1.0]]))
    return Network(TinyEncoder(), heads)  # type: ignore[arg-type]


@pytest.fixture
def resnet() -> Network:
    config = Config.model_validate({"targets": [SICK, ORGAN], "preprocess": {"size": [64, 64]}})
    torch.manual_seed(0)  # of the images that the tests draw, too
    network = build_model(config)
    for target in ("sick", "organ"):
        nn.init.uniform_(network.heads.head(target).weight, -0.5, 1.0)  # so that something speaks for every class
    return network


def test_a_tiny_network_by_hand() -> None:
    # Blocks sum to s = [[4, 0], [0, -8]]; channels are s and -s. The logit is 3 mean(s) + mean(s), so each of the four
    # places has the gradient 3/4 in one channel and -1/4 in the other: the map is ReLU(3/4 s + 1/4 s) = ReLU(s).
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0], image[0, 0, 3, 2] = 4.0, -8.0
    rising = np.array([0.0, 0.25, 0.75, 1.0])  # bilinear from 2 to 4 places
    falling = rising[::-1]
    heat = grad_cam(tiny(), image, target="sick")
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, 4.0 * np.outer(falling, falling)[None], atol=1e-6)
    np.testing.assert_allclose(grad_cam(tiny(), image, target="sick", class_index=1), heat)
    against = grad_cam(tiny(), image, target="sick", class_index=0)
    np.testing.assert_allclose(against, 8.0 * np.outer(rising, rising)[None], atol=1e-6)


@pytest.mark.parametrize(("target", "k"), [("sick", 1), ("organ", 0), ("organ", 2)])
def test_behind_a_mean_and_a_linear_head_it_is_the_class_activation_map(resnet: Network, target: str, k: int) -> None:
    """Zhou et al., CVPR 2016: the head's weights are the channels' weights, divided by the number of places."""
    images = torch.randn(3, 1, 64, 64)
    resnet.eval()
    with torch.no_grad():
        maps = resnet.encoder.skips(images)[-1]
        weight = resnet.heads.head(target).weight[0 if target == "sick" else k]
        small = F.relu(torch.einsum("f,bfhw->bhw", weight, maps)) / maps[0, 0].numel()
        wanted = F.interpolate(small[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    found = grad_cam(resnet, images, target=target, class_index=k)
    assert found.shape == (3, 64, 64)
    assert found.max() > 0.0
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-7)


def test_nothing_is_left_behind(resnet: Network) -> None:
    resnet.train()
    resnet.encoder.layer1.eval()  # fixed norm layers in a network that trains
    frozen = next(resnet.encoder.layer2.parameters())
    frozen.requires_grad_(False)
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    modes = [module.training for module in resnet.modules()]
    images = torch.randn(2, 1, 64, 64)
    kept = images.clone()
    grad_cam(resnet, images, target="sick")
    with pytest.raises(ConfigError, match="Expected images"):
        grad_cam(resnet, torch.randn(2, 3, 64, 64), target="sick")
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert [module.training for module in resnet.modules()] == modes
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert not frozen.requires_grad
    assert [m for m in resnet.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks] == []
    assert torch.equal(images, kept)
    assert images.grad is None
    assert not images.requires_grad


def test_it_works_where_the_caller_differentiates_nothing(resnet: Network) -> None:
    images = torch.randn(2, 1, 64, 64)
    wanted = grad_cam(resnet, images, target="sick")
    for parameter in resnet.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        found = grad_cam(resnet, images * 1.0, target="sick")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        again = grad_cam(resnet, images, target="sick")
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(again, wanted)


def test_a_case_has_the_same_map_whatever_it_is_beside(resnet: Network) -> None:
    images = torch.randn(3, 1, 64, 64)
    together = grad_cam(resnet, images, target="organ", class_index=1)
    alone = np.concatenate([grad_cam(resnet, one[None], target="organ", class_index=1) for one in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_unknown_names_and_classes_are_refused(resnet: Network) -> None:
    images = torch.zeros(1, 1, 64, 64)
    with pytest.raises(ConfigError, match=r"Unknown target 'sik'.*'sick'"):
        grad_cam(resnet, images, target="sik")
    with pytest.raises(ConfigError, match=r"from 0 to 2 for the target 'organ'\. Received: None"):
        grad_cam(resnet, images, target="organ")
    for index in (-1, 3):
        with pytest.raises(ConfigError, match=f"Received: {index}"):
            grad_cam(resnet, images, target="organ", class_index=index)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        grad_cam(resnet, images, target="sick", class_index=2)


def test_a_mirrored_network_shows_the_evidence_of_both_views(resnet: Network) -> None:
    images = torch.randn(2, 1, 64, 64)
    plain = grad_cam(resnet, images, target="sick")
    turned = grad_cam(resnet, images.flip(-1), target="sick")
    resnet.is_mirrored = True
    found = grad_cam(resnet, images, target="sick")
    np.testing.assert_allclose(found, (plain + turned[..., ::-1]) / 2, rtol=1e-4, atol=1e-7)


def test_an_ensemble_shows_the_mean_of_its_members_maps() -> None:
    config = Config.model_validate({"targets": [SICK, ORGAN], "preprocess": {"size": [64, 64]}})
    torch.manual_seed(0)
    ensemble = build_model(config.override("model.backbone=resnet10", "model.width=16", "model.members=3")).train()
    for member in ensemble.members:
        nn.init.uniform_(member.heads.head("organ").weight, -0.5, 1.0)
    images = torch.randn(2, 1, 64, 64)
    found = grad_cam(ensemble, images, target="organ", class_index=2)
    alone = [grad_cam(member, images, target="organ", class_index=2) for member in ensemble.members]
    np.testing.assert_allclose(found, np.mean(alone, axis=0), rtol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.1 * found.max()
    assert ensemble.training
    assert [m for m in ensemble.modules() if m._forward_hooks] == []


def test_a_class_by_evidence_is_followed_back_through_its_mask() -> None:
    config = Config(targets=(SICK,)).override(
        "model.backbone=resnet10", "model.width=8", "segmentation.structures={a: 1}", "segmentation.mode=evidence"
    )
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    network = build_model(config)
    for_it, against = (grad_cam(network, images, target="sick", class_index=index) for index in (1, 0))
    assert for_it.shape == (2, 64, 64)
    assert (for_it + against > 0).any()


TARGETS = (Target("sick", "binary", ("no", "yes")), Target("organ", "multiclass", ("a", "b", "c")))
CONFIG = Config.model_validate({"targets": TARGETS, "preprocess": {"size": [64, 48]}})


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    network = build_model(CONFIG)
    for target in ("sick", "organ"):
        torch.nn.init.uniform_(network.heads.head(target).weight, -0.5, 1.0)
    return Bundle(CONFIG, TARGETS, network.state_dict())


def test_maps_are_those_of_grad_cam_whatever_they_are_computed_beside(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wanted = []
    for k in range(11):
        path = tmp_path / f"{k}.png"
        Picture.fromarray(rng.integers(0, 255, (70, 60), dtype=np.uint8)).save(path)
        name, class_name = (("sick", "yes"), ("organ", "c"))[k % 2]
        wanted.append((CaseKey(f"id{k}", name, class_name), SampleAddress(path)))
    (tmp_path / "3.png").write_bytes(b"gone")
    maps = explain_samples(bundle, wanted, device="cpu")
    assert set(maps) == {key for key, _ in wanted} - {wanted[3][0]}
    network = bundle.network()
    for (key, address), index in zip(wanted, (1, 2) * 6, strict=False):
        if key not in maps:
            continue
        pixels = preprocess_image(read_image(address.path), CONFIG.preprocess)
        images = torch.as_tensor(to_input(pixels, CONFIG.preprocess)[None])
        expected = grad_cam(network, images, target=key.target, class_index=index)[0]
        assert expected.shape == maps[key].shape == (64, 48)
        np.testing.assert_allclose(maps[key], expected, atol=1e-4 * expected.max())
    assert max(float(heat.max()) for heat in maps.values()) > 0


def test_a_model_of_volumes_has_no_maps(bundle: Bundle) -> None:
    config = CONFIG.override("volume.view=slices")
    whole = Bundle(config, TARGETS, build_model(config).state_dict())
    assert explain_samples(whole, [(CaseKey("a", "sick", "yes"), SampleAddress(Path("gone.nii")))]) == {}
