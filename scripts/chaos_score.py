"""Kill a scoring run at random moments, again and again; its rows must be those of a run that nobody killed.

    python scripts/chaos_score.py [--kills 50] [--files 240] [--shard-rows 8] [--seed 0]

SIGKILL goes to the scoring process itself: it cannot be caught, nothing is flushed, and the lock is left to the kernel.
What is not repeated each time is the start of Python: a child is forked from a process that has imported everything,
so that nearly all kills fall between the opening of the folder and its last row (tests/scoring/test_exactly_once.py
also kills a process started cold). The moments are drawn from the seed; where they fall also depends on the machine.
A power cut is not tried: the kernel survives and keeps what was written but not synced.
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
import pandas as pd
import torch

import lepton_vision as lv
from lepton_vision.models import build_model

BATCH = 4


@dataclass
class Chaos:
    """What became of a run that was killed.

    Attributes:
        rows: rows at the end.
        kills: by where they fell: "in a shard" (half of one was left behind), "between shards", "before the first".
        finished: runs that came to their end, that is folders that were compared.
        lost: inputs without a row.
        twice: inputs with more rows than they have images.
        changed: rows in which any column but the time differs from the run that nobody killed, by a bit.
    """

    rows: int = 0
    kills: Counter = field(default_factory=Counter)
    finished: int = 0
    lost: int = 0
    twice: int = 0
    changed: int = 0


def write_study(folder, files):
    """Small images, some of them damaged, and a bundle with random weights."""
    rng, inbox = np.random.default_rng(0), folder / "inbox"
    inbox.mkdir(parents=True)
    for number in range(files):
        path = inbox / f"{number:05d}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (40, 30), dtype=np.uint8))
        if number % 17 == 0:
            path.write_bytes(path.read_bytes()[:60])
    config = lv.Config.from_dict(
        {
            "targets": [{"name": "sick", "kind": "binary", "classes": ["no", "yes"]}],
            "preprocess": {"size": [32, 32]},
            "model": {"backbone": "resnet10", "width": 8, "stem": "small"},
        }
    )
    torch.manual_seed(0)
    point = lv.OperatingPoint({"sick": (0.5,)}, "stated")
    state = build_model(config).state_dict()
    bundle = lv.Bundle(config=config, targets=config.targets, state=state, operating_point=point)
    bundle.save(folder / "bundle")
    return bundle, inbox


def start(bundle, inbox, output, shard_rows):
    """Fork a process that scores; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        lv.score(bundle, inbox, output, batch_size=BATCH, shard_rows=shard_rows, device="cpu")
        code = 0
    finally:
        os._exit(code)


def where(output):
    """Where a kill fell, by what it left behind."""
    if any(output.glob(".*.tmp")):
        return "in a shard"
    return "between shards" if any(output.glob("part-*")) else "before the first"


def compare(chaos, whole, output):
    """Compare the rows of two folders."""
    rows = pd.read_parquet(output).drop(columns="seconds")
    count = rows["path_id"].value_counts()
    chaos.finished, chaos.rows = chaos.finished + 1, len(rows)
    chaos.lost += int((~whole["path_id"].isin(rows["path_id"])).sum())
    chaos.twice += int((count > 1).sum())
    both = rows.drop_duplicates("path_id").merge(whole, on="path_id", suffixes=("", "_whole"))
    for name in rows.columns.drop("path_id"):
        one, other = both[name], both[f"{name}_whole"]
        chaos.changed += int(((one != other) & ~(one.isna() & other.isna())).sum())


def kill_and_resume(folder, *, kills=50, files=240, shard_rows=8, seed=0):
    """Kill ``kills`` times, finish, compare; a run that ends before its kill is compared and begun anew."""
    torch.set_num_threads(1)  # threads do not survive a fork
    cv2.setNumThreads(1)
    bundle, inbox = write_study(folder, files)
    rng, chaos = random.Random(seed), Chaos()
    lv.score(bundle, inbox, folder / "warm", batch_size=BATCH, device="cpu")  # whatever is loaded late
    started = time.perf_counter()
    lv.score(bundle, inbox, folder / "whole", batch_size=BATCH, shard_rows=shard_rows, device="cpu")
    seconds = time.perf_counter() - started
    whole = pd.read_parquet(folder / "whole").drop(columns="seconds")
    output = folder / "killed-0"
    while True:
        child = start(bundle, inbox, output, shard_rows)
        is_last = chaos.kills.total() == kills
        if not is_last:
            time.sleep(rng.uniform(0.0, 0.5 * seconds))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            chaos.kills[where(output)] += 1
        elif status:
            raise SystemExit("A run that was resumed failed.")
        else:
            compare(chaos, whole, output)
            if is_last:
                return chaos
            output = folder / f"killed-{chaos.finished}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=240)
    parser.add_argument("--shard-rows", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        chaos = kill_and_resume(Path(folder), **asked)
    print(json.dumps(vars(chaos), indent=1))
    raise SystemExit(1 if chaos.lost or chaos.twice or chaos.changed else 0)


if __name__ == "__main__":
    main()
