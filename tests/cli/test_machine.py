"""Command ``doctor`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from tests.e2e.conftest import run_cli

HOME = {
    "USER": "jane_doe",
    "LOGNAME": "jane_doe",
    "LEPTON_VISION_ID_KEY": "",
    "XDG_CACHE_HOME": "",
    "XDG_CONFIG_HOME": "",
}


@pytest.mark.slow
def test_doctor_tells_what_is_there_and_names_nobody(tmp_path: Path) -> None:
    home = tmp_path / "jane_doe"
    home.mkdir()
    environment = {**HOME, "HOME": str(home)}
    done = run_cli("doctor", "--json", **environment)
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["is_usable"]) == (0, True), facts["advice"]
    assert {one["name"] for one in facts["packages"]} >= {"torch", "numpy", "pydicom"}
    assert len(facts["codecs"]) == 15
    assert facts["ids"]["key"].startswith("none yet: the first scan makes ~/.config/lepton-vision/id.key")
    assert facts["storage"]["cache"] == "~/.cache/lepton-vision"
    shown = run_cli("doctor", **environment)
    for text in (done.stdout, shown.stdout, shown.stderr):
        assert "jane" not in text
        assert str(tmp_path) not in text
    assert "JPEG 2000" in shown.stdout
    assert list(home.rglob("*")) == []


def test_what_is_necessary_and_broken_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTON_VISION_FILE_SECONDS", "soon")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    facts = json.loads(done.stdout)
    assert done.exit_code == 1
    assert facts["is_usable"] is False
    assert facts["advice"][0]["is_necessary"] is True
    assert "LEPTON_VISION_FILE_SECONDS" in facts["advice"][0]["found"]


def test_a_dependency_without_which_it_cannot_look_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lepton_vision.pipeline.machine", None)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "cannot be imported. In the folder that holds pyproject.toml: pip install -e ." in done.stderr
