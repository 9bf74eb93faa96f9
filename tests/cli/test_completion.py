"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_vision.cli.completion import one_of, setting

MAIN = "import sys; sys.argv[0] = 'lepton-vision'; from lepton_vision.cli import main; main()"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def completed(line: str) -> list[str]:
    words = line.split(" ")
    asked = {"_LEPTON_VISION_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = run(**asked)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shell_is_printed(shell: str) -> None:
    done = run("--show-completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"_LEPTON_VISION_COMPLETE=complete_{shell}" in done.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lepton-vision ex", ["export", "export-mask"]),
        ("lepton-vision score --mask-f", ["--mask-format"]),
        ("lepton-vision score --mask-format ", ["auto", "nifti", "png", "dicom"]),
        ("lepton-vision train --set model.back", ["model.backbone="]),
        ("lepton-vision evaluate --split te", ["test"]),
    ],
)
def test_commands_options_and_values_are_completed(line: str, found: list[str]) -> None:
    assert completed(line) == found


def test_settings_are_completed_with_the_names_that_they_take() -> None:
    assert "model.backbone=resnet18" in setting("model.backbone=res")
    assert setting("augment.preset=n") == ["augment.preset=none"]
    assert "volume.view=2.5d" in setting("volume.view=")
    assert setting("train.epochs=") == []
    assert setting("nonsense") == []
    assert one_of("bca", "percentile")("p") == ["percentile"]


def test_completion_is_installed_for_a_named_shell(tmp_path: Path) -> None:
    done = run("--install-completion", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Written to ~/.bash_completions/lepton-vision.sh: start the shell again.\n"
    assert "_LEPTON_VISION_COMPLETE" in (tmp_path / ".bash_completions" / "lepton-vision.sh").read_text()
    assert "did you mean 'bash'" in run("--show-completion", "bahs").stderr.lower()
