"""Whether studies of the size that ``plan`` names get intervals of the width that it promises, by simulation.

    python scripts/bench/plan.py [--studies 100] [--replicates 400]

Scores are those of the variance model: exponential for Hanley and McNeil's, normal for Obuchowski's; with normal scores
and the default model the interval is narrower than promised. Shown: mean width of the interval of ``evaluate`` (BCa).
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import norm

from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.classes.planning import plan_sample
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures

DESIGNS = (  # figure, expected, width, prevalence, scores
    ("auroc", 0.9, 0.1, 0.2, "exponential"),
    ("auroc", 0.9, 0.1, 0.2, "normal"),
    ("auroc", 0.8, 0.2, 0.1, "exponential"),
    ("auroc", 0.95, 0.1, 0.05, "exponential"),
    ("sensitivity", 0.9, 0.1, 0.2, "calls"),
    ("sensitivity", 0.9, 0.2, 0.1, "calls"),
    ("accuracy", 0.9, 0.1, 0.3, "calls"),
)


def study(rng: np.random.Generator, *, n: int, expected: float, prevalence: float, scores: str) -> BinaryMeasures:
    """One study: labels and probabilities that are right as often as expected."""
    truth = (np.arange(n) < round(n * prevalence)).astype(float)
    if scores == "exponential":
        prob = 1 - np.exp(-rng.exponential(size=n) * np.where(truth > 0, expected / (1 - expected), 1.0) / 5)
    elif scores == "normal":
        prob = norm.cdf(rng.normal(size=n) + truth * 2**0.5 * norm.ppf(expected) - 1)
    else:
        prob = np.where(rng.random(n) < expected, truth, 1 - truth) * 0.8 + 0.1
    return BinaryMeasures(truth, prob, unit=np.arange(n), units=n, threshold=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--replicates", type=int, default=400)
    args = parser.parse_args()
    print(f"{'figure':12} {'expected':>8} {'prevalence':>10} {'scores':12} {'n':>6} {'wanted':>7} {'mean width':>10}")
    for figure, expected, width, prevalence, scores in DESIGNS:
        n, widths = plan_sample(figure, expected=expected, width=width, prevalence=prevalence).n_images, []
        for seed in range(args.studies):
            rng = np.random.default_rng(seed)
            measures = study(rng, n=n, expected=expected, prevalence=prevalence, scores=scores)
            found = bootstrap_figures(measures, Bootstrap(args.replicates))[figure]
            widths.append(found.high - found.low)
        print(
            f"{figure:12} {expected:8g} {prevalence:10g} {scores:12} {n:6} {width:7g} {np.mean(widths):10.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
