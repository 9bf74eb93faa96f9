"""Facts of this machine: packages, device, extras, decoders, folders and limits, and what to do about them."""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from lepton_vision._version import __version__
from lepton_vision.errors import LeptonError, install_command
from lepton_vision.inference.runtimes.cache import user_cache_folder
from lepton_vision.pipeline import hardware
from lepton_vision.readers import identity
from lepton_vision.readers.dicom.codecs import Codec, check_codecs
from lepton_vision.readers.limits import Limits
from lepton_vision.types import Plain, Result, Table
from lepton_vision.types.id_key import ENVIRONMENT_KEY

_NAME = "lepton-vision"
_DEVELOPMENT = ("dev", "docs")  # extras of those who work on the package
_LITTLE_GB = 1.0  # of room or memory, below which runs end early
_LITTLE_SHARED_GB = 0.25  # containers have 64 MiB, which loaders of several processes exceed
_FEW_FILES = 1024


@dataclass(frozen=True, slots=True)
class Package(Plain):
    """A dependency: the versions that are needed, and the one that is installed ("" where none is)."""

    name: str
    needs: str
    has: str
    is_ok: bool


@dataclass(frozen=True, slots=True)
class Extra(Plain):
    """An extra: the packages that are missing, and the command that installs them."""

    name: str
    missing: tuple[str, ...]
    command: str


@dataclass(frozen=True, slots=True)
class Advice(Plain):
    """What is missing or unwise on this machine, and what to do; the package does not work where it is necessary."""

    found: str
    do: str
    is_necessary: bool


@dataclass(frozen=True, slots=True)
class Machine(Result):
    """What this machine has, without the name of its user.

    Attributes:
        version: of this package.
        python: version and system.
        device: processor, cores that may be used, memory [GiB], GPUs, and what "auto" takes.
        packages: core dependencies.
        extras: optional ones.
        codecs: compressed DICOM transfer syntaxes.
        storage: cache and temporary folder, with size and free room [GiB].
        ids: where the key of ids comes from, and its check value.
        process: start method, open files, encoding, and limits of one input.
        advice: what to do.
    """

    version: str
    python: str
    device: Mapping[str, Any]
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    codecs: tuple[Codec, ...]
    storage: Mapping[str, Any]
    ids: Mapping[str, str]
    process: Mapping[str, Any]
    advice: tuple[Advice, ...]
    _json = (
        *("is_usable", "version", "python", "device", "packages", "extras", "codecs", "storage", "ids", "process"),
        "advice",
    )

    @property
    def is_usable(self) -> bool:
        """Whether nothing necessary is missing or broken."""
        return not any(one.is_necessary for one in self.advice)

    def summary(self) -> dict[str, Any]:
        """The same for people: a line for each package, extra and transfer syntax, what to do last."""
        todo = [f"{one.found} {one.do}" for one in self.advice]
        return {
            "lepton_vision": self.version,
            "python": self.python,
            "device": dict(self.device),
            "packages": {one.name: _of_package(one) for one in self.packages},
            "extras": {one.name: _of_extra(one) for one in self.extras},
            "DICOM decoders": {one.syntax: _of_codec(one) for one in self.codecs},
            "storage": dict(self.storage),
            "ids": dict(self.ids),
            "process": dict(self.process),
            "to do": dict(enumerate(todo, start=1)) if todo else "nothing: this machine is ready",
        }

    def _tables(self) -> Iterator[Table]:
        yield Table(f"lepton_vision {self.version} · Python {self.python}")
        yield Table("to do", [(one.found, one.do) for one in self.advice]) if self.advice else Table("nothing to do")
        yield Table("device", self.device.items())
        missing = [(one.name, one.command) for one in self.extras if one.missing]
        yield Table("extras that are not installed", missing) if missing else Table("all extras are installed")


