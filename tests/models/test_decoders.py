"""Segmentation decoders: shapes, gradients, modes, and learning of a position."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.assemble import empty_network, make_network
from lepton_vision.models.build import build_model
from lepton_vision.models.network import Network
from lepton_vision.models.regions import crop_to_masks, mask_evidence
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


def network(*changes: str, targets: tuple[Target, ...] = (SICK,)) -> Network:
    config = Config().override(
        "model.backbone=resnet10", "model.width=8", "segmentation.structures={a: 1, b: [2, 3]}", *changes
    )
    torch.manual_seed(0)
    return make_network(config, channels=1, targets=targets)


def images(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("stem", ["standard", "small"])
@pytest.mark.parametrize("size", [(64, 96), (57, 45)])
def test_masks_have_the_size_of_the_image(decoder: str, stem: str, size: tuple[int, int]) -> None:
    output = network(f"segmentation.decoder={decoder}", f"model.stem={stem}")(images(*size))
    assert output.mask_logits is not None
    assert output.mask_logits.shape == (2, 3, *size)
    assert output.logits["sick"].shape == (2, 1)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_volumes_have_masks_too(decoder: str) -> None:
    model = network(f"segmentation.decoder={decoder}", "volume.view=3d", "model.stem=small")
    output = model(images(10, 24, 17))
    assert output.mask_logits is not None
    assert output.mask_logits.shape == (2, 3, 10, 24, 17)
    with pytest.raises(ConfigError, match="D, H, W"):
        model(images(24, 17))


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_structures_start_as_rare_as_they_are_said_to_be(decoder: str) -> None:
    """Odds of 1 to 99 times those that nothing was known of; the default changes no bit."""
    settings = ("model.backbone=resnet10", "model.width=8", "segmentation.structures={a: 1, b: 2}")
    config = Config(targets=(SICK,)).override(*settings, f"segmentation.decoder={decoder}", "preprocess.size=[64, 64]")
    plain, rare, small = (build_model(config.override(f"train.mask_prior={one}")) for one in (0.5, 0.01, 1e-6))
    odds = [model.eval()(images(64, 64)).mask_logits.double().softmax(dim=1) for model in (plain, rare, small)]
    ratios = [(one[:, 1:] / one[:, :1]) for one in odds]
    torch.testing.assert_close(ratios[1], ratios[0] / 99.0, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(ratios[2], ratios[0] / 999_999.0, rtol=1e-4, atol=0.0)
    assert all(torch.equal(tensor, build_model(config).state_dict()[key]) for key, tensor in plain.state_dict().items())


@pytest.mark.parametrize(("stem", "finest"), [("small", [48, 24, 12]), ("standard", [32, 16, 8, 4])])
def test_a_unet_works_once_at_each_resolution(stem: str, finest: list[int]) -> None:
    model = network(f"model.stem={stem}", "segmentation.channels=4")
    seen: list[tuple[int, int]] = []
    assert model.decoder is not None
    for step in model.decoder.steps:  # type: ignore[union-attr]
        step.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:3])))
    side = finest[0] * model.encoder.strides[0]
    model(images(side, side))
    assert seen == [(4 * 2**level, size) for level, size in enumerate(finest)][::-1]


def test_a_network_may_have_masks_alone() -> None:
    output = network(targets=())(images(64, 64))
    assert output.logits == {}
    assert output.mask_logits is not None
    with pytest.raises(ConfigError, match="at least one target"):
        make_network(Config(), channels=1, targets=())


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_mask_logits_are_float32(decoder: str, precision: torch.dtype) -> None:
    model = network(f"segmentation.decoder={decoder}").eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = model(images(64, 64)).mask_logits
    assert logits is not None
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize("mode", ["joint", "auxiliary", "roi", "detached", "evidence"])
def test_the_masks_loss_shapes_the_encoder_unless_detached(mode: str) -> None:
    model = network(f"segmentation.mode={mode}")
    output = model(images(64, 64))
    assert output.mask_logits is not None
    output.mask_logits.square().sum().backward()
    assert (model.encoder.stem.conv1.weight.grad is not None) is (mode != "detached")
    assert model.decoder is not None
    assert model.decoder.last.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["joint", "detached", "auxiliary"])
def test_without_masks_the_classes_are_the_same(mode: str) -> None:
    model = network(f"segmentation.mode={mode}").eval()
    with torch.inference_mode():
        whole = model(images(64, 64))
        model.gives_masks = False
        alone = model(images(64, 64))
    assert alone.mask_logits is None
    assert torch.equal(whole.logits["sick"], alone.logits["sick"])


class FixedMasks(torch.nn.Module):
    """A decoder that finds a box at the top left, or nothing."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: list[torch.Tensor], *, size: tuple[int, ...]) -> torch.Tensor:
        logits = torch.zeros(len(maps[0]), 3, *size)
        logits[:, 1, : self.side, : self.side] = 1.0
        return logits


