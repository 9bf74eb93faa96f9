"""Safe reading of tensors from weight files, without executing their content."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lepton_vision.errors import WeightsError

SUFFIXES = (".pt", ".pth", ".pth.tar", ".ckpt", ".bin", ".safetensors", ".npz")
"""What files of weights are called; what they are is told by their content."""
_DEEPEST = 4  # mappings inside each other that are looked into
_KINDS = {  # first bytes of what people take for weights
    b"\x89HDF": "an HDF5 file, as Keras writes it. Use weights of PyTorch",
    b"\x1f\x8b": "a compressed file. Unpack it",
    b"version https://git-lfs": "a pointer of Git LFS. Fetch the file itself (git lfs pull)",
    b"<": "a web page. Download the file itself",
}
_CONVERT = (
    "Where you trust the file, save its tensors alone, once: python -c \"import torch; x = torch.load('OLD', "
    "map_location='cpu', weights_only=False); x = x.state_dict() if isinstance(x, torch.nn.Module) else x; "
    "torch.save(x.get('state_dict', x.get('model', x)), 'NEW.pt')\", and set model.weights to the new file."
)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a file of torch, safetensors or NumPy; pickled objects are refused.

    Tensors in mappings inside others, as of a checkpoint, have names with dots: ``state_dict.conv1.weight``.

    Raises:
        WeightsError: no such file, another format, a damaged file, or one that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        is_named = path.name.lower().endswith(SUFFIXES)
        raise WeightsError(
            "The file of weights does not exist. Correct model.weights, or set it to 'none' for random weights."
            if is_named
            else f"Expected 'none', 'imagenet' or a file ({', '.join(SUFFIXES)}). Received: a name with suffix "
            f"{path.suffix!r} that is no file.",
            path=path,
            key="model.weights",
        )
    try:
        return _choose_reader(path)(path)
    except WeightsError:
        raise
    except (pickle.UnpicklingError, _Objects) as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise WeightsError(
            f"The file of weights holds more than tensors{f' ({named[1]})' if named else ''}, and loading that would "
            f"run its code: refused. {_CONVERT}",
            path=path,
            key="model.weights",
        ) from None
    except Exception as error:  # torch, zip and safetensors raise a dozen types on damage
        raise WeightsError(
            f"The file of weights cannot be read ({type(error).__name__}): damaged, or only a part of it. Get it "
            "again.",
            path=path,
            key="model.weights",
        ) from None


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts that a file which can be read has beside its tensors, as of a licence; {} for NumPy's."""
    reader = _choose_reader(path)
    texts: Mapping[Any, Any] = {}
    if reader is _read_safetensors:
        with safetensors.safe_open(path, framework="pt") as opened:
            texts = opened.metadata() or {}
    elif reader is _read_torch:
        texts = _load_torch(path)
    return {name: text for name, text in texts.items() if isinstance(name, str) and isinstance(text, str)}


def keeps_order(path: Path) -> bool:
    """Whether a file that can be read has its tensors in the order of the network; safetensors are sorted."""
    with path.open("rb") as file:
        return file.read(9)[8:] != b"{"


class _Objects(Exception):  # noqa: N818 - never leaves this file
    """An array of Python objects."""


def _choose_reader(path: Path) -> Callable[[Path], dict[str, Tensor]]:
    """Tell by the content what reads a file: people name weights as they like.

    Raises:
        WeightsError: nothing reads it.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
        if "constants.pkl" in names:
            raise _refused(
                "a TorchScript archive, which is code. Save its tensors: torch.jit.load(…).state_dict()", path
            )
        if "data.pkl" in names:
            return _read_torch
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz
        raise _refused("an archive. Unpack it", path)
    if head.startswith(b"\x80"):
        return _read_torch
    if head[8:9] == b"{":
        return _read_safetensors
    if head[257:262] == b"ustar":
        raise _refused("an archive. Unpack it", path)
    raise _refused(next((text for start, text in _KINDS.items() if head.startswith(start)), "something else"), path)


def _refused(what: str, path: Path) -> WeightsError:
    return WeightsError(
        f"Expected a file of weights as torch, safetensors or NumPy (.npz) write them. Received: {what}.",
        path=path,
        key="model.weights",
    )


def _read_torch(path: Path) -> dict[str, Tensor]:
    return dict(_flat(_load_torch(path)))


def _load_torch(path: Path) -> Mapping[Any, Any]:
    with warnings.catch_warnings(), _plain_numbers():
        warnings.simplefilter("ignore")  # torch warns about what it then refuses, or loads all the same
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    return loaded if isinstance(loaded, Mapping) else {}


def _plain_numbers() -> contextlib.AbstractContextManager[object]:
    """Let NumPy's numbers pass, as of a best accuracy beside the weights."""
    allow: Any = getattr(torch.serialization, "safe_globals", None)  # torch 2.4 lacks it
    scalar: Any = np.float64(0.0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return contextlib.nullcontext() if allow is None else allow([scalar, np.dtype, *kinds])


def _flat(values: Mapping[Any, Any], *, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name; what is numbered, as the state of an optimiser, is none of a network."""
    for name, value in values.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(name, str) and isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _flat(value, prefix=f"{prefix}{name}.", depth=depth + 1)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    tensors = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                array = archive[name]
            except ValueError as error:
                raise _Objects if "pickle" in str(error) else error from None
            tensors[name] = torch.from_numpy(np.array(array))  # a copy: torch wants a writable array
    return tensors
