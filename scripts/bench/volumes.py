"""Volumes: our 3-D training step and sliding windows against the bare model, and peak memory.

    python scripts/bench/volumes.py [--rounds 5] [--patch 32 64 64] [--batch-size 2] [--parts step windows]

(a) step: a round is one epoch of patches from NIfTI files through our loader (cache filled, augmentation "mr") and our
loop, the same batches drawn once and kept in memory through our loop, and the bare model (same network, loss and AdamW,
written out) on one such batch. (b) windows: masks of one volume through ``VolumeSegmenter`` against the bare model on
as many windows of random numbers; reading the file is not in it. (c) memory: peak of a process that trains one epoch,
its loader's workers included, for each patch, batch size and number of workers; on a GPU that of its memory.

All ways compute in float32, on a GPU (``--device cuda``) without rounding to TF32.

Ways take turns within a round, so that all meet the same machine; ratios are taken round by round, and medians shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rounds = dict[str, Callable[[], None]]
PARTS = ("step", "windows", "memory")


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(train_once(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        write_study(study, count=options.volumes, size=options.volume_size)
        for part in options.parts:
            {"step": bench_step, "windows": bench_windows, "memory": bench_memory}[part](study, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--volume-size", type=int, nargs=3, default=[48, 128, 128], metavar=("D", "H", "W"))
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 64, 64], metavar=("D", "H", "W"))
    parser.add_argument("--patches", type=int, default=2, help="patches of each volume in an epoch")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of (a)")
    parser.add_argument("--backbone", default="resnet10")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-patches", nargs="+", default=["32,64,64", "48,96,96"], metavar="D,H,W")
    parser.add_argument("--memory-batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory-workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_study(folder: Path, *, count: int, size: list[int]) -> None:
    """Noise with a bright ball each, and its mask, as NIfTI files."""
    import nibabel as nib
    import numpy as np

    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["path,mask,patient_id"]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size[::-1]], indexing="ij"))
    for number in range(count):
        middle = rng.uniform(-0.4, 0.4, 3)[:, None, None, None]
        ball = ((grid - middle) ** 2).sum(axis=0) < 0.15
        pixels = rng.normal(0, 60, ball.shape) + 200.0 * ball
        nib.save(nib.Nifti1Image(pixels.astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{number}.nii.gz")
        mask = nib.Nifti1Image(ball.astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0]))
        (folder.parent / "masks").mkdir(exist_ok=True)
        nib.save(mask, folder.parent / "masks" / f"{number}.nii.gz")
        rows.append(f"{number}.nii.gz,masks/{number}.nii.gz,p{number}")
    (folder.parent / "labels.csv").write_text("\n".join(rows) + "\n")


def settings(options: argparse.Namespace) -> Any:
    from lepton_vision.config import Config

    return Config.from_dict(
        {
            "preprocess": {"windows": ["percentile"]},
            "augment": {"preset": "mr"},
            "model": {"backbone": options.backbone, "width": options.width, "stem": "small"},
            "segmentation": {"structures": {"ball": 1}, "channels": 16},
            "volume": {"view": "3d", "patch": options.patch, "patches": options.patches},
            "train": {"batch_size": options.batch_size, "workers": options.workers, "precision": "fp32"},
        }
    )


def training_loader(study: Path, config: Any) -> Any:
    from lepton_vision.manifest import Manifest
    from lepton_vision.transforms import make_loader

    manifest = Manifest.scan(study, labels=study.parent / "labels.csv", workers=0)
    return make_loader(manifest, config, training=True, cache_dir=study.parent / "cache")


def bench_step(study: Path, options: argparse.Namespace) -> None:
    import torch

    from lepton_vision.models import build_model
    from lepton_vision.models.allocator import keep_freed_memory
    from lepton_vision.models.device import choose_device
    from lepton_vision.training.distributed import World
    from lepton_vision.training.loop import make_stepper
    from lepton_vision.training.step import take_step

    keep_freed_memory()  # for all ways: an allocator setting cannot be taken back
    config, device = settings(options), choose_device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # as ``fit_model`` has it; for all ways
    loader = training_loader(study, config)
    kept = list(loader)
    stepper = make_stepper(build_model(config), config, world=World(0, 1, device))
    forward, numbers = stepper.freeze(0), itertools.count(1)

    def ours(batches: Any) -> None:
        for batch in batches:
            take_step(stepper, [batch], forward=forward, rate=1e-3)
        wait(device)

    def files() -> None:
        loader.sampler.set_epoch(next(numbers))
        ours(loader)

    bare = bare_steps(build_model(config).to(device), kept[0].to(device), steps=len(kept))
    rounds: Rounds = {"files": files, "memory": lambda: ours(kept), "bare": lambda: (bare(), wait(device))[1]}
    seconds = take_turns(rounds, count=options.rounds)
    titles = {
        "files": "(a) our loader and loop, from files",
        "memory": "(a) our loop, tensors in memory",
        "bare": "(a) bare model, tensors in memory",
    }
    facts = (
        f"{len(kept)} steps of {options.batch_size} patches {options.patch}, {options.workers} workers, {named(device)}"
    )
    show(seconds, titles, per=len(kept), unit="s/step", facts=facts, torch_threads=torch.get_num_threads())


def bare_steps(model: Any, batch: Any, *, steps: int) -> Callable[[], None]:
    """Cross entropy plus Dice and AdamW as a script would have them, on the same network and one batch."""
    import torch
    from torch.nn import functional

    from lepton_vision.models.device import true_float32

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    is_known = batch.masks != 255
    truth = torch.where(is_known, batch.masks, 0).long()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch.images).mask_logits
        entropy = (functional.cross_entropy(logits, truth, reduction="none") * is_known).sum() / is_known.sum()
        prob = logits.softmax(1)[:, 1] * is_known
        dice = 1 - (2 * (prob * truth).sum() + 1e-5) / (prob.sum() + truth.sum() + 1e-5)
        (entropy + dice).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def run() -> None:
        with true_float32(batch.images.device):
            for _ in range(steps):
                step()

    return run


def bench_windows(study: Path, options: argparse.Namespace) -> None:
    import torch

    from lepton_vision.inference.masks import VolumeSegmenter
    from lepton_vision.models import Bundle, build_model
    from lepton_vision.models.device import suited_format, true_float32
    from lepton_vision.readers import read_image

    config = settings(options)
    bundle = Bundle(config=config, targets=(), state=build_model(config).state_dict())
    segmenter = VolumeSegmenter(bundle, device=options.device, precision="fp32")
    image = read_image(study / "0.nii.gz")
    model = bundle.network().to(segmenter.device).to(memory_format=suited_format(5))
    shapes = list[tuple[int, ...]]()
    watch = segmenter._network.network.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    segmenter.mask(image)  # counts the windows
    watch.remove()
    inputs = [torch.randn(shape, device=segmenter.device).to(memory_format=suited_format(5)) for shape in shapes]

    def bare() -> None:
        with torch.inference_mode(), true_float32(segmenter.device):
            for part in inputs:
                model(part)
        wait(segmenter.device)

    def ours() -> None:
        segmenter.mask(image)

    seconds = take_turns({"ours": ours, "bare": bare}, count=options.rounds)
    windows = sum(shape[0] for shape in shapes)
    titles = {"ours": "(b) a volume through our path", "bare": "(b) bare model, as many windows"}
    facts = f"{windows} windows {options.patch} of a volume {list(image.pixels.shape[1:])}, {named(segmenter.device)}"
    show(seconds, titles, per=1, unit="s/volume", facts=facts, torch_threads=torch.get_num_threads())


def bench_memory(study: Path, options: argparse.Namespace) -> None:
    print(f"(c) {'patch':>14} {'batch':>6} {'workers':>8} {'peak MiB':>9} {'with workers':>13}")
    ways = itertools.product(options.memory_patches, options.memory_batches, options.memory_workers)
    for patch, batch, workers in ways:
        # fmt: off
        command = [
            sys.executable, __file__, "--child", str(study), "--patch", *patch.split(","), "--batch-size", str(batch),
            "--workers", str(workers), "--patches", str(options.patches), "--backbone", options.backbone,
            "--width", str(options.width), "--device", options.device,
        ]
        # fmt: on
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"    {patch:>14} {batch:>6} {workers:>8} {found['own']:>9.0f} {found['all']:>13.0f}", flush=True)


def train_once(options: argparse.Namespace) -> dict[str, float]:
    """Child process: one epoch; its own peak, and that with the largest of its workers for each of them, in MiB."""
    import resource

    import torch

    from lepton_vision.models import build_model
    from lepton_vision.models.allocator import keep_freed_memory
    from lepton_vision.models.device import choose_device
    from lepton_vision.training.distributed import World
    from lepton_vision.training.loop import make_stepper
    from lepton_vision.training.step import take_step

    keep_freed_memory()
    config, device = settings(options), choose_device(options.device)
    loader = training_loader(Path(options.child), config)
    stepper = make_stepper(build_model(config), config, world=World(0, 1, device))
    forward = stepper.freeze(0)
    for batch in loader:
        take_step(stepper, [batch], forward=forward, rate=1e-3)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    loader._iterator = None  # workers end, and their peaks are known
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 * options.workers
    if device.type == "cuda":
        own, workers = torch.cuda.max_memory_allocated(device) / 2**20, 0.0
    return {"own": own, "all": own + workers}


def named(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(rounds: Rounds, *, count: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in rounds}
    for number in range(count + 1):
        for way, run in rounds.items():
            started = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[way].append(time.perf_counter() - started)
    return seconds


def show(
    seconds: dict[str, list[float]], titles: dict[str, str], *, per: int, unit: str, facts: str, torch_threads: int
) -> None:
    print(f"{'':40} {unit:>10} {'min-max':>15} {'time / bare':>12}")
    for way, times in seconds.items():
        each = [one / per for one in times]
        ratio = statistics.median(a / b for a, b in zip(times, seconds["bare"], strict=True))
        print(f"{titles[way]:40} {statistics.median(each):10.3f} {min(each):7.3f}-{max(each):7.3f} {ratio:12.3f}")
    print(f"n = {len(seconds['bare'])} rounds; {facts}; {torch_threads} threads", flush=True)


if __name__ == "__main__":
    main()
