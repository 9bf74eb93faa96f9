"""Units of analysis and ordinal targets through the whole path: configuration, training, prediction, evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError
from lepton_vision.evaluation import aggregate
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import evaluate_bundle, fit
from lepton_vision.pipeline.classes import EvaluationOptions
from lepton_vision.pipeline.folds import cross_validate
from lepton_vision.predictions import Predictions
from lepton_vision.types import Target

SICK = Target("label", "binary", ("0", "1"))
GRADE = Target("label", "ordinal", ("0", "1", "2"))
CONFIG = Config(targets=(SICK,)).override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=16",
    "model.stem=standard",
    "train.precision=fp32",
    "train.epochs=2",
    "evaluation.replicates=100",
)


def study(folder: Path, *, classes: int) -> Manifest:
    """Four images for each patient, all of one label; the brighter the square, the higher the label."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 96), ("val", 48), ("test", 48)):
        labels = np.arange(n) // 4 % classes
        images = rng.integers(0, 120, (n, 16, 16))
        images[:, 4:12, 4:12] += 50 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    np.savez(folder / "tiny.npz", **arrays)
    scanned = Manifest.scan(folder / "tiny.npz", workers=0)
    frame = scanned.frame.copy()
    frame["patient_id"] = [f"{s}{k // 4}" for s, k in zip(frame["split"], np.arange(len(frame)), strict=True)]
    return Manifest(frame, root=scanned.root, label_columns=scanned.label_columns)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Manifest, Path]:
    folder = tmp_path_factory.mktemp("units")
    manifest = study(folder, classes=2)
    config = CONFIG.override("evaluation.unit=patient", "evaluation.aggregation=learnt")
    fit(config, manifest, run_dir=folder / "run")
    manifest.save(folder / "manifest.parquet")
    return Bundle.load(folder / "run" / "bundle"), manifest, folder


def test_patients_are_judged_at_a_point_of_their_own(trained: tuple[Bundle, Manifest, Path], tmp_path: Path) -> None:
    bundle, manifest, _ = trained
    kept = bundle.provenance["unit_of_analysis"]
    assert bundle.operating_point.chosen_on == kept["operating_point"]["chosen_on"] == "val"
    assert (bundle.operating_point.n, kept["operating_point"]["n"]) == (48, 12)
    found = evaluate_bundle(bundle, manifest, split="test", out=tmp_path).evaluation
    assert found.n == found.n_patients == 12
    assert list(found.operating_point.thresholds["label"]) == kept["operating_point"]["thresholds"]["label"]
    assert found.provenance["unit"] == "patient"


def test_another_unit_is_chosen_on_validation_when_asked_for(
    trained: tuple[Bundle, Manifest, Path], tmp_path: Path
) -> None:
    bundle, manifest, _ = trained
    options = EvaluationOptions(settings=bundle.config.override("evaluation.aggregation=max").evaluation)
    found = evaluate_bundle(bundle, manifest, split="test", out=tmp_path, options=options).evaluation
    cases = aggregate(predict(bundle, manifest.subset("test")), unit="patient", method="max")
    expected = roc_auc_score(cases.y_true["label"], cases.y_prob["label"])
    assert found.figures["label"]["auroc"].value == pytest.approx(expected)
    assert found.operating_point.chosen_on == "val"
    with pytest.raises(ConfigError, match="no operating point for the unit 'patient' with 'max'"):
        evaluate_bundle(bundle, manifest.subset("test"), split="test", out=tmp_path, options=options)


