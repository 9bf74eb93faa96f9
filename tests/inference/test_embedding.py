"""Embeddings and preprocessing: what a plain loop over the network gives, with the ids of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Picture
from scipy.special import expit

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
CONFIG = Config(targets=(SICK,)).override("preprocess.size=[32, 32]", "train.batch_size=4", "model.width=8")


@pytest.fixture(scope="module")
def bundle() -> lv.Bundle:
    return lv.Bundle(CONFIG, CONFIG.targets, lv.build_model(CONFIG).state_dict()).with_temperatures({"sick": 2.0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images and a broken file."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for k in range(5):
        Picture.fromarray(rng.integers(0, 255, (40 + k, 36), np.uint8)).save(root / f"{k}.png")
    (root / "5.png").write_bytes(b"broken")
    return root


def test_features_and_ids_are_those_of_the_network_and_of_predict(bundle: lv.Bundle, folder: Path) -> None:
    found = lv.embed(bundle, folder, device="cpu", progress=False)
    network = bundle.network()
    with torch.inference_mode():
        plain = [network.features(network.preprocess(folder / f"{k}.png"))[0].numpy() for k in range(5)]
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(found.features, np.stack(plain), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(found), found.features)
    predicted = lv.predict(bundle, folder, device="cpu", progress=False)
    assert list(found.image_id) == list(predicted.image_id)
    assert [failure.reason for failure in found.failures] == ["not_an_image"]
    assert list(found.frame.columns[:4]) == ["image_id", "patient_id", "series_id", "feature_0"]
    assert found.frame.shape == (5, 3 + found.features.shape[1])
    assert "5 images, 5 x 64" in repr(found)


def test_rows_of_several_splits_may_be_embedded(bundle: lv.Bundle, folder: Path) -> None:
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(4)], "split": ["train", "train", "val", "test"]})
    manifest = lv.Manifest.from_frame(table, root=folder, workers=0)
    found = lv.embed(bundle, manifest, device="cpu", progress=False)
    assert list(found.image_id) == list(manifest.frame["image_id"])


def test_the_network_with_its_preprocessing_gives_what_predict_calibrates(bundle: lv.Bundle, folder: Path) -> None:
    network = bundle.network()
    image = lv.read_image(folder / "0.png")
    images = network.preprocess(image)
    assert (images.shape, images.dtype) == ((1, 1, 32, 32), torch.float32)
    with torch.inference_mode():
        logit = float(network(images).logits["sick"][0, 0])
    predicted = lv.predict(bundle, image, device="cpu", progress=False)
    assert predicted.y_prob["sick"][0] == pytest.approx(expit(logit / 2.0), abs=1e-6)


@pytest.mark.parametrize(("view", "shape"), [("3d", (1, 1, 16, 16, 16)), ("slices", (1, 1, 16, 16, 16))])
def test_volumes_are_preprocessed_as_their_view_sees_them(view: str, shape: tuple[int, ...]) -> None:
    config = CONFIG.override(f"volume.view={view}", "preprocess.size=[16, 16]", "volume.patch=[16, 16, 16]")
    bundle = lv.Bundle(config, config.targets, lv.build_model(config).state_dict())
    volume = lv.Image(np.random.default_rng(0).random((1, 16, 16, 16), np.float32), spacing_mm=(1.0, 1.0, 1.0))
    network = bundle.network()
    images = network.preprocess(volume)
    assert images.shape[:2] == shape[:2]
    with torch.inference_mode():
        logit = float(network(images).logits["sick"][0, 0])
    assert lv.predict(bundle, volume, device="cpu", progress=False).y_prob["sick"][0] == pytest.approx(
        expit(logit), abs=1e-5
    )


def test_a_network_without_targets_has_no_features(folder: Path) -> None:
    config = CONFIG.model_copy(update={"targets": ()}).override("segmentation.structures={lesion: 1}")
    bundle = lv.Bundle(config, (), lv.build_model(config).state_dict())
    with pytest.raises(ConfigError, match="one of masks alone"):
        lv.embed(bundle, folder, device="cpu", progress=False)


def test_one_image_is_explained_by_a_picture(bundle: lv.Bundle, folder: Path, tmp_path: Path) -> None:
    found = lv.explain(bundle, folder / "0.png", device="cpu")
    network = bundle.network()
    images = network.preprocess(folder / "0.png")
    expected = lv.inference.grad_cam(network, images, target="sick")[0]
    np.testing.assert_allclose(found.heat, expected, rtol=1e-4, atol=1e-7)
    assert found.class_name == "yes"
    assert found.probability == pytest.approx(lv.predict(bundle, folder / "0.png", progress=False).y_prob["sick"][0])
    other = lv.explain(bundle, lv.read_image(folder / "0.png"), class_name="no", device="cpu")
    assert other.probability == pytest.approx(1 - found.probability, abs=1e-6)
    with Picture.open(found.save(tmp_path / "cam.png")) as written:
        assert (written.size, written.mode) == ((32, 32), "RGB")
    hottest = np.unravel_index(found.heat.argmax(), found.heat.shape)
    red, green, blue = (int(value) for value in found.picture[hottest])
    assert red > green == blue
    with pytest.raises(ConfigError, match="Did you mean 'yes'"):
        lv.explain(bundle, folder / "0.png", class_name="yess")
    with pytest.raises(ConfigError, match="Did you mean 'sick'"):
        lv.explain(bundle, folder / "0.png", target="sik")
    with pytest.raises(ReadError):
        lv.explain(bundle, folder / "5.png")
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        found.save(tmp_path / "cam.jpg")
