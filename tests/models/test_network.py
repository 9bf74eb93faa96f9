"""Networks: heads by target, stages, and a start that depends on the configuration alone."""

from __future__ import annotations

import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models import build_model
from lepton_vision.models.heads import Heads
from lepton_vision.models.network import Network
from lepton_vision.types import ModelOutput, Target


def same(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_forward_gives_logits_for_every_target_in_both_modes(config: Config) -> None:
    model = build_model(config)
    for mode in (True, False):
        output = model.train(mode)(torch.randn(3, 1, 32, 32))
        assert isinstance(output, ModelOutput)
        assert {name: tuple(logits.shape) for name, logits in output.logits.items()} == {
            "sick": (3, 1),
            "organ": (3, 3),
            "signs": (3, 2),
        }


def test_cached_features_finish_as_the_whole_network_does(config: Config) -> None:
    model = build_model(config).eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        whole, halves = model(images), model.upper(model.features(images), below=5)
    assert all(torch.equal(whole.logits[name], halves.logits[name]) for name in whole.logits)


def test_the_stages_hold_every_parameter_and_buffer_once(config: Config) -> None:
    model = build_model(config)
    stages = model.parameter_stages()
    assert list(stages) == ["stem", "layer1", "layer2", "layer3", "layer4", "heads"]
    held = [id(t) for stage in stages.values() for t in (*stage.parameters(), *stage.buffers())]
    assert sorted(held) == sorted(id(t) for t in (*model.parameters(), *model.buffers()))


def test_the_seed_alone_decides_random_weights_and_the_generator_stays(config: Config) -> None:
    before = torch.get_rng_state()
    first = build_model(config)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert same(first, build_model(config))
    assert not same(first, build_model(config.override("train.seed=1")))


@pytest.mark.parametrize("name", ["keys", "values", "type", "forward", "training", "pop", "T"])
def test_a_target_may_be_called_like_an_attribute(name: str) -> None:
    config = Config(targets=(Target(name, "binary", ("no", "yes")),)).override("preprocess.size=[32, 32]")
    model = build_model(config).eval()
    assert list(model(torch.zeros(1, 1, 32, 32)).logits) == [name]
    model.load_state_dict(build_model(config).state_dict())


def test_logits_are_float32_under_autocast_and_not_rounded(config: Config) -> None:
    model = build_model(config).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(8, 1, 32, 32)).logits["organ"]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_logits_do_not_depend_on_the_place_in_the_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    heads = Heads(64, [Target("organ", "multiclass", ("a", "b", "c"))]).eval()
    features = torch.randn(1, 64, generator=rng)
    alone = heads(features)["organ"]
    for count in (2, 4, 5, 33):  # MKL takes other sums for the last rows of some of these on processors with AVX-512
        assert torch.equal(heads(features.repeat(count, 1))["organ"], alone.repeat(count, 1))
    with torch.no_grad():
        plain = torch.nn.functional.linear(features.double(), heads.head("organ").weight.double())
    torch.testing.assert_close(alone.double(), plain, rtol=1e-5, atol=1e-7)


def test_dropout_works_in_training_only(config: Config) -> None:
    model = build_model(config.override("model.dropout=0.5"))
    features = torch.rand(4, 512)
    twice = [model.train().upper(features, below=5).logits["sick"] for _ in range(2)]
    assert not torch.equal(*twice)
    twice = [model.eval().upper(features, below=5).logits["sick"] for _ in range(2)]
    assert torch.equal(*twice)


def test_channels_last_changes_nothing_but_the_layout(config: Config) -> None:
    model = build_model(config).eval()
    images = torch.randn(4, 1, 32, 32)
    with torch.inference_mode():
        expected = model(images).logits["organ"]
        model.to(memory_format=torch.channels_last)
        found = model(images.contiguous(memory_format=torch.channels_last)).logits["organ"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_any_number_of_channels(config: Config, channels: int) -> None:
    model = build_model(config, channels=channels).eval()
    assert model.channels == channels
    assert model(torch.zeros(1, channels, 32, 32)).logits["sick"].shape == (1, 1)
    with pytest.raises(ConfigError, match=rf"Expected images \(B, {channels}, H, W\)"):
        model(torch.zeros(1, channels + 1, 32, 32))


def test_the_channels_follow_windows_and_colour(config: Config) -> None:
    assert build_model(config.override("preprocess.windows=[lung, bone]", "preprocess.color=rgb")).channels == 6


def test_no_target_and_the_same_target_twice_are_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="at least one target"):
        build_model(Config())
    with pytest.raises(ConfigError, match="each name once"):
        build_model(config, targets=config.targets[:1] * 2)


def test_nothing_in_forward_breaks_a_graph(config: Config) -> None:
    model = build_model(config).eval()
    images = torch.randn(2, 1, 32, 32)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images).logits["sick"], model(images).logits["sick"])


def test_a_mirrored_network_averages_an_image_and_its_mirror_image_outside_training(config: Config) -> None:
    plain, model = build_model(config), build_model(config.override("model.mirrored=true"))
    assert same(plain, model)
    images = torch.randn(3, 1, 32, 32)
    with torch.inference_mode():
        found, turned = model.eval()(images), model(images.flip(-1))
        here, there = plain.eval()(images), plain(images.flip(-1))
    for name, logits in found.logits.items():
        assert torch.allclose(logits, (here.logits[name] + there.logits[name]) / 2, atol=1e-6)
        assert torch.allclose(logits, turned.logits[name], atol=1e-6)
        assert not torch.allclose(logits, here.logits[name], atol=1e-3)
    assert found.features is not None
    assert torch.equal(found.features, model.features(images))
    with torch.no_grad():
        assert torch.equal(model.train()(images).logits["sick"], plain.train()(images).logits["sick"])


def test_mirror_images_are_for_classes_of_images() -> None:
    for other in ("segmentation.structures={lesion: [1]}", "volume.view=2.5d", "train.cache_features=true"):
        with pytest.raises(ConfigError, match="classes of images"):
            Config().override("model.mirrored=true", other)
