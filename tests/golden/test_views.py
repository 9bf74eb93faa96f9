"""Golden figures of every view: samples, predictions, masks and score rows of tiny studies made from a seed.

``GOLDEN=write pytest tests/golden`` writes ``views.json`` anew, where a change moves a number on purpose.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image as PilImage

from lepton_vision.config import Config
from lepton_vision.inference import predict
from lepton_vision.inference.masks import predict_masks
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.pipeline import fit
from lepton_vision.predictions.cells import Failure
from lepton_vision.scoring import score
from lepton_vision.transforms import make_loader
from lepton_vision.types import Batch, Target
from tests.transforms.volumes import planted_volumes, split, volume_config

STORED = Path(__file__).with_name("views.json")
CORE = Target("core", "binary", ("0", "1"))
OWN = Target("shows_core", "binary", ("0", "1"), mask_values=(2,))
SIZE = "preprocess.size=[16, 20]"
VIEWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "image": ("volume=null", SIZE),
        "3d": ("volume.patch=[12, 16, 12]", "volume.patches=2", "volume.spacing_mm=[1.25, 1.0, 0.8]"),
        "2.5d": ("volume.view=2.5d", "volume.patches=2", SIZE),
        "slices": ("volume.view=slices", "volume.patch=[6, 1, 1]", SIZE),
    }
)
CASES = [f"{view} {what}" for view in VIEWS for what in ("classes", "masks") if (view, what) != ("slices", "masks")]
BREASTMNIST = "breastmnist, a seed"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_PROBES = 24  # positions of an array that are stored


def planted_images(folder: Path, *, count: int = 10) -> Manifest:
    """Noise with a bright box (structure 1) of unlike size and place; odd ones hold a brighter core (structure 2)."""
    rng, rows = np.random.default_rng(1), []
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros(rng.integers(14, 30, 2), np.uint8)
        top, left = rng.integers(1, 5, 2)
        mask[top : top + 8, left : left + 8] = 1
        if number % 2:
            mask[top + 2 : top + 6, left + 2 : left + 6] = 2
        pixels = rng.normal(80, 10, mask.shape) + 60.0 * (mask >= 1) + 60.0 * (mask == 2)
        PilImage.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        PilImage.fromarray(mask).save(folder / "masks" / f"{number}.png")
        rows.append({"path": f"{number}.png", "mask": f"../masks/{number}.png", "core": number % 2})
    table = pd.DataFrame(rows).assign(patient_id=[f"p{n}" for n in range(count)])
    return Manifest.scan(folder / "images", labels=table, workers=0)


def case_config(case: str) -> Config:
    """Configuration of "VIEW classes" or "VIEW masks", with augmentation."""
    view, what = case.split()
    steps = ("train.epochs=2", "train.warmup_epochs=0", "train.monitor=val_loss", "evaluation.replicates=100")
    config = volume_config("augment.preset=photo", "preprocess.windows=[full]", *steps)
    if what == "classes":
        return config.model_copy(update={"segmentation": None, "targets": (CORE,)}).override(*VIEWS[view])
    targets = (CORE, OWN) if view == "2.5d" else (CORE,)
    return config.model_copy(update={"targets": targets}).override(*VIEWS[view])


def probe(values: npt.NDArray[Any]) -> list[float]:
    """Mean, mean square and some values of an array."""
    flat = np.asarray(values, np.float64).ravel()
    chosen = flat[np.linspace(0, len(flat) - 1, _PROBES).astype(int)] if len(flat) > _PROBES else flat
    return [round(float(value), 5) for value in (flat.mean(), (flat**2).mean(), *chosen)]


def shown(batch: Batch) -> dict[str, Any]:
    """Figures of one batch; whole numbers by their hash."""
    masks = b"" if batch.masks is None else batch.masks.numpy().tobytes()
    labels = {name: [str(value) for value in values.tolist()] for name, values in batch.labels.items()}
    facts = (tuple(batch.images.shape), batch.index.tolist(), labels)
    return {
        "facts": hashlib.sha256(repr(facts).encode()).hexdigest()[:16],
        "masks": hashlib.sha256(masks).hexdigest()[:16],
        "images": probe(batch.images.numpy()),
    }


def loaded(manifest: Manifest, config: Config) -> dict[str, Any]:
    """First samples of a training and an evaluation loader."""
    training = make_loader(manifest.subset("train"), config, training=True, workers=0)
    plain = make_loader(manifest, config, workers=0)
    return {
        "training": [shown(batch) for batch in islice(training, 3)],
        "evaluation": [shown(batch) for batch in islice(plain, 2)],
    }


def said(bundle: Bundle, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Predictions, masks and score rows of the images of a manifest."""
    paths = sorted(manifest.locate(row).path for row in range(len(manifest)))
    rows = predict(bundle, manifest, device="cpu", progress=None)
    files = predict(bundle, paths, device="cpu", progress=None)
    found: dict[str, Any] = {name: probe(values) for name, values in rows.y_prob.items()}
    found |= {f"{name} of files": probe(values) for name, values in files.y_prob.items()}
    masks = folder / "masks" if bundle.gives_masks else None
    score(bundle, paths, folder / "scores", masks=masks, device="cpu", workers=1)
    table = pd.read_parquet(folder / "scores").sort_values("image_id").select_dtypes("number").drop(columns="seconds")
    found |= {f"score {name}": probe(table[name].to_numpy()) for name in table if table[name].notna().all()}
    if bundle.gives_masks:
        predicted = [one for one in predict_masks(bundle, manifest, device="cpu") if not isinstance(one, Failure)]
        found["shares"] = [probe(one.share(number))[:8] for one in predicted for number in (0, 1, 2)]
        found["voxels"] = [np.bincount(one.labels.ravel(), minlength=3).tolist() for one in predicted]
        found["shapes"] = [list(one.labels.shape) for one in predicted]
    return found