def examine_machine() -> Machine:
    """Return what this machine has; nothing is written, no key of ids is made, nothing is sent."""
    needed, optional = _requirements()
    packages = tuple(_package(one) for one in needed)
    extras = tuple(
        Extra(name, tuple(one.name for one in wanted if not _package(one).is_ok), install_command(name))
        for name, wanted in optional.items()
    )
    codecs = check_codecs()
    parts = [_device(), _storage(), _ids(), _process()]
    device, storage, ids, process = (part.facts for part in parts)
    found = [*_of_packages(packages), *(advice for part in parts for advice in part.advice)]
    if not any(one.is_necessary for one in parts[-1].advice):  # processes that decode read the same settings
        found += _of_codecs(codecs)
    return Machine(
        version=__version__,
        python=f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        device=device,
        packages=packages,
        extras=extras,
        codecs=codecs,
        storage=storage,
        ids=ids,
        process=process,
        advice=tuple(sorted(found, key=lambda one: not one.is_necessary)),
    )


class _Part(NamedTuple):
    facts: dict[str, Any]
    advice: list[Advice]


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Core dependencies, and those of each extra; none where the package runs without being installed."""
    try:
        found = [Requirement(text) for text in metadata.requires(_NAME) or ()]
        names = metadata.metadata(_NAME).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return [], {}
    core = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    others = [one for one in found if one not in core]
    return core, {name: list(_of_name(name, others)) for name in names if name not in _DEVELOPMENT}


def _of_name(extra: str, found: Iterable[Requirement]) -> Iterator[Requirement]:
    """Requirements of an extra, and of the extras that it names."""
    for one in found:
        if one.marker is not None and one.marker.evaluate({"extra": extra}):
            if one.name == _NAME:
                yield from (other for name in sorted(one.extras) for other in _of_name(name, found))
            else:
                yield one


def _package(wanted: Requirement) -> Package:
    try:
        has = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Package(wanted.name, str(wanted.specifier), "", is_ok=False)
    return Package(wanted.name, str(wanted.specifier), has, wanted.specifier.contains(has, prereleases=True))


def _of_extra(one: Extra) -> str:
    return f"not installed: {one.command}" if one.missing else "installed"


def _of_codec(one: Codec) -> str:
    return f"{one.fault or 'works'} ({one.decoder}; {one.name})"


def _of_package(one: Package) -> str:
    return f"{one.has or 'not installed'} (needs {one.needs}){'' if one.is_ok else ' ✗'}"


def _of_packages(packages: Iterable[Package]) -> Iterator[Advice]:
    found = tuple(packages)
    if not found:
        do = f"In the folder that holds pyproject.toml: {install_command()}"
        yield Advice("The package is not installed, so that its dependencies are not known.", do, is_necessary=False)
    for one in found:
        if not one.is_ok:
            told = f"{one.name} {one.has} is too old or too new." if one.has else f"{one.name} is not installed."
            yield Advice(told, f"Install it with: pip install '{one.name}{one.needs}'.", is_necessary=True)


def _of_codecs(codecs: Iterable[Codec]) -> Iterator[Advice]:
    faults = {one.decoder: one.fault for one in codecs if one.fault}
    for decoder, fault in faults.items():
        names = ", ".join(one.name for one in codecs if one.decoder == decoder and one.fault)
        do = f"Install it again with: pip install --force-reinstall --no-deps {decoder}."
        yield Advice(f"DICOM files of {names} cannot be read: {fault.rstrip('.')}.", do, is_necessary=True)


def _device() -> _Part:
    total, free = hardware.memory_gb()
    facts: dict[str, Any] = {"processor": hardware.processor(), "cores": hardware.cores()}
    facts |= {"memory_gb": round(total, 1), "memory_free_gb": round(free, 1)}
    advice = []
    if free < _LITTLE_GB:
        told = f"{free:.1f} GiB of memory are free."
        advice.append(Advice(told, "Training takes more: end other programs, or take another machine.", False))
    try:
        from lepton_vision.pipeline.device_facts import device_facts
    except (ImportError, OSError) as error:  # OSError: a library of torch that does not load
        told = f"torch cannot be loaded ({type(error).__name__})."
        do = "Install it again with: pip install --force-reinstall torch torchvision."
        return _Part(facts | {"device": "none"}, [*advice, Advice(told, do, is_necessary=True)])
    found = device_facts()
    if found["device"] == "cpu" and hardware.has_nvidia_driver():
        told = f"A driver of NVIDIA is here, and torch {found['torch']} sees no GPU."
        do = "Install a build of torch for CUDA (pytorch.org/get-started), or look at CUDA_VISIBLE_DEVICES."
        advice.append(Advice(told, do, is_necessary=False))
    if found["threads"] > facts["cores"]:
        told = f"torch takes {found['threads']} threads for {facts['cores']} cores."
        advice.append(Advice(told, f"Set OMP_NUM_THREADS={facts['cores']}.", is_necessary=False))
    return _Part(facts | found, advice)


def _storage() -> _Part:
    folders = {"cache": user_cache_folder(), "temporary": hardware.temporary_folder()}
    facts, advice = dict[str, Any](), list[Advice]()
    for name, folder in folders.items():
        free = hardware.free_gb(folder)
        facts[name] = hardware.shown_path(folder)
        facts |= {"cache_gb": round(hardware.size_gb(folder), 3)} if name == "cache" else {}
        facts[f"{name}_free_gb"] = round(free, 1)
        if free < _LITTLE_GB:
            where = "XDG_CACHE_HOME" if name == "cache" else "TMPDIR"
            told = f"The {name} folder {facts[name]} has {free:.1f} GiB of room."
            advice.append(Advice(told, f"Make room, or set {where} to another folder.", is_necessary=False))
        if not hardware.is_writable(folder):
            told = f"The {name} folder {facts[name]} cannot be written to."
            advice.append(Advice(told, "Give this user the right, or name another folder.", name == "temporary"))
    shared = hardware.shared_memory_gb()
    facts |= {} if math.isnan(shared) else {"shared_memory_gb": round(shared, 2)}
    if shared < _LITTLE_SHARED_GB:
        told = f"/dev/shm has {shared * 1024:.0f} MiB, which loaders of several processes exceed."  # noqa: S108
        advice.append(
            Advice(told, "Start the container with --shm-size=8g, or set train.workers=0.", is_necessary=False)
        )
    return _Part(facts, advice)


def _ids() -> _Part:
    source, path = identity.key_source(), identity.key_path()
    shown, variable = hardware.shown_path(path), ENVIRONMENT_KEY
    told = {
        "environment": f"environment ({variable})",
        "file": f"file {shown}",
        "none": f"none yet: the first scan makes {shown}; set {variable} where machines must agree",
    }
    facts, advice = {"key": told[source]}, list[Advice]()
    if source == "none" and not hardware.is_writable(path.parent):
        do = f"Set {variable} to a secret text."
        return _Part(facts, [Advice(f"No key of ids can be kept in {shown}.", do, is_necessary=True)])
    if source != "none":
        try:
            facts["key_check"] = identity.key_check()
        except LeptonError as error:
            return _Part(facts, [Advice(str(error), "Its ids are of no other machine.", is_necessary=True)])
    if source == "file" and sys.platform != "win32" and path.stat().st_mode & 0o077:
        do = f"Keep it for yourself: chmod 600 {shown}."
        advice.append(Advice("Other users can read the key of ids.", do, is_necessary=False))
    return _Part(facts, advice)


def _process() -> _Part:
    facts: dict[str, Any] = {"start_method": multiprocessing.get_all_start_methods()[0]}  # the first is the default
    facts |= {"encoding": sys.getfilesystemencoding(), "locale": os.environ.get("LC_ALL") or os.environ.get("LANG", "")}
    advice = []
    try:
        limits = Limits()
        facts |= {"file_seconds": limits.seconds, "file_memory_gb": limits.memory / 2**30}
    except LeptonError as error:
        advice.append(Advice(str(error), "Until then no command reads a file.", is_necessary=True))
    if sys.platform != "win32":
        import resource

        facts["open_files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if facts["open_files"] < _FEW_FILES:
            told = f"This shell allows {facts['open_files']} open files."
            advice.append(Advice(told, "Loaders may need more: ulimit -n 4096.", is_necessary=False))
    if facts["encoding"].replace("-", "").lower() != "utf8":
        told = f"Names of files are read as {facts['encoding']}."
        advice.append(Advice(told, "Names with other letters fail: set LC_ALL=C.UTF-8.", is_necessary=False))
    return _Part(facts, advice)
