"""Choice of a bundle's runtime, named or fastest in a short probe, each verified against torch in float32."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TypedDict

import numpy as np
import torch

from lepton_vision.config import fingerprint
from lepton_vision.errors import ConfigError
from lepton_vision.files import write_atomic
from lepton_vision.inference.engine import TORCH_ENGINES, Engine, runtime_name
from lepton_vision.inference.runtimes.cache import user_cache_folder
from lepton_vision.inference.runtimes.graphs import check_is_plain
from lepton_vision.inference.streams import Streams
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import choose_device, decision_precision
from lepton_vision.transforms.preprocess import to_input
from lepton_vision.transforms.resize import UInt16Pixels

ENGINES = ("torch", "openvino", "onnx")
TOLERANCE = {"fp32": 1e-4, "fp16": 0.005, "bf16": 0.02, "int8": 0.1}
"""Largest difference of a probability from torch in float32 on ``calibration_pixels``, by number format."""

_PACKAGES = {"torch": ("torch",), "openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}
_PROBE_ROUNDS = 3
_SAME = 1e-5  # what float32 may differ by from one runtime to another; a decision is as good as never so near
_LOGGER = logging.getLogger(__name__)


class _How(TypedDict):
    """Arguments that engines of any runtime and format share."""

    device: str
    batch_size: int
    streams: int


def load_engine(
    bundle: Bundle,
    *,
    engine: str = "torch",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    streams: int = 1,
) -> Engine:
    """Return the bundle on a runtime, after its probabilities were compared with those of torch in float32.

    Args:
        bundle: of any kind for torch; of images, without masks, for the others.
        engine: "torch", "torch-compile", "openvino", "onnx", a file that ``export`` wrote, or "auto": the fastest of
            torch, openvino and onnx here. What "auto" found is kept in the user's cache folder, by bundle, machine,
            batch size and versions.
        device: "auto", "cpu" …; runtimes other than torch run on the CPU.
        precision: "auto", "fp32", "bf16" or "fp16"; "auto" is fp32 on a CPU (see ``device.decision_precision``), and
            for torch where the fastest format of a GPU differs by more than ``TOLERANCE``.
        batch_size: images per step.
        streams: steps that may run at once on a CPU, see ``Streams``.

    Raises:
        ConfigError: an unknown or missing runtime, one that cannot run this bundle, or one whose probabilities differ
            by more than ``TOLERANCE``.
    """
    how: _How = {"device": device, "batch_size": batch_size, "streams": streams}
    if engine == "auto":
        engine = choose_engine(bundle, precision=precision, **how)
    made = Engine(bundle, engine=engine, precision=precision, **how)
    if _is_reference(made, engine):
        return made
    try:
        made.difference = check_engine(made)
    except ConfigError:
        if engine not in TORCH_ENGINES or precision != "auto" or made.precision == "fp32":
            raise
        return load_engine(bundle, engine=engine, precision="fp32", **how)
    return made


def _is_reference(made: Engine, engine: str) -> bool:
    """Whether there is nothing to compare: torch in float32 on the CPU, or a bundle of volumes or without targets."""
    bundle = made.bundle
    if bundle.config.is_volume or not bundle.targets:
        return True
    return engine == "torch" and made.device.type == "cpu" and made.precision == "fp32"


def check_engine(engine: Engine) -> float:
    """Return the largest difference of a probability from torch in float32 on a calibration batch.

    Raises:
        ConfigError: it is above ``TOLERANCE``, or not a number.
    """
    pixels = to_input(calibration_pixels(engine.bundle), engine.bundle.config.preprocess)
    found = engine.probabilities(pixels)
    true = Engine(engine.bundle, device="cpu", precision="fp32", batch_size=len(pixels)).probabilities(pixels)
    difference = max(float(np.abs(found[name] - true[name]).max()) for name in true)
    allowed = TOLERANCE[engine.number_format]
    if not difference <= allowed:
        raise ConfigError(
            f"Expected probabilities within {allowed:g} of torch in float32. Received: a difference of "
            f"{difference:.2g} from {engine.name}. Use the engine torch.",
            key="engine",
        )
    return difference


def warn_of_difference(engine: Engine, *, device: str) -> None:
    """Say how far probabilities are from those that ``evaluate`` computes on this device, where that may tell.

    Args:
        engine: that will score.
        device: that was asked for.
    """
    bundle, place = engine.bundle, choose_device(device)
    if bundle.config.is_volume or not bundle.targets:
        return
    usual = decision_precision("auto", place, has_runtimes=not bundle.gives_masks)
    if engine.name.startswith("torch ") and engine.precision == usual:
        return
    difference = engine.difference
    if difference is None or place.type != "cpu" or usual != "fp32":  # else it is the one that was measured
        pixels = to_input(calibration_pixels(bundle), bundle.config.preprocess)
        expected = Engine(bundle, device=device, batch_size=len(pixels)).probabilities(pixels)
        found = engine.probabilities(pixels)
        difference = max(float(np.abs(found[name] - expected[name]).max()) for name in expected)
    if difference > _SAME:
        _LOGGER.warning(
            "Probabilities of %s differ by up to %.2g (on 8 images of noise) from those of %s, by which evaluate and "
            "predict decide here: images that near the operating point may be called otherwise. Engine and precision "
            "auto agree.",
            engine.name,
            difference,
            runtime_name(place, usual),
        )


def calibration_pixels(bundle: Bundle) -> UInt16Pixels:
    """Return 8 images, (8, C, H, W) uint16: black, white, and noise of several grains; always the same."""
    rng, (height, width) = np.random.default_rng(0), bundle.config.preprocess.size
    images = np.zeros((8, bundle.channels, height, width), np.uint16)
    images[1] = 65535
    for number in range(2, 8):
        grain = 2 ** (number - 2)
        shape = (bundle.channels, -(-height // grain), -(-width // grain))
        coarse = rng.integers(0, 65536, shape).astype(np.uint16)
        images[number] = np.kron(coarse, np.ones((1, grain, grain), np.uint16))[:, :height, :width]
    return images


def choose_engine(bundle: Bundle, *, device: str, precision: str, batch_size: int, streams: int = 1) -> str:
    """Return the fastest runtime of this machine for a bundle; torch, without a probe, where it is the only one."""
    names = _candidates(bundle, device=device, precision=precision)
    if len(names) == 1:
        return names[0]
    file = _cache_file(bundle, names, precision=precision, batch_size=batch_size, streams=streams)
    try:
        kept = str(json.loads(file.read_text(encoding="utf-8"))["engine"])
        if kept in names:
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing kept, or damaged: measure anew
    speeds = probe(bundle, names, precision=precision, batch_size=batch_size, streams=streams)
    chosen = max(speeds, key=lambda name: speeds[name])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"engine": chosen, "images_per_s": speeds}))
    except OSError:
        pass  # a home that cannot be written: the next run measures again
    return chosen


def probe(
    bundle: Bundle, names: tuple[str, ...], *, precision: str, batch_size: int, streams: int = 1
) -> dict[str, float]:
    """Return images per second by runtime: medians of interleaved steps; those that fail their check are left out."""
    images = torch.zeros(batch_size, bundle.channels, *bundle.config.preprocess.size)
    with ExitStack() as held:
        found: dict[str, Streams] = {}
        for name in names:
            try:
                engine = load_engine(
                    bundle, engine=name, device="cpu", precision=precision, batch_size=batch_size, streams=streams
                )
            except ConfigError:
                continue
            found[name] = held.enter_context(closing(Streams(engine, way="streams")))
            _fill_streams(found[name], images)  # starts its threads, and what each of them needs
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(_PROBE_ROUNDS):
            for name, side_by_side in found.items():
                seconds[name].append(_fill_streams(side_by_side, images))
    return {name: found[name].engine.streams * batch_size / median(times) for name, times in seconds.items()}


def _fill_streams(streams: Streams, images: torch.Tensor) -> float:
    """Seconds that a step in each stream takes, all at once."""
    started = time.perf_counter()
    for step in [streams.submit(streams.engine.probabilities, images) for _ in range(streams.engine.streams)]:
        step.result()
    return time.perf_counter() - started


def _candidates(bundle: Bundle, *, device: str, precision: str) -> tuple[str, ...]:
    if choose_device(device).type != "cpu" or precision == "fp16" or bundle.gives_masks:
        return ("torch",)
    try:
        check_is_plain(bundle)
    except ConfigError:
        return ("torch",)
    return tuple(name for name in ENGINES if _versions(name) is not None)


def _versions(name: str) -> list[str] | None:
    try:
        return [version(package) for package in _PACKAGES[name]]
    except PackageNotFoundError:
        return None


def _cache_file(bundle: Bundle, names: tuple[str, ...], *, precision: str, batch_size: int, streams: int) -> Path:
    facts = {
        "bundle_id": bundle.bundle_id,
        "machine": [platform.node(), platform.machine(), os.cpu_count(), torch.get_num_threads()],
        "batch_size": batch_size,
        "streams": streams,
        "precision": precision,
        "versions": {name: _versions(name) for name in names},
    }
    return user_cache_folder() / "engines" / f"{fingerprint(facts)}.json"
