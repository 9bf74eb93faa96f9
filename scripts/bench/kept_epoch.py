"""Rules that say which epoch of a training is kept, compared on the same trainings.

    LEPTON_VISION_DATA=../shared python scripts/bench/kept_epoch.py --out runs/kept [--sets breast …] [--seeds 0 1 2]

Folds by patient inside the official training and validation parts; no official test part is read. Each training keeps
what it says of its validation part and of the held-out fold after every epoch, in ``OUT``; finished ones are not
repeated. A rule sees validation alone and picks an epoch; the table gives, by set, the held-out figures at that epoch:
the mean over folds and seeds, and at its end the mean difference from the rule "best AUROC" with a 95 % interval over
sets, folds and seeds (t). Accuracy is at 0.5. The validated weights are averaged ones (``train.ema_decay``).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.inference.predictor import examine_network
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.split import fold_split
from lepton_vision.models import build_model
from lepton_vision.training import fit_model
from lepton_vision.types import Target

Floats = npt.NDArray[np.float64]
FOLDS = 4
SMALL = {"preprocess.windows": "[full]", "model.width": 32, "train.lr": 0.001, "train.weight_decay": 0.05}
SMALL |= {"train.label_smoothing": 0.1, "train.ema_decay": 0.99, "train.keep": "last", "train.workers": 0}
FEW = 800  # images of PneumoniaMNIST, so that validation is small there too


@dataclass(frozen=True)
class Source:
    """A data set: its place below the data folder, its target, and what it wants beside ``SMALL``."""

    path: str
    target: Target
    settings: Mapping[str, Any]
    labels: str | None = None


def binary(*classes: str, **how: Any) -> Target:
    return Target("y", "binary", classes, **({"column": "label"} | how))


SETS = {
    "breast": Source(
        "medmnist28/breastmnist.npz",
        binary("malignant", "normal or benign"),
        {"preprocess.size": "[28, 28]", "model.stem": "small", "augment.preset": "ultrasound", "train.epochs": 20},
    ),
    "pneumonia": Source(
        "medmnist28/pneumoniamnist.npz",
        binary("normal", "pneumonia"),
        {"preprocess.size": "[28, 28]", "model.stem": "small", "augment.preset": "xray", "train.epochs": 15},
    ),
    "covid-ct": Source(
        "covid-ct",
        binary("NonCOVID", "COVID"),
        {"preprocess.size": "[96, 96]", "preprocess.fit": "pad", "augment.preset": "ct", "train.epochs": 20},
        labels="covid-ct/index.csv",
    ),
    "brain-mri": Source(
        "brain-mri-yesno",
        binary("no", "yes"),
        {"preprocess.size": "[96, 96]", "augment.preset": "light", "train.epochs": 20},
    ),
    "ct-slices": Source(
        "covid-ct-seg",
        binary("no", "yes", column=None, mask_values=(1, 2)),
        {"preprocess.size": "[96, 96]", "augment.preset": "photo", "train.epochs": 8, "train.sampling": "patients"},
        labels="slices",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LEPTON_VISION_DATA", ".")) / "data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.sets:
            missing = [fold for fold in range(FOLDS) if not (options.out / f"{name}-{seed}-{fold}.npz").exists()]
            manifest = read_source(options.data, SETS[name]) if missing else None
            for fold in missing:
                keep_training(manifest, SETS[name], seed=seed, fold=fold, out=options.out / f"{name}-{seed}-{fold}.npz")
    show(options.out)


def read_source(data: Path, source: Source) -> Manifest:
    """All images outside an official test part, without their parts; a sample of them where there are very many."""
    labels: str | Path | None = None if source.labels is None else data / source.labels
    with tempfile.TemporaryDirectory() as folder:
        if source.labels == "slices":
            labels = Path(folder) / "labels.csv"
            rows = [f"{path.name},{path.name}#infection" for path in sorted((data / source.path).glob("*.npz"))]
            labels.write_text("\n".join(["path,mask", *rows]))
        found = Manifest.scan(data / source.path, labels=labels, workers=0)
    rows = found.frame[found.frame["split"].fillna("") != "test"].assign(split=None)
    if len(rows) > 4 * FEW:
        rows = rows.sample(FEW, random_state=0).sort_index()
    return Manifest(rows, found.root, found.label_columns)


def keep_training(manifest: Manifest | None, source: Source, *, seed: int, fold: int, out: Path) -> None:
    """Train once, and write what was said of validation and of the held-out fold after each epoch."""
    settings = {**SMALL, **source.settings, "train.seed": seed, "split.seed": seed}
    config = Config(targets=(source.target,)).override(*(f"{key}={value}" for key, value in settings.items()))
    part = fold_split(manifest, fold, folds=FOLDS, config=config.split, targets=config.targets)
    loaders = {name: lv.make_loader(part.subset(name), config) for name in ("val", "test")}
    said: dict[str, list[Floats]] = {name: [] for name in loaders}
    truth: dict[str, Floats] = {}

    def validate(network: Any) -> dict[str, float]:
        for name, loader in loaders.items():
            found = examine_network(network, loader, targets=config.targets, device="cpu", precision="fp32").predictions
            said[name].append(found.y_prob["y"])
            truth[name] = found.y_true["y"]
        return {}

    loader = lv.make_loader(part.subset("train"), config, training=True)
    with tempfile.TemporaryDirectory() as folder:
        fit_model(build_model(config), loader, config, validate=validate, run_dir=Path(folder) / "run", device="cpu")
    arrays = {f"{name}_prob": np.stack(probs) for name, probs in said.items()}
    arrays |= {f"{name}_true": values for name, values in truth.items()}
    with tempfile.NamedTemporaryFile(dir=out.parent, suffix=".tmp", delete=False) as file:
        np.savez(file, warmup=config.train.warmup_epochs, **arrays)
    Path(file.name).replace(out)
    print(
        out.stem,
        f"n train {len(part.subset('train').frame)} val {len(truth['val'])} held {len(truth['test'])}",
        flush=True,
    )


def smoothed(values: Floats, *, width: int) -> Floats:
    """Mean over the epoch and its neighbours, as many as there are, (E,) like ``values``."""
    half = width // 2
    return np.array([np.mean(values[max(0, k - half) : k + half + 1]) for k in range(len(values))])


def best_of(values: Floats, *, ties: Floats | None = None) -> int:
    """The first epoch of the greatest value, or of those the one with the least of ``ties``."""
    top = np.flatnonzero(values >= values.max() - 1e-12)
    return int(top[0] if ties is None else top[np.argmin(ties[top])])


def rules(auroc: Floats, loss: Floats, *, warmup: int) -> dict[str, int]:
    """The epoch that each rule picks from the validation figures of all epochs."""
    late = np.arange(len(auroc)) >= warmup
    mild, wide = smoothed(loss, width=3), smoothed(auroc, width=3)
    near = np.where(late, np.where(wide >= wide[late].max() - 0.01, -mild, -np.inf), -np.inf)
    return {
        "best AUROC": best_of(auroc),
        "best loss": best_of(-loss),
        "after warm-up: best AUROC": best_of(np.where(late, auroc, -1)),
        "after warm-up: best AUROC, ties by loss": best_of(np.where(late, auroc, -1), ties=loss),
        "after warm-up: smoothed AUROC, ties by loss": best_of(np.where(late, wide, -1), ties=mild),
        "after warm-up: smoothed loss": best_of(np.where(late, -mild, -np.inf)),
        "after warm-up: least smoothed loss within 0.01 of the best smoothed AUROC": best_of(near),
        "last": len(auroc) - 1,
    }


def held_figures(path: Path) -> tuple[dict[str, int], dict[str, Floats]]:
    """Of one training: the epoch of each rule, and its held-out figures after every epoch."""
    kept = np.load(path)
    auroc = np.array([roc_auc_score(kept["val_true"], one) for one in kept["val_prob"]])
    loss = np.array([log_loss(kept["val_true"], one.astype(np.float64), labels=[0, 1]) for one in kept["val_prob"]])
    measures: dict[str, Callable[[Floats, Floats], float]] = {
        "AUROC": roc_auc_score,
        "accuracy": lambda y, p: accuracy_score(y, p >= 0.5),
        "Brier": brier_score_loss,
    }
    held = {name: np.array([f(kept["test_true"], p) for p in kept["test_prob"]]) for name, f in measures.items()}
    return rules(auroc, loss, warmup=int(np.ceil(kept["warmup"]))), held


def show(out: Path) -> None:
    """Print the table of all trainings that are there."""
    rows: dict[str, dict[str, list[Floats]]] = {}
    sets: dict[str, int] = {}
    epochs: dict[str, list[int]] = {}
    for path in sorted(out.glob("*.npz")):
        name = path.stem.rsplit("-", 2)[0]
        sets[name] = sets.get(name, 0) + 1
        picked, held = held_figures(path)
        for rule, epoch in picked.items():
            figures = np.array([values[epoch] for values in held.values()])
            rows.setdefault(rule, {}).setdefault(name, []).append(figures)
            epochs.setdefault(rule, []).append(epoch)
    print("n trainings:", ", ".join(f"{name} {count}" for name, count in sets.items()))
    base = np.concatenate([np.array(rows["best AUROC"][name]) for name in sets])
    for rule, found in rows.items():
        print(f"\n{rule} (median epoch {np.median(epochs[rule]):g})")
        for name in sets:
            print(f"  {name:10}", *(f"{value:.3f}" for value in np.mean(found[name], axis=0)), sep="  ")
        own = np.concatenate([np.array(found[name]) for name in sets])
        gaps = own - base
        half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))
        ends = (
            f"{mean:+.4f} [{mean - h:+.4f}, {mean + h:+.4f}]" for mean, h in zip(gaps.mean(axis=0), half, strict=True)
        )
        print("  difference", *ends, f"worst accuracy {own[:, 1].min():.3f}", sep="  ")


if __name__ == "__main__":
    main()
