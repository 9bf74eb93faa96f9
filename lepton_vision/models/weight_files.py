"""Tensors out of a file, without running anything that the file says."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lepton_vision.errors import WeightsError

# Where training scripts put the state dict inside what they save.
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "network", "net", "encoder", "weights")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read all float and integer tensors of a .pt, .pth, .safetensors or .npz file; pickled objects are refused.

    Raises:
        WeightsError: no such file, another format, a damaged file, or one that holds more than tensors.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".pt": _read_torch,
        ".pth": _read_torch,
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
    }
    if path.suffix.lower() not in readers:
        raise WeightsError(
            f"Expected 'none', 'imagenet' or a file ({', '.join(readers)}). Received: suffix {path.suffix!r}.",
            path=path,
            key="model.weights",
        )
    if not path.is_file():
        raise WeightsError(
            "The file of weights does not exist. Correct model.weights, or set it to 'none' for random weights.",
            path=path,
            key="model.weights",
        )
    try:
        return readers[path.suffix.lower()](path)
    except WeightsError:
        raise
    except (pickle.UnpicklingError, _Objects):
        raise WeightsError(
            "The file of weights holds more than tensors, and loading that would run its code: refused. Save its state "
            "dict alone, as .safetensors, where you trust it.",
            path=path,
            key="model.weights",
        ) from None
    except Exception as error:  # torch, zip and safetensors raise a dozen types on damage
        raise WeightsError(
            f"The file of weights cannot be read ({type(error).__name__}): damaged, or of another format than its "
            "suffix says. Get it again.",
            path=path,
            key="model.weights",
        ) from None


class _Objects(Exception):  # noqa: N818 - never leaves this file
    """An array of Python objects."""


def _read_torch(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about what it then refuses, or loads all the same
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    return _unwrap(loaded, path)


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the mapping of names to tensors inside ``loaded``, at most two wrappings deep."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        loaded = next((loaded[key] for key in _WRAPPINGS if key in loaded), None)
    raise WeightsError(
        f"Expected a state dict, plain or under one of the keys {', '.join(_WRAPPINGS)}. Received: neither.",
        path=path,
        key="model.weights",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError("not a zip archive")
    tensors = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                array = archive[name]
            except ValueError as error:
                raise _Objects if "pickle" in str(error) else error from None
            tensors[name] = torch.from_numpy(np.array(array))  # a copy: torch wants a writable array
    return tensors
