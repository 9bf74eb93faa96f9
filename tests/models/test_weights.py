"""Weights from files and from torchvision: complete loads, or errors with advice."""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import re
import subprocess
import sys
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from lepton_vision.config import Config
from lepton_vision.errors import WeightsError
from lepton_vision.models import build_model
from lepton_vision.models.resnet import ResNet, torchvision_name
from lepton_vision.models.weights import load_weights

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return dict(torchvision.models.resnet18().state_dict())


def save_npz(state: State, path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})


SAVERS: dict[str, Callable[[State, Path], Any]] = {
    ".pt": torch.save,
    ".pth": torch.save,
    ".safetensors": safetensors.torch.save_file,
    ".npz": save_npz,
}


def assert_loaded(encoder: ResNet, state: State) -> None:
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[torchvision_name(name)]), name


@pytest.mark.parametrize("suffix", sorted(SAVERS))
def test_each_kind_of_file_fills_the_whole_encoder_and_names_what_was_dropped(
    tmp_path: Path, state: State, suffix: str
) -> None:
    path = tmp_path / f"start{suffix}"
    SAVERS[suffix](state, path)
    encoder = ResNet("resnet18", channels=3)
    said = load_weights(encoder, str(path))
    assert_loaded(encoder, state)
    assert said == f"file start{suffix}: 120 tensors; dropped fc.bias, fc.weight"


@pytest.mark.parametrize(
    ("wrapping", "prefix"),
    [((), "module."), (("state_dict",), ""), (("model",), "module.backbone."), (("checkpoint", "model"), "encoder.")],
)
def test_common_wrappings_and_prefixes_are_taken_off(
    tmp_path: Path, state: State, wrapping: tuple[str, ...], prefix: str
) -> None:
    loaded: dict[str, Any] = {prefix + name: tensor for name, tensor in state.items()}
    loaded["head.weight"] = torch.zeros(3)
    for key in reversed(wrapping):
        loaded = {key: loaded, "epoch": 7}
    torch.save(loaded, tmp_path / "start.pt")
    encoder = ResNet("resnet18", channels=3)
    assert "head.weight" in load_weights(encoder, str(tmp_path / "start.pt"))
    assert_loaded(encoder, state)


def test_half_precision_becomes_float32(tmp_path: Path, state: State) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_npz(half, tmp_path / "start.npz")
    encoder = ResNet("resnet18", channels=3)
    load_weights(encoder, str(tmp_path / "start.npz"))
    assert encoder.layer1[0].conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.layer1[0].conv1.weight, half["layer1.0.conv1.weight"].float())


def test_the_stem_is_adapted_so_that_gray_equals_three_equal_channels(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "start.pt")
    gray, color = ResNet("resnet18", channels=1).eval(), ResNet("resnet18", channels=3).eval()
    assert "stem 3 x 7x7 -> 1 x 7x7" in load_weights(gray, str(tmp_path / "start.pt"))
    load_weights(color, str(tmp_path / "start.pt"))
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(gray(image), color(image.expand(2, 3, 64, 64)), rtol=1e-4, atol=1e-4)


def test_a_missing_tensor_is_never_left_random(tmp_path: Path, state: State) -> None:
    gone = {"layer3.0.conv1.weight", "bn1.running_var"}
    torch.save({name: tensor for name, tensor in state.items() if name not in gone}, tmp_path / "start.pt")
    with pytest.raises(WeightsError, match=r"2 missing \(bn1.running_var, layer3.0.conv1.weight\)") as caught:
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.path == tmp_path / "start.pt"


def test_a_counter_of_batches_may_be_missing(tmp_path: Path, state: State) -> None:
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "start.pt")
    assert "100 tensors" in load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


