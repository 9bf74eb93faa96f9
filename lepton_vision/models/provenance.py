"""Provenance of a model: facts that may leave the machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lepton_vision._version import __version__
from lepton_vision.config import ENCODERS, Config
from lepton_vision.errors import BundleError
from lepton_vision.registry import Home

MEANINGS: Final[Mapping[str, str]] = {
    "versions": "of Python, this package, torch, numpy, pydicom, OpenCV and albumentations",
    "seed": "of the training",
    "created": "time in UTC",
    "data_fingerprint": "of the manifest that it was trained on",
    "id_key": "check value of the key that ids were made with, where it is known",
    "kept_epoch": "epoch whose weights these are, from 0",
    "validation": "validation figures of that epoch",
    "not_validated": "what validation could not choose, as it lacks labels or classes",
    "initial_weights": "source, licence and author of the weights at the start, as far as they are stated",
    "own_parts": "parts that were given to `fit`: loss, optimizer, schedule, figures, augment",
    "augment": "description of an augmentation that was given",
    "unit_of_analysis": "where cases are series, studies or patients: how images are joined, and their operating point",
}
"""What stands under ``provenance`` in a bundle, each where there is any."""

_PACKAGES = ("torch", "numpy", "pydicom", "opencv-python-headless", "albumentations")


def complete_provenance(given: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Return ``given`` as plain JSON values, with versions, seed and time of creation where it lacks them.

    NaN becomes None, a path becomes its last part.
    """
    added = {
        "versions": versions(),
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {str(name): _plain(value) for name, value in {**added, **given}.items()}


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of those that a prediction depends on."""
    found = {"python": platform.python_version(), "lepton_vision": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def without_paths(config: Config) -> Config:
    """Return ``config`` with every path reduced to its last part: folder names are nobody else's business."""
    model = config.model.model_copy(
        update={
            "weights": _last_part(config.model.weights),
            "init_from": None if config.model.init_from is None else _last_part(config.model.init_from),
        }
    )
    pipeline = config.augment.pipeline
    augment = config.augment.model_copy(update={"pipeline": pipeline and _last_part(pipeline)})
    cache = config.cache.model_copy(update={"folder": None})
    return config.model_copy(update={"model": model, "augment": augment, "cache": cache})


def encoder_facts(config: Config) -> dict[str, Any]:
    """Return who must be asked for the encoder of a bundle, under ``encoder``; {} where it is one of ours."""
    name, source = config.model.backbone, config.model.source
    if config.model.is_resnet:
        return {}
    if source:
        return {"encoder": asdict(Home(name, source, source, metadata.version(source)))}
    return {"encoder": asdict(ENCODERS.home(name))}


def require_encoder(facts: Mapping[str, Any] | None) -> None:
    """Refuse a bundle whose encoder nobody here knows. Nothing is imported by its name: a bundle runs no code.

    Args:
        facts: what ``encoder_facts`` gave for the bundle, or None.

    Raises:
        BundleError: the message says which package to install, or which module to import.
    """
    if facts is None or facts["name"] in ENCODERS.names():
        return
    name, module, distribution = facts["name"], facts["module"], facts["distribution"]
    if ":" in name and find_spec(module) is not None:
        return
    if distribution:
        what = f"Install the package {distribution} ({facts['version']})"
        if ":" not in name:
            what += f", or import {module} first, if it names no entry point of the group {ENCODERS.group}"
    elif module == "__main__":
        what = "Run the lines of the script or notebook that registered it first"
    else:
        what = f"Import the module {module}, which registered it, first"
    raise BundleError(f"Its encoder {name!r} is not known here. {what}.", key="model.backbone")


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, bool | int | None):
        return value
    text = str(value)
    is_path = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return _last_part(text) if is_path else text
