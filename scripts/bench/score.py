"""Scoring speed: ours from files to rows, its parts, MONAI and a plain loop, measured in turns in one run.

    python scripts/bench/score.py [--files 512] [--rounds 3] [--threads 2] [--workers 2] [--device cpu]
        [--engines torch:auto] [--beside 0]

All score the same 512x512 16-bit CT slices with the same network, a ResNet-18 at 224x224 unless ``--backbone`` names
another. "decode only" reads and preprocesses with the threads of a scoring run and no model; "model only" has
everything in memory, in as many streams as a scoring run has, or step by step, each on all processors: the faster one
counts. The network is loaded once for all rounds, as in a long run; how long that takes is said apart. A run waits for
its first batch, and for the disk and the tables of cases at its end. ``--only-ours`` leaves out both comparisons, so
that more files can be scored, as in the long runs that scoring is for.

``openvino:int8`` is a file as ``lepton-vision export --int8`` writes it, fitted before the rounds to slices of its own,
and scored as ``score --engine model.xml`` does. It is another precision than all else here: probabilities differ more
from float32 than those of bf16, and rows have no novelty. Weights are random, so that no AUROC judges it here.

Both comparisons run the network as their users do, in torch's defaults: float32 without autocast. MONAI scores batches
of a DataLoader, the plain loop one file after the other. Last comes the share of processor time of each step of ours,
one step after the other in one thread of Python. Where the model alone keeps all cores busy, no overlap can hide what
the other steps take.

``--beside 2`` keeps as many other processes busy meanwhile, as on a machine that is shared, and runs torch from files
to rows in each of its two ways alone too: in streams and step by step.

On a GPU (``--device cuda``) all networks run there, with 64 images in a step of ours and of MONAI's unless
``--batch-size`` says otherwise, and MONAI's loader gives pinned memory. torch's defaults let convolutions of float32 be
rounded to TF32 there; ours in fp32 does not.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
import torchvision
from loader import write_slice

import lepton_vision as lv
from lepton_vision.inference.autotune import Way
from lepton_vision.inference.runtimes.choice import load_engine
from lepton_vision.inference.samples import read_ahead
from lepton_vision.inference.streams import Streams, streams_here
from lepton_vision.models import build_model
from lepton_vision.models.allocator import keep_freed_memory
from lepton_vision.models.device import choose_device
from lepton_vision.pipeline.int8 import export_int8
from lepton_vision.predictions.answer_sets import SetRule
from lepton_vision.predictions.novelty import fit_novelty
from lepton_vision.readers import read_image
from lepton_vision.readers.limits import DEFAULT_LIMITS
from lepton_vision.scoring import batch as runs
from lepton_vision.scoring.inputs.inputs import list_inputs
from lepton_vision.scoring.rows import decide, distances_of, row_schema
from lepton_vision.scoring.scorer import Scorer
from lepton_vision.scoring.sink import ShardSink
from lepton_vision.transforms.preprocess import preprocess_image

LOW, HIGH = -160.0, 240.0
MODEL_ONLY = ("model only", "model only, step by step")
ONE_WAY: dict[Way, str] = {"streams": "files to rows in streams", "steps": "files to rows step by step"}
CENTER_WIDTH = {"center": 40.0, "width": 400.0, "function": "LINEAR_EXACT"}


def make_bundle(backbone: str) -> lv.Bundle:
    """A network with random weights, with all that rows are made from."""
    config = lv.Config.from_dict(
        {
            "targets": [{"name": "sick", "kind": "binary", "classes": ["no", "yes"]}],
            "preprocess": {"size": [224, 224], "windows": [CENTER_WIDTH]},
            "model": {"backbone": backbone},
        }
    )
    torch.manual_seed(0)
    network = build_model(config)
    bundle = lv.Bundle(
        config=config,
        targets=config.targets,
        state=network.state_dict(),
        operating_point=lv.OperatingPoint({"sick": (0.5,)}, "stated"),
        set_rules={"sick": (SetRule(("no", "yes"), 0.9, (0.4, 0.4), (50, 50)),)},
    )
    points = np.random.default_rng(0).random((1000, network.width), np.float32)
    return bundle.with_novelty(fit_novelty(points, points[:100] + 0.1, k=10))


def export_file(bundle: lv.Bundle, folder: Path) -> Path:
    """The bundle as an int8 file for OpenVINO, its ranges from the train split of a manifest of slices."""
    names = [f"{number:04d}.dcm" for number in range(1000, 1000 + 48)]
    for name in names:
        write_slice(folder / name, int(name[:4]))
    splits = ["train"] * 32 + ["val"] * 16
    table = {"image_id": names, "path": names, "status": "ok", "split": splits, "sick": ["no", "yes"] * 24}
    manifest = lv.Manifest(pd.DataFrame(table), root=folder, label_columns=("sick",))
    export_int8(bundle, folder / "model.xml", to="openvino", manifest=manifest, tolerance=1.0)  # random weights
    return folder / "model.xml"


class Ours:
    """Our scoring, whole and in parts.

    Args:
        bundle: the model.
        inbox: folder of files.
        workers: threads that read ahead.
        batch_size: images per step.
        device: where the network runs.
        engine: runtime.
        precision: its number format.
    """

    def __init__(
        self,
        bundle: lv.Bundle,
        inbox: Path,
        *,
        workers: int,
        batch_size: int,
        device: str,
        engine: str,
        precision: str,
    ) -> None:
        self.bundle, self.inbox, self.workers, self.batch_size = bundle, inbox, workers, batch_size
        self.how = {"engine": engine, "precision": precision, "batch_size": batch_size, "device": device}
        started = time.perf_counter()
        self.engine = load_engine(bundle, **self.how, streams=streams_here())
        self.load_seconds = time.perf_counter() - started
        self.one_step = load_engine(bundle, **self.how)
        self.inputs = list(list_inputs(inbox, volumes=False))
        config = bundle.config.preprocess
        self.pixels = [preprocess_image(read_image(one.path), config) for one in self.inputs]

    def __str__(self) -> str:
        return f"{self.engine.name} (loaded in {self.load_seconds:.1f} s)"

    def whole(self, way: Way | None = None) -> None:
        """Files to rows on disk, by the very function that users call, with a network that is loaded already."""
        loaded = patch.object(runs, "load_engine", return_value=self.engine)
        one_way = patch.object(runs, "Streams", partial(Streams, way=way))
        with tempfile.TemporaryDirectory() as output, loaded, one_way:
            lv.score(self.bundle, self.inbox, output, workers=self.workers, **self.how)

    def decode(self) -> None:
        """Read and preprocess alone."""
        with closing(Streams(self.engine)) as streams:
            scorer = Scorer(self.bundle, None, streams=streams, limits=DEFAULT_LIMITS)  # type: ignore[arg-type]
            for _ in read_ahead(self.inputs, scorer.read, workers=self.workers, depth=scorer.depth):
                pass

    def model(self) -> None:
        """Batches that lie in memory, as many at once as in a scoring run."""
        with closing(Streams(self.engine, way="streams")) as streams:
            for step in [streams.submit(self.engine.examine_pixels, batch) for batch in self.batches()]:
                step.result()

    def model_by_step(self) -> None:
        """Batches that lie in memory, one after the other on all processors."""
        for batch in self.batches():
            self.one_step.examine_pixels(batch)

    def batches(self) -> Iterator[np.ndarray]:
        """All pixels, a batch at a time."""
        for start in range(0, len(self.pixels), self.batch_size):
            yield np.stack(self.pixels[start : start + self.batch_size])

    def shares(self) -> dict[str, float]:
        """Processor seconds of each step, one after the other; for "decode" those of reading are taken off."""
        config, images = self.bundle.config.preprocess, []

        def decode() -> None:
            images.extend(one.read(is_whole=False) for one in self.inputs)

        def write() -> None:
            with tempfile.TemporaryDirectory() as output:
                schema = row_schema(self.bundle.targets, sets=("sick",), has_novelty=True)
                sink = ShardSink(Path(output), schema, job={"format": "parquet"}, resume=True)
                width, values = self.bundle.network().width, {"sick": np.ones(1)}
                features = np.ones((self.batch_size, width), np.float32)
                for start in range(0, len(self.inputs), self.batch_size):
                    part = self.inputs[start : start + self.batch_size]
                    far = distances_of(self.bundle, features[: len(part)], count=len(part))
                    decided = (decide(values, self.bundle, distance=one) for one in far)
                    sink.append([one.ids() | row for one, row in zip(part, decided, strict=True)])
                sink.flush()
                sink.close()

        found = {"read": used(lambda: [one.path.read_bytes() for one in self.inputs]), "decode": used(decode)}
        found["decode"] -= found["read"]
        found["preprocess"] = used(lambda: [preprocess_image(image, config, is_last_use=True) for image in images])
        return found | {"model": used(self.model), "write": used(write)}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


def used(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def monai_scoring(network: torch.nn.Module, files: list[Path], *, workers: int, batch_size: int) -> Callable[[], None]:
    """A MONAI pipeline: dictionary-free transforms, its Dataset and DataLoader, sigmoid, one CSV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data import DataLoader, Dataset
        from monai.transforms import Compose, LoadImage, Resize, ScaleIntensityRange

    steps = [
        LoadImage(image_only=True, ensure_channel_first=True, reader="PydicomReader"),
        ScaleIntensityRange(LOW, HIGH, 0, 1, clip=True),
        lambda image: image.reshape(1, *image.shape[1:3]),
        Resize((224, 224)),
    ]
    dataset = Dataset([str(path) for path in files], Compose(steps))
    device = next(network.parameters()).device
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def run() -> None:
        found = []
        with torch.inference_mode():
            for batch in loader:
                tensor = batch.as_tensor() if hasattr(batch, "as_tensor") else batch
                tensor = tensor.to(device, non_blocking=True)
                found += torch.sigmoid(network((tensor.float() - 0.5) / 0.25).logits["sick"])[:, 0].tolist()
        write_csv(files, found)

    return run