def test_another_shape_is_named(tmp_path: Path, state: State) -> None:
    torch.save(state | {"layer2.0.conv1.weight": torch.zeros(128, 64, 1, 1)}, tmp_path / "start.pt")
    with pytest.raises(WeightsError, match=r"layer2.0.conv1.weight is \(128, 64, 1, 1\), not \(128, 64, 3, 3\)"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


@pytest.mark.parametrize("deeper", ["resnet34", "resnet50"])
def test_a_deeper_network_is_not_cut_short_but_named(tmp_path: Path, deeper: str) -> None:
    torch.save(getattr(torchvision.models, deeper)().state_dict(), tmp_path / "start.pt")
    with pytest.raises(WeightsError, match=rf"Set model.backbone to '{deeper}'"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


def test_two_networks_in_one_file_are_refused(tmp_path: Path, state: State) -> None:
    both = {f"{role}.{name}": tensor for role in ("left", "right") for name, tensor in state.items()}
    torch.save(both, tmp_path / "start.pt")
    with pytest.raises(WeightsError, match=r"2 of them"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


def numbered(state: State) -> State:
    """Names of ``nn.Sequential(*resnet.children())``, asked of torch."""
    network = torchvision.models.resnet18()
    network.load_state_dict(state)
    return dict(torch.nn.Sequential(*list(network.children())[:-1]).state_dict())


@pytest.mark.parametrize(
    "name", ["best.pth.tar", "last.ckpt", "pytorch_model.bin", "checkpoint_best", "model.PT", "resnet.model"]
)
def test_what_a_file_is_called_does_not_matter(tmp_path: Path, state: State, name: str) -> None:
    torch.save(
        {"epoch": 3, "best_acc1": torch.tensor(71.2), "metric": np.float64(0.7), "state_dict": state}, tmp_path / name
    )
    encoder = ResNet("resnet18", channels=3)
    said = load_weights(encoder, str(tmp_path / name))
    assert said == f"file {name}: 120 tensors; dropped best_acc1, fc.bias, fc.weight"
    assert_loaded(encoder, state)


CHECKPOINTS: dict[str, Callable[[State, State], Any]] = {
    "Lightning": lambda state, other: {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{k}": v for k, v in state.items()} | {"criterion.pos_weight": torch.ones(1)},
        "hyper_parameters": {"lr": 0.1},
    },
    "EMA beside it": lambda state, other: {
        "state_dict": state,
        "state_dict_ema": other,
        "optimizer": {"state": {0: other}},
    },
    "EMA alone": lambda state, other: {"model_ema": {f"module.{k}": v for k, v in state.items()}},
    "MoCo": lambda state, other: {
        "state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}
        | {f"module.encoder_k.{k}": v for k, v in other.items()}
    },
    "DINO": lambda state, other: {
        "student": {f"module.backbone.{k}": v for k, v in other.items()},
        "teacher": {f"backbone.{k}": v for k, v in state.items()},
    },
    "numbered": lambda state, other: {f"backbone.{k}": v for k, v in numbered(state).items()},
    "numbered twice": lambda state, other: {"model": {f"0.{k}": v for k, v in numbered(state).items()}, "opt": {}},
}


@pytest.mark.parametrize("kind", sorted(CHECKPOINTS))
def test_checkpoints_of_other_tools(tmp_path: Path, state: State, kind: str) -> None:
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save(CHECKPOINTS[kind](state, other), tmp_path / "start.pt")
    encoder = ResNet("resnet18", channels=3)
    said = load_weights(encoder, str(tmp_path / "start.pt"))
    assert_loaded(encoder, state)
    copies = {
        "EMA beside it": "state_dict_ema.*",
        "MoCo": "state_dict.module.encoder_k.*",
        "DINO": "student.module.backbone.*",
    }
    assert copies.get(kind, "120 tensors") in said


def test_a_foreign_class_is_named_with_the_command_that_converts(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "OLD")
    with pytest.raises(WeightsError, match=r"argparse.Namespace") as caught:
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "OLD"))
    command = str(caught.value).split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    encoder = ResNet("resnet18", channels=3)
    load_weights(encoder, str(tmp_path / "NEW.pt"))
    assert_loaded(encoder, state)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (gzip.compress(b"weights", mtime=0), "Unpack"),  # the time of day would be part of the test's name
    ],
)
def test_what_is_no_file_of_weights_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "start.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


