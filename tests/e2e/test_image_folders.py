"""Training on class folders of PNG and JPEG images with an unedited configuration file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from .conftest import run_cli

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "png.yaml"
QUICK = ["--set", "train.epochs=1", "--set", "preprocess.size=[32,32]", "--set", "evaluation.replicates=100"]
QUICK += ["--set", "split.val=0.3", "--set", "split.test=0.3"]
QUICK += ["--set", "model.backbone=resnet10", "--set", "model.width=8"]


def write(path: Path, *, mode: str, seed: int, is_bright: bool) -> None:
    """A disc on noise, in 12 of the 16 bits, 8 bits, colour, a palette, with alpha …"""
    rng = np.random.default_rng(seed)
    rows, columns = (int(size) for size in rng.integers(40, 70, 2))
    y, x = np.ogrid[:rows, :columns]
    disc = (y - rows / 2) ** 2 + (x - columns / 2) ** 2 < (16 if is_bright else 8) ** 2
    values = rng.uniform(0.0, 0.4, (rows, columns)) + 0.5 * disc
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Pillow.fromarray((values * 4095).astype(np.uint16)).save(path)
        return
    Pillow.fromarray((values * 255).astype(np.uint8)).convert("RGB").convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kinds = [("L", "png"), ("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("I;16", "png"), ("RGB", "jpg"), ("L", "jpg")]
    for number in range(42):
        mode, suffix = kinds[number // 2 % len(kinds)]
        name = "yes" if number % 2 else "no"
        path = tmp_path / "images" / name / f"{number}.{suffix}"
        write(path, mode=mode, seed=number, is_bright=bool(number % 2))
    return tmp_path / "images"


def test_a_mixture_of_modes_and_sizes_trains_without_an_edit(folder: Path) -> None:
    run = folder.parent / "run"
    done = run_cli("run", "--source", folder, "--config", CONFIG, "--run-dir", run, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "values from" not in done.stderr  # percentiles: nothing reaches the network in the dark
    assert (run / "seed-0" / "evaluation" / "report.html").is_file()


def test_training_by_the_full_range_says_which_images_stay_dark(folder: Path) -> None:
    scanned, split = folder.parent / "a.parquet", folder.parent / "s.parquet"
    for step in (("scan", folder, "--out", scanned), ("split", scanned, "--out", split)):
        done = run_cli(*step)
        assert done.returncode == 0, done.stderr
    assert "narrow_range" in run_cli("audit", split).stdout
    done = run_cli(
        *("train", "--manifest", split, "--config", CONFIG, "--run-dir", folder.parent / "run"),
        *(*QUICK, "--set", "preprocess.windows=[header]"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("of the images (png, 16 bits) hold values from") == 1
    assert "[percentile]" in done.stderr


def test_a_run_without_a_configuration_takes_the_defaults(tmp_path: Path) -> None:
    done = run_cli("run", "--source", tmp_path / "none", "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "--config" not in done.stderr
