"""Demo from synthetic files to a scored inbox, through the command line."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from lepton_vision.cli.app import demo as demo_command
from lepton_vision.demo import demo_config, run_demo, write_demo_study
from lepton_vision.demo.run import _make_room, _one_thread
from lepton_vision.demo.study import _Evenly, write_demo_series
from lepton_vision.errors import ConfigError
from lepton_vision.manifest import Manifest
from lepton_vision.pipeline import run_study
from lepton_vision.readers import read_image
from lepton_vision.readers.mask import labels_of, read_mask

from .conftest import Demo, command_of, run_cli, run_json

pytestmark = pytest.mark.slow

PLANTED = "Demo^Patient", "DEMO-0-"


def test_the_planted_finding_is_learnt_and_the_json_holds_the_contract(demo: Demo) -> None:
    keys = {"test_auroc", "low", "high", "n", "report", "bundle", "scores", "seconds", "dice", "mask_report", "series"}
    assert keys <= set(demo.result)
    assert 0.88 < demo.result["test_auroc"] < 0.98
    assert demo.result["low"] <= demo.result["test_auroc"] <= demo.result["high"]
    for key in ("report", "bundle", "scores"):
        assert Path(demo.result[key]).exists()


def test_some_cases_are_wrong_at_the_operating_point_and_stand_in_the_gallery(demo: Demo) -> None:
    folder = Path(demo.result["report"]).parent
    facts = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    (threshold,) = facts["operating_point"]["thresholds"]["finding"]
    rows = pd.read_csv(folder / "predictions.csv", comment="#").dropna(subset=["y_true"])
    wrong = (rows["y_prob"] >= threshold) != (rows["y_true"] == 1)
    assert 0.01 < wrong.mean() < 0.15
    assert facts["targets"]["finding"]["figures"]["accuracy"]["value"] == pytest.approx(1.0 - wrong.mean())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert any(f'<span class="badge">{badge}</span>' in page for badge in ("missed", "false alarm"))


def test_the_masks_of_findings_are_learnt_and_have_a_page(demo: Demo) -> None:
    dice = demo.result["dice"]
    assert dice["value"] > 0.45  # of a faint finding it may be 0
    assert dice["low"] <= dice["value"] <= dice["high"]
    assert 0 < dice["n"] <= demo.result["n"] + 5  # of images with a finding, or a false one
    page = Path(demo.result["mask_report"])
    assert page.is_file()
    assert page != Path(demo.result["report"])
    assert page.read_text(encoding="utf-8").count("data:image/") >= 3  # best, median and worst case
    assert len(list((page.parent / "predicted").glob("*.png"))) >= dice["n"]


def test_the_command_and_python_run_the_same_demo() -> None:
    command, python = (inspect.signature(one).parameters for one in (demo_command, run_demo))
    for name in ("patients", "seed", "epochs"):
        assert command[name].default == python[name].default


def test_the_series_is_read_as_a_volume(demo: Demo) -> None:
    series = demo.result["series"]
    assert (series["kind"], series["slices"], series["shape"]) == ("series", 12, [1, 12, 128, 128])
    assert series["spacing_mm"] == [5.0, 2.8, 2.8]
    assert (series["orientation"], series["units"], series["modality"]) == ("LPS", "HU", "CT")


def test_masks_of_the_study_lie_on_the_findings_alone(tmp_path: Path) -> None:
    """By hand, from the files: within a mask it is denser than the lung around it, and labels say where one is."""
    study = write_demo_study(tmp_path, patients=20, seed=5)
    manifest = Manifest.scan(study.study, labels=study.labels, workers=0)
    assert len(manifest.ok) == len(manifest) == study.images
    has_mask = (manifest.frame["mask_values"] == "0,1").fillna(False).to_numpy(bool)
    label = pd.to_numeric(manifest.frame["finding"]).to_numpy(float, na_value=np.nan)
    assert has_mask.sum() > 10
    assert manifest.frame["mask_values"].isna().sum() == manifest.frame["finding"].isna().sum()
    assert 0.9 < (has_mask == label)[~np.isnan(label)].mean() < 1.0  # readers overlook some
    assert has_mask[label == 1].all()
    denser = []
    for row in manifest.frame[has_mask].itertuples():
        pixels = read_image(manifest.root / str(row.path)).pixels[0]
        mask = labels_of(read_mask(manifest.root / str(row.mask_path))) > 0
        around = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=4)
        denser.append(pixels[mask].mean() - np.median(pixels[around & (pixels < -500)]))
    assert min(denser) > 0
    assert 0.85 < np.mean(np.array(denser) > 200) < 1.0  # the others are faint


def test_the_share_of_hard_cases_is_the_same_in_every_stretch() -> None:
    for start in (0.0, 0.3, 0.99):
        draws = _Evenly(0.15, start)
        hits = [draws.draw() for _ in range(400)]
        assert {sum(hits[k : k + 30]) for k in range(370)} <= {4, 5}  # 4.5


def test_the_mask_of_a_series_is_a_ball_on_its_voxels(tmp_path: Path) -> None:
    mask = write_demo_series(tmp_path / "with", number=3)
    write_demo_series(tmp_path / "without", number=3, has_finding=False)
    found, plain = (read_image(tmp_path / name) for name in ("with", "without"))
    assert mask.shape == found.pixels.shape[1:] == (12, 128, 128)
    assert found.geometry is not None
    has_any = mask.any(axis=(1, 2))
    assert 3 <= has_any.sum() < 12
    middle = mask.sum(axis=(1, 2)).argmax()
    assert 4 <= middle <= 7
    added = found.pixels[0] - plain.pixels[0]
    assert added[mask > 0].min() > 0.4 * added[mask > 0].max() > 100
    assert np.abs(added[[0, 11]]).max() < 60


def test_shuffled_labels_are_not_learnt(tmp_path: Path) -> None:
    study = write_demo_study(tmp_path, patients=100, seed=1, shuffle_labels=True)
    config = demo_config(epochs=3, seed=1).override("preprocess.size=[64, 64]", "model.stem=standard")
    result = run_study(config, study.study, labels=study.labels, run_dir=tmp_path / "run")
    assert 0.35 < result.test.evaluation.figures["finding"]["auroc"].value < 0.65


def test_the_inbox_has_a_row_for_every_file_and_broken_ones_carry_a_reason(demo: Demo) -> None:
    rows = pd.read_parquet(demo.result["scores"])
    files = [path for path in (demo.folder / "inbox").iterdir() if path.is_file()]
    assert len(rows) == len(files)
    assert rows["path_id"].is_unique
    failed = rows[rows["status"] == "failed"]
    assert len(failed) == sum(path.name.startswith("broken") or path.suffix == ".csv" for path in files)
    assert failed["reason"].notna().all()
    assert set(failed["reason"]) >= {"empty", "not_an_image", "truncated"}
    good = rows[rows["status"] == "ok"]
    assert good["finding_probability"].between(0, 1).all()
    assert (good["finding_positive"] == (good["finding_probability"] >= good["threshold"])).all()


def test_scoring_again_changes_nothing(demo: Demo) -> None:
    before = {path.name: path.read_bytes() for path in Path(demo.result["scores"]).glob("part-*")}
    command = ("score", "--bundle", demo.result["bundle"], "--input", demo.folder / "inbox")
    again = run_json(*command, "--output", demo.result["scores"], "--max-failures", "1")
    assert again["new_rows"] == 0
    assert {path.name: path.read_bytes() for path in Path(demo.result["scores"]).glob("part-*")} == before


def test_too_many_failures_exit_with_1_and_keep_the_rows(demo: Demo, tmp_path: Path) -> None:
    command = ("score", "--bundle", demo.result["bundle"], "--input", demo.folder / "inbox", "--output", tmp_path / "s")
    done = run_cli(*command, "--max-failures", "0.01")
    assert done.returncode == 1
    assert "failed rows" in done.stderr
    assert len(pd.read_parquet(tmp_path / "s")) == len(pd.read_parquet(demo.result["scores"]))


def test_probabilities_do_not_depend_on_batch_size_workers_or_order(demo: Demo, tmp_path: Path) -> None:
    command = ("score", "--bundle", demo.result["bundle"], "--max-failures", "1")
    inputs = sorted((demo.folder / "inbox").iterdir(), reverse=True)
    flags = [part for path in inputs for part in ("--input", path)]
    run_json(*command, *flags, "--output", tmp_path / "s", "--workers", "1")
    first = pd.read_parquet(demo.result["scores"]).set_index("path_id")["finding_probability"].sort_index()
    second = pd.read_parquet(tmp_path / "s").set_index("path_id")["finding_probability"].sort_index()
    pd.testing.assert_series_equal(first, second, check_exact=True)


def test_no_patient_data_reaches_any_file_of_a_run(demo: Demo) -> None:
    for path in [*(demo.folder / "run").rglob("*"), *(demo.folder / "scores").rglob("*")]:
        if path.is_file() and path.suffix not in (".safetensors", ".pt"):
            content = path.read_bytes()
            assert not any(name.encode() in content for name in PLANTED), path.name


def test_the_commands_work_one_by_one(demo: Demo, tmp_path: Path) -> None:
    study, labels = demo.folder / "study", demo.folder / "labels.csv"
    scanned = run_json("scan", study, "--labels", labels, "--out", tmp_path / "all.parquet")
    assert scanned["rows"] == len(list(study.rglob("*.dcm")))
    assert scanned["rejected"] == {}
    counts = run_json("split", tmp_path / "all.parquet", "--out", tmp_path / "split.parquet", "--seed", "3")
    assert sum(part["images"] for part in counts.values()) == scanned["rows"]
    assert run_json("audit", tmp_path / "split.parquet")["findings"] is not None
    figures = run_json(
        "evaluate", "--bundle", demo.result["bundle"], "--manifest", tmp_path / "split.parquet", "--out", tmp_path / "e"
    )
    assert {"value", "low", "high", "n"} <= set(figures["auroc"])
    assert (tmp_path / "e" / "report.html").exists()
    table = run_json("evaluate", "--predictions", tmp_path / "e" / "predictions.csv", "--out", tmp_path / "f")
    assert table["auroc"]["value"] == pytest.approx(figures["auroc"]["value"])
    for path in (demo.result["bundle"], tmp_path / "split.parquet", next(study.rglob("*.dcm"))):
        assert run_json("inspect", path)["kind"] in ("bundle", "manifest", "image")


def test_training_killed_in_an_epoch_resumes_to_the_same_bundle(demo: Demo, tmp_path: Path) -> None:
    manifest = demo.folder / "run" / "manifest.parquet"
    config = tmp_path / "config.yaml"
    settings = demo_config(epochs=2).override("preprocess.size=[64, 64]", "model.stem=standard", "train.precision=fp32")
    settings.override("train.checkpoint_seconds=0", f"cache.folder={tmp_path / 'cache'}").to_yaml(config)
    command = ["train", "--manifest", manifest, "--config", config, "--run-dir"]
    whole = run_json(*command, tmp_path / "whole")
    process = subprocess.Popen(
        command_of(*command, tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "bundle").exists()
    resumed = run_json(*command, tmp_path / "killed", "--resume")
    assert resumed["bundle_id"] == whole["bundle_id"]


def test_leaking_splits_stop_training_with_exit_code_1(demo: Demo, tmp_path: Path) -> None:
    frame = pd.read_parquet(demo.folder / "run" / "manifest.parquet")
    patient = frame.loc[frame["split"] == "train", "patient_id"].iloc[0]
    labels = frame[["path", "finding", "split"]].copy()
    first = frame.index[frame["patient_id"] == patient][0]
    labels.loc[first, "split"] = "test"
    labels.to_csv(tmp_path / "labels.csv", index=False)
    study = demo.folder / "study"
    assert run_cli("scan", study, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "m.parquet").returncode == 0
    done = run_cli("train", "--manifest", tmp_path / "m.parquet", "--run-dir", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert "split" in done.stderr
    assert not (tmp_path / "run").exists()
    assert run_cli("audit", tmp_path / "m.parquet", "--fail-on", "leakage").returncode == 1


def test_ctrl_c_exits_with_130_and_can_be_resumed(demo: Demo, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    demo_config(epochs=50).override("preprocess.size=[64, 64]", "model.stem=standard").to_yaml(config)
    manifest, run_dir = demo.folder / "run" / "manifest.parquet", tmp_path / "run"
    command = ["train", "--manifest", str(manifest), "--config", str(config), "--run-dir", str(run_dir)]
    process = subprocess.Popen(
        command_of(*command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in message
    assert (run_dir / "checkpoints" / "last.pt").exists()
    assert all(json.loads(line) for line in metrics.read_text().splitlines())


def test_the_demo_gives_torchs_threads_back_whatever_happens() -> None:
    before, inside = torch.get_num_threads(), []

    def stopped() -> None:
        with _one_thread():
            inside.append(torch.get_num_threads())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (inside, torch.get_num_threads()) == ([1], before)


def test_a_second_demo_takes_the_place_of_the_first_and_of_nothing_else(tmp_path: Path) -> None:
    _make_room(tmp_path / "demo")
    study = write_demo_study(tmp_path / "demo", patients=4)
    (tmp_path / "demo" / "run").mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    _make_room(tmp_path / "demo")
    assert not study.study.exists()
    assert not study.labels.exists()
    assert (tmp_path / "demo" / "notes.txt").read_text() == "mine"
    other = tmp_path / "other" / "study"
    other.mkdir(parents=True)
    with pytest.raises(ConfigError, match="a folder with study of another origin"):
        _make_room(tmp_path / "other")
    assert other.is_dir()
