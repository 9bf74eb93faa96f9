"""Validation's choices in the bundle: applied everywhere alike, with every look at the test split counted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from torch import Tensor
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, EvaluationError, LeptonError, ManifestError, ReportError
from lepton_vision.evaluation import compare, evaluate
from lepton_vision.evaluation.choices.calibration import fit_calibrators
from lepton_vision.inference import predict
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.models.resnet import ResNet
from lepton_vision.pipeline import evaluate_bundle, fit
from lepton_vision.pipeline.choices import choose_on_validation
from lepton_vision.pipeline.classes import EvaluationOptions
from lepton_vision.reporting import write_report
from lepton_vision.scoring import score

CONFIG = Config().override(
    "preprocess.size=[16, 16]",
    "model.stem=standard",
    "train.precision=fp32",
    "train.epochs=3",
    "evaluation.calibration=isotonic",
    "evaluation.criterion=youden",
    "evaluation.conformal_coverage=0.8",
    "evaluation.subgroups=[sex]",
    "evaluation.subgroup_min_patients=5",
    "evaluation.replicates=100",
)


def arrays(seed: int, *, signal: int = 60) -> dict[str, np.ndarray]:
    rng, made = np.random.default_rng(seed), {}
    for split, n in (("train", 48), ("val", 32), ("test", 32)):
        labels = np.arange(n) % 2
        images = rng.integers(0, 160, (n, 16, 16))
        images[labels == 1, 4:12, 4:12] += signal
        made |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    return made


def manifest_of(folder: Path, *, seed: int, signal: int = 60) -> Manifest:
    folder.mkdir()
    np.savez(folder / "tiny.npz", **arrays(seed, signal=signal))
    manifest = Manifest.scan(folder / "tiny.npz", workers=0)
    sex = np.where(np.arange(len(manifest)) % 3 == 0, "F", "M")
    return replace(manifest, frame=manifest.frame.assign(sex=sex))


@dataclass(frozen=True)
class Trained:
    run: Path
    manifest: Manifest
    bundle: Bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("class_study")
    manifest = manifest_of(folder / "here", seed=0)
    fit(CONFIG, manifest, run_dir=folder / "run")
    manifest.save(folder / "here.parquet")
    manifest_of(folder / "there", seed=9, signal=30).save(folder / "there.parquet")
    return Trained(folder / "run", manifest, Bundle.load(folder / "run" / "bundle"))


@pytest.mark.parametrize("is_probe", [False, True])
def test_after_the_last_epoch_each_row_is_seen_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_probe: bool
) -> None:
    monkeypatch.setattr("lepton_vision.models.device.has_fast_bf16", lambda: False)
    manifest, counts = manifest_of(tmp_path / "here", seed=0), []
    features = ResNet.features

    def counted(self: ResNet, images: Tensor) -> Tensor:
        counts.append(len(images))
        return features(self, images)

    monkeypatch.setattr(ResNet, "features", counted)
    options = ("train.freeze_stages=5", "train.cache_features=true", "augment.preset=none") if is_probe else ()
    config = CONFIG.override("train.epochs=1", "train.batch_size=16", "train.monitor=val_loss", *options)
    told: list[tuple[str, int, int, str]] = []
    bundle = fit(config, manifest, run_dir=tmp_path / "run", device="cpu", progress=lambda *row: told.append(row))
    epoch = 48 + 32  # training, then validation
    assert sum(counts) == (epoch if is_probe else epoch + 32 + 48)
    assert is_probe or ("choose", 32, 32, "validation") in told
    before = predict(replace(bundle, calibrators={}), manifest.subset("val"), device="cpu")
    expected = fit_calibrators(before, method="isotonic")["label"]
    assert bundle.calibrators["label"] == expected
    again = choose_on_validation(
        replace(bundle, calibrators={}), manifest.subset("val"), train=manifest.subset("train"), device="cpu"
    )
    np.testing.assert_array_equal(bundle.novelty.reference, again.novelty.reference)
    np.testing.assert_array_equal(bundle.novelty.distances, again.novelty.distances)
    assert (again.operating_point, again.set_rules) == (bundle.operating_point, bundle.set_rules)


def test_what_validation_chose_is_in_the_bundle(trained: Trained) -> None:
    bundle = trained.bundle
    val = predict(bundle, trained.manifest.subset("val"))
    point = bundle.operating_point
    assert point is not None
    assert point.criterion.startswith("largest sensitivity + specificity - 1")
    figures = evaluate(val, operating_point=point, config=CONFIG.evaluation).figures["label"]
    (at,) = point.figures["label"]
    assert (at.sensitivity, at.specificity) == (figures["sensitivity"].value, figures["specificity"].value)
    assert (at.n, at.positives) == (32, 16)
    assert bundle.calibrators["label"].method == "isotonic"
    assert bundle.temperatures == {}
    assert bundle.set_rules["label"][0].n_patients == (16, 16)
    again = choose_on_validation(
        bundle.with_calibrators({}), trained.manifest.subset("val"), train=trained.manifest.subset("train")
    )
    assert again.bundle_id == bundle.bundle_id


def test_predicting_and_scoring_give_the_same_calibrated_probabilities(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    for k, image in enumerate(arrays(0)["test_images"]):
        cv2.imwrite(str(tmp_path / "inbox" / f"{k:02}.png"), image)
    predicted = predict(trained.bundle, tmp_path / "inbox")
    score(trained.run / "bundle", [tmp_path / "inbox"], tmp_path / "scores")
    rows = pd.concat([pd.read_parquet(path) for path in (tmp_path / "scores").glob("part-*")]).set_index("image_id")
    scored = rows.loc[predicted.image_id, "label_probability"].to_numpy(dtype=float)
    np.testing.assert_allclose(scored, predicted.y_prob["label"], atol=1e-6)
    (line,) = trained.bundle.calibrators["label"].maps
    raw = predict(trained.bundle.with_calibrators({}), tmp_path / "inbox").y_prob["label"]
    np.testing.assert_allclose(predicted.y_prob["label"], np.interp(raw, line.before, line.after), atol=1e-6)
    assert np.abs(raw - scored).max() > 0.01  # it does something
    assert 1 / 34 - 1e-6 <= scored.min() <= scored.max() <= 33 / 34 + 1e-6


def test_every_look_at_test_is_counted_and_written(trained: Trained, tmp_path: Path) -> None:
    options = EvaluationOptions(run_dir=tmp_path / "run")
    (tmp_path / "run").mkdir()
    counts = []
    for _ in range(2):
        found = evaluate_bundle(trained.bundle, trained.manifest, split="test", out=tmp_path / "out", options=options)
        counts.append(found.evaluation.provenance["test_looks"])
    assert counts == [1, 2]
    val = evaluate_bundle(trained.bundle, trained.manifest, split="val", out=tmp_path / "val", options=options)
    assert "test_looks" not in val.evaluation.provenance
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [line["bundle_id"] for line in lines] == [trained.bundle.bundle_id] * 2
    assert lines[0]["manifest"] == trained.manifest.fingerprint
    assert {"auroc", "sensitivity"} <= set(lines[0]["figures"]["label"])
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["provenance"]["test_looks"] == 2
    assert "test looks" in (tmp_path / "out" / "report.html").read_text()


def test_a_result_that_cannot_be_written_is_no_look(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise ReportError("The disk is full.")

    monkeypatch.setattr("lepton_vision.pipeline.classes.write_results", full)
    options = EvaluationOptions(run_dir=tmp_path)
    with pytest.raises(ReportError):
        evaluate_bundle(trained.bundle, trained.manifest, split="test", out=tmp_path / "out", options=options)
    assert not (tmp_path / "ledger.jsonl").exists()


def test_without_a_run_the_ledger_lies_beside_the_figures_and_no_folder_stops_it(
    trained: Trained, tmp_path: Path
) -> None:
    found = evaluate_bundle(trained.bundle, trained.manifest, split="test", out=tmp_path / "out")
    assert (tmp_path / "out" / "ledger.jsonl").exists()
    assert found.evaluation.provenance["test_looks"] == 1
    barred = EvaluationOptions(run_dir=tmp_path / "gone")
    found = evaluate_bundle(trained.bundle, trained.manifest, split="test", out=tmp_path / "b", options=barred)
    assert "not written" in found.evaluation.provenance["ledger"]
    assert found.report.exists()


def test_ways_round_the_ledger_are_in_it_too(trained: Trained, tmp_path: Path) -> None:
    """Evaluating the table that a look left behind, and figures and pages made by hand as in a notebook."""
    study = tmp_path / "run"
    study.mkdir()
    evaluate_bundle(
        trained.bundle,
        trained.manifest,
        split="test",
        out=study / "evaluation",
        options=EvaluationOptions(run_dir=study),
    )
    found = run("evaluate", "--predictions", study / "evaluation" / "predictions.csv", "--out", tmp_path / "elsewhere")
    assert found["n"] == 32
    assert not (tmp_path / "elsewhere" / "ledger.jsonl").exists()
    bundle, point = Bundle.load(trained.bundle.save(study / "bundle")), trained.bundle.operating_point
    test = predict(bundle, trained.manifest.subset("test"))
    evaluate(test, operating_point=point)  # a library writes nothing that it is not asked to
    assert len((study / "ledger.jsonl").read_text().splitlines()) == 2
    again = evaluate(test, operating_point=point, notes_look=True)  # seen in a notebook, without a page
    assert again.provenance["test_looks"] == 3
    page = write_report(again, study / "report.html").read_text(encoding="utf-8")
    assert "This is look 3 at the test split" in page
    compare(test, test, operating_point=point, notes_look=True)
    write_report(evaluate(test, operating_point=point), study / "other.html")
    looks = [json.loads(line) for line in (study / "ledger.jsonl").read_text().splitlines()]
    assert [line["command"] for line in looks] == [
        "evaluate",
        "evaluate --predictions",
        "evaluate() in Python",
        "compare() in Python",
        "write_report",
    ]
    assert {line["bundle_id"] for line in looks} == {trained.bundle.bundle_id}
    val = predict(bundle, trained.manifest.subset("val"))
    write_report(evaluate(val, operating_point=point), study / "val.html")
    assert len((study / "ledger.jsonl").read_text().splitlines()) == 5


def test_all_analyses_are_there_where_the_data_allow(trained: Trained, tmp_path: Path) -> None:
    found = evaluate_bundle(trained.bundle, trained.manifest, split="test", out=tmp_path / "out").evaluation.analyses
    assert found.calibration is not None
    assert found.decision_curve is not None
    assert found.abstention is not None
    assert found.conformal is not None
    assert found.conformal["label"][0].stated == 0.8
    assert [column.column for column in found.subgroups or ()] == ["sex"]
    assert found.external is None


def run(*arguments: str | Path) -> dict[str, object]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_command_line_reaches_subgroups_and_other_sites(trained: Trained, tmp_path: Path) -> None:
    bundle, here = trained.run / "bundle", trained.run.parent / "here.parquet"
    inside = run("evaluate", "--bundle", bundle, "--manifest", here, "--out", tmp_path / "in", "--by", "sex, split")
    assert [one["column"] for one in inside["subgroups"]] == ["sex", "split"]
    assert "external" not in inside
    command = ("evaluate", "--bundle", bundle, "--manifest", trained.run.parent / "there.parquet", "--external")
    outside = run(*command, "--out", tmp_path / "ex", "--reference", tmp_path / "in")
    shift = outside["external"]["shifts"]["label"]["auroc"]
    assert shift["internal"]["value"] == inside["auroc"]["value"]
    assert shift["external"]["value"] == outside["auroc"]["value"]
    assert shift["difference"]["value"] < 0
    assert outside["external"]["recalibration"]["label"][0]["figures"]["in_the_large"]["n"] == 32
    lines = [json.loads(line) for line in (trained.run / "ledger.jsonl").read_text().splitlines()]
    assert [line["command"] for line in lines[-2:]] == ["evaluate", "evaluate --external"]
    assert json.loads((tmp_path / "ex" / "figures.json").read_text())["provenance"]["test_looks"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--by", "sxe"], "Did you mean 'sex'?"),
        (["--reference", "x"], "Add --external"),
        (["--external", "--reference", "{out}"], "no predictions.csv"),
    ],
)
def test_wrong_wishes_are_explained(trained: Trained, tmp_path: Path, options: list[str], told: str) -> None:
    given = [text.replace("{out}", str(tmp_path)) for text in options]
    command = ["evaluate", "--bundle", str(trained.run / "bundle"), "--out", str(tmp_path / "out"), *given]
    with pytest.raises(LeptonError) as caught:
        CliRunner().invoke(
            app, [*command, "--manifest", str(trained.run.parent / "here.parquet")], catch_exceptions=False
        )
    assert isinstance(caught.value, ConfigError | EvaluationError | ManifestError)
    assert told in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "out" / "figures.json").exists()


def test_subgroups_need_a_column_before_anything_is_computed(trained: Trained, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("image_id,patient_id,y_true,y_prob\na,a,0,0.2\nb,b,1,0.7\n")
    with pytest.raises(EvaluationError, match="No column 'sex' for subgroups"):
        CliRunner().invoke(
            app,
            ["evaluate", "--predictions", str(table), "--out", str(tmp_path / "o"), "--by", "sex"],
            catch_exceptions=False,
        )
    with pytest.raises(ManifestError, match="No column 'scanner'"):
        fit(CONFIG.override("evaluation.subgroups=[scanner]"), trained.manifest, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "bundle").exists()


def test_a_wish_that_cannot_be_fulfilled_costs_no_training(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contrary(bundle: Bundle, val: Manifest, **more: Any) -> Bundle:
        """Settle where no negative sample is cleared: every image stands there twice, once with each label."""
        both = pd.concat([val.frame.assign(label=k, image_id=val.frame["image_id"] + str(k)) for k in (0, 1)])
        return choose_on_validation(bundle, replace(val, frame=both), **(more | {"cache_dir": None}))

    monkeypatch.setattr("lepton_vision.pipeline.training.choose_on_validation", contrary)
    wish = CONFIG.override("evaluation.criterion=ppv", "evaluation.min_ppv=1.0", "train.epochs=1")
    with pytest.raises(EvaluationError, match=r"No threshold of 'label' fulfils PPV >= 1 .* reached: 0\.5"):
        fit(wish, trained.manifest, run_dir=tmp_path / "run")
    kept = Bundle.load(tmp_path / "run" / "bundle")
    assert kept.operating_point is None
    settled = choose_on_validation(
        replace(kept, config=CONFIG), trained.manifest.subset("val"), train=trained.manifest.subset("train")
    )
    assert settled.operating_point is not None
