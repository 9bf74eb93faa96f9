"""Masks from end to end: joint, mask-only and auxiliary models on planted squares; pages, files and folds."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from sklearn.metrics import log_loss

from lepton_vision.config import Config, SegmentationConfig
from lepton_vision.errors import ConfigError, LabelError
from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.pipeline import evaluate_bundle, fit
from lepton_vision.pipeline.folds import run_seeds
from lepton_vision.pipeline.masks import evaluate_mask_parts
from lepton_vision.predictions.cells import Failure
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

N = {"train": 32, "val": 10, "test": 10}
SICK = Target("sick", "binary", ("no", "yes"), mask_values=(7,))
CONFIG = Config().override(
    "preprocess.size=[32, 32]",
    "model.backbone=resnet10",
    "model.width=8",
    "segmentation.structures={square: 7}",
    "segmentation.channels=8",
    "train.epochs=10",
    "train.batch_size=8",
    "train.lr=0.01",
    "train.warmup_epochs=0",
    "train.precision=fp32",
    "train.monitor=val_dice",
    "augment.preset=none",
    "evaluation.replicates=100",
)

SHORT = ("train.epochs=2", "train.keep=last", "train.clip_norm=0.5", "train.ema_decay=0.9")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise with a bright square in every second image; files of 40 x 48; some masks are missing."""
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    lines = ["file,mask,split,patient_id"]
    (root / "masks").mkdir()
    for number, split in enumerate(split for split, n in N.items() for _ in range(n)):
        mask = np.zeros((40, 48), np.uint8)
        if number % 2:
            top, left = rng.integers(0, 24), rng.integers(0, 32)
            mask[top : top + 14, left : left + 12] = 7
        pixels = rng.integers(0, 120, mask.shape) + np.where(mask, 120, 0)
        PilImage.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        has_mask = number not in (3, 4)
        if has_mask:
            PilImage.fromarray(mask).save(root / f"masks/{number}.png")
        lines.append(f"{number}.png,{f'masks/{number}.png' if has_mask else ''},{split},p{number}")
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return Manifest.scan(root, labels=root / "labels.csv", workers=0)


def train(manifest: Manifest, folder: Path, *changes: str, targets: tuple[Target, ...] = (SICK,)) -> Bundle:
    return fit(CONFIG.model_copy(update={"targets": targets}).override(*changes), manifest, run_dir=folder)


