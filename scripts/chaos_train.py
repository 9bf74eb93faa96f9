"""Kill a training at random moments, again and again; its weights and figures must be those of one that nobody killed.

    python scripts/chaos_train.py [--kills 50] [--epochs 6] [--images 64] [--seed 0]

SIGKILL goes to the training process itself; a child is forked from a process that has imported everything, so that
nearly all kills fall between the opening of the run folder and the bundle. After some of them a bit of the last
checkpoint is turned too: the run must go on from the one before. The moments and bits are drawn from the seed; where
they fall also depends on the machine. A power cut is not tried: the kernel survives and keeps what was not synced.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

import lepton_vision as lv

TIMES = ("seconds", "images_per_s")
DAMAGED = 0.5  # share of kills after which a bit is turned


@dataclass
class Chaos:
    """What became of a training that was killed.

    Attributes:
        kills: by where they fell: "in a checkpoint" (half of one was left behind), "between checkpoints", "before the
            first", "after the last".
        damaged: checkpoints of which a bit was turned.
        finished: runs that came to their end, that is folders that were compared.
        weights: finished runs whose bundle differs by a bit.
        figures: finished runs whose figures, of any epoch or of the operating point, differ.
    """

    kills: Counter = field(default_factory=Counter)
    damaged: int = 0
    finished: int = 0
    weights: int = 0
    figures: int = 0


def write_study(folder, images):
    """Images of two kinds, split by patient; bright squares are positive."""
    rng, rows = np.random.default_rng(0), ["path,patient_id,split,finding"]
    for number in range(images):
        label, pixels = number % 2, rng.integers(0, 120, (24, 24), dtype=np.uint8)
        pixels[6:14, 6:14] += np.uint8(60 * label)
        path = folder / "images" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), pixels)
        split = "train" if number < images // 2 else "val" if number < images * 3 // 4 else "test"
        rows.append(f"{path.name},p{number},{split},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return lv.Manifest.scan(folder / "images", labels=folder / "labels.csv", workers=0)


def settings(epochs):
    """A small network with all that has a state: averaged weights, accumulated batches, dropout, augmentation."""
    return lv.Config.from_dict(
        {
            "targets": [{"name": "finding", "kind": "binary", "classes": ["0", "1"]}],
            "preprocess": {"size": [24, 24], "windows": ["full"]},
            "augment": {"preset": "xray"},
            "model": {"backbone": "resnet10", "width": 8, "stem": "small", "dropout": 0.2},
            "train": {
                "epochs": epochs,
                "batch_size": 8,
                "lr": 0.003,
                "precision": "fp32",
                "ema_decay": 0.9,
                "accumulate_steps": 2,
                "checkpoint_seconds": 0,
                "workers": 0,
            },
            "audit": {"near_duplicates": False},
        }
    )


def start(config, manifest, run_dir):
    """Fork a process that trains, or goes on; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        lv.fit(config, manifest, run_dir=run_dir, resume=True, device="cpu")
        code = 0
    finally:
        os._exit(code)


def where(run_dir):
    """Where a kill fell, by what it left behind."""
    checkpoints = run_dir / "checkpoints"
    if any(checkpoints.glob(".*.tmp")):
        return "in a checkpoint"
    names = [path.name for path in checkpoints.glob("*.pt")]
    if not names:
        return "before the first"
    last = checkpoints / ("last.pt" if "last.pt" in names else "previous.pt")
    is_over = torch.load(last, weights_only=True)["position"]["is_finished"]
    return "after the last" if is_over else "between checkpoints"


def turn_a_bit(run_dir, rng):
    """Damage the last checkpoint where there is one before it; return whether it was."""
    last = run_dir / "checkpoints" / "last.pt"
    if not last.exists() or not last.with_name("previous.pt").exists():
        return False
    content = bytearray(last.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    last.write_bytes(content)
    return True


def outcome(run_dir):
    """Weights of the bundle, and all its figures."""
    bundle = lv.Bundle.load(run_dir / "bundle")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return bundle.state, json.dumps([rows, bundle.operating_point.to_dict(), bundle.provenance["validation"]])


def compare(chaos, whole, run_dir):
    """Compare a finished run with the one that nobody killed."""
    (state, figures), (expected, expected_figures) = outcome(run_dir), whole
    chaos.finished += 1
    is_same = state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    chaos.weights += not is_same
    chaos.figures += figures != expected_figures


def kill_and_resume(folder, *, kills=50, epochs=6, images=64, seed=0):
    """Kill ``kills`` times, finish, compare; a run that ends before its kill is compared and begun anew."""
    torch.set_num_threads(1)  # threads do not survive a fork
    cv2.setNumThreads(1)
    manifest, config = write_study(folder, images), settings(epochs)
    rng, chaos = random.Random(seed), Chaos()
    lv.fit(settings(1), manifest, run_dir=folder / "warm", device="cpu")  # whatever is loaded late
    started = time.perf_counter()
    lv.fit(config, manifest, run_dir=folder / "whole", device="cpu")
    seconds = time.perf_counter() - started
    whole, run_dir = outcome(folder / "whole"), folder / "killed-0"
    while True:
        child = start(config, manifest, run_dir)
        is_last = chaos.kills.total() == kills
        if not is_last:
            time.sleep(rng.uniform(0.1, 1.0) * seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            chaos.kills[where(run_dir)] += 1
            chaos.damaged += rng.random() < DAMAGED and turn_a_bit(run_dir, rng)
        elif status:
            raise SystemExit("A training that was resumed failed.")
        else:
            compare(chaos, whole, run_dir)
            if is_last:
                return chaos
            run_dir = folder / f"killed-{chaos.finished}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        chaos = kill_and_resume(Path(folder), **asked)
    print(json.dumps(vars(chaos), indent=1))
    raise SystemExit(1 if chaos.weights or chaos.figures else 0)


if __name__ == "__main__":
    main()
