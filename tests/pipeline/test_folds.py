"""Cross-validation and repeated seeds: every image held out once, shared caches, resumption."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError, ManifestError
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import run_study
from lepton_vision.pipeline.folds import cross_validate, run_seeds
from lepton_vision.scoring import score

CONFIG = Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=8",
    "model.stem=standard",
    "train.precision=fp32",
    "train.epochs=1",
    "augment.preset=none",
    "evaluation.replicates=100",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """48 images of 24 patients, bright ones positive."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) // 2 % 2
    images = rng.integers(0, 120, (48, 16, 16))
    images[labels == 1, 4:12, 4:12] += 100
    np.savez(tmp_path / "tiny.npz", train_images=images.astype(np.uint8), train_labels=labels[:, None])
    manifest = Manifest.scan(tmp_path / "tiny.npz", workers=0)
    frame = manifest.frame.assign(patient_id=[f"p{k // 2:02d}" for k in range(48)], patient_known=True, split=None)
    Manifest(frame, manifest.root, manifest.label_columns).save(tmp_path / "tiny.parquet")
    return tmp_path / "tiny.parquet"


def test_each_image_is_held_out_once_and_its_patient_with_it(source: Path, tmp_path: Path) -> None:
    result = run_seeds(CONFIG, source, run_dir=tmp_path / "run", seeds=[0], folds=3)
    held_out = pd.read_csv(tmp_path / "run/seed-0/evaluation/predictions.csv", comment="#")
    assert sorted(held_out["image_id"]) == sorted(Manifest.load(source).frame["image_id"])
    seen = [Manifest.load(tmp_path / f"run/seed-0/fold-{k}/manifest.parquet").frame for k in range(3)]
    for frame in seen:
        assert (frame.groupby("patient_id")["split"].nunique() == 1).all()
    tested = [set(frame.loc[frame["split"] == "test", "patient_id"]) for frame in seen]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 24
    row = result["seeds"]["0"]
    folder = tmp_path / "run/seed-0"
    (line,) = [json.loads(one) for one in (folder / "ledger.jsonl").read_text().splitlines()]
    assert (line["command"], line["split"]) == ("run --folds 3", "test")
    assert line["bundle_id"] == "+".join(Bundle.load(folder / f"fold-{k}/bundle").bundle_id for k in range(3))
    checklist = (folder / "evaluation/checklist_claim_2024.md").read_text(encoding="utf-8")
    for told in (
        "3 models, one for each fold",
        "fold 2, held out 16 images of 8 patients",
        "epochs 1",
        "Weights: none",
    ):
        assert told in checklist, told
    page = (folder / "evaluation/report.html").read_text(encoding="utf-8")
    assert page.count('class="heat"') > 0  # each case explained by the model that held it out
    assert row["auroc"]["n"] == 48
    assert len(row["fold_auroc"]) == 3
    assert row["fold_mean_auroc"] == pytest.approx(np.mean(row["fold_auroc"]), abs=1e-4)


def test_folds_without_validation_train_on_everybody_else(source: Path, tmp_path: Path) -> None:
    config = CONFIG.override("split.val=0", "train.keep=last")
    result = run_seeds(config, source, run_dir=tmp_path / "run", seeds=[0], folds=3)
    for fold in range(3):
        folder = tmp_path / f"run/seed-0/fold-{fold}"
        splits = Manifest.load(folder / "manifest.parquet").frame["split"].value_counts().to_dict()
        assert splits == {"train": 32, "test": 16}
        bundle = Bundle.load(folder / "bundle")
        assert (bundle.operating_point, bundle.temperatures, bundle.provenance["validation"]) == (None, {}, {})
    assert 0.0 <= result["auroc_mean"] <= 1.0
    assert result["seeds"]["0"]["auroc"]["n"] == 48


def test_without_validation_no_epoch_can_be_chosen(source: Path, tmp_path: Path) -> None:
    """The true reason, and the setting that goes without, before training."""
    config = CONFIG.override("split.val=0")
    with pytest.raises(ManifestError, match=r"rows in the val split.*Set train\.keep=last"):
        run_seeds(config, source, run_dir=tmp_path / "best", seeds=[0], folds=3)
    with pytest.raises(ManifestError, match=r"rows in the val split.*Set train\.keep=last"):
        run_study(config, source, run_dir=tmp_path / "study")
    learnt = config.override("train.keep=last", "evaluation.unit=patient", "evaluation.aggregation=learnt")
    with pytest.raises(ConfigError, match="fitted on validation"):
        run_study(learnt, source, run_dir=tmp_path / "learnt")
    assert not list(tmp_path.rglob("metrics.jsonl"))


def official(source: Path, *, labelled: bool) -> Manifest:
    """The study with the official parts train (32 images) and test (16), the latter with labels or without."""
    manifest = Manifest.load(source)
    frame = manifest.frame.assign(split=["train"] * 32 + ["test"] * 16)
    frame["label"] = frame["label"].where((frame.index < 32) | labelled)
    return Manifest(frame, manifest.root, manifest.label_columns)


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_official_parts_without_validation_are_judged_at_a_stated_point(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str
) -> None:
    config = CONFIG.override("split.val=0", "train.keep=last", f"evaluation.unit={unit}")
    result = run_study(config, official(source, labelled=True), run_dir=tmp_path / "run")
    evaluation = result.test.evaluation
    assert evaluation is not None
    assert (evaluation.n, evaluation.operating_point.thresholds) == (16 if unit == "image" else 8, {"label": (0.5,)})
    assert (evaluation.operating_point.chosen_on, evaluation.operating_point.n) == (None, 0)
    assert "decisions are at a stated probability of 0.5" in caplog.text
    assert "stated by hand" in result.test.report.read_text(encoding="utf-8")
    assert score(result.bundle, source, tmp_path / "scores").scored == 48


