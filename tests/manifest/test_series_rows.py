"""DICOM series as rows: one each, wherever its files lie, and a reason where they form no volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ManifestError
from lepton_vision.manifest.table import Manifest
from lepton_vision.pipeline.prepare import with_repairs
from lepton_vision.readers.dicom.terms import known_term
from lepton_vision.readers.image import read_image
from lepton_vision.readers.series_list import group_series
from lepton_vision.transforms import make_loader
from tests.manifest.dicom_series import write_series
from tests.transforms.volumes import write_nifti


def volume(seed: int, size: tuple[int, int, int] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, size)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series in one folder, one over two folders, one with a gap, a NIfTI file and a text."""
    root = tmp_path / "study"
    write_series(root / "a", volume(0), patient="Doe^A", series="one")
    write_series(root / "a", volume(1), patient="Doe^A", series="two")
    for path in write_series(root / "b" / "upper", volume(2), patient="Doe^B", series="three")[:2]:
        (root / "b" / "lower").mkdir(exist_ok=True)
        path.rename(root / "b" / "lower" / path.name)
    write_series(root / "c", volume(3), patient="Doe^C", series="four")[2].unlink()
    write_nifti(root / "d.nii.gz", volume(4).astype(np.int16), np.eye(4))
    (root / "readme.txt").write_text("no image")
    return root


def test_each_series_is_one_row_and_its_row_reads_it(study: Path) -> None:
    manifest = Manifest.scan(study, volumes=True, workers=1)
    frame = manifest.frame
    assert frame["status"].tolist() == ["ok", "ok", "ok", "rejected", "ok", "rejected"]
    assert frame["path"].tolist() == ["a", "a", "b", "c", "d.nii.gz", "readme.txt"]
    assert frame["reason"][3] == "missing_slices"
    assert frame["frames"].tolist()[:3] == [5, 5, 5]
    assert frame["patient_id"][0] == frame["patient_id"][1] != frame["patient_id"][2]
    assert frame["patient_known"][:4].all()
    assert frame["manufacturer"].tolist()[:3] == [known_term("Manufacturer", "Maker")] * 3
    text = frame.to_csv()
    assert "Doe" not in text
    assert str(study) not in text
    for row, seed in ((0, 0), (1, 1), (2, 2)):
        image = read_image(study / frame["path"][row], member=frame["member"][row])
        assert np.array_equal(image.pixels[0], volume(seed))
        assert image.image_id == frame["image_id"][row]
        assert image.series_id == frame["series_id"][row] == frame["member"][row]


def test_without_being_asked_for_slices_are_rows(study: Path) -> None:
    manifest = Manifest.scan(study, workers=1)
    assert len(manifest.ok) == 5 + 5 + 5 + 4 + 1


def test_series_have_masks_and_become_batches(study: Path) -> None:
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1:3, 2:4, 3:6] = 1
    affine = np.diag([-0.5, -0.5, 2.0, 1.0])  # LPS, as the series lies
    write_nifti(study / "one.nii.gz", mask.transpose(2, 1, 0), affine)
    found = Manifest.scan(study, volumes=True, workers=1)
    table = pd.DataFrame({"image_id": [found.frame["image_id"][0]], "mask": ["one.nii.gz"]})
    manifest = Manifest.scan(study, volumes=True, labels=table, workers=1)
    row = int(np.flatnonzero(manifest.frame["mask_path"].notna())[0])
    assert manifest.frame["mask_values"][row] == "0,1"
    config = Config().override(
        "volume.view=3d",
        "segmentation.structures={box: 1}",
        "preprocess.windows=[soft_tissue]",
        "volume.patch=[8, 8, 8]",
    )
    part = manifest.select(np.arange(len(manifest)) == row)
    batch = next(iter(make_loader(part, config)))
    assert batch.masks is not None
    assert np.array_equal(batch.masks[0].numpy(), mask)
    assert batch.images.shape == (1, 1, 5, 6, 7)


def test_files_are_grouped_by_series(study: Path) -> None:
    series, others = group_series(sorted(path for path in study.rglob("*") if path.is_file()))
    assert [(one.folder.name, len(one.files)) for one in series] == [("a", 5), ("a", 5), ("b", 5), ("c", 4)]
    assert [path.name for path in others] == ["d.nii.gz", "readme.txt"]
    broken = next(iter(series[0].files))
    broken.write_bytes(broken.read_bytes()[:300])
    series, others = group_series(sorted(path for path in study.rglob("*") if path.is_file()))
    assert len(series[0].files) == 4
    assert broken in others


def test_a_scan_that_refuses_every_series_names_what_repairs_them(tmp_path: Path) -> None:
    write_series(tmp_path, volume(3), patient="Doe^C", series="four")[2].unlink()
    with pytest.raises(ManifestError, match="--gaps fill repairs such series"):
        Manifest.scan(tmp_path, volumes=True, workers=1)
    assert Manifest.scan(tmp_path, volumes=True, workers=1, gaps="fill").frame["repair"].tolist() == ["gaps"]


def test_training_repairs_what_the_scan_repaired(tmp_path: Path) -> None:
    write_series(tmp_path, volume(3), patient="Doe^C", series="four")[2].unlink()
    manifest = Manifest.scan(tmp_path, volumes=True, workers=1, gaps="fill")
    config = Config().override("volume.view=3d", "preprocess.windows=[soft_tissue]", "volume.patch=[8, 8, 8]")
    batch = next(iter(make_loader(manifest, config)))
    filled = read_image(tmp_path, gaps="fill")
    assert filled.facts["slices_filled"] == 1
    assert batch.images.shape[2:] == (8, 8, 8)
    used = with_repairs(config, manifest).volume
    assert used is not None
    assert (used.gaps, used.tilt) == ("fill", "refuse")


def test_rows_that_a_scan_rejected_are_told_where_the_configuration_repairs_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path / "gap", volume(3), patient="Doe^C", series="four")[2].unlink()
    write_series(tmp_path / "whole", volume(4), patient="Doe^D", series="five")
    manifest = Manifest.scan(tmp_path, volumes=True, workers=1)
    config = Config().override("volume.view=3d")
    caplog.clear()
    with_repairs(config, manifest)
    assert not caplog.records
    with_repairs(config.override("volume.gaps=fill", "volume.tilt=shear"), manifest)
    assert "1 rows of the manifest are rejected (missing_slices: 1)" in caplog.text
    assert "Scan again with --gaps fill." in caplog.text