def test_the_command_takes_unit_and_aggregate(trained: tuple[Bundle, Manifest, Path], tmp_path: Path) -> None:
    folder = trained[2]
    command = ["evaluate", "--bundle", str(folder / "run" / "bundle"), "--manifest", str(folder / "manifest.parquet")]
    command += ["--out", str(tmp_path), "--aggregate", "mean", "--set", "evaluation.interval=bca", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["n"] == 12
    assert json.loads((tmp_path / "figures.json").read_text())["provenance"]["aggregation"] == "mean"


def test_ordinal_targets_go_through_the_whole_path(tmp_path: Path) -> None:
    manifest = study(tmp_path, classes=3)
    config = CONFIG.model_copy(update={"targets": (GRADE,)}).override("train.epochs=3")
    config.to_yaml(tmp_path / "config.yaml")
    assert Config.from_yaml(tmp_path / "config.yaml").targets == (GRADE,)
    fit(config, manifest, run_dir=tmp_path / "run")
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.operating_point.thresholds == {"label": ()}
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out")
    written = Predictions.load(tmp_path / "out" / "predictions.csv")
    assert written.targets[0].kind == "ordinal"
    called = written.y_prob["label"].argmax(axis=1)
    kappa = cohen_kappa_score(written.y_true["label"], called, weights="quadratic")
    assert result.evaluation.figures["label"]["kappa_quadratic"].value == pytest.approx(kappa)
    assert "Quadratic weighted kappa" in result.report.read_text()


def test_what_cannot_be_joined_is_refused_before_training(tmp_path: Path) -> None:
    manifest = study(tmp_path, classes=3)
    config = CONFIG.model_copy(update={"targets": (GRADE,)})
    mixed = manifest.frame.copy()
    mixed["patient_id"] = mixed["split"] + "-one"
    shuffled = Manifest(mixed, root=manifest.root, label_columns=manifest.label_columns)
    with pytest.raises(LabelError, match=r"differ within a patient. Received: 1 such"):
        fit(config.override("evaluation.unit=patient"), shuffled, run_dir=tmp_path / "run")
    with pytest.raises(LabelError, match="no row has a study_id"):
        fit(config.override("evaluation.unit=study"), manifest, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    learnt = config.override("evaluation.unit=patient", "evaluation.aggregation=learnt")
    with pytest.raises(ConfigError, match="no common validation split"):
        cross_validate(learnt, manifest, folds=2, run_dir=tmp_path / "run")


def test_a_class_cannot_be_called_like_a_mean() -> None:
    with pytest.raises(ValueError, match="'micro' is the name of a mean"):
        Target("size", "multiclass", ("micro", "large"))


def write_table(path: Path, *, seed: int, split: str) -> None:
    """Another tool's table: 30 patients with 3 images each."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_id", "patient_id", "y_true", "y_prob", "split"])
        for k in range(90):
            truth = k // 3 % 2
            rows.writerow([f"i{k}", f"p{k // 3}", truth, round(float(rng.beta(2 + truth, 2)), 3), split])


def run(*words: object) -> dict[str, object]:
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_table_of_another_tool_by_patient(tmp_path: Path) -> None:
    write_table(tmp_path / "test.csv", seed=0, split="test")
    write_table(tmp_path / "val.csv", seed=1, split="val")
    shared = ("evaluate", "--predictions", tmp_path / "test.csv", "--out", tmp_path / "out", "--unit", "patient")
    assert run(*shared, "--aggregate", "noisy_or")["n"] == 30
    found = run(*shared, "--aggregate", "learnt", "--validation", tmp_path / "val.csv")
    assert found["n"] == 30
    for words, message in (
        (("--aggregate", "learnt"), "needs --validation"),
        (("--aggregate", "learnt", "--validation", str(tmp_path / "test.csv")), "fitted on validation"),
        (("--aggregate", "median"), "evaluation.aggregation"),
        (("--set", "train.epochs=3"), "evaluation.key=value"),
    ):
        done = CliRunner().invoke(app, [*map(str, shared), *words])
        assert message in str(done.exception), done.output


def test_two_tables_are_compared(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        write_table(tmp_path / f"{name}.csv", seed=seed, split="test")
    shared = ("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "out")
    found = run(*shared, "--margin", 0.1, "--replicates", 200)
    assert (found["a"], found["b"]) == ("a", "b")  # as the files
    assert found["n"] == 90
    assert found["n_patients"] == 30
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    auroc = written["targets"]["y"]["figures"]["auroc"]
    assert auroc["test"] == "obuchowski"
    assert auroc["is_non_inferior"] is None
    assert "patients" in auroc["no_verdict"]
    assert set(found["targets"]["y"]) == {"auroc", "sensitivity", "specificity"}  # type: ignore[index]
    assert "b − a" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    by_patient = run(*shared, "--unit", "patient", "--endpoints", "auroc", "--threshold-b", 0.6)
    assert by_patient["n"] == 30
    for name, seed in (("val_a", 2), ("val_b", 3)):
        write_table(tmp_path / f"{name}.csv", seed=seed, split="val")
    learnt = ("--unit", "patient", "--aggregate", "learnt", "--validation", tmp_path / "val_a.csv")
    joined = run(*shared, *learnt, "--validation-b", tmp_path / "val_b.csv")
    assert joined["n"] == 30
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["provenance"]["aggregation"] == "learnt"
    done = CliRunner().invoke(app, [*map(str, shared), *map(str, learnt)])
    assert "--validation-b" in str(done.exception)
