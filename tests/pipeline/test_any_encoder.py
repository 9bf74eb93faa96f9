"""An own encoder and one of timm wherever a ResNet goes: two processes, stops, masks, other runtimes, scores."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Picture

import lepton_vision as lv
from lepton_vision.inference.runtimes.export import export_bundle
from lepton_vision.inference.runtimes.open import open_exported
from lepton_vision.pipeline import evaluate_bundle
from lepton_vision.pipeline.int8 import export_int8
from lepton_vision.types import Target
from tests import own_encoders  # noqa: F401  # registers them

REPOSITORY = Path(__file__).resolve().parents[2]
BACKBONES = ("test-mine", "timm:mobilenetv3_small_050")
BASE = lv.Config(targets=(Target("label", "binary", ("0", "1")),)).override(
    "preprocess.size=[32, 32]",
    "train.precision=fp32",
    "train.epochs=2",
    "train.batch_size=8",
    "train.lr=0.01",
    "augment.preset=none",
    "evaluation.replicates=100",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of 32 x 32 with a bright square in every second one, its mask, and a table of both."""
    folder, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(0)
    rows = []
    for number in range(48):
        pixels, mask = rng.integers(0, 160, (32, 32)), np.zeros((32, 32), np.uint8)
        if number % 2:
            mask[8:20, 10:24] = 1
        Picture.fromarray((pixels + 90 * mask).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        Picture.fromarray(mask).save(folder / f"m{number}.png")
        part = "train" if number < 24 else "val" if number < 36 else "test"
        rows.append((f"{number}.png", f"m{number}.png", number % 2, part, f"p{number}"))
    table = pd.DataFrame(rows, columns=["path", "mask", "label", "split", "patient_id"])
    lv.Manifest.from_frame(table, root=folder, workers=0).save(folder / "rows.parquet")
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> lv.Manifest:
    return lv.Manifest.load(folder / "rows.parquet")


@pytest.fixture(scope="module", params=BACKBONES)
def config(request: pytest.FixtureRequest) -> lv.Config:
    if request.param.startswith("timm:"):
        pytest.importorskip("timm")
    return BASE.override(f"model.backbone={request.param}")


@pytest.fixture(scope="module")
def trained(config: lv.Config, manifest: lv.Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle."""
    run_dir = tmp_path_factory.mktemp("trained")
    lv.fit(config.override("train.ema_decay=0.5"), manifest, run_dir=run_dir, device="cpu", progress=False)
    return run_dir / "bundle"


def descent(network: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW hardly notices gradients of a wrong scale."""
    return torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=0.3)


def test_two_processes_are_one_with_the_double_batch(
    config: lv.Config, folder: Path, manifest: lv.Manifest, tmp_path: Path
) -> None:
    config = config.override("train.freeze_norms=true", "train.keep=last", "train.accumulate_steps=2")
    config.override("train.batch_size=4").to_yaml(tmp_path / "two.yaml")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    command += [str(folder / "rows.parquet"), str(tmp_path / "two.yaml"), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one = lv.fit(config, manifest, run_dir=tmp_path / "one", device="cpu", progress=False, optimizer=descent)
    two, start = lv.Bundle.load(tmp_path / "two" / "bundle"), lv.build_model(config).state_dict()
    for name, tensor in one.state.items():
        torch.testing.assert_close(two.state[name], tensor, rtol=1e-3, atol=1e-5)
    assert max(float((one.state[name] - start[name]).abs().max()) for name in start if "encoder" in name) > 1e-3


def test_a_stopped_training_goes_on_to_the_same_bits(config: lv.Config, manifest: lv.Manifest, tmp_path: Path) -> None:
    options = ("train.ema_decay=0.9", "train.freeze_stages=2", "train.unfreeze_every=1", "model.dropout=0.3")
    config = config.override(*options, "train.checkpoint_seconds=0", "augment.preset=light")
    how: dict[str, Any] = {"device": "cpu"}

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train" and note.startswith("epoch 2/2") and done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lv.fit(config, manifest, run_dir=tmp_path / "cut", progress=stop, **how)
    cut = lv.fit(config, manifest, run_dir=tmp_path / "cut", resume=True, progress=False, **how)
    whole = lv.fit(config, manifest, run_dir=tmp_path / "whole", progress=False, **how)
    assert all(torch.equal(tensor, whole.state[name]) for name, tensor in cut.state.items())
    assert cut.bundle_id == whole.bundle_id


def test_distances_from_the_training_and_evidence_are_known(
    trained: Path, folder: Path, manifest: lv.Manifest, tmp_path: Path
) -> None:
    bundle = lv.Bundle.load(trained)
    assert bundle.novelty is not None
    features = lv.embed(bundle, manifest.subset("test"), device="cpu", progress=False).features
    assert bundle.novelty.reference.shape[1] == features.shape[1] == bundle.network().width
    heat = lv.explain(bundle, folder / "37.png", device="cpu").heat
    assert heat.shape == (32, 32)
    assert np.isfinite(heat).all()
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out", device="cpu")
    assert result.report.read_text(encoding="utf-8").count('class="heat"') > 0


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_files_of_other_runtimes_say_the_same(trained: Path, manifest: lv.Manifest, tmp_path: Path, to: Any) -> None:
    for package in ("onnx", "onnxruntime", "nncf", *(["openvino"] if to == "openvino" else [])):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    bundle, suffix = lv.Bundle.load(trained), {"onnx": ".onnx", "openvino": ".xml"}[to]
    assert export_bundle(bundle, tmp_path / f"plain{suffix}", to=to) < 1e-4
    test = manifest.subset("test")
    torch_said = lv.predict(bundle, test, device="cpu", precision="fp32", progress=False).y_prob["label"]
    said = lv.predict(bundle, test, engine=str(tmp_path / f"plain{suffix}"), device="cpu", progress=False)
    np.testing.assert_allclose(said.y_prob["label"], torch_said, atol=1e-4)
    found = export_int8(bundle, tmp_path / f"small{suffix}", to=to, manifest=manifest, tolerance=1.0)
    assert found["auroc"]["label"]["n"] == 12
    assert open_exported(tmp_path / f"small{suffix}").facts["int8"]["images"] == 24
    said = lv.predict(bundle, test, engine=str(tmp_path / f"small{suffix}"), device="cpu", progress=False)
    assert np.abs(said.y_prob["label"] - torch_said).max() < 0.03
    assert np.corrcoef(said.y_prob["label"], torch_said)[0, 1] > 0.8  # probabilities that lie close together


def test_masks_are_learnt_and_scored_on_its_maps(
    config: lv.Config, folder: Path, manifest: lv.Manifest, tmp_path: Path
) -> None:
    config = config.override("segmentation.structures={square: 1}", "train.epochs=8", "train.monitor=val_dice")
    bundle = lv.fit(config, manifest, run_dir=tmp_path / "run", device="cpu", progress=False)
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out", device="cpu")
    assert result.masks is not None
    rows = [row.figures.dice for row in result.masks.cases]
    assert len(rows) == 12
    assert np.nanmean(rows) > 0.2
    summary = lv.score(tmp_path / "run" / "bundle", folder / "37.png", tmp_path / "scores", device="cpu")
    assert (summary.scored, dict(summary.failed)) == (1, {})


def test_volumes_are_learnt_by_an_own_encoder(tmp_path: Path) -> None:
    nibabel, rng, rows = pytest.importorskip("nibabel"), np.random.default_rng(0), []
    for number in range(6):
        mask = np.zeros((16, 16, 16), np.uint8)
        mask[4:10, 4:10, 4:10] = 1
        for name, values in (("v", rng.normal(size=mask.shape).astype(np.float32) + 3 * mask), ("m", mask)):
            nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / f"{name}{number}.nii.gz")
        rows.append((f"v{number}.nii.gz", f"m{number}.nii.gz", "train" if number < 4 else "val", f"p{number}"))
    table = pd.DataFrame(rows, columns=["path", "mask", "split", "patient_id"])
    manifest = lv.Manifest.from_frame(table, root=tmp_path, workers=0)
    config = BASE.model_copy(update={"targets": ()}).override(
        "model.backbone=test-mine",
        "volume.view=3d",
        "volume.patch=[16, 16, 16]",
        "preprocess.size=[16, 16]",
        "preprocess.windows=[full]",
        "segmentation.structures={cube: 1}",
        "train.monitor=val_dice",
        "train.batch_size=2",
        "train.epochs=8",
    )
    bundle = lv.fit(config, manifest, run_dir=tmp_path / "run", device="cpu", progress=False)
    assert bundle.provenance["validation"]["val_dice"] > 0.3


def test_another_process_scores_with_what_its_entry_point_names(
    folder: Path, manifest: lv.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of a team: a module that makes the encoder, and the metadata that pip would write."""
    (tmp_path / "team_net.py").write_text(
        "from tests.own_encoders import Mine\n\n"
        "def make(*, channels, dims, base=4):\n    return Mine(channels, dims, base)\n"
    )
    info = tmp_path / "team_networks-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team-networks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[lepton_vision.encoders]\nteam-net = team_net:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = BASE.override("model.backbone=team-net", "model.options={base: 3}", "train.epochs=1")
    bundle = lv.fit(config, manifest, run_dir=tmp_path / "run", device="cpu", progress=False)
    command = [sys.executable, "-m", "lepton_vision.cli", "score", "--bundle", str(tmp_path / "run" / "bundle")]
    command += ["--input", str(folder / "rows.parquet"), "--output", str(tmp_path / "scores.parquet")]
    command += ["--device", "cpu"]
    known = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    unknown = known | {"PYTHONPATH": str(REPOSITORY)}
    refused = subprocess.run(command, env=unknown, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "Install the package team-networks (1.2)" in " ".join(refused.stderr.split())
    subprocess.run(command, env=known, check=True, capture_output=True)
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("image_id")
    here = lv.predict(bundle, manifest.subset("test"), device="cpu", progress=False)
    found = scores.loc[here.image_id.tolist(), "label_probability"].to_numpy(np.float32)
    np.testing.assert_allclose(found, here.y_prob["label"], atol=1e-6)


if __name__ == "__main__":  # one of two processes
    rows, settings, run_dir = sys.argv[1:]
    lv.fit(
        lv.Config.from_yaml(settings),
        lv.Manifest.load(rows),
        run_dir=run_dir,
        device="cpu",
        progress=False,
        optimizer=descent,
    )
