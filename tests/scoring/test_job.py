"""Scoring jobs: options, folders and parts as one value."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.models import Bundle
from lepton_vision.scoring import score
from lepton_vision.scoring.job import ScoreJob, Settings
from lepton_vision.scoring.outputs import FileOutputs
from tests.scoring.bundles import image_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle("segmentation=null")


def test_every_argument_of_score_is_of_the_job_with_the_same_default() -> None:
    signature = inspect.signature(score).parameters
    arguments = {name: one.default for name, one in signature.items() if one.kind is one.KEYWORD_ONLY}
    own = {one.name: one.default for kind in (FileOutputs, Settings) for one in fields(kind)}
    assert arguments.keys() - own.keys() == {"include", "limits", "path_map", "progress"}
    assert own.keys() - arguments.keys() == set()
    assert {name: arguments[name] for name in own if name != "report_codes"} == {
        name: default for name, default in own.items() if name != "report_codes"
    }


@pytest.mark.parametrize("name", ["worker", "masks_format", "path_map"])
def test_an_unknown_option_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"Unknown setting '{name}'.*Did you mean") as caught:
        ScoreJob.of(bundle, tmp_path, **{name: 1})
    assert caught.value.key == name


@pytest.mark.parametrize("option", [{"workers": 0}, {"shard_rows": 0}, {"batch_size": 0}, {"max_failures": 1.5}])
def test_an_option_out_of_its_range_is_refused(bundle: Bundle, tmp_path: Path, option: dict[str, float]) -> None:
    with pytest.raises(ScoringError, match="Expected"):
        ScoreJob.of(bundle, tmp_path, **option)


def test_a_part_has_folders_of_its_own_and_keeps_what_is_there(bundle: Bundle, tmp_path: Path) -> None:
    options = {"masks": tmp_path / "masks", "reports": tmp_path / "reports", "resume": False, "file_format": "csv"}
    part = ScoreJob.of(bundle, tmp_path / "out", **options).part("00001-of-00002")
    names = [folder.relative_to(tmp_path).as_posix() for folder in part.folders]
    assert names == [f"{one}/_parts/00001-of-00002" for one in ("out", "masks", "reports")]
    assert (part.settings.resume, part.settings.file_format) == (True, "parquet")