def test_the_classifier_of_a_region_sees_the_cut_image() -> None:
    model = network("segmentation.mode=roi", "segmentation.roi_margin=0").eval()
    whole = images(64, 64)
    for side, seen in ((32, functional.interpolate(whole[:, :, :32, :32], size=(64, 64), mode="bilinear")), (0, whole)):
        model.decoder = FixedMasks(side)  # type: ignore[assignment]
        with torch.inference_mode():
            found, expected = model(whole).logits["sick"], model.heads(model.encoder.features(seen))["sick"]
        # At the inner border of the box, sampling sees the pixels beside it.
        assert torch.allclose(found, expected, atol=2e-3 if side else 1e-6)
    assert not torch.allclose(found, model.heads(model.encoder.features(whole * 0.5))["sick"], atol=1e-5)


def test_a_class_by_evidence_sees_the_mask_alone() -> None:
    model = network("segmentation.mode=evidence").eval()
    assert model.heads.head("sick").in_features == 4  # two structures
    whole = images(64, 64)
    for side in (8, 48):
        model.decoder = FixedMasks(side)  # type: ignore[assignment]
        with torch.inference_mode():
            found, other = model(whole), model(whole * 0.5)
        assert found.mask_logits is not None
        assert torch.equal(found.logits["sick"], model.heads(mask_evidence(found.mask_logits))["sick"])
        assert torch.equal(found.logits["sick"], other.logits["sick"])  # another image, the same mask
        assert found.features is not None
        assert found.features.shape == (2, model.encoder.width)  # novelty compares images, not masks


def test_the_class_by_evidence_leaves_masks_of_volumes_alone() -> None:
    model = network("segmentation.mode=evidence", "volume.view=3d", "model.stem=small")
    model(images(8, 16, 16)).logits["sick"].sum().backward()
    learns = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None}
    assert learns == {"heads"}


@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_a_region_is_cut_where_the_mask_is(margin: float) -> None:
    picture = torch.arange(16.0)[:, None] * 100 + torch.arange(16.0)
    logits = torch.zeros(1, 2, 16, 16)
    logits[0, 1, 4:8, 9:11] = 1.0
    cut = crop_to_masks(picture[None, None], logits, margin=margin)
    side = 4 * (1 + 2 * margin)
    top, left = 6 - side / 2, 10 - side / 2  # the box grows to the image's aspect around its middle
    step = side / 16
    rows = top + (torch.arange(16.0) + 0.5) * step - 0.5
    columns = left + (torch.arange(16.0) + 0.5) * step - 0.5
    assert torch.allclose(cut[0, 0], rows[:, None] * 100 + columns, atol=1e-2)


def test_a_region_at_the_border_stays_inside_and_volumes_are_cut_alike() -> None:
    volume = (torch.arange(8.0)[:, None, None] * 10000 + torch.arange(8.0)[:, None] * 100 + torch.arange(8.0))[
        None, None
    ]
    logits = torch.zeros(1, 2, 8, 8, 8)
    logits[0, 1, 0:2, 6:8, 2:4] = 1.0
    cut = crop_to_masks(volume, logits, margin=0.5)
    axis = (torch.arange(8.0) + 0.5) * 0.5 - 0.5
    first, second, third = axis.clamp(min=0), (axis + 4).clamp(max=7), axis + 1
    expected = first[:, None, None] * 10000 + second[:, None] * 100 + third
    assert torch.allclose(cut[0, 0], expected, atol=0.1)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_a_decoder_learns_where_the_bright_square_is(decoder: str) -> None:
    model = network(f"segmentation.decoder={decoder}", "model.stem=small", "segmentation.channels=16", targets=())
    truth = torch.zeros(4, 32, 32, dtype=torch.long)
    for place in range(4):
        truth[place, 4 * place : 4 * place + 12, 6:18] = 1
    inputs = 0.3 * images(32, 32, batch=4) + truth[:, None].float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = functional.cross_entropy(model(inputs).mask_logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(inputs).mask_logits.argmax(dim=1)
    assert (found == truth).float().mean() > 0.97


def test_an_empty_network_has_the_same_tensors() -> None:
    config = Config().override("segmentation.structures={a: 1}", "train.balance=uncertainty", "model.width=8")
    full = make_network(config, channels=1, targets=(SICK,)).state_dict()
    empty = empty_network(config, channels=1, targets=(SICK,)).state_dict()
    assert {name: tensor.shape for name, tensor in full.items()} == {n: t.shape for n, t in empty.items()}
    assert full["balance.log_variance"].tolist() == [0.0, 0.0]


def test_every_parameter_belongs_to_one_stage() -> None:
    model = network("train.balance=uncertainty")
    parts = [id(p) for stage in model.parameter_stages().values() for p in stage.parameters()]
    assert sorted(parts) == sorted(id(p) for p in model.parameters())
