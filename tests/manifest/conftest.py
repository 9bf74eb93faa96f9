"""Small studies on disk and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lepton_vision.manifest.table import Manifest


def picture(seed: int, *, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """A smooth random (H, W) uint8 image; another seed gives another image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """A manifest that was never on disk: columns by keyword, ids and paths made up where not given."""

    def make(label_columns: tuple[str, ...] = ("y",), **columns: Any) -> Manifest:
        count = len(next(iter(columns.values())))
        own = {"image_id": [f"i{k}" for k in range(count)], "path": [f"f{k:05}.png" for k in range(count)]}
        return Manifest(pd.DataFrame({**own, **columns}), root=Path("nowhere"), label_columns=label_columns)

    return make


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Folder of 24 PNG files of 12 patients, with ``labels.csv`` beside it."""
    rows = []
    for k in range(24):
        name = f"p{k // 2:02}/{k % 2}.png"
        write_picture(tmp_path / "study" / name, picture(k))
        rows.append({"path": name, "patient_id": f"Doe^{k // 2}", "finding": (k // 2) % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "study"
