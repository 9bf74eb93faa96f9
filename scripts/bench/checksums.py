"""What the checksums of the decoded cache and of checkpoints cost, as a share of the training that they are part of.

    python scripts/bench/checksums.py [--images 96] [--rounds 3] [--size 224] [--backbone resnet18]

Each round trains one epoch twice, with CRC-32 and with a constant in its place (each with a cache of its own, filled
before). The times are those of the processor, loading included, so that other work on the machine counts little.
Prints what CRC-32 itself took, a row of the cache (checked when a process reads it first: in its first epoch alone)
and a checkpoint (written each ``train.checkpoint_seconds``, 60, and at the end of an epoch), and the median ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image

from lepton_vision import files
from lepton_vision.config import Config
from lepton_vision.manifest import Manifest
from lepton_vision.pipeline import fit
from lepton_vision.training import checkpoint
from lepton_vision.transforms import cache


class Clock:
    """CRC-32 that keeps the processor seconds of rows of ``row_bytes`` and of all else, checkpoints."""

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes, self.rows, self.row_seconds, self.other_seconds = row_bytes, 0, 0.0, 0.0

    def __call__(self, data: Any, value: int = 0, /) -> int:
        started = time.thread_time()
        found = zlib.crc32(data, value)
        took = time.thread_time() - started
        if memoryview(data).nbytes == self.row_bytes:
            self.rows, self.row_seconds = self.rows + 1, self.row_seconds + took
        else:
            self.other_seconds += took
        return found


def measure(folder: Path, *, images: int, rounds: int, size: int, backbone: str) -> dict[str, float]:
    """Seconds of processor and ratios, see the module."""
    manifest, clock = write_study(folder / "study", images=images), Clock(2 * size * size)
    ways = {"checked": clock, "unchecked": lambda data, value=0, /: 1}
    config = Config.from_dict(
        {
            "targets": [{"name": "finding", "kind": "binary", "classes": ["0", "1"]}],
            "preprocess": {"size": [size, size], "windows": ["full"]},
            "model": {"backbone": backbone, "weights": "none"},
            "train": {"epochs": 1, "batch_size": 32, "workers": 0, "keep": "last"},
            "split": {"val": 0},
            "audit": {"near_duplicates": False},
        }
    )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, crc in ways.items():
            if number == 1 and name == "checked":
                clock.rows, clock.row_seconds, clock.other_seconds = 0, 0.0, 0.0
            started = time.process_time()
            with _as_crc(crc):
                run = folder / f"run-{name}-{number}"
                fit(config, manifest, run_dir=run, cache_dir=folder / name, device="cpu", progress=False)
            if number:  # the first round fills the caches
                seconds[name].append(time.process_time() - started)
    spent = sum(seconds["checked"])
    return {
        "epoch_cpu_seconds": round(statistics.median(seconds["checked"]), 2),
        "row_milliseconds": round(1000 * clock.row_seconds / max(clock.rows, 1), 3),
        "rows_share_of_first_epoch": round(clock.row_seconds / spent, 5),
        "checkpoint_seconds": round(clock.other_seconds / rounds, 3),
        "checkpoint_share_of_a_minute": round(clock.other_seconds / rounds / 60, 5),
        "ratio_checked_to_unchecked": round(
            statistics.median(a / b for a, b in zip(seconds["checked"], seconds["unchecked"], strict=True)), 3
        ),
    }


@contextmanager
def _as_crc(crc: Callable[..., int]) -> Iterator[None]:
    with ExitStack() as patches:
        for module in (cache, checkpoint, files):
            patches.enter_context(patch.object(module, "zlib", SimpleNamespace(crc32=crc)))
        yield


def write_study(folder: Path, *, images: int) -> Manifest:
    """PNG files of noise, one a patient."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(images):
        Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).save(folder / f"{number:04d}.png")
    names = [f"{number:04d}.png" for number in range(images)]
    columns = {"finding": [number % 2 for number in range(images)], "patient_id": names, "split": "train"}
    return Manifest.scan(folder, labels=pd.DataFrame({"path": names, **columns}), workers=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet18")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), **vars(asked)), indent=1))


if __name__ == "__main__":
    main()