def plain_scoring(network: torch.nn.Module, files: list[Path]) -> Callable[[], None]:
    """pydicom and torchvision, a file at a time."""
    resize = torchvision.transforms.Resize((224, 224), antialias=True)
    device = next(network.parameters()).device

    def run() -> None:
        found = []
        with torch.inference_mode():
            for path in files:
                ds = pydicom.dcmread(path)
                hu = ds.pixel_array.astype(np.float32) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
                image = torch.from_numpy(((hu - LOW) / (HIGH - LOW)).clip(0, 1))[None, None]
                found.append(float(torch.sigmoid(network((resize(image).to(device) - 0.5) / 0.25).logits["sick"])))
        write_csv(files, found)

    return run


def write_csv(files: list[Path], found: list[float]) -> None:
    with tempfile.TemporaryFile("w", newline="") as file:
        csv.writer(file).writerows((path.name, prob) for path, prob in zip(files, found, strict=True))


def measure(paths: dict[str, Callable[[], None]], *, rounds: int, files: int) -> dict[str, list[float]]:
    """Files per second of each round, the paths in turn; the first round warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 1):
        for name, run in paths.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():  # all of them end with a figure on the host; to be certain
                torch.cuda.synchronize()
            if number:
                speeds[name].append(files / (time.perf_counter() - started))
    return speeds


def ratio(speeds: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds of the speed of ``one`` as a multiple of that of ``other``."""
    return statistics.median(a / b for a, b in zip(speeds[one], speeds[other], strict=True))


