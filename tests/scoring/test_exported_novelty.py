"""Novelty in rows of exported files, equal to torch's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes import export
from lepton_vision.inference.runtimes.export import export_bundle
from lepton_vision.models import Bundle
from lepton_vision.predictions.novelty import fit_novelty
from lepton_vision.scoring import score
from lepton_vision.transforms.preprocess import to_input

from .bundles import image_bundle, read

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
HOW: dict[str, Any] = {"device": "cpu", "batch_size": 4}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Its reference are the features of 40 images of noise, as the network gives them."""
    plain, rng = image_bundle("segmentation=null"), np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (40, 1, 32, 32)).astype(np.uint16)
    found = Engine(plain, device="cpu", precision="fp32").examine(to_input(pixels, plain.config.preprocess))
    assert found.features is not None
    return plain.with_novelty(fit_novelty(found.features[:30], found.features[30:], k=3))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(1), tmp_path / "inbox"
    folder.mkdir()
    for k in range(6):
        Image.fromarray(rng.integers(0, 40 * (k + 1), (24, 32)).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_exported_file_gives_the_novelty_of_torch(
    bundle: Bundle, inbox: Path, tmp_path: Path, to: Literal["onnx", "openvino"], suffix: str
) -> None:
    if find_spec(PACKAGES[to]) is None:
        pytest.skip(f"the extra {to} is not installed")
    file = tmp_path / f"model{suffix}"
    export_bundle(bundle, file, to=to)
    score(bundle, inbox, tmp_path / "torch", precision="fp32", **HOW)
    score(bundle, inbox, tmp_path / "file", engine=str(file), **HOW)
    plain, found = read(tmp_path / "torch"), read(tmp_path / "file")
    assert plain["novelty"].notna().all()
    assert plain["novelty"].std() > 0
    np.testing.assert_allclose(found["novelty"], plain["novelty"], rtol=1e-3)
    assert np.abs(found["novelty_percentile"] - plain["novelty_percentile"]).max() <= 10  # one of 10 of validation


def test_a_file_of_an_earlier_export_scores_without_novelty(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("onnxruntime") is None:
        pytest.skip("the extra onnx is not installed")
    model = export._model
    monkeypatch.setattr(
        export, "_model", lambda bundle, *, to, gives_features: model(bundle, to=to, gives_features=False)
    )
    export_bundle(bundle, tmp_path / "old.onnx", to="onnx")
    done = score(bundle, inbox, tmp_path / "out", engine=str(tmp_path / "old.onnx"), **HOW)
    rows = read(tmp_path / "out")
    assert done.scored == 6
    assert rows["novelty"].isna().all()
    assert rows["novelty_percentile"].isna().all()
    assert rows["reason"].isna().all()
