"""Whole volumes through a network of patches (fits, windows, mirrors) and of slices (joined by hand)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, VolumeSegmenter, predict_masks
from lepton_vision.inference.whole_volumes import SlicewiseNetwork, WindowedNetwork
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.assemble import make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.network import Network
from lepton_vision.readers.image import read_image
from lepton_vision.readers.orient import reorient
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.types import Image, ModelOutput, Target
from tests.manifest.dicom_series import write_series
from tests.transforms.volumes import planted_volumes, volume_config

SICK = Target("sick", "binary", ("no", "yes"))


def network(config: Config, targets: tuple[Target, ...] = ()) -> Network:
    torch.manual_seed(0)
    return make_network(config, targets=targets).eval()


class Pointwise(nn.Module):
    """Logits that hang on each voxel alone: windows and padding must not change them."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: tuple[Target, ...] = ()
        self.gives_masks = True
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> ModelOutput:
        self.seen.append(tuple(images.shape))
        return ModelOutput({}, torch.cat([images, images**2, 1 - images], dim=1))


@pytest.mark.parametrize("size", [(16, 16, 16), (5, 16, 9), (20, 16, 30), (20, 7, 30), (33, 40, 17)])
@pytest.mark.parametrize("mirrored", [(), (4,), (2, 3, 4)])
def test_what_hangs_on_one_voxel_is_the_same_in_any_window(
    size: tuple[int, int, int], mirrored: tuple[int, ...]
) -> None:
    inner = Pointwise()
    windowed = WindowedNetwork(inner, volume_config(), mirrored=mirrored)  # type: ignore[arg-type]
    images = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    found = windowed(images).mask_logits
    assert torch.allclose(found, torch.cat([images, images**2, 1 - images], dim=1), atol=1e-4)
    assert {shape[2:] for shape in inner.seen} == {(16, 16, 16)}


def test_a_volume_of_the_size_of_a_patch_is_what_the_network_says() -> None:
    config = volume_config()
    model = network(config, (SICK,))
    images = torch.randn(2, 1, 16, 16, 16)
    with torch.inference_mode():
        expected, found = model(images), WindowedNetwork(model, config).eval()(images)
    assert found.mask_logits is not None
    assert torch.allclose(found.mask_logits, expected.mask_logits, atol=1e-5)
    assert torch.allclose(found.logits["sick"], expected.logits["sick"], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((18, 20, 24), {(18, 20, 24)}),
        ((9, 20, 16), {(16, 20, 16)}),
        ((18, 30, 24), {(18, 20, 24)}),
        ((9, 9, 9), {(16,) * 3}),
    ],
)
def test_a_volume_that_fits_into_a_window_is_seen_whole(size: tuple[int, ...], seen: set[tuple[int, ...]]) -> None:
    inner = Pointwise()
    windowed = WindowedNetwork(inner, volume_config("volume.window=[20, 20, 24]"), mirrored=(4,))  # type: ignore[arg-type]
    images = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    found = windowed(images).mask_logits
    assert torch.allclose(found, torch.cat([images, images**2, 1 - images], dim=1), atol=1e-4)
    assert {shape[2:] for shape in inner.seen} == seen
    with pytest.raises(ConfigError, match="smaller than patch"):
        volume_config("volume.window=[20, 20, 12]")


def test_a_smaller_volume_lies_in_black() -> None:
    config = volume_config("preprocess.mean=[0.25]", "preprocess.std=[0.5]")
    model = network(config)
    images = torch.randn(1, 1, 13, 16, 10)
    padded = torch.full((1, 1, 16, 16, 16), -0.5)
    padded[:, :, 2:15, :, 3:13] = images
    with torch.inference_mode():
        expected = model(padded).mask_logits[:, :, 2:15, :, 3:13]
        found = WindowedNetwork(model, config).eval()(images).mask_logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_targets_of_a_large_volume_come_from_its_middle() -> None:
    config = volume_config()
    model = network(config, (SICK,))
    images = torch.randn(1, 1, 20, 16, 24)
    with torch.inference_mode():
        expected = model(images[:, :, 2:18, :, 4:20].contiguous()).logits["sick"]
        output = WindowedNetwork(model, config).eval()(images)
        model.gives_masks = False
        alone = WindowedNetwork(model, config).eval()(images)
    assert torch.allclose(output.logits["sick"], expected, atol=1e-6)
    assert output.mask_logits is not None
    assert output.mask_logits.shape == (1, 3, 20, 16, 24)
    assert alone.mask_logits is None
    assert torch.allclose(alone.logits["sick"], expected, atol=1e-6)


