"""A small study of images, and a network trained on it on the GPU once for all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import fit
from tests.cuda.gpu import IMAGES
from tests.squares import planted_squares


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise, in every second image with a bright square; 64 train, 24 val, 24 test."""
    counts = {"train": 64, "val": 24, "test": 24}
    return planted_squares(tmp_path_factory.mktemp("study"), counts=counts, side=32, brighter=60)


@pytest.fixture(scope="session")
def trained(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU: this machine has none")
    return fit(IMAGES, manifest, run_dir=tmp_path_factory.mktemp("run"), device="auto")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """23 PNG files and one that is none."""
    import cv2

    folder, rng = tmp_path / "inbox", np.random.default_rng(4)
    folder.mkdir()
    for number in range(23):
        cv2.imwrite(str(folder / f"{number:02d}.png"), rng.integers(0, 255, (40, 30), dtype=np.uint8))
    (folder / "05-text.png").write_text("no image")
    return folder