def test_a_torchscript_archive_is_told(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own format old
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "start.pt"))
    with pytest.raises(WeightsError, match=r"TorchScript"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


def test_not_a_number_is_refused(tmp_path: Path, state: State) -> None:
    torch.save(state | {"bn1.running_var": torch.full((64,), float("inf"))}, tmp_path / "start.pt")
    with pytest.raises(WeightsError, match=r"bn1.running_var"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "start.pt"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["torch", "pickle", "npz"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, state: State, kind: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / ("start.npz" if kind == "npz" else "start.pt")
    if kind == "torch":
        torch.save({"state_dict": state, "bomb": Bomb(trace)}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"bomb": Bomb(trace)}))
    else:
        np.savez(path, bomb=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(WeightsError, match=r"holds more than tensors"):
        load_weights(ResNet("resnet18", channels=3), str(path))
    assert not trace.exists()


@pytest.mark.parametrize("suffix", sorted(SAVERS))
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, state: State, suffix: str, damage: str) -> None:
    path = tmp_path / f"start{suffix}"
    SAVERS[suffix]({name: state[name] for name in ("conv1.weight", "bn1.weight")}, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"no weights at all\n" * 9}[damage])
    with pytest.raises(WeightsError, match=r"weights"):
        load_weights(ResNet("resnet18", channels=3), str(path))


def test_a_file_that_is_not_there_and_a_word_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not exist"):
        load_weights(ResNet("resnet18", channels=3), str(tmp_path / "gone.pt"))
    with pytest.raises(WeightsError, match=r"Expected 'none', 'imagenet' or a file"):
        load_weights(ResNet("resnet18", channels=3), "imagnet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_comes_from_torchvisions_cache(hub: Path, state: State) -> None:
    torch.save(state, hub / "resnet18-f37072fd.pth")
    encoder = ResNet("resnet18", channels=3)
    assert load_weights(encoder, "imagenet").startswith("imagenet resnet18: 120 tensors")
    assert_loaded(encoder, state)


def test_offline_without_a_copy_says_where_to_put_one(hub: Path) -> None:
    config = Config.from_dict({"targets": [{"name": "sick", "kind": "binary", "classes": ["no", "yes"]}]})
    with pytest.raises(WeightsError) as caught:
        build_model(config.override("model.weights=imagenet"))
    for part in ("https://download.pytorch.org/models/resnet18-f37072fd.pth", "hub/checkpoints", "local file", "none"):
        assert part in str(caught.value)


def test_a_damaged_cached_copy_says_to_delete_it(hub: Path) -> None:
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half a downl")
    with pytest.raises(WeightsError, match=r"damaged .* Delete it"):
        load_weights(ResNet("resnet18", channels=3), "imagenet")


def test_a_bundles_own_file_can_be_the_start(tmp_path: Path, state: State) -> None:
    before = ResNet("resnet18", channels=1)
    network = {f"encoder.{name}": tensor.clone() for name, tensor in before.state_dict().items()}
    buffer = io.BytesIO(safetensors.torch.save(network))
    (tmp_path / "weights.safetensors").write_bytes(buffer.getvalue())
    encoder = ResNet("resnet18", channels=1)
    load_weights(encoder, str(tmp_path / "weights.safetensors"))
    assert torch.equal(encoder.stem.conv1.weight, before.stem.conv1.weight)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_files_of_hugging_face_fill_a_resnet(backbone: str, tmp_path: Path) -> None:
    """Names as ``ResNetForImageClassification`` of transformers 5.24 writes them, sorted, as in safetensors."""
    theirs, new = torchvision.models.get_model(backbone).eval(), {}
    for name, tensor in theirs.state_dict().items():
        name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
        name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
        name = re.sub(r"^layer(\d)\.", lambda found: f"encoder.stages.{int(found[1]) - 1}.layers.", name)
        name = name.replace(".downsample.0.", ".shortcut.convolution.")
        name = name.replace(".downsample.1.", ".shortcut.normalization.")
        name = re.sub(r"\.conv(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.convolution.", name)
        name = re.sub(r"\.bn(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.normalization.", name)
        new["classifier.1" + name[2:] if name.startswith("fc.") else f"resnet.{name}"] = tensor.contiguous()
    assert "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight" in new
    assert "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_var" in new
    safetensors.torch.save_file(dict(sorted(new.items())), tmp_path / "model.safetensors")
    encoder = ResNet(backbone, channels=3).eval()
    said = load_weights(encoder, str(tmp_path / "model.safetensors"))
    assert said.endswith("dropped classifier.1.bias, classifier.1.weight")
    theirs.fc = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.features(images), theirs(images), rtol=1e-4, atol=1e-5)
