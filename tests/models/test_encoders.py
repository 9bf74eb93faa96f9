"""A team's own encoder: what it must have, where it works, and how a bundle says who brought it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import lepton_vision as lv
from lepton_vision.config import ENCODERS, Config
from lepton_vision.errors import BundleError, ConfigError, InvalidValueError, LeptonError, WeightsError
from lepton_vision.inference.explain import grad_cam
from lepton_vision.manifest import Manifest
from lepton_vision.models.encoders import lower, upper
from lepton_vision.models.weights import load_weights
from lepton_vision.training.optim import make_optimizer, set_frozen
from lepton_vision.types import Target
from tests.own_encoders import Mine, Vector, make_mine

SICK = Target("label", "binary", ("0", "1"))
BASE = Config(targets=(SICK,)).override("preprocess.size=[16, 16]", "train.precision=fp32")


def own(*options: str, name: str = "test-mine") -> Config:
    return BASE.override(f"model.backbone={name}", *options)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    rng, made = np.random.default_rng(0), {}
    for split, n in (("train", 32), ("val", 16), ("test", 16)):
        labels = np.arange(n) % 2
        images = rng.integers(0, 160, (n, 16, 16))
        images[labels == 1, 4:12, 4:12] += 80
        made |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    folder = tmp_path_factory.mktemp("own")
    np.savez(folder / "tiny.npz", **made)
    return Manifest.scan(folder / "tiny.npz", workers=0)


# ---------------------------------------------------------------- names


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"Unknown encoder 'test-mien'\. Did you mean 'test-mine'\?"):
        own(name="test-mien")
    with pytest.raises(ConfigError, match=r"Did you mean 'resnet18'\?") as caught:
        Config().override("model.backbone=resnet19")
    assert caught.value.key == "model.backbone"


def test_names_are_checked_without_torch() -> None:
    told = "import sys; from lepton_vision.config import Config\n"
    told += "try: Config().override('model.backbone=resnet81')\nexcept ValueError: pass\n"
    told += "except Exception as error: print(error)\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert "Did you mean 'resnet18'?" in found
    assert found.strip().endswith("False")


def test_a_taken_name_is_refused_and_the_same_factory_may_come_again() -> None:
    assert lv.register_encoder("test-mine")(make_mine) is make_mine
    with pytest.raises(InvalidValueError, match=r"registered already, by tests\.own_encoders\.make_mine"):
        lv.register_encoder("test-mine")(lambda **_: None)
    for name in ("resnet18", "timm:mine", "", "a b"):
        with pytest.raises(InvalidValueError, match="none of ours"):
            lv.register_encoder(name)


def test_what_is_no_design_of_the_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes no option 'bace'\. Did you mean 'base'\?"):
        lv.build_model(own("model.options={bace: 3}"))
    assert lv.build_model(own("model.options={base: 3}")).width == 12
    for options, told in (
        (("model.width=16",), "width is of a ResNet"),
        (("model.stem=small",), "stem is of a ResNet"),
        (("model.options={file: /data/a.pt}",), "no path may stand"),
    ):
        with pytest.raises(ConfigError, match=told):
            own(*options)
    with pytest.raises(ConfigError, match="resnet18 takes none"):
        BASE.override("model.options={base: 3}")


def test_what_lacks_a_part_of_an_encoder_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(made: Any) -> str:
        monkeypatch.setitem(ENCODERS._factories, "test-mine", lambda *, channels, dims: made)
        with pytest.raises(ConfigError) as caught:
            lv.build_model(own())
        return str(caught.value)

    assert "Missing: stages, features, skips" in refused(torch.nn.Linear(1, 1))
    assert "expected an nn.Module" in refused(3)
    assert "expected 1 channels and 2 dimensions" in refused(Mine(3, 2))
    assert "In none, or in several: scale" in refused(Vector(1, 2))
    for key, value, told in (
        ("width", 5, r"features (1, 5) of one image. Received: (1, 16)"),
        ("depths", [4, 8, 17], "depths [4, 8, 17]"),
        ("strides", [2, 4], "as many depths as strides"),
    ):
        encoder = Mine(1, 2)
        setattr(encoder, key, value)
        assert told in refused(encoder)


def test_an_error_of_the_encoder_is_told_from_a_size_that_it_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(check: Callable[[torch.Tensor], None], *options: str) -> ConfigError:
        class Picky(Mine):
            def features(self, images: torch.Tensor) -> torch.Tensor:
                check(images)
                return super().features(images)

        monkeypatch.setitem(ENCODERS._factories, "test-mine", lambda *, channels, dims: Picky(channels, dims))
        with pytest.raises(ConfigError) as caught:
            lv.build_model(own(*options))
        return caught.value

    def at_least_100(images: torch.Tensor) -> None:
        if images.shape[-1] < 100:
            raise ValueError("too small")

    def broken(images: torch.Tensor) -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    def full(images: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    size = refused(at_least_100)
    assert size.key == "preprocess.size"
    assert "cannot take images of 16 x 16 (ValueError: too small), while it takes those of 128 x 128" in str(size)
    own_error = refused(broken)
    assert own_error.key == "model.backbone"
    assert "fails on images of zeros, of 16 x 16 as of other sizes (RuntimeError: mat1 and mat2" in str(own_error)
    assert "cannot take" not in str(own_error)
    volumes = refused(broken, "volume.view=3d", "volume.patch=[16, 16, 16]")
    assert (volumes.key, "of 16 x 16 x 16 as of other sizes" in str(volumes)) == ("model.backbone", True)
    with pytest.raises(torch.OutOfMemoryError):
        refused(full)


# ---------------------------------------------------------------- where it works


def test_a_study_with_an_own_encoder_from_training_to_scores(study: Manifest, tmp_path: Path) -> None:
    config = own("train.epochs=6", "train.ema_decay=0.9", "train.batch_size=8", "train.lr=0.01", "augment.preset=none")
    bundle = lv.fit(config, study, run_dir=tmp_path / "run", device="cpu")
    facts = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())
    assert facts["encoder"] == {"name": "test-mine", "module": "tests.own_encoders", "distribution": "", "version": ""}
    again = lv.Bundle.load(tmp_path / "run" / "bundle")
    assert again.bundle_id == bundle.bundle_id
    seen = lv.predict(again, study.subset("test"), device="cpu")
    assert lv.evaluate(seen, operating_point=again.operating_point).figures["label"]["auroc"].value > 0.9
    assert bundle.novelty is not None
    assert bundle.novelty.reference.shape[1] == 16
    study.subset("test").save(tmp_path / "test.parquet")
    summary = lv.score(again, tmp_path / "test.parquet", tmp_path / "scores", device="cpu")
    assert (summary.scored, summary.failed) == (16, {})
    assert lv.fit(config, study, run_dir=tmp_path / "run", resume=True, device="cpu").bundle_id == bundle.bundle_id


def test_stages_are_frozen_and_have_their_own_rate() -> None:
    model = lv.build_model(own("model.members=2"))
    assert list(model.parameter_stages()) == ["entry", "middle", "exit", "heads"]
    set_frozen(model, 2)
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert {name.split(".encoder.body.")[1].split(".")[0] for name in frozen} == {"entry", "middle"}
    groups = make_optimizer(model, own("train.encoder_lr_scale=0.1").train, device=torch.device("cpu")).param_groups
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for member in model.members for p in member.encoder.parameters()} == {0.1}
    assert {rates[id(p)] for member in model.members for p in member.heads.parameters()} == {1.0}


def test_more_stages_than_there_are_cannot_be_fixed(study: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"from 0 to 3 \(entry, middle, exit\)"):
        lv.fit(own("train.freeze_stages=4"), study, run_dir=tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="at most 5 for a ResNet"):
        BASE.override("train.freeze_stages=6")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_cached_features_train_what_the_whole_network_would(study: Manifest, tmp_path: Path, count: int) -> None:
    options = (f"train.freeze_stages={count}", "train.epochs=2", "train.batch_size=8", "augment.preset=none")
    states = [
        lv.fit(own(*options, f"train.cache_features={cached}"), study, run_dir=tmp_path / cached, device="cpu").state
        for cached in ("true", "false")
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-5)


def test_a_cache_of_some_stages_needs_features_that_the_others_make_of_it(study: Manifest, tmp_path: Path) -> None:
    options = ("train.cache_features=true", "train.epochs=1", "augment.preset=none")
    with pytest.raises(ConfigError, match="not what its stages"):
        lv.fit(
            own("train.freeze_stages=2", *options, name="test-strongest"), study, run_dir=tmp_path / "a", device="cpu"
        )
    lv.fit(own("train.freeze_stages=3", *options, name="test-strongest"), study, run_dir=tmp_path / "b", device="cpu")


def test_lower_and_upper_make_the_features() -> None:
    encoder, images = Mine(1, 2).eval(), torch.randn(2, 1, 16, 16)
    for count in range(4):
        torch.testing.assert_close(upper(encoder, lower(encoder, images, count), below=count), encoder.features(images))


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("mode", ["joint", "detached", "evidence", "roi"])
def test_segmentation_heads_stand_on_its_maps(decoder: str, mode: str) -> None:
    options = ("segmentation.structures={lesion: 1}", f"segmentation.decoder={decoder}", f"segmentation.mode={mode}")
    for name in ("test-mine", "test-strongest"):
        model = lv.build_model(own(*options, name=name))
        output = model(torch.randn(2, 1, 16, 16))
        assert output.mask_logits.shape == (2, 2, 16, 16)
        model.eval()
        images = torch.randn(2, 1, 16, 16)
        if mode != "roi":  # sees a cut-out
            torch.testing.assert_close(model(images).features, model.encoder.features(images))


def test_volumes_have_it_too() -> None:
    config = own("volume.view=3d", "volume.patch=[16, 16, 16]", "segmentation.structures={lesion: 1}")
    assert lv.build_model(config)(torch.randn(2, 1, 16, 16, 16)).mask_logits.shape == (2, 2, 16, 16, 16)
    assert lv.build_model(own("volume.view=slices"))(torch.randn(2, 1, 4, 16, 16)).logits["label"].shape == (2, 1)


def test_grad_cam_looks_at_its_last_stage() -> None:
    model = lv.build_model(own()).eval()
    images = torch.randn(2, 1, 16, 16)
    maps = model.encoder.skips(images)[-1].detach().requires_grad_()
    model.heads(maps.mean((2, 3)))["label"].sum().backward()
    heat = torch.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
    expected = torch.nn.functional.interpolate(heat, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(grad_cam(model, images, target="label"), expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("mode", ["joint", "detached", "evidence"])
def test_grad_cam_beside_masks_is_that_of_the_classes(mode: str) -> None:
    """An encoder without ``pool`` sees the image twice, and the class hangs on one of both maps."""
    model = lv.build_model(own("segmentation.structures={lesion: 1}", f"segmentation.mode={mode}")).eval()
    images = torch.randn(2, 1, 16, 16)
    heat = grad_cam(model, images, target="label")
    assert np.isfinite(heat).all()
    if mode != "evidence":
        model.gives_masks = False
        np.testing.assert_allclose(heat, grad_cam(model, images, target="label"), atol=1e-6)


def test_pooled_features_alone_have_neither_masks_nor_a_heat_map(study: Manifest, tmp_path: Path) -> None:
    config = own("train.epochs=1", name="test-vector")
    bundle = lv.fit(config, study, run_dir=tmp_path / "run", device="cpu")
    assert lv.predict(bundle, study.subset("test"), device="cpu").y_prob["label"].shape[0] == 16
    with pytest.raises(ConfigError, match="map of places"):
        grad_cam(bundle.network(), torch.randn(1, 1, 16, 16), target="label")
    with pytest.raises(ConfigError, match="pooled features alone"):
        lv.build_model(config.override("segmentation.structures={lesion: 1}"))


def test_it_is_exported_and_gives_the_same(study: Manifest, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from lepton_vision.inference.runtimes.export import export_bundle

    config = own()
    bundle = lv.Bundle(config, config.targets, lv.build_model(config).state_dict())
    assert export_bundle(bundle, tmp_path / "own.onnx", to="onnx") < 1e-4


# ---------------------------------------------------------------- weights and bundles


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "state_dict.model.", "module.backbone.encoder."])
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_weights_are_found_below_any_prefix(tmp_path: Path, prefix: str, suffix: str) -> None:
    source, path = Mine(1, 2), tmp_path / f"w.{suffix}"
    state = {prefix + name: one for name, one in source.state_dict().items()} | {"fc.weight": torch.ones(2, 2)}
    if suffix == "npz":
        np.savez(path, **{name: one.numpy() for name, one in state.items()})
    else:
        torch.save(state, path) if suffix == "pt" else safetensors.torch.save_file(state, path)
    model = lv.build_model(own(f"model.weights={path}"))
    for name, one in source.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], one)
    assert model.start == f"file w.{suffix}: 18 of 18 tensors; dropped fc.weight"


def test_the_first_convolution_is_adapted_and_what_is_missing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = Mine(3, 2).state_dict()
    kept = {name: one for name, one in state.items() if name != "body.exit.1.bias"}
    torch.save(kept, tmp_path / "w.pt")
    encoder = Mine(1, 2)
    with caplog.at_level(logging.WARNING):
        said = load_weights(encoder, str(tmp_path / "w.pt"))
    assert said == ("file w.pt: 17 of 18 tensors; first convolution 3 x 3x3 -> 1 x 3x3; not in it: body.exit.1.bias")
    assert said in caplog.text
    gray = encoder.body["entry"][0].weight
    torch.testing.assert_close(gray.detach(), state["body.entry.0.weight"].sum(1, keepdim=True))


def test_fewer_than_nine_tenths_are_an_error(tmp_path: Path) -> None:
    state = Mine(1, 2).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for lost, fits in ((1, True), (2, False)):  # of 18
        torch.save({name: state[name] for name in names[lost:]}, tmp_path / "w.pt")
        if fits:
            load_weights(Mine(1, 2), str(tmp_path / "w.pt"))
        else:
            with pytest.raises(WeightsError, match=r"at least 90% of the encoder's 18 tensors.*Received: 16"):
                load_weights(Mine(1, 2), str(tmp_path / "w.pt"))
    torch.save(Mine(1, 2, base=5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="have another shape"):
        load_weights(Mine(1, 2), str(tmp_path / "w.pt"))


def test_tensors_under_other_names_are_taken_in_order_where_each_has_its_shape(tmp_path: Path) -> None:
    source, path = Mine(3, 2), tmp_path / "w.pt"
    renamed = {
        f"block{place}.{name.rpartition('.')[2]}": one for place, (name, one) in enumerate(source.state_dict().items())
    }
    torch.save(renamed | {"classifier.weight": torch.ones(2, 16)}, path)
    encoder = Mine(3, 2)
    assert load_weights(encoder, str(path)).startswith("file w.pt: 18 of 18 tensors; dropped classifier.weight")
    for name, one in source.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(encoder.state_dict()[name], one)
    safetensors.torch.save_file(renamed, tmp_path / "w.safetensors")  # sorted: no order to go by
    with pytest.raises(WeightsError, match="Received: 0"):
        load_weights(Mine(3, 2), str(tmp_path / "w.safetensors"))


def test_a_bundle_is_a_start_and_damage_is_refused(tmp_path: Path) -> None:
    config = own()
    bundle = lv.Bundle(config, config.targets, lv.build_model(config).state_dict())
    bundle.save(tmp_path / "b")
    start = lv.build_model(own("train.seed=5", f"model.init_from={tmp_path / 'b'}"))
    for name, one in start.encoder.state_dict().items():
        assert torch.equal(one, bundle.state[f"encoder.{name}"])
    torch.save({**Mine(1, 2).state_dict(), "body.exit.1.bias": torch.full((16,), torch.nan)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="finite"):
        load_weights(Mine(1, 2), str(tmp_path / "w.pt"))


def test_an_encoder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = own()
    place = lv.Bundle(config, config.targets, lv.build_model(config).state_dict()).save(tmp_path / "b")
    told = f"import lepton_vision as lv\ntry: lv.Bundle.load({str(place)!r})\nexcept lv.LeptonError as e: print(e)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert "Its encoder 'test-mine' is not known here. Import the module tests.own_encoders" in found
    monkeypatch.delitem(ENCODERS._factories, "test-mine")
    with pytest.raises(BundleError, match=r"Import the module tests\.own_encoders"):
        lv.Bundle.load(place)


def test_another_process_finds_it_by_its_entry_point(tmp_path: Path) -> None:
    """A package of a team: a module that registers its encoder, and the metadata that pip would write."""
    (tmp_path / "team_net.py").write_text(
        "from tests.own_encoders import Mine\n\ndef make(*, channels, dims):\n    return Mine(channels, dims)\n"
    )
    info = tmp_path / "team_networks-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team-networks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[lepton_vision.encoders]\nteam = team_net:make\n")
    lines = f"""
import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path(__file__).resolve().parents[2])!r}]
from lepton_vision.config import Config
config = Config(targets=[dict(name="a", kind="binary", classes=["n", "y"])]).override("model.backbone=team")
assert "torch" not in sys.modules and "team_net" not in sys.modules
import lepton_vision as lv
lv.Bundle(config, config.targets, lv.build_model(config).state_dict()).save({str(tmp_path / "b")!r})
lv.Bundle.load({str(tmp_path / "b")!r}).network()
"""
    subprocess.run([sys.executable, "-c", lines], check=True)
    facts = json.loads((tmp_path / "b" / "bundle.json").read_text())["encoder"]
    assert facts == {"name": "team", "module": "team_net", "distribution": "team-networks", "version": "1.2"}
    with pytest.raises(LeptonError, match=r"Install the package team-networks \(1\.2\)"):
        lv.Bundle.load(tmp_path / "b")


def test_the_protocol_is_what_ours_and_theirs_have() -> None:
    for encoder in (Mine(1, 2), lv.build_model(BASE).encoder):
        assert isinstance(encoder, lv.Encoder)
    assert not isinstance(torch.nn.Linear(1, 1), lv.Encoder)
