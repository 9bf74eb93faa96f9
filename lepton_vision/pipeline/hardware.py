"""Hardware that this process may use: processors, memory, GPUs and room in folders."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

_GB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


def processor() -> str:
    """Name of the processor, as the system has it."""
    lines = _lines(Path("/proc/cpuinfo"))
    named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may use: those it is bound to, within the quota of its container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = " ".join(_lines(_CGROUP / "cpu.max")).split()
    quota = int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else math.inf
    return max(1, min(bound, math.ceil(quota) if math.isfinite(quota) else bound))


def memory_gb() -> tuple[float, float]:
    """Memory in GiB that this process may use, and what of it is free; NaN where the system does not say."""
    found = {line.split(":")[0]: line.split()[1] for line in _lines(Path("/proc/meminfo")) if len(line.split()) > 1}
    total, free = (int(found[key]) * 1024 / _GB if key in found else math.nan for key in ("MemTotal", "MemAvailable"))
    if math.isnan(total) and sys.platform != "win32":
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GB
    allowed = _number(_lines(_CGROUP / "memory.max"))
    if not math.isnan(allowed):
        used = _number(_lines(_CGROUP / "memory.current"))
        total, free = min(total, allowed / _GB), min(free, max(allowed - used, 0.0) / _GB)
    return total, free


def has_nvidia_driver() -> bool:
    """Whether a driver of NVIDIA is loaded, of whatever version torch is."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def free_gb(folder: Path) -> float:
    """Free room in GiB where a folder is, or would be made; NaN where that cannot be known."""
    try:
        return shutil.disk_usage(existing(folder)).free / _GB
    except OSError:
        return math.nan


def is_writable(folder: Path) -> bool:
    """Whether this user may write to a folder, or make it."""
    return os.access(existing(folder), os.W_OK)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path(folder.anchor or "."))


def size_gb(folder: Path) -> float:
    """Size in GiB of all files below a folder; 0 where there is none."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return sum(sizes) / _GB


def shown_path(path: Path) -> str:
    """A path without the name of the user: by ``~``, or by the variable of the environment that it is below."""
    for name, place in _places():
        if place != Path(place.anchor) and path.is_relative_to(place):
            rest = path.relative_to(place).as_posix()
            return name if rest == "." else f"{name}/{rest}"
    return str(path) if path.parent == Path(path.anchor) or path.is_relative_to("/var/tmp") else f"…/{path.name}"  # noqa: S108


def _places() -> Iterable[tuple[str, Path]]:
    yield "~", Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home() raises where HOME is unset
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "APPDATA", "TMPDIR", "TEMP"):
        if os.environ.get(name):
            yield f"${name}", Path(os.environ[name])


def shared_memory_gb() -> float:
    """Size in GiB of the memory that processes share as files; NaN where there is none."""
    shared = Path("/dev/shm")  # noqa: S108
    return shutil.disk_usage(shared).total / _GB if shared.is_dir() else math.nan


def temporary_folder() -> Path:
    """Folder for temporary files."""
    return Path(tempfile.gettempdir())


def _number(lines: list[str]) -> float:
    return float(lines[0]) if lines and lines[0].strip().isdigit() else math.nan


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
