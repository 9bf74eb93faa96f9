"""Demonstration run on a synthetic study, from files to reports on classes and masks and a scored inbox."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_vision.config import Config
from lepton_vision.demo.study import PATIENTS
from lepton_vision.demo.study import DemoStudy as DemoStudy
from lepton_vision.demo.study import write_demo_study as write_demo_study
from lepton_vision.errors import ConfigError, EvaluationError
from lepton_vision.files import new_results

if TYPE_CHECKING:
    from lepton_vision.types import Progress


def demo_config(*, epochs: int = 8, seed: int = 0) -> Config:
    """Configuration that learns findings and their masks from random weights in about a minute on two cores.

    The masks decide the class: a class of its own is not learnt from so few images in so few steps. Half of the
    patients are for the test, as with a quarter its AUROC would vary twice as much between seeds. To find 95 % of
    findings of which some can hardly be seen would call nearly every slice positive: the point is Youden's.
    """
    return Config.from_dict(
        {
            "targets": [{"name": "finding", "kind": "binary", "classes": ["absent", "present"]}],
            "preprocess": {"size": [96, 96], "windows": ["lung"]},
            "augment": {"preset": "ct"},
            "model": {"backbone": "resnet10", "width": 32},
            "segmentation": {
                "structures": {"finding": 1},
                "channels": 8,
                "mode": "evidence",
                "explains": {"finding": ["finding"]},
                "lesions": ["finding"],
            },
            "train": {
                "epochs": epochs,
                "batch_size": 8,
                "lr": 2e-3,
                "mask_prior": 0.01,
                "ema_decay": 0.9,
                "monitor": "val_dice",
                "seed": seed,
            },
            "split": {"val": 0.15, "test": 0.5, "seed": seed},
            "evaluation": {"criterion": "youden"},
        }
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread.

    Images this small gain little from more, and threads that wait for each other on a busy machine made the demo four
    times slower. The figures are then the same on every number of cores, too.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def series_facts(folder: Path) -> dict[str, Any]:
    """Read a folder's series as a volume; say what it is."""
    from lepton_vision.pipeline.facts import inspect_path

    facts = inspect_path(folder)
    kept = ("kind", "slices", "shape", "spacing_mm", "orientation", "units", "modality")
    return {name: facts[name] for name in kept}


_MARK, _WRITTEN = ".lepton-vision-demo", ("run", "scores", "study", "masks", "series", "inbox", "labels.csv")


def _make_room(out: Path) -> None:
    """Remove what an earlier demo wrote, which its mark tells; nothing else is ever removed."""
    there = [name for name in _WRITTEN if (out / name).exists()]
    if there and not (out / _MARK).is_file():
        raise ConfigError(
            f"Expected an empty folder for the demo, or that of an earlier one. Received: a folder with "
            f"{', '.join(there)} of another origin. Name another folder.",
            key="out",
        )
    for name in there:
        if (out / name).is_dir() and not (out / name).is_symlink():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("Made by `lepton-vision demo`, which replaces what it wrote here.\n", encoding="utf-8")


def _moved(study: DemoStudy, stage: Path, out: Path) -> DemoStudy:
    """The same, whose files have moved from one folder to another."""
    places = {name: out / getattr(study, name).relative_to(stage) for name in ("study", "labels", "inbox", "series")}
    return replace(study, **places)


def run_demo(
    out: str | Path, *, patients: int = PATIENTS, seed: int = 0, epochs: int = 8, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the study, go the whole way with it, read the series and score the inbox; return what the command prints.

    What an earlier demo wrote into ``out`` is replaced.

    Raises:
        ConfigError: ``out`` holds something of another origin under a name that the demo uses.
    """
    from lepton_vision.pipeline import run_study
    from lepton_vision.scoring import score

    started, out = time.perf_counter(), Path(out)
    _make_room(out)
    told = None if progress is None else lambda done, total: progress("write", done, total, "")
    with new_results(out, what="demo folder") as stage:
        study = _moved(write_demo_study(stage, patients=patients, seed=seed, progress=told), stage, out)
    config = demo_config(epochs=epochs, seed=seed)
    scored = (
        None if progress is None else lambda done, total, failed: progress("score", done, total, f"{failed} failed")
    )
    with _one_thread():
        result = run_study(
            config,
            study.study,
            labels=study.labels,
            run_dir=out / "run",
            title="Demo: findings in synthetic CT",
            progress=progress,
        )
        summary = score(result.bundle, study.inbox, out / "scores", progress=scored)
    if result.test.evaluation is None or result.test.masks is None:
        raise EvaluationError("Expected figures of the classes and of the masks. Received: only one of them.")
    figure = result.test.evaluation.figures["finding"]["auroc"]
    headline = {"test_auroc": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
    return headline | {
        "dice": result.test.masks.figures["finding"]["dice"].to_dict(),
        "report": str(result.test.report),
        "mask_report": str(result.test.mask_report),
        "series": series_facts(study.series),
        "bundle": str(result.folder),
        "scores": str(summary.output),
        "scored": summary.scored,
        "failed": summary.failed,
        "seconds": round(time.perf_counter() - started, 1),
    }
