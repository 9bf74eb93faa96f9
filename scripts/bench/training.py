"""Time of a training step: plain fp32 PyTorch, our settings on tensors in memory, our settings from DICOM files.

    python scripts/bench/training.py [--rounds 5] [--steps 8] [--batch-size 32] [--workers 1] [--device cpu]

Each way runs in a process of its own (an allocator setting cannot be taken back); the rounds take turns in one run, so
that all of them meet the same machine. ResNet-18, one channel, 224 pixels, AdamW.

On a GPU (``--device cuda``) images lie in pinned memory and are copied in every step, of all ways; a round ends when
the GPU is done. (a) is in torch's defaults there too, which let convolutions of float32 be rounded to TF32.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WAYS = ("plain", "ours", "files", "first", "compiled")
TITLES = {
    "plain": "(a) torchvision, fp32, channels first, tensors in memory",
    "ours": "(b) ours, tensors in memory",
    "files": "(c) ours, epoch from DICOM files, decoded cache filled",
    "first": "(d) ours, epoch from DICOM files, without a cache",
    "compiled": "(e) ours, tensors in memory, train.compile",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="loader processes of (c) and (d)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:4])
    options = parser.parse_args()
    chosen, device_name = find_device(options.device)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        if {"files", "first"} & set(options.ways):
            write_study(Path(folder) / "study", count=options.steps * options.batch_size)
        ends: dict[str, Connection] = {}
        for way in options.ways:
            ends[way], theirs = context.Pipe()
            context.Process(target=serve, args=(way, theirs, Path(folder), options, chosen)).start()
            theirs.close()
        seconds = {way: [] for way in options.ways}
        for number in range(options.rounds + 1):
            for way, end in ends.items():
                end.send("go")
                took = end.recv()
                if number:  # the first round warms up
                    seconds[way].append(took / options.steps)
        for end in ends.values():
            end.close()
    show(seconds, options, device_name=device_name)


def find_device(name: str) -> tuple[str, str]:
    """The device by the name that torch gives it, and what it is."""
    import torch

    from lepton_vision.models.device import choose_device

    device = choose_device(name)
    return str(device), torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def show(seconds: dict[str, list[float]], options: argparse.Namespace, *, device_name: str) -> None:
    """Print medians, and ratios taken round by round."""
    print(f"{'':58} {'s/step':>8} {'images/s':>9} {'min-max':>13} {'time / (b)':>11} {'(a) / time':>11}")
    for way, times in seconds.items():
        middle = statistics.median(times)
        line = f"{TITLES[way]:58} {middle:8.3f} {options.batch_size / middle:9.1f} {min(times):6.3f}-{max(times):5.3f} "
        for top, bottom in ((times, seconds.get("ours")), (seconds.get("plain"), times)):
            is_there = top is not None and bottom is not None
            ratio = statistics.median(x / y for x, y in zip(top, bottom, strict=True)) if is_there else float("nan")
            line += f"{ratio:11.3f} "
        print(line)
    facts = f"batch {options.batch_size}, {options.workers} workers, {device_name}"
    print(f"n = {options.rounds} rounds of {options.steps} steps, {facts}")


def serve(way: str, end: Connection, folder: Path, options: argparse.Namespace, device_name: str) -> None:
    """Child process: one round whenever asked."""
    import torch

    device = torch.device(device_name)
    run_round = plain_rounds(options, device) if way == "plain" else our_rounds(way, folder, options, device=device)
    while True:
        try:
            end.recv()
        except EOFError:  # the parent is done, or gone
            return
        started = time.perf_counter()
        run_round()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        end.send(time.perf_counter() - started)


def plain_rounds(options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    import torch
    import torchvision

    model = torchvision.models.resnet18(num_classes=1)
    model.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    images, labels = torch.randn(options.batch_size, 1, 224, 224), torch.ones(options.batch_size, 1)
    if device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()

    def run_round() -> None:
        for _ in range(options.steps):
            optimizer.zero_grad()
            given, truth = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            torch.nn.functional.binary_cross_entropy_with_logits(model(given), truth).backward()
            optimizer.step()

    return run_round


def our_rounds(way: str, folder: Path, options: argparse.Namespace, *, device: torch.device) -> Callable[[], None]:
    import torch

    from lepton_vision.config import Config
    from lepton_vision.models import build_model
    from lepton_vision.models.allocator import keep_freed_memory
    from lepton_vision.training.distributed import World
    from lepton_vision.training.loop import make_stepper
    from lepton_vision.training.step import take_step
    from lepton_vision.types import Batch, Target

    keep_freed_memory()
    torch.backends.cudnn.benchmark = device.type == "cuda"  # as ``fit_model`` has it
    config = Config(targets=(Target("finding", "binary", ("no", "yes")),)).override(
        f"train.compile={str(way == 'compiled').lower()}",
        f"train.batch_size={options.batch_size}",
        f"train.workers={options.workers}",
        "preprocess.windows=[lung]",
    )
    if way in ("ours", "compiled"):
        images = torch.randn(options.batch_size, 1, 224, 224)
        labels = {"finding": torch.ones(options.batch_size)}
        batch = Batch(images, labels, torch.arange(options.batch_size), ("",) * options.batch_size)
        batch = batch.pin_memory() if device.type == "cuda" else batch

        def epoch(number: int) -> Iterator[Batch]:
            return iter([batch] * options.steps)
    else:
        loader = study_loader(folder / "study", config, cache_dir=folder / "cache" if way == "files" else None)

        def epoch(number: int) -> Iterator[Batch]:
            loader.sampler.set_epoch(number)
            return iter(loader)

    stepper = make_stepper(build_model(config), config, world=World(0, 1, device))
    forward = stepper.freeze(0)
    numbers = iter(range(1000))

    def run_round() -> None:
        for batch in epoch(next(numbers)):
            take_step(stepper, [batch], forward=forward, rate=1e-3)

    return run_round


def study_loader(study: Path, config, *, cache_dir: Path | None):  # type: ignore[no-untyped-def]
    from lepton_vision.manifest import Manifest
    from lepton_vision.transforms import make_loader

    manifest = Manifest.scan(study, labels=study.parent / "labels.csv")
    return make_loader(manifest, config, training=True, cache_dir=cache_dir)


def write_study(study: Path, *, count: int) -> None:
    """Write CT-like slices, 512 x 512, 16 bits, uncompressed, and a label table beside them."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["path,finding"]
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientID, dataset.Modality = f"p{number}", "CT"
        dataset.Rows = dataset.Columns = 512
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.PixelData = rng.integers(0, 2000, (512, 512), np.uint16).tobytes()
        dataset.save_as(study / f"{number}.dcm", enforce_file_format=True)
        rows.append(f"{number}.dcm,{'yes' if number % 2 else 'no'}")
    (study.parent / "labels.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
