"""Whole study: a probe on cached features equals the whole network, official splits are respected."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, EvaluationError, LeakageError, LeptonError, ManifestError, OutputError
from lepton_vision.evaluation.classes.figures import validation_figures
from lepton_vision.files import HeldFolder
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import evaluate_bundle, fit, run_study
from lepton_vision.pipeline.classes import EvaluationOptions
from lepton_vision.pipeline.folds import run_seeds
from lepton_vision.pipeline.prepare import with_targets
from lepton_vision.readers.identity import key_check
from lepton_vision.types import Target
from tests.squares import planted_squares


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return planted_squares(tmp_path, counts={"train": 48, "val": 24, "test": 24}, side=16, brighter=100)


CONFIG = Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=16",
    "model.stem=standard",
    "train.precision=fp32",
    "train.epochs=2",
)


@pytest.mark.parametrize("members", [1, 2])
def test_a_probe_on_cached_features_is_validated_like_the_whole_network(
    manifest: Manifest, tmp_path: Path, members: int
) -> None:
    config = CONFIG.override(
        "train.freeze_stages=5", "train.cache_features=true", "augment.preset=none", "evaluation.calibrate=false"
    )
    config = config.override(f"model.members={members}")
    bundle = fit(config, manifest, run_dir=tmp_path / "run")
    whole = validation_figures(predict(bundle, manifest.subset("val"), precision="fp32"))
    for name, value in whole.items():
        assert bundle.provenance["validation"][name] == pytest.approx(value, abs=1e-5)


def test_classes_that_validation_lacks_leave_the_others_usable(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame, position = manifest.frame, np.arange(len(manifest))
    is_train = (frame["split"] == "train").to_numpy()
    label = frame["label"].astype(int).to_numpy()
    frame = frame.assign(shown=label, rare=(is_train & (position % 5 == 0)).astype(int))
    frame["grade"] = np.where(is_train & (position % 5 == 0), "c", np.where(label == 1, "b", "a"))
    manifest = dataclasses.replace(manifest, frame=frame)
    targets = (Target("signs", "multilabel", ("shown", "rare")), Target("grade", "multiclass", ("a", "b", "c")))
    config = CONFIG.model_copy(update={"targets": targets}).override("train.patience=1", "evaluation.replicates=100")
    bundle = fit(config, manifest, run_dir=tmp_path / "run")
    assert bundle.provenance["not_validated"] == ["signs/rare", "grade/c"]
    assert (bundle.provenance["validation"]["val_classes_judged"], bundle.operating_point is None) == (3, False)
    assert np.isfinite(bundle.provenance["validation"]["val_auroc"])
    assert sum("rare (0 positive, 24 negative)" in message for message in caplog.messages) == 1
    again = Bundle.load(tmp_path / "run" / "bundle")
    assert np.isnan(again.operating_point.thresholds["signs"]).tolist() == [False, True]  # type: ignore[union-attr]
    found = evaluate_bundle(again, manifest, split="test", out=tmp_path / "out")
    figures = found.evaluation.figures["signs"]  # type: ignore[union-attr]
    assert figures["sensitivity_rare"].reason == "no operating point"
    assert np.isfinite(figures["auroc"].value)
    page = found.report.read_text()
    assert "There is none for rare, of which nothing is decided." in page
    assert "nan" not in (tmp_path / "out" / "model_card.md").read_text().lower().split()
    json.loads((tmp_path / "out" / "figures.json").read_text(), parse_constant=lambda text: pytest.fail(text))


def test_mirror_images_are_refused_where_training_has_no_flips(manifest: Manifest, tmp_path: Path) -> None:
    mirrored = CONFIG.override("model.mirrored=true", "augment.preset=ultrasound")
    assert with_targets(mirrored, manifest).model.mirrored
    sided = mirrored.model_copy(update={"targets": (Target("label", "binary", ("left", "right")),)})
    for config in (mirrored.override("augment.flip=false"), mirrored.override("augment.preset=none"), sided):
        with pytest.raises(ConfigError, match="trained with left–right flips"):
            fit(config, manifest, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bundle_is_chosen_on_validation_and_judged_on_test(manifest: Manifest, tmp_path: Path) -> None:
    bundle = fit(CONFIG.override("train.epochs=4"), manifest, run_dir=tmp_path / "run")
    assert bundle.operating_point is not None
    assert bundle.operating_point.chosen_on == "val"
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out")
    evaluation, report = result.evaluation, result.report
    assert evaluation.n == 24
    assert report.exists()
    written = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert written["targets"]["label"]["figures"]["auroc"]["value"] == evaluation.figures["label"]["auroc"].value
    assert report.read_text(encoding="utf-8").count('<img class="heat"') == len(
        evaluation.worst["label"] + evaluation.unsure["label"]
    )
    with pytest.raises(ManifestError, match="Expected rows in the test split"):
        evaluate_bundle(bundle, manifest.subset("train"), split="test", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_an_evaluation_leaves_names_no_place_and_keeps_answers(manifest: Manifest, tmp_path: Path) -> None:
    bundle = fit(CONFIG, manifest, run_dir=tmp_path / "run")
    out = tmp_path / "out"
    evaluate_bundle(
        bundle, manifest, split="test", out=out, options=EvaluationOptions(about={"intended_use": "Only to test."})
    )
    documents = ("model_card.md", "checklist_claim_2024.md", "checklist_tripod_ai.md")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["predictions.csv", "predictions.csv.json", "figures.json", "report.html", "ledger.jsonl", *documents]
    )
    for path in out.iterdir():
        text = path.read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert "tiny.npz" not in text
    for name in documents:
        assert "Only to test." in (out / name).read_text(encoding="utf-8")
    assert "training 48 images" in (out / "checklist_claim_2024.md").read_text(encoding="utf-8")


def test_a_manifest_of_another_key_is_told_where_its_bundle_is_judged_and_refused_where_it_goes_on(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = fit(CONFIG.override("train.epochs=1"), manifest, run_dir=tmp_path / "run")
    assert Bundle.load(tmp_path / "run" / "bundle").provenance["id_key"] == manifest.id_key == key_check()
    with monkeypatch.context() as patch:
        patch.setenv("LEPTON_VISION_ID_KEY", "key of another container")
        counts = {"train": 48, "val": 24, "test": 24}
        (tmp_path / "again").mkdir()
        other = planted_squares(tmp_path / "again", counts=counts, side=16, brighter=100)
    for options, is_told in ((EvaluationOptions(), True), (EvaluationOptions(is_external=True), False)):
        caplog.clear()
        found = evaluate_bundle(bundle, other, split="test", out=tmp_path / "out", options=options)
        assert found.evaluation is not None
        assert ("another key than those of the bundle's training" in caplog.text) is is_told
    with pytest.raises(ConfigError, match=r"other data.*LEPTON_VISION_ID_KEY"):
        fit(CONFIG.override("train.epochs=1"), other, run_dir=tmp_path / "run", resume=True)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["stop", "drop_train", "allow"])
def test_no_setting_lets_a_patient_stand_in_two_splits(manifest: Manifest, tmp_path: Path, how: str) -> None:
    leaking = dataclasses.replace(manifest, frame=manifest.frame.assign(patient_id="p", patient_known=True))
    with pytest.raises(LeakageError, match="patients in two splits: 1"):
        fit(CONFIG.override(f"audit.on_leakage={how}"), leaking, run_dir=tmp_path / "run")


def test_a_refused_training_leaves_a_finished_run_as_it_was(manifest: Manifest, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fit(CONFIG, manifest, run_dir=run_dir)
    before, other = content(run_dir), manifest.select(np.arange(len(manifest)) > 3)
    leaking = dataclasses.replace(manifest, frame=manifest.frame.assign(patient_id="p", patient_known=True))
    refused: list[tuple[Config, Manifest, bool]] = [
        (CONFIG, manifest, False),
        (CONFIG, other, False),
        (CONFIG, other, True),
        (CONFIG, leaking, False),
        (CONFIG, leaking, True),
        (CONFIG, manifest.subset("train"), True),
        (CONFIG, manifest.subset("val"), False),
        (CONFIG.override("preprocess.size=[20, 20]"), manifest, False),
        (CONFIG.override("preprocess.size=[20, 20]"), manifest, True),
        (CONFIG.override("train.lr=0.1"), manifest, True),
        (CONFIG.override("train.monitor=val_dice"), manifest, True),
        (CONFIG.override("train.cache_features=true"), manifest, False),
        (CONFIG.override("model.weights=/none/w.pt"), manifest, False),
        (CONFIG.override("evaluation.subgroups=[ward]"), manifest, True),
        (CONFIG.override("train.precision=fp16"), manifest, True),
    ]
    for config, rows, resume in refused:
        with pytest.raises(LeptonError):
            fit(config, rows, run_dir=run_dir, resume=resume)
        assert content(run_dir) == before
    with pytest.raises(LeptonError):
        fit(CONFIG, manifest, run_dir=run_dir, resume=True, device="cuda:99")
    with pytest.raises(ConfigError, match="holds a run already"):
        run_study(CONFIG, other, run_dir=run_dir)
    with HeldFolder(run_dir, what="run folder"), pytest.raises(OutputError, match="Another process"):
        run_in_thread(lambda: fit(CONFIG, manifest, run_dir=run_dir, resume=True))
    assert content(run_dir) == before
    fit(CONFIG, manifest, run_dir=run_dir, resume=True)
    after = content(run_dir)
    assert {name for name in before if before[name] != after[name]} <= {"bundle/bundle.json"}  # which says when


def run_in_thread(action: Callable[[], object]) -> None:
    """As another process would: a thread has no callers that hold a folder."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(action).result()


def test_a_wish_that_cannot_be_fulfilled_leaves_the_bundle_of_a_finished_run(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(CONFIG, manifest, run_dir=tmp_path)
    before = content(tmp_path)

    def refuse(*arguments: object, **settings: object) -> None:
        raise EvaluationError("Expected a criterion that can be fulfilled.")

    monkeypatch.setattr("lepton_vision.pipeline.training.choose_on_validation", refuse)
    with pytest.raises(EvaluationError):
        fit(CONFIG.override("evaluation.criterion=youden"), manifest, run_dir=tmp_path, resume=True)
    assert content(tmp_path) == before


def test_the_last_seed_is_refused_before_the_first_is_trained(manifest: Manifest, tmp_path: Path) -> None:
    source = manifest.save(tmp_path / "m.parquet")
    fit(CONFIG, manifest, run_dir=tmp_path / "run" / "seed-1")
    before = content(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already"):
        run_seeds(CONFIG, source, run_dir=tmp_path / "run", seeds=[0, 1])
    assert content(tmp_path / "run") == before
