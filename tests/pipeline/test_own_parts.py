"""Own parts in whole studies: each fold, each seed and each member gets them, and a resumed study must, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lepton_vision as lv
from lepton_vision.errors import ConfigError, EvaluationError
from lepton_vision.pipeline.folds import run_seeds
from lepton_vision.types import Batch, ModelOutput
from tests.squares import planted_squares

CONFIG = lv.Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=8",
    "model.stem=small",
    "train.precision=fp32",
    "train.epochs=2",
    "train.batch_size=8",
    "train.monitor=val_brier_own",
    "evaluation.replicates=100",
)


def brier(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
    return float(((y_true - y_prob) ** 2) @ sample_weight / sample_weight.sum())


class Parts:
    """The six, which count their calls."""

    def __init__(self) -> None:
        self.losses, self.networks, self.epochs = 0, list[nn.Module](), list[int]()
        self.steps: set[int] = set()

    def loss(self, output: ModelOutput, batch: Batch) -> Tensor:
        self.losses += 1
        logits, labels = output.logits["label"].squeeze(1), batch.labels["label"]
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        self.networks.append(network)
        return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)

    def schedule(self, step: int, steps: int) -> float:
        self.steps.add(steps)
        return 1.0 - step / steps

    def on_epoch(self, epoch: int, figures: Mapping[str, Any]) -> None:
        assert 0.0 <= figures["val_brier_own"] <= 1.0
        self.epochs.append(epoch)

    def given(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "on_epoch": self.on_epoch,
            "augment": A.Compose([A.VerticalFlip(p=0.5)]),
            "figures": {"brier_own": lv.OwnFigure(brier, better="lower")},
        }


SHAPING = ["loss", "optimizer", "schedule", "figures (val_brier_own: lower is better)", "augment (description "]


def check_bundle(folder: Path) -> None:
    bundle = lv.Bundle.load(folder)
    for found, expected in zip(bundle.provenance["own_parts"], SHAPING, strict=True):
        assert found.startswith(expected)
    (step,) = bundle.provenance["augment"]["transform"]["transforms"]
    assert step["__class_fullname__"] == "VerticalFlip"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> lv.Manifest:
    folder = tmp_path_factory.mktemp("squares")
    return planted_squares(folder, counts={"train": 32, "val": 16, "test": 16}, side=16, brighter=100)


def without_parts(manifest: lv.Manifest) -> lv.Manifest:
    return lv.Manifest(manifest.frame.assign(split=None), manifest.root, manifest.label_columns)


@pytest.mark.parametrize("members", [1, 2])
def test_a_study_trains_with_own_parts_and_tells_own_figures_on_test(
    manifest: lv.Manifest, tmp_path: Path, members: int
) -> None:
    parts = Parts()
    config = CONFIG.override(f"model.members={members}")
    study = lv.run_study(config, manifest, run_dir=tmp_path / "run", device="cpu", **parts.given())
    steps = 2 * 32 // 8
    assert (parts.losses, parts.epochs, parts.steps) == (members * steps, [0, 1], {steps})
    assert [len(network.members) for network in parts.networks] == [members]
    check_bundle(study.folder)
    assert study.test.evaluation is not None
    own = study.test.evaluation.figures["label"]
    assert own["brier_own"].value == pytest.approx(own["brier"].value, abs=1e-6)
    assert "brier_own" in study.test.report.read_text(encoding="utf-8")


def test_each_fold_of_a_cross_validation_gets_them(manifest: lv.Manifest, tmp_path: Path) -> None:
    parts = Parts()
    found = lv.cross_validate(
        CONFIG, without_parts(manifest), folds=2, run_dir=tmp_path / "run", device="cpu", **parts.given()
    )
    assert (len(parts.networks), parts.epochs) == (2, [0, 1, 0, 1])
    for fold in range(2):
        check_bundle(tmp_path / "run" / f"fold-{fold}" / "bundle")
    assert found.pooled.evaluation is not None
    figures = found.pooled.evaluation.figures["label"]
    assert figures["brier_own"].n == 64
    assert figures["brier_own"].value == pytest.approx(figures["brier"].value, abs=1e-6)
    written = json.loads((tmp_path / "run" / "evaluation" / "figures.json").read_text(encoding="utf-8"))
    assert written["own_figures"]["brier_own"]["better"] == "lower"


@pytest.mark.parametrize("folds", [0, 2])
def test_each_seed_gets_them(manifest: lv.Manifest, tmp_path: Path, folds: int) -> None:
    parts = Parts()
    source = (without_parts(manifest) if folds else manifest).save(tmp_path / "m.parquet")
    found = run_seeds(
        CONFIG, source, run_dir=tmp_path / "run", seeds=[0, 1], folds=folds, device="cpu", **parts.given()
    )
    assert parts.epochs == [0, 1] * 2 * max(folds, 1)
    assert all(0.0 <= row["brier_own"]["value"] <= 1.0 for row in found["seeds"].values())


def test_a_stopped_cross_validation_goes_on_with_its_parts_alone(manifest: lv.Manifest, tmp_path: Path) -> None:
    whole, cut = Parts(), Parts()
    rows = without_parts(manifest)
    how: dict[str, Any] = {"folds": 2, "device": "cpu"}
    config = CONFIG.override("train.checkpoint_seconds=0")
    lv.cross_validate(config, rows, run_dir=tmp_path / "whole", **how, **whole.given())

    def stop(epoch: int, figures: Mapping[str, Any]) -> None:
        cut.on_epoch(epoch, figures)
        if cut.epochs == [0, 1, 0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lv.cross_validate(config, rows, run_dir=tmp_path / "cut", **how, **cut.given() | {"on_epoch": stop})
    how |= {"run_dir": tmp_path / "cut", "resume": True}
    with pytest.raises(ConfigError, match=r"started with loss=, optimizer=, schedule="):
        lv.cross_validate(config, rows, **how, **cut.given() | {"loss": None})
    lv.cross_validate(config, rows, **how, **cut.given())
    for fold in range(2):
        ours, theirs = (lv.Bundle.load(tmp_path / name / f"fold-{fold}" / "bundle") for name in ("cut", "whole"))
        assert ours.bundle_id == theirs.bundle_id
        assert all(np.array_equal(one, theirs.state[name]) for name, one in ours.state.items())


def test_parts_that_do_not_fit_are_refused_before_the_first_training(manifest: lv.Manifest, tmp_path: Path) -> None:
    rows, given = without_parts(manifest), Parts().given()
    for config, own, error in (
        (CONFIG.override("train.label_smoothing=0.1"), given, ConfigError),
        (CONFIG, given | {"figures": {"auroc": brier}}, EvaluationError),
        (CONFIG, given | {"augment": A.Compose([A.Normalize()])}, ConfigError),
    ):
        with pytest.raises(error):
            lv.cross_validate(config, rows, folds=2, run_dir=tmp_path / "run", device="cpu", **own)
        with pytest.raises(error):
            lv.run_study(config, manifest, run_dir=tmp_path / "study", device="cpu", **own)
    with pytest.raises(TypeError, match="losss"):
        lv.run_study(CONFIG, manifest, run_dir=tmp_path / "study", losss=given["loss"])  # type: ignore[call-arg]
    assert not list(tmp_path.rglob("metrics.jsonl"))
