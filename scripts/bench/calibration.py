"""How often intervals of calibration errors hold the truth, and how far off the estimates are, in simulated studies.

    python scripts/bench/calibration.py [--studies 400] [--sizes 100 366 1000] [--slopes 1 1.5 3] [--level -0.8]

The true log odds are normal, and the probabilities said are too sure by a slope: 1 is perfect calibration. True errors
come from 400,000 samples. Shown: share of the studies whose interval holds the truth, true value and mean estimate.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit

from lepton_vision.evaluation.classes.calibration_error import calibration_error
from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.statistics.calibration_curve import Groups, curve_distances

FIGURES = ("ece", "ici", "e50", "e90")


def study(rng: np.random.Generator, *, n: int, slope: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and log odds said, ascending."""
    line = np.sort(rng.normal(level, 1.3, n))
    return (rng.random(n) < expit(line)).astype(float), slope * line


def true_errors(*, slope: float, level: float) -> dict[str, float]:
    """Of an endless study."""
    line = np.random.default_rng(1).normal(level, 1.3, 400_000)
    gap, which = expit(line) - expit(slope * line), equal_mass_bins(expit(slope * line))
    found = {"ece": np.abs(np.bincount(which, gap)).sum() / gap.size, "ici": np.abs(gap).mean()}
    return found | {"e50": np.median(np.abs(gap)), "e90": np.quantile(np.abs(gap), 0.9)}


def simulate(*, studies: int, n: int, slope: float, level: float) -> dict[str, tuple[float, float, float]]:
    """Coverage, true value and mean estimate by figure; of ``debiased_ece`` the last two alone."""
    true, found = true_errors(slope=slope, level=level), {name: [] for name in (*FIGURES, "debiased_ece")}
    for seed in range(studies):
        truth, line = study(np.random.default_rng(seed), n=n, slope=slope, level=level)
        figures = calibration_error(truth, expit(line), unit=np.arange(n)).figures()
        figures |= curve_distances(Groups(line, np.ones(n), truth), confidence=0.95)
        for name, several in found.items():
            several.append((figures[name].low, figures[name].value, figures[name].high))
    result = {}
    for name, several in found.items():
        low, value, high = np.array(several).T
        known, right = ~np.isnan(value), true[name.removeprefix("debiased_")]
        result[name] = float(np.mean((low <= right) & (right <= high))), float(right), float(value[known].mean())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 366, 1000])
    parser.add_argument("--slopes", type=float, nargs="+", default=[1.0, 1.5, 3.0])
    parser.add_argument("--level", type=float, default=-0.8, help="mean of the log odds")
    args = parser.parse_args()
    print(f"{'n':>6} {'slope':>6} {'figure':14} {'coverage':>9} {'true':>8} {'mean estimate':>14}")
    for n in args.sizes:
        for slope in args.slopes:
            for name, (coverage, true, mean) in simulate(
                studies=args.studies, n=n, slope=slope, level=args.level
            ).items():
                print(f"{n:6} {slope:6g} {name:14} {coverage:9.1%} {true:8.4f} {mean:14.4f}", flush=True)


if __name__ == "__main__":
    main()
