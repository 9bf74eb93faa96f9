"""One small demo run, shared by the end-to-end tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.preload import run_here

# Forks of a process that has imported what commands take seconds to import; no child has the state of another.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.e2e.preload"])


def command_of(*arguments: str | Path) -> list[str]:
    """The command line in a process that starts cold, as users start it."""
    return [sys.executable, "-W", "ignore", "-m", "lepton_vision.cli", *map(str, arguments)]


def run_cli(*arguments: str | Path, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, which need not import everything again."""
    words, known = [str(one) for one in arguments], {**os.environ, **environment}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = FORKS.Process(target=run_here, args=(words, known, Path.cwd(), out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        told = [path.read_text(encoding="utf-8") for path in (out, err)]
        return subprocess.CompletedProcess(words, int(process.exitcode or 0), *told)


def run_json(*arguments: str | Path) -> dict[str, Any]:
    """Run a command with --json; it must succeed and print exactly one object to stdout."""
    return parsed(run_cli(*arguments, "--json"))


def parsed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a command printed, which must have succeeded."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class Demo:
    folder: Path
    result: dict[str, Any]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = command_of("demo", "--out", folder, "--patients", "120", "--json")
    return Demo(folder, parsed(subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)))