@pytest.fixture(scope="module")
def joint(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return train(manifest, tmp_path_factory.mktemp("joint") / "run")


def test_a_joint_model_learns_what_and_where(joint: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    result = evaluate_bundle(joint, manifest, split="test", out=tmp_path / "out")
    assert result.evaluation is not None
    assert result.masks is not None
    assert result.evaluation.figures["sick"]["auroc"].value > 0.9
    dice = result.masks.figures["square"]["dice"]
    assert dice.value > 0.8
    assert dice.n == 5  # images without a square have no Dice, unless one is predicted
    assert json.loads((tmp_path / "out/masks/figures.json").read_text())["n"] == 10
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == [
        "cases.csv",
        "figures.json",
        "predicted",
        "report.html",
    ]


def test_label_and_mask_are_compared_and_the_classifier_looks_at_the_square(
    joint: Bundle, manifest: Manifest, tmp_path: Path
) -> None:
    part = manifest.subset("test")
    point = OperatingPoint({"sick": (0.3,)}, "stated")
    evaluate_mask_parts([(joint.with_operating_point(point), part)], out=tmp_path)
    heads = json.loads((tmp_path / "figures.json").read_text())["heads"]["sick"]
    predictions = predict(joint, part)
    positive = dict(zip(predictions.image_id, predictions.y_prob["sick"] >= 0.3, strict=True))
    counted = {"positive_mask": 0, "positive_empty": 0, "negative_mask": 0, "negative_empty": 0}
    for image_id in part.frame["image_id"]:
        mask = np.asarray(PilImage.open(tmp_path / f"predicted/{image_id}.png")).any()
        counted[f"{'positive' if positive[image_id] else 'negative'}_{'mask' if mask else 'empty'}"] += 1
    agreement = heads["agreement"]
    assert (agreement["tables"]["predicted"], agreement["threshold"]) == (counted, 0.3)
    same = counted["positive_mask"] + counted["negative_empty"]
    assert agreement["figures"]["agreement"]["value"] == pytest.approx(same / 10)
    game = heads["pointing"]
    assert (game["n"], game["tolerance"]) == (5, 4)  # images with a square; half a cell of 8 pixels
    figures = {name: figure["value"] for name, figure in game["figures"].items()}
    assert 0.1 < figures["chance"] < 0.5
    assert figures["gain"] == pytest.approx(figures["hit_rate"] - figures["chance"])
    assert figures["hit_rate"] >= 0.8
    page = (tmp_path / "report.html").read_text()
    assert all(
        words in page for words in ("Label and mask agree", "Hottest point in the true mask", "positive, without")
    )


def test_lesions_are_counted_and_scored_where_the_configuration_names_them(
    joint: Bundle, manifest: Manifest, tmp_path: Path
) -> None:
    part, config = manifest.subset("test"), joint.config.override("segmentation.lesions=[square]")
    evaluate_mask_parts([(dataclasses.replace(joint, config=config), part)], out=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())
    curve = figures["froc"]["square"]
    found = [one for one in predict_masks(joint, part) if isinstance(one, MaskPrediction)]
    best = []  # by hand: each square is one lesion; it is found where any pixel of it reaches 0.1
    for one in found:
        path = part.frame["mask_path"].iloc[one.row]
        square = np.asarray(PilImage.open(manifest.root / path)) == 7
        share = one.share(1)
        assert share.shape == square.shape
        assert ((share > 0.5) == (one.labels == 1)).all()
        if square.any():
            best.append((share[square] >= 0.1).any())
    assert (curve["n"], curve["n_lesions"]) == (10, 5)
    assert curve["curve"][-1]["sensitivity"] == pytest.approx(np.mean(best))
    assert figures["structures"]["square"]["figures"]["lesion_sensitivity"]["n"] == 5
    assert "FROC curve" in (tmp_path / "report.html").read_text()


def test_what_explains_a_label_is_stated_or_follows_from_the_mask() -> None:
    head = SegmentationConfig(structures={"lung": 3, "tumour": (7, 8)}, explains={"named": ("lung", "tumour")})
    plain = Target("plain", "binary", ("no", "yes"))
    assert head.explaining(SICK) == (2,)
    assert head.explaining(dataclasses.replace(plain, name="named")) == (1, 2)
    assert head.explaining(plain) == ()
    for change in ("segmentation.explains={sick: [circle]}", "segmentation.lesions=[circle]"):
        with pytest.raises(ConfigError, match=r"circle.*none of the structures square"):
            CONFIG.override(change)
    with pytest.raises(ConfigError, match=r"ill.*no binary target"):
        Config.from_dict(
            {
                **CONFIG.to_dict(),
                "targets": [SICK],
                "segmentation": {"structures": {"square": 7}, "explains": {"ill": ["square"]}},
            }
        )


def test_the_written_masks_give_the_same_figures_to_another_reader(
    joint: Bundle, manifest: Manifest, tmp_path: Path
) -> None:
    evaluate_mask_parts([(joint, manifest.subset("test"))], out=tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    frame = manifest.subset("test").frame
    assert set(rows) == set(frame["image_id"])
    for image_id, mask in zip(frame["image_id"], frame["mask_path"], strict=True):
        truth = np.asarray(PilImage.open(manifest.root / mask)) == 7
        found = np.asarray(PilImage.open(tmp_path / f"predicted/{image_id}.png"))
        assert found.shape == (40, 48)
        assert set(np.unique(found)) <= {0, 1}
        size = truth.sum() + (found == 1).sum()
        if truth.any():
            assert float(rows[image_id]["dice"]) == pytest.approx(2 * (truth & (found == 1)).sum() / size, abs=1e-5)


def test_ids_of_a_manifest_never_lead_out_of_the_folder(joint: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    part = manifest.subset("test")
    ids = [f"../../../escape-{row}" if row % 2 else f"{tmp_path}/absolute-{row}" for row in range(len(part))]
    part = dataclasses.replace(part, frame=part.frame.assign(image_id=ids))
    evaluate_mask_parts([(joint, part)], out=tmp_path / "a" / "b" / "out")
    written = list(tmp_path.rglob("*.png"))
    assert {path.parent for path in written} == {tmp_path / "a" / "b" / "out" / "predicted"}
    assert len(written) == len(part)


def test_validation_is_what_the_masks_of_the_bundle_give(joint: Bundle, manifest: Manifest) -> None:
    """At the network's size, pooled, against a count from ``predict_masks``, which works at the image's size."""
    both = size = 0
    for found in predict_masks(joint, manifest.subset("val"), precision="fp32"):
        assert isinstance(found, MaskPrediction)
        path = manifest.subset("val").frame["mask_path"].iloc[found.row]
        truth = np.asarray(PilImage.open(manifest.root / path)) == 7
        both += int((truth & (found.labels == 1)).sum())
        size += int(truth.sum() + (found.labels == 1).sum())
    assert joint.provenance["validation"]["val_dice"] == pytest.approx(2 * both / size, abs=0.04)
    assert joint.provenance["validation"]["val_dice_square"] == joint.provenance["validation"]["val_dice"]


def test_a_saved_bundle_predicts_the_same_masks(joint: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    again = Bundle.load(joint.save(tmp_path / "bundle"))
    assert again.bundle_id == joint.bundle_id
    test = manifest.subset("test")
    for before, after in zip(predict_masks(joint, test), predict_masks(again, test, batch_size=3), strict=True):
        assert isinstance(before, MaskPrediction)
        assert isinstance(after, MaskPrediction)
        assert (before.labels != after.labels).mean() < 1e-3


def test_files_have_masks_too_and_a_bad_file_is_a_failure(joint: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    good = manifest.root / "1.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = list(predict_masks(joint, [good, bad, good.with_name("2.png")], workers=2))
    assert [type(one) for one in found] == [MaskPrediction, Failure, MaskPrediction]
    assert found[1].reason == "not_an_image"  # type: ignore[union-attr]


def test_a_model_of_masks_alone(manifest: Manifest, tmp_path: Path) -> None:
    bundle = train(manifest, tmp_path / "run", targets=())
    assert bundle.operating_point is None
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out")
    assert result.evaluation is None
    assert result.masks is not None
    assert result.masks.figures["square"]["dice"].value > 0.8
    assert result.report == tmp_path / "out/masks/report.html"
    assert Bundle.load(tmp_path / "run/bundle").targets == ()


def test_auxiliary_masks_train_but_are_not_predicted(manifest: Manifest, tmp_path: Path) -> None:
    bundle = train(manifest, tmp_path / "run", "segmentation.mode=auxiliary")
    assert bundle.provenance["validation"]["val_dice"] > 0.3  # of validation in training
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out")
    assert result.masks is None
    assert not (tmp_path / "out/masks").exists()
    with pytest.raises(ConfigError, match="only helped to train"):
        next(predict_masks(bundle, manifest))


def test_a_detached_mask_leaves_the_classifier_as_it_is_alone(manifest: Manifest, tmp_path: Path) -> None:
    """Same seed, same batches: only the mask's loss differs, and it does not reach the encoder."""
    kept = ["train.epochs=1", "train.monitor=val_auroc", "train.clip_norm=0.5"]
    detached = train(manifest, tmp_path / "a", "segmentation.mode=detached", *kept)
    single = CONFIG.model_copy(update={"targets": (SICK,), "segmentation": None}).override(*kept)
    alone = fit(single, manifest, run_dir=tmp_path / "b")
    test = manifest.subset("test")
    np.testing.assert_allclose(predict(detached, test).y_prob["sick"], predict(alone, test).y_prob["sick"], atol=1e-4)


def test_a_class_by_evidence_leaves_the_mask_as_it_is_alone(manifest: Manifest, tmp_path: Path) -> None:
    both = train(manifest, tmp_path / "a", "segmentation.mode=evidence", *SHORT)
    alone = train(manifest, tmp_path / "b", *SHORT, targets=())
    assert both.state.keys() - alone.state.keys() == {f"heads.linear.target_sick.{part}" for part in ("weight", "bias")}
    for name, tensor in alone.state.items():
        assert torch.equal(both.state[name], tensor), name


def test_the_kept_weights_say_what_validation_said_of_evidence(manifest: Manifest, tmp_path: Path) -> None:
    bundle = train(manifest, tmp_path / "run", "segmentation.mode=evidence", *SHORT, "evaluation.calibrate=false")
    found = predict(bundle, manifest.subset("val"))
    truth, probability = found.y_true["sick"].ravel(), found.y_prob["sick"].ravel()
    expected = log_loss(truth, probability)
    assert bundle.provenance["validation"]["val_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_stopped_run_by_evidence_goes_on_to_the_same_weights(manifest: Manifest, tmp_path: Path) -> None:
    changes = ("segmentation.mode=evidence", *SHORT)
    whole = train(manifest, tmp_path / "whole", *changes)

    def stop(epoch: int, figures: object) -> None:
        raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"targets": (SICK,)}).override(*changes, "train.checkpoint_seconds=0")
    with pytest.raises(KeyboardInterrupt):
        fit(config, manifest, run_dir=tmp_path / "stopped", on_epoch=stop)
    resumed = fit(config, manifest, run_dir=tmp_path / "stopped", resume=True)
    assert all(torch.equal(resumed.state[name], tensor) for name, tensor in whole.state.items())


@pytest.mark.parametrize(
    "change",
    ["train.balance=uncertainty", "segmentation.mode=roi", "segmentation.mode=evidence", "segmentation.decoder=fpn"],
)
def test_further_ways_learn_too(manifest: Manifest, tmp_path: Path, change: str) -> None:
    bundle = train(manifest, tmp_path / "run", change)
    result = evaluate_bundle(bundle, manifest, split="test", out=tmp_path / "out")
    assert result.masks is not None
    assert result.evaluation is not None
    assert result.masks.figures["square"]["dice"].value > 0.7
    assert result.evaluation.figures["sick"]["auroc"].value > 0.8


def test_folds_pool_their_masks(manifest: Manifest, tmp_path: Path) -> None:
    frame = manifest.frame.assign(split=None)
    Manifest(frame, manifest.root).save(tmp_path / "m.parquet")
    config = CONFIG.model_copy(update={"targets": (SICK,)}).override("train.epochs=2")
    found = run_seeds(config, tmp_path / "m.parquet", run_dir=tmp_path / "run", seeds=[0], folds=2)
    row = found["seeds"]["0"]
    assert row["masks"]["n"] == 50  # two rows have no mask
    assert len(row["fold_dice"]["square"]) == 2
    assert found["dice_square_mean"] == row["masks"]["structures"]["square"]["dice"]["value"]


def test_frames_of_a_file_are_judged_by_volume_too(tmp_path: Path) -> None:
    """Six volumes of six slices as .npz files, split by volume; the pooled voxels counted again from the files."""
    root, rng, lines = tmp_path / "volumes", np.random.default_rng(0), ["path,mask"]
    root.mkdir()
    for number in range(6):
        mask = np.zeros((6, 32, 32), np.uint8)
        mask[2:5, 6 + number : 18 + number, 8:20] = 7
        pixels = (rng.integers(0, 120, mask.shape) + np.where(mask, 120, 0)).astype(np.uint8)
        np.savez(root / f"{number}.npz", image=pixels, finding=mask)
        lines.append(f"{number}.npz,{number}.npz#finding")
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    config = CONFIG.override("train.epochs=3", "train.keep=last", "train.sampling=patients", "train.epoch_samples=48")
    config = config.model_copy(update={"targets": (SICK,)})
    out = tmp_path / "run"
    found = run_seeds(config, root, labels=root / "labels.csv", run_dir=out, seeds=[0], folds=3)
    masks = found["seeds"]["0"]["masks"]
    assert (masks["n"], masks["by_volume"]["n"], masks["by_volume"]["n_patients"]) == (36, 6, 6)
    folder = out / "seed-0/evaluation/masks"
    with (folder / "volumes.csv").open(newline="") as file:
        rows = {row["image_id"]: float(row["dice"]) for row in csv.DictReader(file)}
    for number in range(6):
        truth = np.load(root / f"{number}.npz")["finding"] == 7
        frame = Manifest.load(out / "seed-0/fold-0/manifest.parquet").frame
        ids = frame.loc[frame["path"] == f"{number}.npz"].sort_values("frame")["image_id"]
        drawn = np.stack([np.asarray(PilImage.open(folder / f"predicted/{name}.png")) == 1 for name in ids])
        dice = 2 * (truth & drawn).sum() / (truth.sum() + drawn.sum())
        assert rows[ids.iloc[0].removesuffix("-0")] == pytest.approx(dice, abs=1e-6)
    assert masks["by_volume"]["structures"]["square"]["dice"]["value"] == pytest.approx(np.mean(list(rows.values())))
    spread = found["dice_by_volume_square_mean"]
    assert spread == masks["by_volume"]["structures"]["square"]["dice"]["value"]
    assert "By volume" in (folder / "report.html").read_text()


def test_rows_without_masks_cannot_be_judged(joint: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    bare = manifest.subset("test")
    bare = Manifest(bare.frame.assign(mask_values=None, mask_path=None), bare.root)
    with pytest.raises(LabelError, match="Expected rows with masks"):
        evaluate_mask_parts([(joint, bare)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_alone_need_a_figure_of_masks_to_watch(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.monitor: validation gives no figure 'val_auroc'"):
        train(manifest, tmp_path / "run", "train.monitor=val_auroc", targets=())


def test_masks_and_cached_features_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="a segmentation head needs all"):
        CONFIG.override("train.cache_features=true")
