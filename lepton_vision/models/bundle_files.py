"""Files of a bundle on disk: written atomically, and read only if their checksums match.

``weights.safetensors`` holds tensors, ``bundle.json`` everything else, the checksums of both included. Neither can hold
code, so a bundle from elsewhere may be opened.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from torch import Tensor

from lepton_vision.errors import BundleError, explain_os_error
from lepton_vision.files import sync_folder, write_atomic

WEIGHTS, FACTS = "weights.safetensors", "bundle.json"
FORMAT, VERSION = "lepton_vision bundle", 1
SEALS: Final[Mapping[str, str]] = {
    "format": "what the file is",
    "version": "of the format; a newer one is refused",
    "weights_sha256": "SHA-256 of the file of tensors",
    "checksum": "SHA-256 of all other keys as canonical JSON",
}
"""Keys that say whether the files are whole; taken off when they are read."""


def is_bundle(folder: Path) -> bool:
    """Whether the folder holds the description of a bundle."""
    try:
        return (folder / FACTS).is_file()
    except (OSError, ValueError):
        return False


def write_bundle_files(folder: Path, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Write both files into a new folder beside ``folder``, then let it take that name.

    A bundle that is replaced is first moved to ``.<name>.previous``, and deleted when the new one stands; should the
    process die between the two renames, ``read_bundle_files`` names that folder.

    Raises:
        BundleError: ``folder`` is something else than a bundle, or cannot be written.
    """
    if folder.exists() and not is_bundle(folder) and not _is_empty(folder):
        raise BundleError("Something that is no bundle stands there already. Name another folder.", path=folder)
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    advice = "Free space, or name a folder that can be written."
    try:
        with explain_os_error("write the bundle", error=BundleError, advice=advice, path=folder):
            temporary.mkdir(parents=True)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
            weights = safetensors.torch.save(tensors)
            write_atomic(temporary / WEIGHTS, weights)
            described = {"format": FORMAT, "version": VERSION, **facts, "weights_sha256": _sha256(weights)}
            described["checksum"] = _checksum(described)
            write_atomic(temporary / FACTS, json.dumps(described, indent=1, allow_nan=False) + "\n")
            _take_name(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_bundle_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts (format, version and checksums taken off) and the tensors.

    Raises:
        BundleError: no bundle, a damaged one, or one of a newer format.
    """
    facts = _read_facts(folder)
    weights = _read(folder, WEIGHTS)
    if _sha256(weights) != facts.pop("weights_sha256", None):
        raise BundleError(f"{WEIGHTS} is damaged (its checksum differs). Copy the bundle again.", path=folder)
    try:
        return facts, safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise BundleError(f"{WEIGHTS} cannot be read ({error}). Train again.", path=folder) from None


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_read(folder, FACTS))
    except (ValueError, RecursionError):  # ValueError: JSON and UTF-8
        raise BundleError(f"{FACTS} is damaged: it is no JSON. Copy the bundle again.", path=folder) from None
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise BundleError(f"{FACTS} does not describe a bundle. Name the folder that `train` wrote.", path=folder)
    version = facts.pop("version", None)
    if isinstance(version, int) and version > VERSION:
        raise BundleError(
            f"Expected format {VERSION} of the bundle. Received: {version}, from a newer lepton_vision. Upgrade it.",
            path=folder,
        )
    checksum = facts.pop("checksum", None)
    if version != VERSION or checksum != _checksum({"format": FORMAT, "version": version, **facts}):
        raise BundleError(
            f"{FACTS} was changed or damaged (its checksum differs). Copy the bundle again; to change the operating "
            "point use with_operating_point and save.",
            path=folder,
        )
    return facts


def _read(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        previous = _previous(folder.absolute())
        if previous.is_dir():
            raise BundleError(
                "A run was killed while it replaced this bundle. Run it again, or rename the folder "
                ".<name>.previous beside it: that is the former bundle.",
                path=previous,
            )
        raise BundleError("There is no such bundle. Name the folder that `train` wrote.", path=folder)
    try:
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise BundleError(
                f"Expected {name} to be a file of the bundle's own. Received: a link, folder, device or pipe. Copy the "
                "bundle with its files in it.",
                path=folder,
            )
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"The bundle is incomplete: {name} is missing. Copy the whole folder again.", path=folder
        ) from None
    except OSError as error:
        raise BundleError(f"Cannot read {name}: {error.strerror}.", path=folder) from None


def _take_name(temporary: Path, folder: Path) -> None:
    sync_folder(temporary)
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    temporary.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(facts: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