def share_of_slower(speeds: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of the whole's speed as a share of the slower part's, the model's better way being one."""
    parts = (speeds[key] for key in ("decode only", *(f"{name}, {part}" for part in MODEL_ONLY)))
    slower = [min(decode, max(model)) for decode, *model in zip(*parts, strict=True)]
    return statistics.median(a / b for a, b in zip(speeds[f"{name}, files to rows"], slower, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--monai-workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="32 on a CPU and 64 on a GPU where it is left out")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--engines", nargs="+", default=["torch:auto"], help="runtime:precision, or openvino:int8")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--beside", type=int, default=0, help="other busy processes")
    parser.add_argument("--only-ours", action="store_true", help="leave out both comparisons")
    args = parser.parse_args()
    device = choose_device(args.device)
    args.batch_size = args.batch_size or (64 if device.type == "cuda" else 32)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        inbox = Path(folder, "inbox")
        inbox.mkdir()
        write_slice(inbox / "0000.dcm", 0)
        for number in range(1, args.files):
            if number < 16:
                write_slice(inbox / f"{number:04d}.dcm", number)
            else:
                shutil.copy(inbox / f"{number % 16:04d}.dcm", inbox / f"{number:04d}.dcm")
        files = sorted(inbox.iterdir())
        bundle = make_bundle(args.backbone)
        how = {"workers": args.workers, "batch_size": args.batch_size, "device": str(device)}
        several = [Ours(bundle, inbox, **how, **engine_of(one, bundle, Path(folder))) for one in args.engines]
        network = bundle.network().to(device)
        paths = {"decode only": several[0].decode}
        for name, ours in zip(args.engines, several, strict=True):
            paths |= {f"{name}, files to rows": ours.whole}
            paths |= {
                f"{name}, {part}": run for part, run in zip(MODEL_ONLY, (ours.model, ours.model_by_step), strict=True)
            }
            if args.beside and ours.engine.has_free_threads:
                paths |= {f"{name}, {one_way}": partial(ours.whole, way) for way, one_way in ONE_WAY.items()}
        if not args.only_ours:
            paths["MONAI"] = monai_scoring(network, files, workers=args.monai_workers, batch_size=args.batch_size)
            paths["pydicom + torchvision"] = plain_scoring(network, files)
        with busy(args.beside):
            speeds = measure(paths, rounds=args.rounds, files=len(files))
        shares = [ours.shares() for ours in several]
    threads = f"{args.threads} torch threads, {args.workers} readers, {args.rounds} rounds"
    print(f"{args.files} files, {threads}; {'; '.join(map(str, several))}")
    tell(speeds, args.engines)
    for engine, steps in zip(args.engines, shares, strict=True):
        total = sum(steps.values())
        told = (f"{name} {100 * one / total:.0f} % ({1000 * one / args.files:.2f} ms)" for name, one in steps.items())
        print(f"share of processor time with {engine} (of a file): {', '.join(told)}")
    print(f"device: {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}")


def engine_of(spec: str, bundle: lv.Bundle, folder: Path) -> dict[str, str]:
    """Arguments of ``Ours`` for runtime:precision."""
    engine, precision = spec.split(":")
    if precision != "int8":
        return {"engine": engine, "precision": precision}
    fitted = folder / "fitted"
    fitted.mkdir()
    return {"engine": str(export_file(bundle, fitted)), "precision": "auto"}


def tell(speeds: dict[str, list[float]], engines: list[str]) -> None:
    """Print the table and the ratios."""
    print(f"{'':30}{'files / s':>12}{'min … max':>20}")
    for name, values in speeds.items():
        spread = f"{min(values):.1f} … {max(values):.1f}"
        print(f"{name:30}{statistics.median(values):>12.1f}{spread:>20}")
    for name in engines:
        whole = f"{name}, files to rows"
        share = 100 * share_of_slower(speeds, name)
        others = (other for other in ("MONAI", "pydicom + torchvision") if other in speeds)
        times = "".join(f"; {ratio(speeds, whole, other):.1f} x {other} (target 3)" for other in others)
        print(f"{name}: {share:.0f} % of the slower part (target 90){times}")
        ways = [speeds[f"{name}, {one_way}"] for one_way in ONE_WAY.values() if f"{name}, {one_way}" in speeds]
        if ways:
            shares = [found / max(both) for found, *both in zip(speeds[whole], *ways, strict=True)]
            print(f"{name}: {statistics.median(shares):.2f} x the faster way (target 0.95)")


if __name__ == "__main__":
    main()
