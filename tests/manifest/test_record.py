"""Manifest rows of one file, also of a file that changes or vanishes meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lepton_vision.manifest import record
from lepton_vision.manifest.record import describe_file


def test_a_file_that_goes_away_between_header_and_frames_is_a_rejected_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 6), np.uint8), photometric="minisblack")
    assert [row["frame"] for row in describe_file(str(path), "a.tif")] == [0, 1, 2]
    monkeypatch.setattr(record, "_AT_ONCE", 0)
    probe = record.probe

    def probe_and_lose(place: Path, **how: object) -> object:
        facts = probe(place, **how)  # type: ignore[arg-type]
        place.unlink()
        return facts

    monkeypatch.setattr(record, "probe", probe_and_lose)
    assert [(row["status"], row["reason"]) for row in describe_file(str(path), "a.tif")] == [("rejected", "missing")]