def test_mirrored_views_are_averaged() -> None:
    config = volume_config()
    model = network(config)
    images = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        views = [model(images), model(images.flip(4))]
        found = WindowedNetwork(model, config, mirrored=(4,)).eval()(images).mask_logits
    assert views[0].mask_logits is not None
    assert views[1].mask_logits is not None
    assert torch.allclose(found, (views[0].mask_logits + views[1].mask_logits.flip(4)) / 2, atol=1e-6)


def test_flat_images_and_unknown_axes_are_refused() -> None:
    config = volume_config()
    with pytest.raises(ConfigError, match="volume"):
        WindowedNetwork(network(config), config.model_copy(update={"volume": None}))
    with pytest.raises(ConfigError, match="axes 2, 3 and 4"):
        WindowedNetwork(network(config), config, mirrored=(1,))


def test_monai_is_imported_for_large_volumes_alone() -> None:
    code = """
import sys, torch
from tests.transforms.volumes import volume_config
from lepton_vision.models.assemble import make_network
from lepton_vision.inference.whole_volumes import WindowedNetwork
config = volume_config()
windowed = WindowedNetwork(make_network(config, targets=()).eval(), config)
with torch.inference_mode():
    windowed(torch.zeros(1, 1, 9, 16, 16))
print("monai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


CORE = Target("core", "binary", ("0", "1"))
KIND = Target("kind", "multiclass", ("a", "b", "c"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return planted_volumes(tmp_path_factory.mktemp("volumes"), count=4)


def slab_bundle(*changes: str) -> Bundle:
    """Random weights whose masks are a mixture of all structures."""
    config = volume_config("volume.view=2.5d", "preprocess.size=[20, 16]", "volume.context_step=2", *changes)
    config = config.model_copy(update={"targets": (CORE, KIND)})
    torch.manual_seed(0)
    network = make_network(config)
    with torch.no_grad():
        weight = network.decoder.last.weight  # type: ignore[union-attr]
        weight.normal_()
        weight -= weight.mean(dim=1, keepdim=True)
        for head in ("core", "kind"):
            network.heads.head(head).weight.normal_()
    return Bundle(config=config, targets=config.targets, state=network.state_dict(), temperatures={"core": 2.0})


def by_hand(bundle: Bundle, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (D, 1) and (D, 3), and mask probabilities (D, 1 + M, height, width), one slice after the other."""
    whole, config = reorient(read_image(path), "LPS"), bundle.config
    depth = whole.pixels.shape[1]
    planes = [
        preprocess_image(
            Image(whole.pixels[:, k], units=whole.units, value_range=whole.value_range), config.preprocess
        )[0]
        / 65535.0
        for k in range(depth)
    ]
    network, found = bundle.network(), []
    for place in range(depth):
        near = [planes[max(0, place - 2)], planes[place], planes[min(depth - 1, place + 2)]]
        images = torch.from_numpy((np.stack(near)[None] - 0.5) / 0.25).float()
        with torch.inference_mode():
            found.append(network(images))
    core, kind = (np.concatenate([one.logits[name].numpy() for one in found]) for name in ("core", "kind"))
    return core, kind, np.concatenate([one.mask_logits.softmax(1).numpy() for one in found])


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_a_volume_is_what_its_slices_are_together(manifest: Manifest, aggregate: str) -> None:
    bundle = slab_bundle(f"volume.aggregate={aggregate}")
    found = predict(bundle, manifest, device="cpu", precision="fp32")
    join = np.mean if aggregate == "mean" else np.max
    for row, name in enumerate(manifest.frame["path"]):
        core, kind, _ = by_hand(bundle, manifest.root / name)
        assert found.y_prob["core"][row] == pytest.approx(1 / (1 + np.exp(-join(core) / 2.0)), abs=1e-5)
        exact = np.exp(join(kind, axis=0))
        assert np.allclose(found.y_prob["kind"][row], exact / exact.sum(), atol=1e-5)


def test_batches_and_single_volumes_of_rows_and_files_agree_bit_by_bit(manifest: Manifest) -> None:
    bundle = slab_bundle()
    options = {"device": "cpu", "precision": "fp32", "batch_size": 5}
    together = predict(bundle, manifest, **options)  # type: ignore[arg-type]
    files = [manifest.root / name for name in manifest.frame["path"]]
    for row, path in enumerate(files):
        alone = predict(bundle, path, **options)  # type: ignore[arg-type]
        assert alone.y_prob["core"][0] == together.y_prob["core"][row]
    backwards = predict(bundle, files[::-1], **options, workers=2)  # type: ignore[arg-type]
    assert np.array_equal(backwards.y_prob["kind"][::-1], together.y_prob["kind"])
    other = predict(bundle, manifest, device="cpu", precision="fp32", batch_size=64)
    assert np.allclose(other.y_prob["core"], together.y_prob["core"], atol=1e-6)


