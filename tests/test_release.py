"""What a release says and holds: versions in all places, contents of wheel and sdist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from lepton_vision._version import __version__

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = {
    "cff-version",
    "message",
    "type",
    "title",
    "abstract",
    "authors",
    "version",
    "date-released",
    "license",
    "keywords",
}


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("release_check", ROOT / "scripts" / "release_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load_script()


def releases() -> list[tuple[str, str]]:
    return re.findall(r"^## \[(.+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_changelog_and_citation_are_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (
        set(cited) <= SCHEMA
    )  # of the Citation File Format 1.2.0; authors, title, message and cff-version are required
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"] == [{"name": "The lepton_vision developers"}]
    assert releases()[0] == (cited["version"], cited["date-released"].isoformat())
    assert cited["version"] == __version__ == check.version()


def test_releases_are_dated_from_new_to_old_and_grouped() -> None:
    assert [date for _, date in releases()] == sorted((date for _, date in releases()), reverse=True)
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert set(re.findall("^### (.+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
    assert [link for link in re.findall(r"\]\((docs/[^)]+)\)", text) if not (ROOT / link).is_file()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, built without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should_and_no_more(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    assert check.faults_of_wheel(wheel) == []
    assert check.faults_of_sdist(sdist) == []


def test_a_wheel_with_faults_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lepton_vision-9.dist-info/METADATA", "Version: 9\nSummary: x\n")
        archive.writestr("tests/test_x.py", "")
    faults = check.faults_of_wheel(path)
    assert "lepton_vision/py.typed is missing" in faults
    assert "lepton_vision/reporting/templates/report.html.j2 is missing" in faults
    assert "tests/test_x.py does not belong there" in faults
    assert f"version 9 is not {__version__}" in faults
    assert "no Requires-Python" in faults


def test_an_sdist_with_faults_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "x-1/docs/_build/a")
    faults = check.faults_of_sdist(tmp_path / "x.tar.gz")
    assert "docs/_build/a does not belong there" in faults
    assert "docs/index.md is missing" in faults


def test_the_type_of_the_version_file_is_what_the_build_reads() -> None:
    text = (ROOT / "lepton_vision" / "_version.py").read_text(encoding="utf-8")
    assert text.count("__version__") == 1
    assert json.dumps(__version__) in text
