"""Heat maps of chosen samples: equal to ``grad_cam`` on the same pixels, and none for unreadable files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from lepton_vision.config import Config
from lepton_vision.inference.cam import grad_cam
from lepton_vision.inference.explain import explain_samples
from lepton_vision.models import Bundle, build_model
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import CaseKey, SampleAddress, Target

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
