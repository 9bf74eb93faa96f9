"""Makers of the folders that pages of the documentation run in: what a reader would have before the first command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.docs.folders_data import label_tables as label_tables
from tests.docs.folders_data import parts as parts
from tests.docs.folders_data import png_study, use_covid_ct
from tests.docs.folders_data import several_labels as several_labels
from tests.docs.folders_images import image_folders as image_folders
from tests.docs.folders_images import masks as masks
from tests.docs.folders_images import volumes as volumes
from tests.docs.folders_models import found_data as found_data
from tests.docs.folders_models import other_tool as other_tool
from tests.docs.folders_models import squares as squares
from tests.docs.folders_models import trained as trained
from tests.e2e.conftest import run_json

_KEPT: dict[str, Path] = {}


def empty(folder: Path, request: pytest.FixtureRequest) -> None:
    """An empty folder."""


def demo(folder: Path, request: pytest.FixtureRequest) -> None:
    """What ``lepton-vision demo`` writes, of fewer patients and epochs, as ``demo-run``; made once."""
    if "demo" not in _KEPT:
        made = request.getfixturevalue("tmp_path_factory").mktemp("docs") / "demo-run"
        run_json("demo", "--out", made, "--patients", "40", "--epochs", "2")
        _KEPT["demo"] = made
    shutil.copytree(_KEPT["demo"], folder / "demo-run")


def first_study(folder: Path, request: pytest.FixtureRequest) -> None:
    """PNG images with a table, an inbox, and what ``demo`` makes; the images are real CT slices where these are."""
    png_study(folder, request)
    if (SHARED / "data" / "covid-ct").is_dir():
        use_covid_ct(SHARED / "data" / "covid-ct", folder)
    demo(folder, request)
