"""What the README promises with nothing but the core dependencies: `python scripts/smoke.py`.

The demo; then volumes with masks, larger than the window of the network: scan, split, one epoch, evaluation, scoring.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

COMMAND = Path(sys.executable).with_name("lepton-vision")
CONFIG = """
targets: [{name: lesion, kind: binary, classes: ["no", "yes"]}]
preprocess: {windows: [percentile]}
augment: {preset: ct}
model: {backbone: resnet10, width: 8, stem: small}
segmentation: {structures: {body: 1, core: 2}, channels: 8}
volume: {view: 3d, patch: [16, 16, 16]}
train: {epochs: 1, batch_size: 2, warmup_epochs: 0.0, monitor: val_loss}
evaluation: {replicates: 100}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = run("demo", "--out", folder / "demo")
        print(f"demo: test AUROC {demo['test_auroc']:.3f}, {demo['seconds']:.0f} s")
        print(f"volumes: {volumes(folder)} scored, each with its mask")


def volumes(folder: Path) -> int:
    """Train on volumes for one epoch, evaluate and score them; the number of scored volumes."""
    write_volumes(folder, count=12)
    config = folder / "volumes.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    run("scan", folder / "images", "--labels", folder / "labels.csv", "--out", folder / "all.parquet")
    run("split", folder / "all.parquet", "--out", folder / "split.parquet", "--config", config)
    run("train", "--manifest", folder / "split.parquet", "--config", config, "--run-dir", folder / "run")
    bundle = folder / "run" / "bundle"
    table = ("--manifest", folder / "split.parquet", "--split", "test")
    run("evaluate", "--bundle", bundle, *table, "--out", folder / "evaluation")
    masks = ("--masks", folder / "masks-of-scores")
    scored = run("score", "--bundle", bundle, "--input", folder / "images", "--output", folder / "scores", *masks)
    written = len(list((folder / "masks-of-scores").rglob("*.nii.gz")))
    if not scored["scored"] == written == 12:
        sys.exit(f"Expected 12 scored volumes, each with a mask. Received: {scored['scored']} and {written} masks.")
    return written


def write_volumes(folder: Path, *, count: int) -> None:
    """Noise of 24 voxels a side with a bright box; every second one holds a brighter core."""
    rng = np.random.default_rng(0)
    rows = [("path", "mask", "patient_id", "lesion")]
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(count):
        mask = np.zeros((24, 24, 24), np.uint8)
        mask[6:18, 6:18, 6:18] = 1
        if number % 2:
            mask[9:15, 9:15, 9:15] = 2
        pixels = (rng.normal(100, 10, mask.shape) + 60.0 * mask).astype(np.float32)
        for part, array in (("images", pixels), ("masks", mask)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / part / f"{number}.nii.gz")
        rows.append((f"{number}.nii.gz", f"../masks/{number}.nii.gz", f"p{number}", ("no", "yes")[number % 2]))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def run(*words: object) -> dict[str, object]:
    """Run one command and read its JSON object; end where it fails."""
    done = subprocess.run([COMMAND, *map(str, words), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"lepton-vision {words[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
