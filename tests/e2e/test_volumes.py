"""Volumes on the whole path: scan, train, choose, predict, evaluate; planted findings are found."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import Config
from lepton_vision.evaluation import evaluate
from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import fit, run_study
from lepton_vision.pipeline.folds import cross_validate
from lepton_vision.scoring import score
from lepton_vision.types import Target
from tests.e2e.conftest import run_json
from tests.manifest.dicom_series import write_series
from tests.transforms.volumes import planted_volumes, split, volume_config

CORE = Target("core", "binary", ("0", "1"))
STEPS = ("train.epochs=12", "train.lr=0.01", "train.batch_size=1", "train.warmup_epochs=0.5", "train.ema_decay=0.9")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return split(planted_volumes(tmp_path_factory.mktemp("volumes"), count=24), train=12, val=4)


def classes(*changes: str) -> Config:
    plain = volume_config(*STEPS).model_copy(update={"segmentation": None, "targets": (CORE,)})
    return plain.override("train.monitor=val_loss", "evaluation.replicates=100", *changes)


def test_masks_of_volumes_are_learnt_and_predicted_on_their_files(manifest: Manifest, tmp_path: Path) -> None:
    changes = ("train.monitor=val_dice", "augment.preset=light", "segmentation.channels=16", "train.ema_decay=0")
    config = volume_config(*STEPS, *changes)
    bundle = fit(config, manifest, run_dir=tmp_path / "run", device="cpu")
    assert bundle.provenance["validation"]["val_dice"] > 0.8
    loaded = Bundle.load(tmp_path / "run" / "bundle")
    dice = []
    for found in predict_masks(loaded, manifest.subset("test"), device="cpu"):
        assert isinstance(found, MaskPrediction)
        truth = nib.load(manifest.root / manifest.subset("test").frame["mask_path"].iloc[found.row]).get_fdata()
        truth = truth.transpose(2, 1, 0)
        assert found.labels.shape == truth.shape
        both = ((found.labels == 1) & (truth == 1)).sum()
        dice.append(2 * both / ((found.labels == 1).sum() + (truth == 1).sum()))
    assert len(dice) == 8
    assert np.mean(dice) > 0.8


def test_folds_of_volumes_are_pooled(tmp_path: Path) -> None:
    manifest = planted_volumes(tmp_path / "v", count=9)
    manifest = Manifest(manifest.frame.drop(columns="core"), root=manifest.root)
    config = volume_config("train.epochs=1", "train.monitor=val_dice", "evaluation.replicates=100")
    crossed = cross_validate(config, manifest, folds=3, run_dir=tmp_path / "run", device="cpu")
    assert crossed.pooled.masks is not None
    assert crossed.pooled.masks.n == 9
    assert {name: len(dice) for name, dice in crossed.fold_dice.items()} == {"box": 3, "core": 3}
    cases = pd.read_csv(tmp_path / "run" / "evaluation" / "masks" / "cases.csv")
    assert len(cases) == 18
    for image_id in cases["image_id"]:
        assert (tmp_path / "run" / "evaluation" / "masks" / "predicted" / f"{image_id}.nii.gz").is_file()
    page = crossed.pooled.mask_report.read_text(encoding="utf-8")
    assert "Evaluation of masks · test split" in page


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The core is in every slice of the box: a slice that shows none teaches little about its volume's label."""
    folder = tmp_path_factory.mktemp("deep")
    return split(planted_volumes(folder, count=44, core_depth=(0, 6)), train=20, val=8)


@pytest.mark.parametrize("view", ["3d", "2.5d", "slices"])
def test_classes_of_volumes_are_learnt(manifest: Manifest, deep: Manifest, tmp_path: Path, view: str) -> None:
    config = classes(f"volume.view={view}", "preprocess.size=[16, 16]", "train.epochs=25")
    if view == "2.5d":
        more = ("volume.patches=8", "volume.aggregate=max", "train.batch_size=8", "train.epochs=15")
        manifest, config = deep, config.override(*more)
    bundle = fit(config, manifest, run_dir=tmp_path / "run", device="cpu")
    loaded = Bundle.load(tmp_path / "run" / "bundle")
    assert loaded.bundle_id == bundle.bundle_id
    rows = predict(loaded, manifest.subset("test"), device="cpu", cache_dir=tmp_path / "cache")
    point = loaded.operating_point
    assert point is not None
    assert evaluate(rows, operating_point=point, config=config.evaluation).figures["core"]["auroc"].value > 0.9
    paths = [manifest.root / path for path in manifest.subset("test").frame["path"]]
    files = predict(loaded, paths, device="cpu")
    assert np.array_equal(files.y_prob["core"], rows.y_prob["core"])
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 9), np.float32), np.eye(4)), flat)
    mixed = predict(loaded, [*paths[:1], flat], device="cpu")
    assert [failure.reason for failure in mixed.failures] == ["volume"]
    assert mixed.n == 1
    score(loaded, paths, tmp_path / "scores", device="cpu")
    scored = pd.read_parquet(tmp_path / "scores").set_index("image_id")["core_probability"]
    assert np.array_equal(scored[list(files.image_id)].to_numpy(np.float32), files.y_prob["core"])


