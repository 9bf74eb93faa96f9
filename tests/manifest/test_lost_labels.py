"""Warnings about lost labels."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.manifest.audit import audit_manifest
from lepton_vision.manifest.split import split_manifest
from lepton_vision.manifest.table import Manifest
from lepton_vision.pipeline.prepare import with_targets

NAMES = [f"p{k // 2:02}/{k % 2}.png" for k in range(24)]


def test_rows_and_images_without_a_counterpart(study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [*NAMES[:20], "P10/0.PNG", "p10/1.jpg", "p99/x.png", "q/1.png"]
    table = pd.DataFrame({"path": names, "y": [(k // 2) % 2 for k in range(23)] + [None]})
    with caplog.at_level(logging.WARNING, "lepton_vision.manifest.lost_labels"):
        manifest = Manifest.scan(study, labels=table, workers=1)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("lost_labels")]
    assert len(said) == 2
    assert said[0].startswith("4 of 24 rows of the label table match no file by the column 'path'")
    assert "(counted from 0: 20, 21, 22, 23)" in said[0]
    assert all(f"But for {what}, 1 of" in said[0] for what in ("letter case", "the suffix", "the folder"))
    assert "p99" not in said[0]
    assert said[1].startswith("4 of 24 usable images have no row")
    for suffix in ("csv", "parquet"):
        loaded = Manifest.load(manifest.save(tmp_path / f"m.{suffix}"))
        assert loaded.label_notes == manifest.label_notes == tuple(said)
    caplog.clear()
    config = with_targets(Config(), loaded)
    split_manifest(loaded, config.split, targets=config.targets)
    again = {record.getMessage() for record in caplog.records if record.name.endswith((".lost_labels", ".labels"))}
    assert again == {*said, "4 of 24 usable images have no known label of target 'y' and take no part in it."}
    messages = [finding.message for finding in audit_manifest(loaded).findings if finding.kind == "unmatched_labels"]
    assert messages == said


def test_nothing_is_said_where_nothing_is_lost(study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest.scan(study, labels=tmp_path / "labels.csv", workers=1)
    assert manifest.label_notes == ()
    assert not [record for record in caplog.records if record.name.endswith((".lost_labels", ".labels"))]