def steady(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Steps by sums of gradients, not by their signs, which rounding may turn."""
    return torch.optim.SGD(network.parameters(), lr=0.05)


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Figures of one case, from its study to its scores."""
    config = case_config(case)
    plant = planted_images if config.volume is None else planted_volumes
    manifest = split(plant(folder / "study", count=10), train=4, val=4)
    found = loaded(manifest, config)
    run = fit(config, manifest, run_dir=folder / "run", device="cpu", progress=None, optimizer=steady)
    return found | {"said": said(run, manifest.subset("test"), folder)}


def measure_breastmnist(shared: Path, folder: Path) -> dict[str, Any]:
    """Two epochs of one narrow network of ``configs/breastmnist.yaml`` on the first 192 training images."""
    settings = (
        "preprocess.size=[28, 28]",
        "model.members=1",
        "model.width=8",
        "train.epochs=2",
        "evaluation.replicates=100",
    )
    config = Config.from_yaml(CONFIGS / "breastmnist.yaml").override(*settings)
    manifest = Manifest.scan(shared / "data" / "medmnist28" / "breastmnist.npz", workers=0)
    split, place = manifest.frame["split"], manifest.frame.groupby("split").cumcount()
    few = manifest.select((split == "val") | ((split == "train") & (place < 192)))
    how: dict[str, Any] = {"device": "cpu", "progress": None, "optimizer": steady}
    run = fit(config, few, run_dir=folder / "run", **how)
    found = predict(run, few.subset("val"), device="cpu", progress=None)
    point = run.operating_point
    assert point is not None
    chosen = [run.temperature("diagnosis"), *point.thresholds["diagnosis"]]
    return loaded(few, config) | {"said": {"diagnosis": probe(found.y_prob["diagnosis"]), "chosen": chosen}}


@pytest.mark.parametrize("case", CASES)
def test_a_view_gives_the_figures_that_it_gave(case: str, tmp_path: Path) -> None:
    compare_with_stored(case, lambda: measure(case, tmp_path))


def test_a_seed_of_breastmnist_gives_the_figures_that_it_gave(shared: Path, tmp_path: Path) -> None:
    compare_with_stored(BREASTMNIST, lambda: measure_breastmnist(shared, tmp_path))


def compare_with_stored(case: str, figures: Callable[[], dict[str, Any]]) -> None:
    """Hold figures, computed in one thread, against the stored ones, or store them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = figures()
    finally:
        torch.set_num_threads(threads)
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    if os.environ.get("GOLDEN") == "write":
        stored[case] = found
        lines = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in (*CASES, BREASTMNIST) if name in stored
        )
        STORED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    same(found, stored[case], at=case)


def same(found: Any, wanted: Any, *, at: str) -> None:
    """Texts are equal, numbers near: another processor may round otherwise."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), at
        for key in wanted:
            same(found[key], wanted[key], at=f"{at} / {key}")
    elif isinstance(wanted, list) and wanted and not isinstance(wanted[0], float | int):
        assert len(found) == len(wanted), at
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            same(*pair, at=f"{at} / {number}")
    elif isinstance(wanted, list):
        slack = 1e-4 if any(isinstance(value, float) for value in wanted) else 2.0  # voxels at the edge of a structure
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=slack, err_msg=at)
    else:
        assert found == wanted, at
