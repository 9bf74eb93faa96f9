"""Run each command with its output on a disk that is too small: one message, exit code 2, nothing half-written.

    python scripts/disk_full.py [--only train,score] [--shares 0,0.5]

Each command runs once on a disk with room, to see that it works and what it writes; then on a tmpfs that holds a share
of that, or nothing. It is mounted in a name space of its own by ``unshare -rm``, which needs no privilege
where the system allows it. Commands are forked from one process that has imported everything.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

PAGE, FILLER = 4096, "filler"  # a tmpfs without any room cannot be asked for
MARK = ".lepton-vision-demo"  # by which the demo knows a folder of its own
RESUMABLE = ("train", "run", "demo", "score")  # what they finished before stays, for the same command to go on
CONFIG = """
targets: [{name: finding, kind: binary, classes: ["0", "1"]}]
preprocess: {size: [24, 24], windows: [full]}
augment: {preset: none}
model: {backbone: resnet10, width: 8, stem: small}
train: {epochs: 1, batch_size: 8, precision: fp32, workers: 0, checkpoint_seconds: 0}
evaluation: {replicates: 100}
audit: {near_duplicates: false}
"""


@dataclass
class Counts:
    """What became of commands on a full disk.

    Attributes:
        runs: commands times sizes.
        good: those that ended in one message, with exit code 2 and nothing half-written.
        bad: what the others did, by name.
    """

    runs: int = 0
    good: int = 0
    bad: dict = field(default_factory=dict)


def write_inputs(folder):
    """Images, a table of labels and masks; what is made of them is made by the commands themselves."""
    rng, rows, masks = (
        np.random.default_rng(0),
        ["path,patient_id,split,finding"],
        ["image_id,patient_id,truth,prediction"],
    )
    predictions = ["image_id,patient_id,y_true,y_prob"]
    for number in range(48):
        label, pixels = number % 2, rng.integers(0, 120, (24, 24), dtype=np.uint8)
        pixels[6:14, 6:14] += np.uint8(60 * label)
        path = folder / "images" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), pixels)
        split = ("train", "train", "val", "test")[number // 12]
        rows.append(f"{path.name},p{number},{split},{label}")
        predictions.append(f"{number},p{number},{label},{0.3 + 0.3 * label + 0.1 * rng.random():.3f}")
    mask = np.zeros((24, 24), np.uint8)
    mask[6:14, 6:14] = 1
    cv2.imwrite(str(folder / "mask.png"), mask)
    masks += [f"{number},p{number},mask.png,mask.png" for number in range(4)]
    for name, lines in (("labels", rows), ("masks", masks), ("predictions", predictions)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (folder / "c.yaml").write_text(CONFIG)


def commands(given, out):
    """Commands by name, each writing to ``out``; some read what others have left in ``made``."""
    made, images = given / "made", given / "images"
    bundle, manifest = made / "train" / "bundle", made / "split" / "s.parquet"
    table, predictions = ["--labels", given / "labels.csv", "--workers", "0"], given / "predictions.csv"
    config, judged = ["--config", given / "c.yaml"], ["evaluate", "--bundle", bundle, "--manifest", manifest]
    scored = ["score", "--bundle", bundle, "--input", images, "--engine", "torch"]
    return {
        "scan": ["scan", images, *table, "--out", out / "m.parquet"],
        "scan csv": ["scan", images, *table, "--out", out / "m.csv"],
        "split": ["split", made / "scan" / "m.parquet", *config, "--out", out / "s.parquet"],
        "split csv": ["split", made / "scan" / "m.parquet", *config, "--out", out / "s.csv"],
        "audit": ["audit", made / "scan" / "m.parquet", "--fail-on", "none", "--out", out / "f.csv"],
        "audit parquet": ["audit", made / "scan" / "m.parquet", "--fail-on", "none", "--out", out / "f.parquet"],
        "train": ["train", "--manifest", manifest, *config, "--run-dir", out, "--device", "cpu"],
        "run": ["run", "--source", manifest, *config, "--run-dir", out, "--device", "cpu"],
        "run folds": ["run", "--source", manifest, *config, "--folds", "2", "--run-dir", out, "--device", "cpu"],
        "evaluate": [*judged, "--out", out, "--device", "cpu"],
        "evaluate external": [*judged, "--external", "--out", out, "--device", "cpu"],
        "evaluate predictions": ["evaluate", "--predictions", predictions, "--out", out],
        "evaluate masks": ["evaluate", "--masks", given / "masks.csv", "--out", out],
        "compare": ["compare", predictions, predictions, "--replicates", "100", "--out", out],
        "score": [*scored, "--output", out],
        "score csv": [*scored, "--output", out / "rows", "--format", "csv", "--path-map", out / "map.csv"],
        "export": ["export", bundle, "--out", out / "m.onnx"],
        "export-mask": ["export-mask", given / "mask.png", "--source", images / "000.png", "--out", out / "m.png"],
        "demo": ["demo", "--patients", "20", "--epochs", "1", "--out", out],
    }


def run(arguments, log):
    """Run a command in a forked child; return its exit code and what it said on stderr."""
    from lepton_vision.cli.app import app
    from lepton_vision.cli.options import run_to_end

    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if number == 2 else 0)), number)
        sys.argv = ["lepton-vision", *map(str, arguments)]
        code = run_to_end(app)
        sys.stderr.flush()
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def what_is_wrong(name, code, told, out):
    """Say what is not as promised, or nothing."""
    messages = [line for line in told.splitlines() if line.startswith("error:")]
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    left.remove(FILLER)
    hidden = [one for one in left if one != MARK and any(part.startswith(".") for part in Path(one).parts)]
    if code != 2 or len(messages) != 1 or "Traceback" in told:
        return f"exit code {code}, said {told[-300:]!r}"
    if hidden or (left and name.split()[0] not in RESUMABLE):
        return f"left {len(left)} files: {', '.join((hidden or left)[:5])}"
    for path in out.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            return f"left half of {path.name}"
    return ""


def size_of(folder):
    """Bytes that a tmpfs needs for the files of a folder."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def fill_disks(folder, *, only=(), shares=(0.0, 0.5)):
    """Run all commands with room, then each on disks that are too small."""
    import albumentations  # noqa: F401 - what commands load late is loaded once, for all children
    import onnx  # noqa: F401
    import torch

    import lepton_vision.inference.runtimes.export
    import lepton_vision.pipeline.folds
    import lepton_vision.reporting.figures
    import lepton_vision.scoring.batch  # noqa: F401

    torch.set_num_threads(1)  # threads do not survive a fork
    cv2.setNumThreads(1)
    write_inputs(folder)
    counts, log, full = Counts(), folder / "log", folder / "full"
    trained = {"train", "run", "run folds", "evaluate", "evaluate external", "score", "score csv", "export"}
    needed = {"scan", "split", "train"} if trained & set(only) else {"scan"}
    full.mkdir()
    for name in commands(folder, full):
        if only and name not in {*only, *needed}:
            continue
        place = folder / "made" / name
        place.mkdir(parents=True)
        code, told = run(commands(folder, place)[name], log)
        if code:
            raise SystemExit(f"{name} failed with room: {told[-500:]}")
        for share in shares if not only or name in only else ():
            pages = 1 + int(share * size_of(place) / PAGE)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "tmpfs", full], check=True)
            (full / FILLER).write_bytes(bytes(PAGE))
            try:
                code, told = run(commands(folder, full)[name], log)
                wrong = what_is_wrong(name, code, told, full)
            finally:
                subprocess.run(["umount", "-l", full], check=True)
            print(f"{name} at {share:g}: {wrong or 'good'}", file=sys.stderr, flush=True)
            counts.runs, counts.good = counts.runs + 1, counts.good + (not wrong)
            if wrong:
                counts.bad[f"{name} at {share:g}"] = wrong
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--shares", default="0,0.5")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.inside:
        if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
            raise SystemExit("This system lets nobody mount a tmpfs (unshare -rm).")
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv, "--inside"])
    shares = [float(share) for share in asked.shares.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        counts = fill_disks(Path(folder), only=[name for name in asked.only.split(",") if name], shares=shares)
    print(json.dumps(vars(counts), indent=1))
    raise SystemExit(1 if counts.bad else 0)


if __name__ == "__main__":
    main()
