"""Makers of folders for pages about models, evaluation and scoring; ``folders.py`` names them all."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

import lepton_vision as lv

_KEPT: dict[str, Path] = {}


def squares(folder: Path, request: pytest.FixtureRequest, *, seed: int = 0) -> None:
    """``images/`` of 96 PNGs, two a patient, a bright square in half of them; ``masks/`` of it and ``labels.csv``."""
    rng, rows = np.random.default_rng(seed), []
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(96):
        patient = number // 2
        has_square = patient % 2
        pixels, mask = rng.integers(0, 160, (32, 32)), np.zeros((32, 32), np.uint8)
        if has_square:
            row, column = rng.integers(4, 16, 2)
            mask[row : row + 10, column : column + 10] = 1
        grey = (pixels + 80 * mask).clip(0, 255).astype(np.uint8)
        Picture.fromarray(grey).save(folder / "images" / f"{number:03d}.png")
        Picture.fromarray(mask).save(folder / "masks" / f"{number:03d}.png")
        finding = "present" if has_square else "absent"
        rows.append(
            (f"{number:03d}.png", f"p{patient:02d}", finding, "FM"[patient % 3 == 0], f"masks/{number:03d}.png")
        )
    columns = ["path", "patient_id", "finding", "sex", "mask"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "labels.csv", index=False)


def trained(folder: Path, request: pytest.FixtureRequest) -> None:
    """``squares`` with ``manifest.parquet``, ``config.yaml`` and a run of three epochs in ``runs/first``; made once."""
    if "trained" not in _KEPT:
        made = request.getfixturevalue("tmp_path_factory").mktemp("trained") / "all"
        made.mkdir()
        squares(made, request)
        table = pd.read_csv(made / "labels.csv")
        table["split"] = [("train", "train", "train", "val", "test")[k // 2 % 24 % 5] for k in range(len(table))]
        manifest = lv.Manifest.from_frame(table.assign(path="images/" + table["path"]), root=made, workers=0)
        manifest.save(made / "manifest.parquet")
        config = lv.Config(targets=(lv.Target("finding", "binary", ("absent", "present")),)).override(
            "preprocess.size=[32, 32]",
            "model.width=8",
            "train.epochs=3",
            "train.batch_size=16",
            "train.lr=0.01",
            "evaluation.replicates=200",
        )
        config.to_yaml(made / "config.yaml")
        lv.fit(config, manifest, run_dir=made / "runs" / "first", device="cpu", progress=False)
        _KEPT["trained"] = made
    shutil.copytree(_KEPT["trained"], folder, dirs_exist_ok=True)


def found_data(folder: Path, request: pytest.FixtureRequest) -> None:
    """``theirs/`` of 40 PNGs of 12 bits in 16, with ``theirs.csv`` and its splits; several things are wrong with them.

    A patient stands in train and test, an image is there twice with two labels, another is copied from train into test
    and brightened, and three files have no label.
    """
    rng, rows = np.random.default_rng(1), []
    (folder / "theirs").mkdir()
    coarse = [rng.uniform(200, 3000, (9, 9)) for _ in range(40)]
    coarse[7], coarse[30] = coarse[6], coarse[3]
    for number, grid in enumerate(coarse):
        pixels = cv2.resize(grid, (96, 96), interpolation=cv2.INTER_CUBIC).clip(0, 4095)
        pixels = pixels + 40 if number == 30 else pixels
        cv2.imwrite(str(folder / "theirs" / f"{number:02d}.png"), pixels.clip(0, 4095).astype(np.uint16))
        split = "train" if number < 26 else "val" if number < 30 else "test"
        patient = 1 if number in (2, 31) else number
        if number < 37:
            rows.append((f"{number:02d}.png", f"s{patient:02d}", "yes" if number % 3 == 0 else "no", split))
    pd.DataFrame(rows, columns=["file", "subject", "nodule", "split"]).to_csv(folder / "theirs.csv", index=False)


def other_tool(folder: Path, request: pytest.FixtureRequest) -> None:
    """Tables of other tools (``other_tool.csv``, ``validation.csv``, ``theirs.csv``, ``grades.csv``, ``ages.csv``).

    Also ``trained``, and ``other_site.parquet`` of other images.
    """
    trained(folder, request)
    rng = np.random.default_rng(3)
    for name, patients in (("other_tool", 120), ("validation", 80)):
        patient = np.repeat(np.arange(patients), 2)
        truth = (patient % 3 == 0).astype(int)
        table = pd.DataFrame({"image_id": [f"im{k:03d}" for k in range(len(truth))]})
        table["patient_id"] = [f"p{one:03d}" for one in patient]
        table["y_true"] = truth
        table["y_prob"] = (1 / (1 + np.exp(-rng.normal(2.4 * truth - 1.2)))).round(3)
        table["sex"], table["site"] = np.array(["F", "M"])[patient % 2], np.array(["north", "south"])[patient % 5 % 2]
        table.to_csv(folder / f"{name}.csv", index=False)
    table = pd.read_csv(folder / "other_tool.csv")
    table["y_prob_b"] = (0.6 * table["y_prob"] + 0.4 * rng.uniform(size=len(table))).round(3)
    names = {"image_id": "study", "y_true": "pcr", "y_prob_b": "p_covid", "patient_id": "patient_id"}
    table[list(names)].rename(columns=names).to_csv(folder / "theirs.csv", index=False)
    grade = rng.integers(0, 3, 120)
    prob = rng.dirichlet(np.ones(3), 120) * 0.5 + 0.5 * np.eye(3)[grade]
    ids = pd.DataFrame({"image_id": [f"g{k}" for k in range(120)], "patient_id": [f"p{k // 2}" for k in range(120)]})
    classes = ("none", "mild", "severe")
    said = {f"y_prob_grade_{name}": prob[:, k].round(4) for k, name in enumerate(classes)}
    ids.assign(y_true_grade=np.array(classes)[grade], **said).to_csv(folder / "grades.csv", index=False)
    age = rng.uniform(20, 90, 120)
    values = {"y_true": age.round(), "y_value": (age + rng.normal(0, 6, 120)).round(1)}
    ids.assign(**values).to_csv(folder / "ages.csv", index=False)
    worse = {"age": age.round(), "predicted": (age + rng.normal(0, 7, 120)).round(1)}
    ids.assign(**worse).to_csv(folder / "ages_theirs.csv", index=False)
    (folder / "elsewhere").mkdir()
    squares(folder / "elsewhere", request, seed=7)
    site = pd.read_csv(folder / "elsewhere" / "labels.csv").iloc[:40].assign(split="test")
    site["path"] = "images/" + site["path"]
    lv.Manifest.from_frame(site, root=folder / "elsewhere", workers=0).save(folder / "other_site.parquet")