def test_a_joint_model_gives_both(manifest: Manifest, tmp_path: Path) -> None:
    config = volume_config(*STEPS, "train.monitor=val_dice", "train.epochs=2", "evaluation.replicates=100")
    config = config.model_copy(update={"targets": (CORE,)})
    study = run_study(config, manifest, run_dir=tmp_path / "run", device="cpu")
    assert study.test.evaluation is not None
    assert study.test.masks is not None
    assert study.test.masks.n == 8


def slab_config(*changes: str) -> Config:
    steps = ("train.epochs=16", "train.lr=0.01", "train.batch_size=8", "train.warmup_epochs=0.5", "train.ema_decay=0.8")
    small = ("volume.view=2.5d", "volume.patches=6", "volume.foreground=0.7", "preprocess.size=[16, 16]")
    config = volume_config(*steps, *small, "train.monitor=val_dice", "evaluation.replicates=100", *changes)
    return config.model_copy(update={"targets": (CORE,)})


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_slices_with_neighbours_learn_masks_and_classes_of_volumes(
    deep: Manifest, tmp_path: Path, aggregate: str
) -> None:
    config = slab_config("augment.preset=light", f"volume.aggregate={aggregate}")
    study = run_study(config, deep, run_dir=tmp_path / "run", device="cpu")
    assert study.test.evaluation is not None
    assert study.test.evaluation.figures["core"]["auroc"].value > 0.9
    assert study.test.masks is not None
    assert study.test.masks.n == 16
    dice = study.test.masks.figures["box"]["dice"].value
    assert dice > 0.8
    (row,) = [row for row in study.test.masks.cases if row.structure == "box"][:1]
    truth = nib.load(deep.root / deep.subset("test").frame["mask_path"].iloc[0])
    kept = nib.load(tmp_path / "run" / "evaluation" / "masks" / "predicted" / f"{row.image_id}.nii.gz")
    assert kept.shape == truth.shape
    assert np.allclose(kept.affine, truth.affine)


def test_shuffled_labels_of_volumes_are_not_learnt_from_slices(tmp_path: Path) -> None:
    manifest = split(planted_volumes(tmp_path / "v", count=80, core_depth=(0, 6)), train=14, val=6)
    labels = np.random.default_rng(0).permutation(np.arange(80) // 2 % 2)  # of no pixel
    frame = manifest.frame.assign(core=labels)
    shuffled = Manifest(frame, root=manifest.root, label_columns=manifest.label_columns)
    config = slab_config("train.epochs=4").model_copy(update={"segmentation": None}).override("train.monitor=val_loss")
    study = run_study(config, shuffled, run_dir=tmp_path / "run", device="cpu")
    assert study.test.evaluation is not None
    assert 0.35 < study.test.evaluation.figures["core"]["auroc"].value < 0.65  # n 60


def test_scan_takes_series_as_volumes(tmp_path: Path) -> None:
    for number in range(2):
        voxels = np.random.default_rng(number).integers(0, 99, (3, 4, 5))
        write_series(tmp_path / "study", voxels, patient=f"p{number}", series=f"s{number}")
    found = run_json("scan", tmp_path / "study", "--volumes", "--out", tmp_path / "table.csv")
    assert found["rows"] == 2
    assert Manifest.load(tmp_path / "table.csv").frame["frames"].tolist() == [3, 3]
    assert run_json("scan", tmp_path / "study", "--out", tmp_path / "slices.csv")["rows"] == 6


def test_tilted_series_and_series_with_gaps_are_repaired_by_flags(tmp_path: Path) -> None:
    """Straight, tilted by 15 degrees, or without one slice: scan, train and run take them all."""
    rows = []
    for number in range(6):
        voxels = np.random.default_rng(number).integers(-90, 90, (8, 12, 12))
        paths = write_series(tmp_path / "study" / f"{number}", voxels, patient=f"p{number}", series=f"s{number}")
        if number % 3 == 1:
            paths[4].unlink()
        for path in paths if number % 3 == 2 else ():
            dataset = dcmread(path)
            dataset.ImageOrientationPatient = [1, 0, 0, 0, *np.round([np.cos(np.pi / 12), np.sin(np.pi / 12)], 8)]
            dataset.save_as(path)
        split_of = ("train", "train", "val", "val", "test", "test")[number]
        rows.append({"patient_id": f"p{number}", "core": number % 2, "split": split_of})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    config = classes("train.epochs=1", "train.batch_size=2", "preprocess.windows=[percentile]")
    config.to_yaml(tmp_path / "c.yaml")
    study, labels = ["--volumes", "--labels", "labels.csv"], ["--labels", "labels.csv"]
    flags, start = ["--tilt", "shear", "--gaps", "fill"], ["--config", "c.yaml", "--device", "cpu"]

    def call(*arguments: str) -> str:
        with contextlib.chdir(tmp_path):
            done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    assert json.loads(call("scan", "study", *study, "--out", "few.csv", "--json"))["rejected"] == {
        "tilt": 2, "missing_slices": 2,
    }  # fmt: skip
    assert json.loads(call("scan", "study", *study, *flags, "--out", "all.csv", "--json"))["rejected"] == {}
    call("train", "--manifest", "all.csv", "--run-dir", "train", *start, *flags)
    call("run", "--source", "study", *labels, "--run-dir", "run", *start, *flags)
    for folder in ("train", "run/seed-0"):
        volume = Bundle.load(tmp_path / folder / "bundle").config.volume
        assert volume is not None
        assert (volume.tilt, volume.gaps) == ("shear", "fill")
