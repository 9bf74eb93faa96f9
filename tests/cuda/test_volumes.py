"""Masks, regions and volumes on a GPU: training, windowed inference, and agreement with the CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.inference import predict
from lepton_vision.inference.masks import MaskPrediction, VolumeSegmenter, predict_masks
from lepton_vision.manifest import Manifest
from lepton_vision.pipeline import fit
from lepton_vision.readers import read_image
from lepton_vision.scoring import score
from lepton_vision.types import Target
from tests.cuda.gpu import DEVICE, needs_gpu
from tests.scoring.bundles import read, same_rows, volume_bundle
from tests.transforms.volumes import planted_volumes, split, volume_config

pytestmark = needs_gpu
CORE = Target("core", "binary", ("0", "1"))
DISC = Target("disc", "binary", ("0", "1"))


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise with a bright disc in every second image, and its mask."""
    folder, rng, rows = tmp_path_factory.mktemp("discs"), np.random.default_rng(0), []
    y, x = np.mgrid[:32, :32]
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for number in range(48):
        middle = rng.integers(10, 22, 2)
        disc = ((y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 50) & (number % 2 == 1)
        cv2.imwrite(
            str(folder / "images" / f"{number:02d}.png"), (rng.integers(0, 90, (32, 32)) + 90 * disc).astype(np.uint8)
        )
        cv2.imwrite(str(folder / "masks" / f"{number:02d}.png"), disc.astype(np.uint8))
        rows.append({"path": f"{number:02d}.png", "mask": f"../masks/{number:02d}.png", "disc": number % 2})
    table = pd.DataFrame(rows).assign(patient_id=[f"p{n}" for n in range(48)])
    return split(Manifest.scan(folder / "images", labels=table, workers=0), train=32, val=8)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return split(planted_volumes(tmp_path_factory.mktemp("volumes"), count=16), train=10, val=4)


@pytest.mark.parametrize(
    ("mode", "precision"), [("joint", "fp32"), ("joint", "bf16"), ("joint", "fp16"), ("roi", "bf16")]
)
def test_masks_beside_classes_are_learnt(discs: Manifest, tmp_path: Path, mode: str, precision: str) -> None:
    values = {
        "preprocess": {"size": [32, 32]},
        "model": {"backbone": "resnet10", "width": 16, "stem": "small"},
        "segmentation": {"structures": {"disc": 1}, "channels": 8, "mode": mode},
        "train": {"batch_size": 8, "precision": precision, "epochs": 12, "lr": 0.005, "monitor": "val_dice"},
        "audit": {"near_duplicates": False},
    }
    config = Config.from_dict(values).override("train.balance=uncertainty", "train.ema_decay=0.5")
    bundle = fit(config.model_copy(update={"targets": (DISC,)}), discs, run_dir=tmp_path / "run", device=DEVICE)
    assert bundle.provenance["validation"]["val_dice"] > 0.7
    rows = discs.subset("test")
    found = [list(predict_masks(bundle, rows, device=device, precision="fp32")) for device in (DEVICE, "cpu")]
    for one, other in zip(*found, strict=True):
        assert isinstance(one, MaskPrediction)
        assert isinstance(other, MaskPrediction)
        assert (one.labels != other.labels).mean() < 0.005
    prob = [predict(bundle, rows, device=device, precision="fp32").y_prob["disc"] for device in (DEVICE, "cpu")]
    assert np.abs(prob[0] - prob[1]).mean() < (1e-3 if mode == "joint" else 0.05)  # a box may move by a pixel


@pytest.mark.parametrize("view", ["3d", "2.5d", "slices"])
def test_volumes_are_trained_and_predicted(volumes: Manifest, tmp_path: Path, view: str) -> None:
    changes = ("train.epochs=3", "train.lr=0.01", "train.precision=bf16", "train.monitor=val_loss")
    config = volume_config(*changes, "preprocess.size=[16, 16]").model_copy(update={"targets": (CORE,)})
    if view == "slices":  # have one prediction together, and no masks
        config = config.model_copy(update={"segmentation": None})
    config = config.override(f"volume.view={view}")
    bundle = fit(config, volumes, run_dir=tmp_path / "run", device=DEVICE)
    rows = volumes.subset("test")
    prob = [predict(bundle, rows, device=device, precision="fp32").y_prob["core"] for device in (DEVICE, "cpu")]
    assert np.abs(prob[0] - prob[1]).max() < 1e-3
    if view != "slices":
        masks = [list(predict_masks(bundle, rows, device=device, precision="fp32")) for device in (DEVICE, "cpu")]
        for one, other in zip(*masks, strict=True):
            assert isinstance(one, MaskPrediction)
            assert isinstance(other, MaskPrediction)
            assert (one.labels != other.labels).mean() < 0.005


def test_masks_of_volumes_are_learnt(volumes: Manifest, tmp_path: Path) -> None:
    changes = ("train.epochs=10", "train.lr=0.01", "train.batch_size=1", "train.monitor=val_dice")
    config = volume_config(*changes, "segmentation.channels=16", "train.precision=auto")
    bundle = fit(config, volumes, run_dir=tmp_path / "run", device=DEVICE)
    assert bundle.provenance["validation"]["val_dice"] > 0.5


@pytest.mark.parametrize("mirrored", [(), (4,)])
def test_a_volume_larger_than_a_window_is_predicted_in_windows(volumes: Manifest, mirrored: tuple[int, ...]) -> None:
    pytest.importorskip("monai", reason="sliding windows need the extra bench (MONAI)")
    bundle = volume_bundle("volume.patch=[8, 8, 8]", targets=())
    image = read_image(volumes.root / volumes.frame["path"][0])
    there, here = (
        VolumeSegmenter(bundle, device=device, precision="fp32", mirrored=mirrored) for device in (DEVICE, "cpu")
    )
    found, expected = there.mask(image), here.mask(image)
    assert len(np.unique(expected)) > 1
    assert (found != expected).mean() < 0.005
    rounded = VolumeSegmenter(bundle, device=DEVICE, precision="bf16", mirrored=mirrored).mask(image)
    assert (rounded != expected).mean() < 0.1


def test_volumes_are_scored_twice_to_the_same_rows(volumes: Manifest, tmp_path: Path) -> None:
    paths = [volumes.root / path for path in volumes.frame["path"]]
    for name in ("one", "two"):
        score(volume_bundle(), paths, tmp_path / name, masks=tmp_path / f"{name}-masks", device=DEVICE)
    same_rows(tmp_path / "one", tmp_path / "two")
    assert read(tmp_path / "one")["status"].eq("ok").all()
    assert len(list((tmp_path / "one-masks").glob("*.nii.gz"))) == 16
