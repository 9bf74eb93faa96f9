"""Speed of the bootstrap of all binary figures against a loop over scikit-learn, measured in turns in one run.

    python scripts/bench/bootstrap.py [--rows 100000] [--patients 20000] [--replicates 2000] [--loop 5]

Both resample the same patients. The loop computes the same figures of ``--loop`` replicates with scikit-learn (its
functions, one call each, on the resampled rows; the expected calibration error, which it lacks, is left out), and its
time is extrapolated to all replicates. The figures of those replicates are compared.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
from sklearn import metrics

from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, draw_counts

MAX_FPR = 0.1


def loop_over_scikit_learn(truth: np.ndarray, prob: np.ndarray, *, threshold: float) -> dict[str, float]:
    """Every figure of one replicate, as one would write it."""
    called = prob >= threshold
    positive, negative = metrics.class_likelihood_ratios(truth, called)
    return {
        "auroc": metrics.roc_auc_score(truth, prob),
        "average_precision": metrics.average_precision_score(truth, prob),
        "partial_auroc": metrics.roc_auc_score(truth, prob, max_fpr=MAX_FPR),
        "sensitivity": metrics.recall_score(truth, called),
        "specificity": metrics.recall_score(truth, called, pos_label=0),
        "ppv": metrics.precision_score(truth, called),
        "npv": metrics.precision_score(truth, called, pos_label=0),
        "accuracy": metrics.accuracy_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "mcc": metrics.matthews_corrcoef(truth, called),
        "lr_positive": positive,
        "lr_negative": negative,
        "brier": metrics.brier_score_loss(truth, prob),
        "log_loss": metrics.log_loss(truth, prob),
        "prevalence": float(truth.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--loop", type=int, default=5, help="replicates that scikit-learn computes")
    parser.add_argument("--decimals", type=int, default=12, help="of the probabilities; few make ties")
    parser.add_argument("--prevalence", type=float, default=0.2)
    parser.add_argument("--method", default="bca", choices=("bca", "percentile"), help="BCa needs a jackknife too")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    unit = rng.permutation(np.arange(args.rows) % args.patients)
    truth = (rng.random(args.rows) < args.prevalence).astype(float)
    prob = np.round(1 / (1 + np.exp(1 - 1.5 * truth - rng.normal(size=args.rows))), args.decimals)

    wall, cpu = time.perf_counter(), time.process_time()
    measures = BinaryMeasures(truth, prob, unit=unit, units=args.patients, threshold=0.5)
    figures = bootstrap_figures(measures, Bootstrap(args.replicates, 0.95, 0, args.method))
    ours = time.perf_counter() - wall, time.process_time() - cpu

    counts = next(draw_counts(args.patients, replicates=args.loop, samples=1, seed=0))[: args.loop]
    got = measures.values(counts)
    times, gap = [], 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for r, count in enumerate(counts):
            wall, cpu = time.perf_counter(), time.process_time()
            rows = np.repeat(np.arange(args.rows), count[unit].astype(int))
            expected = loop_over_scikit_learn(truth[rows], prob[rows], threshold=0.5)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
            gap = max([gap, *(abs(got[name][r] - value) / max(1.0, abs(value)) for name, value in expected.items())])
    loop = np.median(times, axis=0) * args.replicates
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.rows:,} rows of {args.patients:,} patients, {args.replicates:,} replicates, "
        f"{len(figures)} figures, {args.method}"
    )
    print(f"ours                    {ours[0]:8.2f} s wall {ours[1]:8.2f} s CPU")
    print(f"scikit-learn (from {len(times):2})  {loop[0]:8.2f} s wall {loop[1]:8.2f} s CPU")
    print(f"ratio                   {loop[0] / ours[0]:8.1f}        {loop[1] / ours[1]:8.1f}")
    print(f"largest difference of a figure {gap:.1e}; peak memory {peak:,.0f} MB")
    print(f"auroc {figures['auroc']}, partial_auroc {figures['partial_auroc']}")


if __name__ == "__main__":
    main()