def test_masks_lie_on_the_slices_they_were_predicted_of(manifest: Manifest) -> None:
    bundle = slab_bundle("preprocess.size=[40, 36]")
    for found in predict_masks(bundle, manifest, device="cpu", precision="fp32"):
        assert isinstance(found, MaskPrediction)
        path = manifest.root / manifest.frame["path"][found.row]
        *_, prob = by_hand(bundle, path)
        whole = reorient(read_image(path), "LPS").pixels[0]
        assert found.labels.shape == read_image(path).pixels.shape[1:]
        file = nib.load(path)
        codes = nib.orientations.axcodes2ornt(("L", "P", "S"))
        way = nib.orientations.ornt_transform(nib.orientations.io_orientation(file.affine), codes)
        turned = nib.orientations.apply_orientation(found.labels.transpose(2, 1, 0), way).transpose(2, 1, 0)
        assert turned.shape == whole.shape
        assert len(np.unique(turned)) >= 2
        height, width = whole.shape[1:]
        scale = min(40 / height, 36 / width)
        rows, columns = round(height * scale), round(width * scale)
        top, left = (40 - rows) // 2, (36 - columns) // 2
        for place, slices in enumerate(prob):
            shown = [np.ascontiguousarray(plane[top : top + rows, left : left + columns]) for plane in slices]
            back = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in shown]
            assert (np.argmax(back, axis=0) == turned[place]).mean() > 0.99  # ties apart


@pytest.mark.parametrize("spacing", ["null", "[2.0, 0.7, 1.3]"])
def test_a_turned_file_has_the_same_mask_turned(manifest: Manifest, tmp_path: Path, spacing: str) -> None:
    segmenter = VolumeSegmenter(slab_bundle(f"volume.spacing_mm={spacing}"), precision="fp32", device="cpu")
    plain = nib.load(manifest.root / manifest.frame["path"][0])
    expected = segmenter.mask(read_image(manifest.root / manifest.frame["path"][0])).transpose(2, 1, 0)
    assert expected.shape == plain.shape
    for codes in ("LPS", "SRA"):
        target = nib.orientations.axcodes2ornt(codes)
        way = nib.orientations.ornt_transform(nib.orientations.io_orientation(plain.affine), target)
        nib.save(plain.as_reoriented(way), tmp_path / f"{codes}.nii.gz")
        found = segmenter.mask(read_image(tmp_path / f"{codes}.nii.gz")).transpose(2, 1, 0)
        assert np.array_equal(found, nib.orientations.apply_orientation(expected, way))


def test_a_series_is_a_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "s", np.random.default_rng(0).integers(0, 300, (5, 9, 8)), patient="a", series="x")
    (found,) = predict_masks(slab_bundle(), tmp_path, device="cpu")
    assert isinstance(found, MaskPrediction)
    assert found.labels.shape == (5, 9, 8)
    assert predict(slab_bundle(), tmp_path, device="cpu").n == 1


def test_mirrored_masks_are_averaged(manifest: Manifest) -> None:
    bundle = slab_bundle()
    network = bundle.network()
    images = torch.randn(2, 1, 4, 20, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = SlicewiseNetwork(network, bundle.config).eval()
        both = SlicewiseNetwork(network, bundle.config, mirrored=(4,)).eval()(images)
        expected = (plain(images).mask_logits + plain(images.flip(4)).mask_logits.flip(4)) / 2  # type: ignore[operator,union-attr]
        assert both.mask_logits is not None
        assert torch.allclose(both.mask_logits, expected)
        assert torch.equal(both.logits["core"], plain(images).logits["core"])
        few = SlicewiseNetwork(network, bundle.config, at_once=3).eval()(images).mask_logits
        assert torch.allclose(few, plain(images).mask_logits, atol=1e-5)  # type: ignore[arg-type]


def test_another_view_is_refused() -> None:
    config: Config = volume_config()
    with pytest.raises(ConfigError, match=r"2\.5d"):
        SlicewiseNetwork(make_network(config, targets=()), config)
    bundle = slab_bundle()
    with pytest.raises(ConfigError, match="axes 2, 3 and 4"):
        SlicewiseNetwork(bundle.network(), bundle.config, mirrored=(1,))
