"""Ensembles: the mean of networks that are as they would be alone, in one state dict and one bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lepton_vision.config import Config
from lepton_vision.errors import BundleError, ConfigError, WeightsError
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.assemble import empty_network, make_network
from lepton_vision.models.ensemble import Ensemble, member_states
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))
SMALL = ("preprocess.size=[32, 32]", "model.backbone=resnet10", "model.width=8")


def small(*changes: str, targets: tuple[Target, ...] = (SICK, ORGAN)) -> Config:
    return Config(targets=targets).override(*SMALL, *changes)


def ensemble(*changes: str, count: int = 3, targets: tuple[Target, ...] = (SICK, ORGAN)) -> Ensemble:
    model = build_model(small(f"model.members={count}", *changes, targets=targets))
    assert isinstance(model, Ensemble)
    return model


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def zeros(config: Config) -> Bundle:
    shapes = empty_network(config, channels=1, targets=config.targets).state_dict()
    state = {name: torch.zeros(one.shape, dtype=one.dtype) for name, one in shapes.items()}
    return Bundle(config, config.targets, state)


@pytest.fixture
def bundle() -> Bundle:
    config = small("model.members=2")
    return Bundle(config, config.targets, build_model(config).state_dict())


def test_outside_training_it_gives_the_mean_of_what_the_members_give_alone() -> None:
    model, seen = ensemble().eval(), images(4, 1, 32, 32)
    with torch.inference_mode():
        found, alone = model(seen), [member(seen) for member in model.members]
        again = model.features(seen)
    for name, logits in found.logits.items():
        expected = torch.stack([one.logits[name] for one in alone]).double().mean(dim=0)
        torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(logits, alone[0].logits[name], atol=1e-4)
    assert found.members == ()
    assert found.features is not None
    assert torch.equal(found.features, torch.cat([one.features for one in alone], dim=1))
    assert torch.equal(again, found.features)
    assert found.features.shape[1] == model.width == 3 * 64


def test_in_training_it_gives_what_each_member_says() -> None:
    model, seen = ensemble("segmentation.structures={disc: 1}", "segmentation.channels=4"), images(4, 1, 32, 32)
    found = model.train()(seen)
    assert len(found.members) == 3
    for one, member in zip(found.members, model.members, strict=True):
        alone = member(seen)
        assert torch.equal(one.logits["sick"], alone.logits["sick"])
        assert torch.equal(one.mask_logits, alone.mask_logits)
        assert one.members == ()


def test_members_differ_and_the_first_is_the_network_of_the_same_seed() -> None:
    first, second, third = (member.state_dict() for member in ensemble("model.dropout=0.1").members)
    single = build_model(small("model.dropout=0.1")).state_dict()
    assert first.keys() == single.keys()
    assert all(torch.equal(first[name], value) for name, value in single.items())
    for name in ("encoder.stem.conv1.weight", "encoder.layer4.0.conv2.weight", "heads.linear.target_sick.weight"):
        assert len({float(one[name].flatten()[0]) for one in (first, second, third)}) == 3, name


def test_a_row_has_the_same_logits_wherever_it_stands() -> None:
    model = ensemble(count=5).eval()
    features = images(1, model.width)
    with torch.inference_mode():
        alone = model.upper(features, below=5).logits["organ"]
        for count in (2, 5, 33):
            found = model.upper(features.repeat(count, 1), below=5).logits["organ"]
            assert torch.equal(found, alone.repeat(count, 1))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_lower_and_upper_stages_make_the_whole(count: int) -> None:
    model, seen = ensemble().eval(), images(2, 1, 32, 32)
    with torch.inference_mode():
        halves, whole = model.upper(model.lower(seen, count), below=count), model(seen)
    torch.testing.assert_close(halves.logits["organ"], whole.logits["organ"], rtol=1e-5, atol=1e-7)


def test_the_stages_hold_every_parameter_and_buffer_once() -> None:
    model = ensemble("segmentation.structures={disc: 1}", "segmentation.channels=4", "train.balance=uncertainty")
    stages = model.parameter_stages()
    assert list(stages) == ["stem", "layer1", "layer2", "layer3", "layer4", "heads", "decoder", "balance"]
    held = [id(t) for stage in stages.values() for t in (*stage.parameters(), *stage.buffers())]
    assert sorted(held) == sorted(id(t) for t in (*model.parameters(), *model.buffers()))
    assert model.log_variance is not None
    assert model.log_variance.shape == (3, 3)
    assert ensemble().log_variance is None


def test_masks_are_averaged_and_can_be_turned_off() -> None:
    model = ensemble("segmentation.structures={disc: 1}", "segmentation.channels=4").eval()
    seen = images(2, 1, 32, 32)
    with torch.inference_mode():
        found, alone = model(seen), [member(seen).mask_logits for member in model.members]
        torch.testing.assert_close(found.mask_logits, torch.stack(alone).mean(dim=0))
        model.gives_masks = False
        assert not model.gives_masks
        without = model(seen)
    assert without.mask_logits is None
    torch.testing.assert_close(without.logits["sick"], found.logits["sick"])


def test_masks_alone() -> None:
    model = ensemble("segmentation.structures={disc: 1}", "segmentation.channels=4", targets=()).eval()
    with torch.inference_mode():
        found = model(images(2, 1, 32, 32))
    assert (found.logits, found.features) == ({}, None)
    assert found.mask_logits.shape == (2, 2, 32, 32)


def test_mirror_images_are_seen_by_every_member() -> None:
    model, seen = ensemble("model.mirrored=true").eval(), images(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(seen).logits["organ"], model(seen.flip(-1)).logits["organ"])


def test_volumes_seen_as_slices_and_other_shapes_refused() -> None:
    model, volumes = ensemble("volume.view=slices").eval(), images(2, 1, 4, 16, 16)
    assert (model.dims, model.channels, model.strides) == (2, 1, model.members[1].encoder.strides)
    with torch.inference_mode():
        alone = torch.stack([member(volumes).logits["sick"] for member in model.members])
        torch.testing.assert_close(model(volumes).logits["sick"], alone.mean(dim=0))
    with pytest.raises(ConfigError, match=r"Expected images \(B, 1, D, H, W\)"):
        model(volumes[:, :, 0])


@pytest.mark.parametrize("is_training", [False, True])
def test_nothing_in_forward_breaks_a_graph(is_training: bool) -> None:
    model, seen = ensemble().train(is_training), images(2, 1, 32, 32)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found, expected = compiled(seen), model(seen)
    torch.testing.assert_close(found.logits["sick"], expected.logits["sick"])
    assert len(found.members) == len(expected.members) == (3 if is_training else 0)


def test_how_many_members() -> None:
    for count in (0, 17, 2.5):
        with pytest.raises(ConfigError, match=r"model\.members"):
            Config().override(f"model.members={count}")
    with pytest.raises(ConfigError, match="at least 1 member"):
        Ensemble([])
    assert not isinstance(make_network(small("model.members=1")), Ensemble)


def test_a_bundle_comes_back_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    loaded, seen = Bundle.load(bundle.save(tmp_path / "bundle")), images(3, 1, 32, 32)
    assert loaded.bundle_id == bundle.bundle_id
    trained = build_model(bundle.config).eval()
    network = loaded.network()
    assert isinstance(network, Ensemble)
    assert (network.training, network.channels, network.start) == (False, 1, f"bundle {bundle.bundle_id}")
    with torch.inference_mode():
        assert torch.equal(network(seen).logits["organ"], trained(seen).logits["organ"])
    assert "2 x resnet10" in loaded._repr_html_()
    assert "2 x" not in zeros(small())._repr_html_()


def test_single_networks_keep_the_ids_that_they_had_before_there_were_ensembles() -> None:
    """Written down from the version before: scores name these ids."""
    assert zeros(small(targets=(SICK,))).bundle_id == "835fb28a43ed5994"
    assert zeros(small("model.mirrored=true", targets=(SICK,))).bundle_id == "f7615eeca1654d7f"
    several = {zeros(small(f"model.members={count}", targets=(SICK,))).bundle_id for count in (1, 2, 3)}
    assert len(several) == 3


def test_a_bundle_with_another_number_of_members_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for count in (1, 3):
        with pytest.raises(BundleError, match="state dict of a Network"):
            replace(bundle, config=small(f"model.members={count}"))
    fewer = {name: tensor for name, tensor in bundle.state.items() if name != "members.1.heads.linear.target_sick.bias"}
    with pytest.raises(BundleError, match=r"Expected weights of 2 x resnet10.*members\.1\.heads"):
        replace(bundle, state=fewer).save(tmp_path / "bundle")
    more = bundle.state | {name.replace("members.1.", "members.2."): tensor for name, tensor in bundle.state.items()}
    with pytest.raises(BundleError, match="tensors that differ"):
        replace(bundle, state=more).save(tmp_path / "bundle")


def test_states_of_members_are_told_apart() -> None:
    state = {f"members.{place}.bias": torch.tensor(float(place)) for place in range(12)}
    assert [float(one["bias"]) for one in member_states(state, count=12)] == list(range(12))
    assert member_states({"bias": torch.ones(1)}, count=1) == ({"bias": torch.ones(1)},)


def test_a_file_of_weights_is_the_start_of_every_encoder(tmp_path: Path) -> None:
    source = build_model(small("train.seed=9")).encoder.state_dict()
    safetensors.torch.save_file(source, tmp_path / "encoder.safetensors")
    model = ensemble(f"model.weights={tmp_path / 'encoder.safetensors'}")
    assert model.start.startswith("file encoder.safetensors")
    for member in model.members:
        assert all(torch.equal(member.encoder.state_dict()[name], value) for name, value in source.items())
    one, other, _ = (member.heads.head("sick").weight for member in model.members)
    assert not torch.equal(one, other)


def test_a_start_from_one_network_is_that_of_every_encoder(tmp_path: Path) -> None:
    config = small("train.seed=9")
    before = Bundle(config, config.targets, build_model(config).state_dict())
    folder = before.save(tmp_path / "bundle")
    model = ensemble(f"model.init_from={folder}", count=2)
    stem = "encoder.stem.conv1.weight"
    assert all(torch.equal(member.state_dict()[stem], before.state[stem]) for member in model.members)
    one, other = (member.heads.head("sick").weight for member in model.members)
    assert not torch.equal(one, other)
    with pytest.raises(ConfigError, match="would stay the same") as caught:
        ensemble(f"model.init_from={folder}", "model.keep_heads=true", count=2)
    assert caught.value.key == "model.keep_heads"


def test_a_start_from_as_many_members_goes_from_each_to_its_own(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.save(tmp_path / "bundle")
    new = ensemble(f"model.init_from={folder}", "train.seed=3", count=2).state_dict()
    kept = ensemble(f"model.init_from={folder}", "model.keep_heads=true", "train.seed=3", count=2).state_dict()
    for name, tensor in bundle.state.items():
        assert torch.equal(kept[name], tensor), name
        is_new = ".heads." in name and name.endswith("weight")  # the biases start at zero in both
        assert torch.equal(new[name], tensor) is not is_new, name
    for count in (1, 3):
        with pytest.raises(WeightsError, match=r"Received: one with 2. Set model\.members to it"):
            build_model(small(f"model.init_from={folder}", f"model.members={count}"))
