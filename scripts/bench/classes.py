"""Time and peak memory of evaluations with very many exclusive classes, one kind in a process of its own.

    python scripts/bench/classes.py evaluate [--rows 100000] [--classes 1000] [--replicates 1000] [--interval bca]

Kinds: evaluate, by (with two subgroups), external (one half against the other), compare (with a second model). Patients
have two images each. Shown: CPU seconds of the call, peak memory of the process, and what the probabilities take.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import compare, evaluate
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target


def guesses(rows: int, classes: int, *, seed: int) -> Predictions:
    """Classes are alike in every seed; the largest probability is right in four of ten of a thousand classes."""
    truth, rng = np.random.default_rng(0).integers(classes, size=rows), np.random.default_rng(seed)
    prob = np.empty((rows, classes), np.float32)
    for start in range(0, rows, 5000):
        part = rng.standard_normal((min(5000, rows - start), classes), dtype=np.float32)
        part[np.arange(len(part)), truth[start : start + 5000]] += 3
        prob[start : start + 5000] = np.exp(part) / np.exp(part).sum(axis=1, keepdims=True)
    target = Target("c", "multiclass", tuple(f"k{k}" for k in range(classes)))
    ids, patients = (np.array([f"i{k // images}" for k in range(rows)]) for images in (1, 2))
    return Predictions((target,), ids, patients, ids, {"c": truth}, {"c": prob}, split="test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("evaluate", "by", "external", "compare"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--interval", choices=("bca", "percentile"), default="bca")
    args = parser.parse_args()
    config = EvaluationConfig(replicates=args.replicates, interval=args.interval)
    found, point = guesses(args.rows, args.classes, seed=0), OperatingPoint({"c": ()}, "stated")
    half, started = np.arange(args.rows) < args.rows // 2, time.process_time()
    if args.what == "compare":
        other = guesses(args.rows, args.classes, seed=1)
        started = time.process_time()
        compare(found, other, operating_point=point, config=config)
    elif args.what == "external":
        site = Site(found.select(~half))
        evaluate(found.select(half), operating_point=point, config=config, site=site)
    else:
        columns = {"sex": np.where(np.arange(args.rows) // 2 % 2, "F", "M").tolist()} if args.what == "by" else None
        evaluate(found, operating_point=point, config=config, columns=columns)
    spent, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = found.y_prob["c"].nbytes / 2**20
    print(f"{args.what}, {args.rows} rows, {args.classes} classes: {spent:.0f} s, {peak:.0f} MiB, of which {held:.0f}")


if __name__ == "__main__":
    main()
