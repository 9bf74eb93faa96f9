"""Study from scan to report in one readable file: the only place where all stages meet.

``fit`` trains one model on a split manifest; ``evaluate_bundle`` looks at one split with it; ``run_study`` goes from
files to a report.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_vision.config import Config
from lepton_vision.evaluation.classes.own_figures import Brought
from lepton_vision.manifest import Manifest, split_manifest
from lepton_vision.manifest.series import scan_settings
from lepton_vision.models import Bundle
from lepton_vision.pipeline.case_points import stated_point as stated_point
from lepton_vision.pipeline.classes import (
    EvaluationOptions,
    check_test,
)
from lepton_vision.pipeline.evaluation import SplitResult, evaluate_bundle
from lepton_vision.pipeline.prepare import cache_folder, scan_source, with_targets
from lepton_vision.pipeline.training import fit
from lepton_vision.training.own_parts import Loss, MakeOptimizer, OnEpoch, Schedule
from lepton_vision.training.runlog import hold_run
from lepton_vision.types import Displayed, Progress


@dataclass(frozen=True, slots=True)
class StudyResult(Displayed):
    """Result of ``run_study``.

    Attributes:
        bundle: the trained model with temperatures and operating point.
        folder: folder of the bundle.
        test: figures and pages on the test split.
        seconds: wall time from the scan to the report.
    """

    bundle: Bundle
    folder: Path
    test: SplitResult
    seconds: float


def run_study(
    config: Config,
    source: str | Path | Manifest,
    *,
    run_dir: str | Path,
    labels: str | Path | None = None,
    patient_from: str | None = None,
    resume: bool = False,
    device: str = "auto",
    title: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: Schedule | None = None,
    on_epoch: OnEpoch | None = None,
    augment: Any = None,
    figures: Brought | None = None,
) -> StudyResult:
    """Go from files and a label table to a bundle and a report: scan, split, audit, train, choose, evaluate once.

    The last six are parts of your own for ``fit``; own figures are given on test, too.

    Raises:
        LeptonError: whatever stage cannot go on; what earlier stages wrote stays in ``run_dir``.
    """
    started, run_dir = time.perf_counter(), Path(run_dir)
    with hold_run(run_dir):
        if not isinstance(source, Manifest):
            told: dict[str, Any] = {"labels": labels, "patient_from": patient_from, "progress": progress}
            source = scan_source(source, **told, **scan_settings(config))
        config, manifest = with_targets(config, source), source
        manifest = split_manifest(manifest, config.split, targets=config.targets)
        check_test(config, manifest)
        cache_dir = cache_folder(config, run_dir) if cache_dir is None else cache_dir
        how: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "progress": progress}
        own: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "schedule": schedule, "on_epoch": on_epoch}
        own |= {"augment": augment, "figures": figures}
        bundle = fit(config, manifest, run_dir=run_dir, resume=resume, **own, **how)
        trained = Manifest.load(run_dir / "manifest.parquet")
        options, out = EvaluationOptions(run_dir=run_dir, command="run", figures=figures), run_dir / "evaluation"
        result = evaluate_bundle(bundle, trained, split="test", out=out, title=title, options=options, **how)
        return StudyResult(bundle, run_dir / "bundle", result, time.perf_counter() - started)
