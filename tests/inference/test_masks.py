"""Masks of 2-D images, and failures of single images with their reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference import masks
from lepton_vision.inference.masks import predict_masks
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.assemble import make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.pipeline.masks import evaluate_mask_parts
from lepton_vision.predictions.cells import Failure


def flat_bundle(*changes: str) -> Bundle:
    """Random weights, one structure, images of 32 pixels."""
    config = Config().override(
        "preprocess.size=[32, 32]",
        "model.backbone=resnet10",
        "model.width=8",
        "segmentation.structures={square: 7}",
        "segmentation.channels=8",
        "train.batch_size=2",
        *changes,
    )
    torch.manual_seed(0)
    return Bundle(config=config, targets=(), state=make_network(config, targets=()).state_dict())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40), dtype=np.uint8)
        PilImage.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("kind", ["files", "rows"])
def test_an_image_that_does_not_fit_into_memory_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images = folder if kind == "files" else Manifest.scan(folder, workers=0)
    original, seen = masks.preprocess_image, list[int]()

    def greedy(image: object, config: object) -> object:
        seen.append(len(seen))
        if len(seen) == 2:
            raise MemoryError
        return original(image, config)  # type: ignore[arg-type]

    monkeypatch.setattr(masks, "preprocess_image", greedy)
    found = list(predict_masks(flat_bundle(), images, precision="fp32"))
    assert [one.reason if isinstance(one, Failure) else "" for one in found] == ["", "too_large", ""]


@pytest.mark.parametrize("change", ["segmentation.mode=auxiliary", ""])
def test_a_bundle_without_masks_is_refused_in_the_same_words_everywhere(folder: Path, change: str) -> None:
    bundle = flat_bundle("segmentation.mode=auxiliary")
    if not change:
        plain = Config(targets=({"name": "a", "kind": "binary", "classes": ("0", "1")},))  # type: ignore[arg-type]
        plain = plain.override("preprocess.size=[32, 32]", "model.backbone=resnet10", "model.width=8")
        bundle = Bundle(config=plain, targets=plain.targets, state=make_network(plain).state_dict())
    manifest = Manifest.scan(folder, workers=0)
    for refused in (
        lambda: next(predict_masks(bundle, folder)),
        lambda: evaluate_mask_parts([(bundle, manifest)], out=folder / "out"),
        bundle.require_masks,
    ):
        with pytest.raises(ConfigError, match="Expected a bundle that predicts masks") as caught:
            refused()
        assert caught.value.key == "segmentation"
    assert not (folder / "out").exists()
    assert flat_bundle().require_masks().names == ("square",)
