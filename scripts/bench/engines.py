"""Engines that run a bundle, interleaved: ms per image, times as fast as torch in fp32, largest difference from it.

`python scripts/bench/engines.py` takes a ResNet-18 with random weights; `--bundle DIR --manifest TABLE` takes yours and
adds int8, fitted on the train split and judged on the val split. Medians and the range over rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lepton_vision.config import Config
from lepton_vision.errors import LeptonError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes.choice import calibration_pixels
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.device import has_fast_bf16
from lepton_vision.pipeline.int8 import export_int8
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


def random_bundle(size: int, backbone: str) -> Bundle:
    torch.manual_seed(0)
    config = Config(targets=(SICK,)).override(f"preprocess.size=[{size}, {size}]", f"model.backbone={backbone}")
    state = build_model(config).state_dict()
    point = OperatingPoint({"sick": (0.5,)}, "stated")
    return Bundle(config=config, targets=config.targets, state=state, operating_point=point)


def int8_files(bundle: Bundle, manifest: Manifest, folder: Path, tolerance: float) -> dict[str, str]:
    found = {}
    for to, name in (("openvino", "int8.xml"), ("onnx", "int8.onnx")):
        try:
            told = export_int8(bundle, folder / name, to=to, manifest=manifest, tolerance=tolerance)
            print(f"{to} int8: {told['auroc']}, max difference on val {told['max_difference']:.4f}")
            found[f"{to} int8"] = str(folder / name)
        except LeptonError as error:
            print(f"{to} int8: {error}")
    return found


def make(bundle: Bundle, files: dict[str, str], batch: int, compiled: bool) -> dict[str, Engine]:
    wanted = {"torch fp32": ("torch", "fp32"), "torch bf16": ("torch", "bf16"), "onnx fp32": ("onnx", "fp32")}
    wanted |= {"openvino fp32": ("openvino", "fp32"), "openvino bf16": ("openvino", "bf16")}
    wanted |= {"torch-compile fp32": ("torch-compile", "fp32")} if compiled else {}
    wanted |= {name: (file, "auto") for name, file in files.items()}
    engines = {}
    for name, (engine, precision) in wanted.items():
        if precision == "bf16" and not has_fast_bf16():
            print(f"{name}: this CPU does not multiply in bf16")
            continue
        try:
            engines[name] = Engine(bundle, engine=engine, device="cpu", precision=precision, batch_size=batch)
        except LeptonError as error:
            print(f"{name}: {error}")
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.002, help="of the AUROC with int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: minutes to start")
    options = parser.parse_args()
    bundle = random_bundle(options.size, options.backbone) if options.bundle is None else Bundle.load(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        manifest = None if options.manifest is None else Manifest.load(options.manifest)
        files = {} if manifest is None else int8_files(bundle, manifest, Path(folder), options.tolerance)
        engines = make(bundle, files, options.batch_size, options.compile)
    noise = to_input(calibration_pixels(bundle), bundle.config.preprocess)
    images = np.tile(noise, (-(-options.batch_size // len(noise)), 1, 1, 1))[: options.batch_size]
    true = engines["torch fp32"].probabilities(noise)
    difference = {}
    for name, engine in engines.items():
        found = engine.probabilities(noise)
        difference[name] = max(float(np.abs(found[key] - true[key]).max()) for key in true)
        engine.probabilities(images)
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.probabilities(images)
            taken[name].append(1000.0 * (time.perf_counter() - started) / options.batch_size)
    reference = statistics.median(taken["torch fp32"])
    print(f"{torch.get_num_threads()} threads, batch {options.batch_size}, n = {options.rounds} rounds")
    print(f"{'engine':<20}{'ms/image':>10}{'min':>8}{'max':>8}{'x torch':>9}{'difference':>12}")
    for name, values in taken.items():
        middle = statistics.median(values)
        times = f"{middle:>10.2f}{min(values):>8.2f}{max(values):>8.2f}{reference / middle:>9.2f}"
        print(f"{name:<20}{times}{difference[name]:>12.1e}")


if __name__ == "__main__":
    main()
