"""Limit of failures: the run stops, locally, in parts and on a cluster; it keeps its rows and resumes."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import ScoringError, TooManyFailuresError
from lepton_vision.models import Bundle
from lepton_vision.scoring import list_run, merge_parts, score, score_on_ray, score_part, summary
from lepton_vision.scoring.cluster import ray as cluster
from lepton_vision.scoring.summary import FailureLimit

from .bundles import image_bundle, read, same_rows

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 4, "shard_rows": 5}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle("segmentation=null")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """60 inputs, of which those from the 21st to the 40th are no images."""
    rng, folder = np.random.default_rng(0), tmp_path / "inbox"
    folder.mkdir()
    for k in range(60):
        if 20 <= k < 40:
            (folder / f"{k:02}.png").write_bytes(b"nothing")
        else:
            Image.fromarray(rng.integers(0, 255, (24, 32)).astype(np.uint8)).save(folder / f"{k:02}.png")
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this size are stopped."""
    monkeypatch.setattr(summary, "STOP_FAILURES", 6)


def test_the_limit_is_passed_when_no_good_end_is_left() -> None:
    limit = FailureLimit(0.05, inputs=10_000)
    limit.check(500, rows=2_000)  # 9,500 inputs may still be read
    with pytest.raises(TooManyFailuresError, match="501 of 10000"):
        limit.check(501, rows=2_000)
    limit.check(501, rows=10_020)  # files of several frames gave more rows
    FailureLimit(0.05, inputs=100).check(99, rows=100)  # too few to be worth it
    with pytest.raises(TooManyFailuresError, match="100 of 150"):
        FailureLimit(0.05, inputs=150, failed=60).check(40, rows=90)
    FailureLimit(1.0, inputs=100_000).check(100_000, rows=100_000)


@pytest.mark.usefixtures("few")
def test_a_run_is_stopped_and_goes_on(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    with pytest.raises(TooManyFailuresError, match=r"at most 10\.0%.*was stopped") as stopped:
        score(bundle, inbox, out, max_failures=0.1, **HOW)
    assert not stopped.value.facts
    rows = read(out)
    assert (rows["status"] == "failed").sum() >= 7
    assert len(rows) < 40
    with pytest.raises(TooManyFailuresError, match="was stopped"):
        score(bundle, inbox, out, max_failures=0.1, **HOW)
    assert len(read(out)) == len(rows)  # not a file was looked at
    done = score(bundle, inbox, out, max_failures=0.5, **HOW)
    assert (done.rows, done.new_rows) == (60, 60 - len(rows))
    score(bundle, inbox, whole, **HOW)
    same_rows(whole, out)
    with pytest.raises(TooManyFailuresError, match="All rows are written") as ended:
        score(bundle, inbox, out, max_failures=0.1, **HOW)
    assert ended.value.facts["rows"] == 60


def test_a_small_run_goes_to_its_end(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyFailuresError, match="All rows are written"):
        score(bundle, inbox, tmp_path / "out", max_failures=0.1, **HOW)
    assert len(read(tmp_path / "out")) == 60


@pytest.mark.usefixtures("few")
def test_parts_are_stopped_by_what_failed_in_all_of_them(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = []
    for part in range(6):
        try:
            score_part(bundle, inbox, out, part=part, parts=6, max_failures=0.1, **HOW)
        except TooManyFailuresError:
            stopped.append(part)
    assert stopped
    assert stopped == list(range(stopped[0], 6))  # once it is passed, no other part begins
    assert stopped[0] > 0  # no part has so many failures of its own
    for part in stopped:
        score_part(bundle, inbox, out, part=part, parts=6, max_failures=0.5, **HOW)
    found = list_run(bundle, inbox, out)
    with pytest.raises(TooManyFailuresError, match="All rows are written"):
        merge_parts(bundle, out, inputs=found, max_failures=0.1)
    assert merge_parts(bundle, out, inputs=found, max_failures=0.5).rows == 60
    score(bundle, inbox, tmp_path / "whole", **HOW)
    same_rows(tmp_path / "whole", out)
    with pytest.raises(ScoringError, match="max_failures from 0 to 1"):
        score_part(bundle, inbox, out, part=0, parts=6, max_failures=2.0)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_cluster_is_stopped_and_goes_on(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: Any
) -> None:
    begun = list[int]()

    def instead(task: Any, where: cluster.Cluster) -> Generator[dict[str, int]]:
        for part in range(task.parts):
            begun.append(part)
            yield task.run(part)

    monkeypatch.setattr(cluster, "_run", instead)
    out, how = tmp_path / "out", {"cluster": cluster.Cluster(inputs_per_part=6), "file_format": file_format, **HOW}
    with pytest.raises(TooManyFailuresError, match="was stopped"):
        score_on_ray(bundle, inbox, out, max_failures=0.1, **how)
    first = len(begun)
    assert 1 < first < 10
    with pytest.raises(TooManyFailuresError, match="was stopped"):
        score_on_ray(bundle, inbox, out, max_failures=0.1, **how)
    assert len(begun) == first
    assert list(out.glob(f"part-*.{file_format}"))  # the rows of the parts that had ended
    assert score_on_ray(bundle, inbox, out, max_failures=0.5, **how).rows == 60
    with pytest.raises(TooManyFailuresError, match="All rows are written"):
        score_on_ray(bundle, inbox, out, max_failures=0.1, **how)


def test_the_command_line_tells_the_counts_of_a_run_that_failed_in_the_end(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    bundle.save(tmp_path / "bundle")
    words = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--output", tmp_path / "out", "--json")
    done = CliRunner().invoke(app, list(map(str, (*words, "--max-failures", "0.1", "--engine", "torch"))))
    assert isinstance(done.exception, TooManyFailuresError)
    assert json.loads(done.stdout)["failed"] == {"not_an_image": 20}
    words = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--output", tmp_path / "whole", "--json")
    done = CliRunner().invoke(app, list(map(str, (*words, "--engine", "torch"))))
    assert isinstance(done.exception, TooManyFailuresError)  # judged at the end: every input has its row
    assert json.loads(done.stdout)["rows"] == 60
