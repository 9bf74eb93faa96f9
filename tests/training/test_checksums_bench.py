"""Cost of checksums, measured in a short form of ``scripts/bench/checksums.py``."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/bench/checksums.py"


@pytest.mark.slow
def test_the_cost_of_checksums_is_measured(tmp_path: Path) -> None:
    found = runpy.run_path(str(SCRIPT))["measure"](tmp_path, images=8, rounds=1, size=32, backbone="resnet10")
    assert found["row_milliseconds"] > 0
    assert found["rows_share_of_first_epoch"] > 0
    assert found["checkpoint_seconds"] > 0
    assert found["ratio_checked_to_unchecked"] > 0
