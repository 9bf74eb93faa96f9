"""Makers of the folders of the pages on image folders, masks and volumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.docs.folders_data import draw, save, save_dicom, save_table


def image_folders(folder: Path, request: pytest.FixtureRequest) -> None:
    """A folder for each class with patients in the names, one of 12 bits, one with copies, and a MedMNIST file."""
    for patient in range(1, 41):
        name = ("normal", "pneumonia")[patient % 2]
        for shot in (1, 2):
            pixels = draw(2 * patient + shot, has_finding=patient % 2 == 1)[0]
            save(folder / "xrays" / name / f"person{patient}_{shot}.png", pixels)
            save(folder / "xrays16" / name / f"person{patient}_{shot}.png", pixels.astype(np.uint16) * 16)
            save(folder / "parts" / ("train" if patient < 25 else "test") / name / f"{patient}_{shot}.png", pixels)
    for number in range(40):
        save(
            folder / "brain" / ("no", "yes")[number % 2] / f"{number}.png", draw(number, has_finding=number % 2 == 1)[0]
        )
    shutil.copy(folder / "brain" / "yes" / "1.png", folder / "brain" / "yes" / "1 copy.png")
    shutil.copy(folder / "brain" / "no" / "0.png", folder / "brain" / "yes" / "0 too.png")
    parts = {"train": range(60), "val": range(60, 80), "test": range(80, 100)}
    arrays = {}
    for part, numbers in parts.items():
        arrays[f"{part}_images"] = np.stack([draw(n, has_finding=n % 2 == 1, size=28)[0] for n in numbers])
        arrays[f"{part}_labels"] = np.array([[n % 2] for n in numbers], np.uint8)
    np.savez_compressed(folder / "breastmnist.npz", **arrays)


def masks(folder: Path, request: pytest.FixtureRequest) -> None:
    """BUSI's layout, ISIC's, a table that names masks, and masks of another tool."""
    for number in range(1, 25):
        name = ("benign", "malignant", "normal")[number % 3]
        pixels, mask = draw(number, has_finding=name != "normal")
        save(folder / "busi" / name / f"{name} ({number}).png", pixels)
        save(folder / "busi" / name / f"{name} ({number})_mask.png", mask * np.uint8(255))
    rows: list[tuple[object, ...]] = [("file", "patient_id", "lesion", "mask")]
    pairs: list[tuple[object, ...]] = [("image_id", "patient_id", "truth", "prediction", "image")]
    for number in range(60):
        pixels, mask = draw(number, has_finding=number % 2 == 0)
        isic = f"ISIC_{number:07d}"
        save(folder / "isic" / "ISIC2018_Task1-2_Training_Input" / f"{isic}.jpg", np.stack([pixels] * 3, axis=-1))
        truth = folder / "isic" / "ISIC2018_Task1_Training_GroundTruth" / f"{isic}_segmentation.png"
        save(truth, mask * np.uint8(255))
        save(folder / "scans" / f"{number}.png", pixels)
        save(folder / "drawn" / f"{number}.png", mask * np.uint8(255))
        save(folder / "other" / f"{number}.png", np.roll(mask, 2, axis=0))
        is_drawn = number % 10 != 9
        rows.append((f"{number}.png", f"p{number // 2}", number % 2 == 0, f"drawn/{number}.png" if is_drawn else ""))
        pairs.append((number, f"p{number // 2}", f"drawn/{number}.png", f"other/{number}.png", f"scans/{number}.png"))
    save_table(folder / "labels.csv", [rows[0], *((*row[:2], int(bool(row[2])), row[3]) for row in rows[1:])])
    save_table(folder / "masks.csv", pairs[:13])
    save_dicom(folder / "slice" / "1.dcm", number=1, patient="A", modality="CT")
    save(folder / "slice-mask.png", draw(1, has_finding=True)[1])


def volumes(folder: Path, request: pytest.FixtureRequest) -> None:
    """nnU-Net's layout, the Decathlon's, and DICOM series with a table."""
    rng, grid = np.random.default_rng(0), np.indices((16, 24, 24)).astype(float)
    for number in range(14):
        middle = rng.uniform(7, 17, 3) * (0.6, 1, 1)
        lesion = sum((axis - at) ** 2 for axis, at in zip(grid, middle, strict=True)) < 12
        scans = [(rng.normal(100, 10, grid.shape[1:]) + height * lesion).astype(np.float32).T for height in (80, 40)]
        mask, name = lesion.astype(np.uint8).T, f"brain_{number:03d}"
        for channel, scan in enumerate(scans):
            save_nifti(folder / "Dataset001_Brain" / "imagesTr" / f"{name}_{channel:04d}.nii.gz", scan)
        save_nifti(folder / "Dataset001_Brain" / "labelsTr" / f"{name}.nii.gz", mask)
        save_nifti(folder / "Task99_Brain" / "imagesTr" / f"{name}.nii.gz", np.stack(scans, axis=-1))
        save_nifti(folder / "Task99_Brain" / "labelsTr" / f"{name}.nii.gz", mask)
    rows: list[tuple[object, ...]] = [("patient_id", "finding")]
    for patient in range(12):
        for position in range(6):
            path = folder / "ct" / f"P{patient:02d}" / f"{position}.dcm"
            save_dicom(
                path, number=100 * patient + 2 * position + patient % 2, patient=f"P{patient:02d}", modality="CT"
            )
        rows.append((f"P{patient:02d}", patient % 2))
    (folder / "ct" / "P03" / "3.dcm").unlink()
    save_table(folder / "ct.csv", rows)


def save_nifti(path: Path, array: np.ndarray) -> None:
    """A volume with axes x, y, z and voxels of 1 x 1 x 2 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
