"""One study again and again: over seeds, and over patient-grouped folds whose held-out predictions are pooled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.config import Config
from lepton_vision.evaluation import Evaluation, evaluate
from lepton_vision.inference import Predictions, predict
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.split import fold_split
from lepton_vision.pipeline import (
    Progress,
    cache_folder,
    data_flow,
    fit,
    run_study,
    scan_source,
    stated_point,
    with_targets,
    write_results,
)


def run_seeds(
    config: Config,
    source: str | Path,
    *,
    run_dir: str | Path,
    seeds: list[int],
    labels: str | Path | None = None,
    folds: int = 0,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a study, or a cross-validation, once per seed; one seed trains and splits by it everywhere.

    Returns:
        Per seed the first target's figures and where the page is, and the AUROC's mean and standard deviation.
    """
    run_dir, rows = Path(run_dir), {}
    manifest = scan_source(source, labels=labels, progress=progress)
    config = with_targets(config, manifest)
    cache_dir = cache_folder(config, run_dir)
    first = config.targets[0].name
    for seed in seeds:
        started, folder = time.perf_counter(), run_dir / f"seed-{seed}"
        seeded = config.override(f"train.seed={seed}", f"split.seed={seed}")
        row: dict[str, Any] = {}
        if folds > 1:
            evaluation, areas, report = cross_validate(
                seeded,
                manifest,
                folds=folds,
                run_dir=folder,
                resume=resume,
                device=device,
                cache_dir=cache_dir,
                progress=progress,
            )
            row = {"fold_auroc": [round(area, 4) for area in areas], "fold_mean_auroc": float(np.mean(areas))}
        else:
            study = run_study(
                seeded,
                manifest,
                run_dir=folder,
                resume=resume,
                device=device,
                cache_dir=cache_dir,
                progress=progress,
            )
            evaluation, report = study.evaluation, study.report
            row = {"bundle": str(study.folder)}
        figures = {name: figure.to_dict() for name, figure in evaluation.figures[first].items()}
        rows[str(seed)] = figures | row | {"report": str(report), "seconds": round(time.perf_counter() - started, 1)}
    areas = [row["auroc"]["value"] for row in rows.values()]
    spread = float(np.std(areas, ddof=1)) if len(areas) > 1 else 0.0
    return {"seeds": rows, "auroc_mean": float(np.mean(areas)), "auroc_sd": spread, "n_seeds": len(areas)}


def cross_validate(
    config: Config,
    manifest: Manifest,
    *,
    folds: int,
    run_dir: str | Path,
    resume: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, list[float], Path]:
    """Train once per patient-grouped fold and evaluate the pooled held-out predictions at a threshold of one half.

    Each fold's model is chosen on a part of its own training patients; the threshold is stated, not chosen, since a
    point chosen on one fold's validation patients would have seen another fold's test patients.

    Returns:
        The pooled evaluation, the first target's AUROC of each fold, and the page.
    """
    run_dir = Path(run_dir)
    config = with_targets(config, manifest)
    cache_dir = cache_folder(config, run_dir) if cache_dir is None else cache_dir
    held_out: list[Predictions] = []
    for fold in range(folds):
        part = fold_split(manifest, fold, folds=folds, config=config.split, targets=config.targets)
        told = None if progress is None else _in_fold(progress, fold, folds)
        folder = run_dir / f"fold-{fold}"
        bundle = fit(config, part, run_dir=folder, resume=resume, device=device, cache_dir=cache_dir, progress=told)
        held_out.append(predict(bundle, part.subset("test"), device=device, cache_dir=cache_dir))
    pooled = Predictions.concat(held_out)
    point = stated_point(config.targets, threshold=0.5)
    areas = [
        evaluate(part, operating_point=point, config=config.evaluation).figures[config.targets[0].name]["auroc"].value
        for part in held_out
    ]
    evaluation = evaluate(pooled, operating_point=point, config=config.evaluation)
    flow = data_flow(manifest, config.targets)
    report = write_results(
        evaluation, pooled, run_dir / "evaluation", title=f"{folds}-fold cross-validation", data_flow=flow
    )
    return evaluation, areas, report


def _in_fold(progress: Progress, fold: int, folds: int) -> Progress:
    return lambda stage, done, total, note: progress(stage, done, total, f"fold {fold + 1}/{folds}  {note}")
