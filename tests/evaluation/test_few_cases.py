"""Short simulations of studies with few cases: error rates of non-inferiority verdicts and of tests."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/bench/few_cases.py"


def test_the_simulations_run_and_find_nothing_wrong() -> None:
    rates = runpy.run_path(str(SCRIPT))["RATES"]
    declared = list(rates["non_inferiority"](2, replicates=100, seed=0))
    assert len(declared) == 4
    assert all("sensitivity 0.0%" in one for one in declared)
    first = next(rates["exact"](0, replicates=0, seed=0))
    assert (
        first
        == "20 positives, loss and margin 0.02: wrong in at most the verdict 2.38%, Tango's score test alone 2.74%"
    )
    gaps = list(rates["gaps"](1, replicates=100, seed=0))
    assert len(gaps) == 6
    assert all(one.endswith("intervals that disagree: 0") for one in gaps)
    (one, *_) = rates["power"](1, replicates=100, seed=0)
    assert one.endswith("intervals that disagree: 0")


def test_intervals_of_composite_figures_of_twenty_positives_hold_the_truth() -> None:
    composites = runpy.run_path(str(SCRIPT))["RATES"]["composites"]
    told = list(composites(60, replicates=100, seed=0, sizes=(20,)))
    rates = [float(rate) for one in told for rate in re.findall(r"\w+ ([\d.]+)% of 60", one)]
    assert len(rates) == 3 * 7
    assert min(rates) >= 93.0