def test_an_official_test_part_without_labels_is_said_before_training_and_predicted(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    official(source, labelled=False).save(tmp_path / "m.parquet")
    said: list[str] = []

    def listen(stage: str, _done: int, _total: int, _note: str) -> None:
        if stage == "train" and not said:
            said.append(caplog.text)

    result = run_seeds(CONFIG, tmp_path / "m.parquet", run_dir=tmp_path / "run", seeds=[0], progress=listen)
    assert "The test split (16 images) has no label for target 'label'" in said[0]
    assert result["auroc_mean"] is None
    assert result["seeds"]["0"]["auroc"]["reason"] == "no labelled sample"
    predicted = pd.read_csv(tmp_path / "run/seed-0/evaluation/predictions.csv", comment="#")
    assert len(predicted) == 16
    json.dumps(result, allow_nan=False)


def test_a_study_without_a_test_part_is_refused_before_training(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"rows in the test split.*split\.test"):
        run_study(CONFIG.override("split.test=0"), source, run_dir=tmp_path / "run")
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_folds_of_one_patient_are_judged_together(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = Manifest.load(source).select(np.arange(8))
    manifest.save(tmp_path / "few.parquet")
    config = CONFIG.override("split.val=0", "train.keep=last", "train.batch_size=4")
    result = run_seeds(config, tmp_path / "few.parquet", run_dir=tmp_path / "run", seeds=[0], folds=4)
    row = result["seeds"]["0"]
    assert (row["auroc"]["n"], row["fold_auroc"], row["fold_mean_auroc"]) == (8, [None] * 4, None)
    assert 0.0 <= result["auroc_mean"] <= 1.0
    assert "4 of 4 folds hold out one class only of target 'label'" in caplog.text
    json.dumps(result, allow_nan=False)


def test_a_fold_whose_validation_lacks_a_class_is_said_before_the_first(source: Path, tmp_path: Path) -> None:
    Manifest.load(source).select(np.arange(8)).save(tmp_path / "few.parquet")
    with pytest.raises(LabelError, match=r"Fold 1 of 4: .*split\.val=0 and train\.keep=last"):
        run_seeds(CONFIG, tmp_path / "few.parquet", run_dir=tmp_path / "run", seeds=[0], folds=4)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_folds_and_seeds_share_what_the_fixed_stages_gave(source: Path, tmp_path: Path) -> None:
    config = CONFIG.override("train.freeze_stages=4", "train.cache_features=true", "train.freeze_norms=true")
    # Both seeds start from one bundle: with random weights each seed has an encoder of its own.
    start = cross_validate(config, Manifest.load(source), folds=3, run_dir=tmp_path / "start")
    assert len(start.by_fold) == 3
    config = config.override(f"model.init_from={tmp_path / 'start/fold-0/bundle'}")
    result = run_seeds(config, source, run_dir=tmp_path / "run", seeds=[0, 1], folds=3)
    assert result["n_seeds"] == 2
    (store,) = (tmp_path / "run/cache").glob("*.features")
    with sqlite3.connect(store) as opened:
        assert opened.execute("SELECT COUNT(*) FROM features").fetchone() == (48,)
    opened.close()


def test_a_stopped_cross_validation_goes_on_with_resume(source: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train" and note.startswith("fold 2/3"):
            raise KeyboardInterrupt

    arguments = {"run_dir": tmp_path / "cut", "seeds": [0], "folds": 3}
    with pytest.raises(KeyboardInterrupt):
        run_seeds(CONFIG, source, progress=stop, **arguments)
    found = run_seeds(CONFIG, source, resume=True, **arguments)
    expected = run_seeds(CONFIG, source, run_dir=tmp_path / "whole", seeds=[0], folds=3)
    for fold in range(3):
        bundles = [Bundle.load(tmp_path / f"{name}/seed-0/fold-{fold}/bundle") for name in ("cut", "whole")]
        assert bundles[0].bundle_id == bundles[1].bundle_id
    assert found["seeds"]["0"]["auroc"] == expected["seeds"]["0"]["auroc"]


def test_mean_and_spread_are_those_of_the_seeds(source: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(source)
    splits = np.repeat(["train", "val", "test"], [28, 10, 10])
    Manifest(manifest.frame.assign(split=splits), manifest.root, manifest.label_columns).save(tmp_path / "m.parquet")
    result = run_seeds(CONFIG, tmp_path / "m.parquet", run_dir=tmp_path / "run", seeds=[0, 1, 2])
    areas = [result["seeds"][str(seed)]["auroc"]["value"] for seed in range(3)]
    assert result["auroc_mean"] == pytest.approx(np.mean(areas))
    assert result["auroc_sd"] == pytest.approx(np.std(areas, ddof=1))
    assert {Bundle.load(result["seeds"][str(seed)]["bundle"]).config.train.seed for seed in range(3)} == {0, 1, 2}
