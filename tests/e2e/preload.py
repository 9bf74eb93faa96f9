"""What the server imports whose forks run the commands of the end-to-end tests, and what a fork does."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path

for name in (
    "lepton_vision.cli.app",
    "lepton_vision.manifest.build",
    "lepton_vision.pipeline.study",
    "lepton_vision.pipeline.facts",
    "lepton_vision.inference.engine",
    "lepton_vision.reporting.classes.card",
    "lepton_vision.scoring.batch",
):
    import_module(name)


def run_here(words: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    """Become the command line: its words, environment, folder and output; it ends with its exit code."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("wb") as file:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["lepton-vision", *words]
    warnings.simplefilter("ignore")
    import_module("lepton_vision.cli.app").main()
