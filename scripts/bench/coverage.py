"""How often 95 % intervals hold the truth, in simulated studies whose patients have several images that are alike.

    python scripts/bench/coverage.py [--studies 1000] [--replicates 1000] [--patients 100] [--images 9] [--seed 0]
    python scripts/bench/coverage.py --what non_inferiority --studies 250 --replicates 100
    python scripts/bench/coverage.py --what gaps --studies 250 --replicates 199
    python scripts/bench/coverage.py --what power --studies 250 --replicates 199
    python scripts/bench/coverage.py --what composites --studies 250 --replicates 400
    python scripts/bench/coverage.py --what exact

Each patient has 1 to ``--images`` images. Scores are normal, and the images of a patient share a patient effect
(``--icc`` of the variance); a patient with the disease has it in seven images of ten,
another in one of ten. The true figures follow from the two normal distributions, in closed form or by integration.
Shown: share of the studies whose interval holds the truth, with its own 95 % Clopper–Pearson interval, how often it
misses on each side, and the mean width. "naive" intervals take images for independent: they must be narrower, and
cover too little.

With ``--what`` the rates of ``few_cases`` are shown instead: how often a loss of the margin is called non-inferior, how
often subgroups of other prevalences are told apart that do not differ, or that do (power), and how often intervals of
figures at or near 100 % hold the truth. "exact" goes through every possible table in place of simulated studies.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict

import few_cases
import numpy as np
from scipy.integrate import quad
from scipy.stats import binomtest, norm

from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.delong import auroc_covariance
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, draw_figures, wilson

GAP, THRESHOLD = 1.6, 0.9  # standard deviations between the classes; threshold above the negatives' mean
SHARES = 0.7, 0.1  # of positive images, in patients with and without the disease: one half of them each
PREVALENCE = sum(SHARES) / 2
FIGURES = (
    "auroc",
    "average_precision",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "accuracy",
    "f1",
    "mcc",
    "brier",
    "log_loss",
    "prevalence",
)
Ends = dict[tuple[str, str], tuple[float, float]]  # by figure and method


def simulate(rng: np.random.Generator, *, patients: int, images: int, icc: float) -> tuple[np.ndarray, ...]:
    """Labels, probabilities and patients of one study."""
    unit = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    share = np.where(rng.random(patients) < 0.5, *SHARES)[unit]
    truth = (rng.random(unit.size) < share).astype(float)
    effect = rng.normal(0, icc**0.5, patients)[unit]
    score = GAP * truth + effect + rng.normal(0, (1 - icc) ** 0.5, unit.size)
    return truth, norm.cdf(score / 4), unit


def true_figures() -> dict[str, float]:
    """What an endless study would give; a score is normal, and GAP higher where the image is positive."""
    sensitivity, specificity = float(norm.sf(THRESHOLD - GAP)), float(norm.cdf(THRESHOLD))
    tp, fn = PREVALENCE * sensitivity, PREVALENCE * (1 - sensitivity)
    tn, fp = (1 - PREVALENCE) * specificity, (1 - PREVALENCE) * (1 - specificity)

    def precision(score: float) -> float:
        found, alarms = PREVALENCE * norm.sf(score - GAP), (1 - PREVALENCE) * norm.sf(score)
        return found / (found + alarms)

    def mean(loss_of_positive: object, loss_of_negative: object) -> float:
        """Of a loss of the score over all images."""

        def density(score: float) -> float:
            positive, negative = PREVALENCE * norm.pdf(score - GAP), (1 - PREVALENCE) * norm.pdf(score)
            return positive * loss_of_positive(score) + negative * loss_of_negative(score)

        return quad(density, -9, 11, epsabs=1e-10)[0]

    return {
        "auroc": float(norm.cdf(GAP / 2**0.5)),
        "average_precision": quad(lambda x: norm.pdf(x - GAP) * precision(x), -9, 11, epsabs=1e-10)[0],
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "accuracy": tp + tn,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5,
        "brier": mean(lambda x: norm.sf(x / 4) ** 2, lambda x: norm.cdf(x / 4) ** 2),
        "log_loss": mean(lambda x: -norm.logcdf(x / 4), lambda x: -norm.logsf(x / 4)),
        "prevalence": PREVALENCE,
    }


def intervals(truth: np.ndarray, prob: np.ndarray, unit: np.ndarray, *, replicates: int, seed: int) -> Ends:
    """Every interval of one study by figure and method."""
    measures = BinaryMeasures(
        truth, prob, unit=unit, units=int(unit.max()) + 1, threshold=float(norm.cdf(THRESHOLD / 4))
    )
    drawn, found = draw_figures(measures, Bootstrap(replicates, 0.95, seed)), Ends()
    for method in ("bca", "percentile"):
        bootstrap = Bootstrap(replicates, 0.95, seed, method)
        figures = bootstrap_figures(measures, bootstrap, drawn=drawn)
        for name in FIGURES:
            found[name, f"{bootstrap.method} bootstrap"] = figures[name].low, figures[name].high
    alone = BinaryMeasures(
        truth, prob, unit=np.arange(truth.size), units=truth.size, threshold=float(norm.cdf(THRESHOLD / 4))
    )
    for name, figure in bootstrap_figures(alone, Bootstrap(replicates, 0.95, seed)).items():
        found[name, "bca bootstrap, naive"] = figure.low, figure.high
    for name, others in measures.analytic(0.95).items():
        for one in others:
            found[name, f"{one.method}, clustered"] = one.low, one.high
    single = auroc_covariance(truth > 0, prob[:, None])
    found["auroc", "delong, naive"] = single.interval()
    half = 1.96 * float(single.covariance[0, 0]) ** 0.5
    found["auroc", "delong without logit, naive"] = float(single.auroc[0]) - half, float(single.auroc[0]) + half
    called = prob >= norm.cdf(THRESHOLD / 4)
    for name, rows, right in (("sensitivity", truth > 0, called), ("specificity", truth == 0, ~called)):
        low, high = wilson(right[rows].sum(), rows.sum())
        found[name, "wilson, naive"] = float(low), float(high)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--images", type=int, default=9, help="largest number of images of a patient")
    parser.add_argument("--icc", type=float, default=0.5, help="share of the variance that is the patient's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--what", choices=("figures", *few_cases.RATES), default="figures")
    args = parser.parse_args()
    if args.what != "figures":
        for told in few_cases.RATES[args.what](args.studies, replicates=args.replicates, seed=args.seed):
            print(told, flush=True)
        return
    truths = true_figures()
    rng, started = np.random.default_rng(args.seed), time.perf_counter()
    ends: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for study in range(args.studies):
        data = simulate(rng, patients=args.patients, images=args.images, icc=args.icc)
        for key, pair in intervals(*data, replicates=args.replicates, seed=study).items():
            if key[0] in truths:
                ends[key].append(pair)
    rows = [row(key, np.array(pairs), truths[key[0]]) for key, pairs in sorted(ends.items())]
    if args.json:
        print(json.dumps({"arguments": vars(args), "truths": truths, "rows": rows}))
        return
    print(f"{args.studies} studies, {args.patients} patients with 1 to {args.images} images, icc {args.icc}, ", end="")
    print(f"{args.replicates} replicates, seed {args.seed}, {time.perf_counter() - started:.0f} s")
    print(f"{'figure':18} {'interval':32} {'coverage':>9} {'its interval':>16} {'below':>7} {'above':>7} {'width':>7}")
    for one in rows:
        print(
            f"{one['figure']:18} {one['interval']:32} {one['coverage']:9.1%} "
            f"{one['low']:7.1%} – {one['high']:6.1%} {one['below']:7.1%} {one['above']:7.1%} {one['width']:7.4f}"
        )


def row(key: tuple[str, str], pairs: np.ndarray, truth: float) -> dict[str, object]:
    """Coverage of one kind of interval; an interval that does not exist counts as a miss."""
    below, above = pairs[:, 1] < truth, pairs[:, 0] > truth
    hits = int((~below & ~above & ~np.isnan(pairs).any(axis=1)).sum())
    own = binomtest(hits, len(pairs)).proportion_ci(0.95)
    return {
        "figure": key[0],
        "interval": key[1],
        "studies": len(pairs),
        "coverage": hits / len(pairs),
        "low": own.low,
        "high": own.high,
        "below": float(below.mean()),
        "above": float(above.mean()),
        "width": float(np.nanmean(pairs[:, 1] - pairs[:, 0])),
    }


if __name__ == "__main__":
    main()
