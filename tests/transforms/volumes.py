"""Small NIfTI volumes with masks, and a manifest of them, for tests of 3-D samples."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from lepton_vision.config import Config
from lepton_vision.manifest.table import Manifest

# NIfTI's affine goes to RAS: x right, y front, z head.
RAS = np.eye(4)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    """Write (W, H, D) as NIfTI has it; without an affine the header says nothing about the patient."""
    image = nib.Nifti1Image(array, affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def planted_volumes(
    folder: Path, *, count: int = 6, seed: int = 0, side: int = 12, core_depth: tuple[int, int] = (2, 5)
) -> Manifest:
    """Noise with a bright box (structure 1) of unlike size and place; odd ones hold a brighter core (structure 2).

    ``core_depth`` says which of the six slices of the box show the core.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        size = rng.integers(side, side + 4, 3)
        mask = np.zeros(size, np.uint8)
        first = rng.integers(1, 4, 3)
        box = tuple(slice(int(a), int(a) + 6) for a in first)
        mask[box] = 1
        has_core = number % 2 == 1
        if has_core:
            ends = ((2, 5), (2, 5), core_depth)
            mask[tuple(slice(int(a) + low, int(a) + high) for a, (low, high) in zip(first, ends, strict=True))] = 2
        pixels = rng.normal(100, 10, size) + 60.0 * (mask >= 1) + 60.0 * (mask == 2)
        write_nifti(folder / "images" / f"{number}.nii.gz", pixels.astype(np.float32), RAS)
        write_nifti(folder / "masks" / f"{number}.nii.gz", mask, RAS)
        rows.append({"path": f"{number}.nii.gz", "mask": f"../masks/{number}.nii.gz", "core": int(has_core)})
    table = pd.DataFrame(rows).assign(patient_id=[f"p{n}" for n in range(count)])
    return Manifest.scan(folder / "images", labels=table, workers=1)


def volume_config(*changes: str) -> Config:
    """Two structures, patches of 16 voxels, a small network."""
    values = {
        "preprocess": {"windows": [{"center": 150, "width": 240, "function": "LINEAR_EXACT"}]},
        "augment": {"preset": "none"},
        "model": {"backbone": "resnet10", "width": 8, "stem": "small"},
        "segmentation": {"structures": {"box": 1, "core": 2}, "channels": 8},
        "volume": {"view": "3d", "patch": [16, 16, 16]},
        "train": {"batch_size": 2, "precision": "fp32"},
        "audit": {"near_duplicates": False},
    }
    return Config.from_dict(values).override(*changes)


def split(manifest: Manifest, *, train: int, val: int) -> Manifest:
    """The first rows are train, the next ones val, all others test."""
    names = ["train"] * train + ["val"] * val
    names += ["test"] * (len(manifest) - len(names))
    return Manifest(manifest.frame.assign(split=names), root=manifest.root, label_columns=manifest.label_columns)
