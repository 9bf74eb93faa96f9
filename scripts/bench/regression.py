"""Numbers and grades out of MR volumes: the volume of the hippocampus, by cross-validation, and what each loss gives.

    python scripts/bench/regression.py FOLDER --out OUT [--arms huber squared cross_entropy cumulative] [--folds 5]

FOLDER holds images/ and labels/ of the Medical Segmentation Decathlon's Task04. The label is the volume in ml of all
that the mask of an image shows; the network (``configs/hippocampus_volume.yaml``) sees the image alone. ``huber`` and
``squared`` learn the number, ``cross_entropy`` and ``cumulative`` the same number in five grades. Every arm has the
same folds by patient, and all held-out patients are judged together. An arm that has its result in OUT is not run
again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "hippocampus_volume.yaml"
EDGES = (2.9, 3.15, 3.4, 3.65)
GRADES = ("up to 2.9", "up to 3.15", "up to 3.4", "up to 3.65", "above 3.65")
FIGURES = {
    "volume_ml": ("r2", "mae", "rmse", "concordance", "bias", "limit_low", "limit_high"),
    "grade": ("kappa_quadratic", "class_error", "accuracy", "auroc", "log_loss"),
}
ARMS = {"huber": "volume_ml", "squared": "volume_ml", "cross_entropy": "grade", "cumulative": "grade"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = write_labels(options.folder, options.out / "labels.csv")
    for arm in options.arms:
        result = options.out / f"{arm}.json"
        if not result.is_file():
            facts = run_arm(arm, options, table=table)
            result.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        print(arm, json.loads(result.read_text(encoding="utf-8")), flush=True)


def write_labels(folder: Path, path: Path) -> Path:
    """Volume in ml of each mask, and its grade."""
    import nibabel as nib
    import numpy as np
    import pandas as pd

    rows = []
    for file in sorted((folder / "images").glob("*.nii.gz")):
        mask: Any = nib.load(folder / "labels" / file.name)
        cubic_mm = float(np.prod(mask.header.get_zooms()[:3]))
        volume = round(float((np.asarray(mask.dataobj) > 0).sum()) * cubic_mm / 1000, 3)
        rows.append((file.name, volume, GRADES[int(np.searchsorted(EDGES, volume))], file.name.split(".")[0]))
    pd.DataFrame(rows, columns=["path", "volume_ml", "grade", "patient_id"]).to_csv(path, index=False)
    return path


def run_arm(arm: str, options: argparse.Namespace, *, table: Path) -> dict[str, Any]:
    """Figures with their intervals over all held-out patients, those of each fold, and the cost."""
    import lepton_vision as lv
    from lepton_vision.pipeline.folds import cross_validate

    name = ARMS[arm]
    plain = lv.Config.from_yaml(CONFIG).to_dict()
    given: dict[str, Any] = {"kind": "regression", "unit": "ml"} if name == "volume_ml" else {"kind": "ordinal"}
    given |= {"classes": GRADES} if name == "grade" else {}
    plain["targets"] = [{"name": name, "loss": arm, **given}]
    plain["train"]["monitor"] = "val_r2" if name == "volume_ml" else "val_loss"
    config = lv.Config.from_dict(plain).override(
        f"train.seed={options.seed}", f"split.seed={options.seed}", *options.set
    )
    manifest = lv.Manifest.scan(options.folder / "images", labels=table, workers=0)
    started, used = time.perf_counter(), time.process_time()
    how: dict[str, Any] = {"folds": options.folds, "run_dir": options.out / arm, "resume": True}
    crossed = cross_validate(config, manifest, augment=flips(), **how)
    assert crossed.pooled.evaluation is not None
    found = crossed.pooled.evaluation.figures[name]
    facts: dict[str, Any] = {key: str(found[key]) for key in FIGURES[name] if key in found}
    cost = {"cpu_s": round(time.process_time() - used), "seconds": round(time.perf_counter() - started)}
    return facts | crossed.to_dict() | cost


def flips() -> Any:
    """Mirror images along each axis, which change neither the size of anything nor its grade."""
    from monai.transforms import Compose, RandFlip

    return Compose([RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)])


if __name__ == "__main__":
    main()
