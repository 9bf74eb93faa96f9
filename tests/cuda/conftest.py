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


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise, in every second image with a bright square; 64 train, 24 val, 24 test."""
    folder, rng, arrays = tmp_path_factory.mktemp("study"), np.random.default_rng(0), {}
    for split, n in (("train", 64), ("val", 24), ("test", 24)):
        labels = np.arange(n) % 2
        images = rng.integers(0, 120, (n, 32, 32))
        images[labels == 1, 8:24, 8:24] += 60
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    np.savez(folder / "study.npz", **arrays)
    return Manifest.scan(folder / "study.npz", workers=0)


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
