"""Own figures in a training: told after each epoch, choosing the epoch, and asked for again when it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_vision as lv
from lepton_vision.errors import ConfigError, EvaluationError
from tests.squares import planted_squares

CONFIG = lv.Config().override(
    "preprocess.size=[16, 16]",
    "model.backbone=resnet10",
    "model.width=8",
    "model.stem=small",
    "train.precision=fp32",
    "train.epochs=3",
    "train.batch_size=16",
    "evaluation.replicates=100",
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> lv.Manifest:
    folder = tmp_path_factory.mktemp("squares")
    return planted_squares(folder, counts={"train": 32, "val": 24, "test": 24}, side=16, brighter=100)


def brier(y_true: Any, y_prob: Any, sample_weight: Any) -> float:
    return float(((y_true - y_prob) ** 2) @ sample_weight / sample_weight.sum())


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_own_figure_is_told_and_chooses_the_epoch_in_its_direction(manifest: lv.Manifest, tmp_path: Path) -> None:
    told: list[float] = []
    kept = {}
    for better in ("lower", "higher"):
        bundle = lv.fit(
            CONFIG.override("train.monitor=val_mine"),
            manifest,
            run_dir=tmp_path / better,
            device="cpu",
            figures={"mine": lv.OwnFigure(brier, better=better), "also": brier},  # type: ignore[arg-type]
            on_epoch=lambda epoch, figures: told.append(figures["val_mine"]),
        )
        rows = rows_of(tmp_path / better)
        assert [row["val_mine"] for row in rows] == [row["val_also"] for row in rows] == told[-3:]
        assert len(set(told[-3:])) == 3
        kept[better] = bundle.provenance["kept_epoch"]
        assert bundle.provenance["own_parts"] == [f"figures (val_mine: {better} is better)"]
    assert kept == {"lower": int(np.argmin(told[:3])), "higher": int(np.argmax(told[3:]))}
    val = manifest.subset("val")
    found = lv.predict(bundle, val, device="cpu", precision="fp32")
    calibrated = brier(val.labels(bundle.targets[0]), found.y_prob["label"], np.ones(found.n))
    assert calibrated == pytest.approx(told[3 + kept["higher"]], abs=0.2), (
        "of probabilities, before they are calibrated"
    )


def test_a_figure_that_decides_must_be_given_again(manifest: lv.Manifest, tmp_path: Path) -> None:
    def stop(epoch: int, figures: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    deciding = CONFIG.override("train.monitor=val_mine", "train.checkpoint_seconds=0")
    how: dict[str, Any] = {"run_dir": tmp_path / "run", "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        lv.fit(deciding, manifest, figures={"mine": brier}, on_epoch=stop, **how)
    for others in ({"mine": lv.OwnFigure(brier, better="lower")}, {"mine": brier, "more": brier}, {}):
        if "more" not in others:
            with pytest.raises(ConfigError, match=r"figures= \(val_mine: higher is better\)|no figure 'val_mine'"):
                lv.fit(deciding, manifest, figures=others, resume=True, **how)
    bundle = lv.fit(deciding, manifest, figures={"mine": brier, "more": brier}, resume=True, **how)
    assert "val_more" in rows_of(tmp_path / "run")[-1]
    assert bundle.provenance["own_parts"] == ["figures (val_mine: higher is better)"]


def test_a_figure_that_only_tells_may_come_and_go(manifest: lv.Manifest, tmp_path: Path) -> None:
    def stop(epoch: int, figures: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    config = CONFIG.override("train.checkpoint_seconds=0")
    how: dict[str, Any] = {"run_dir": tmp_path / "run", "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        lv.fit(config, manifest, figures={"mine": brier}, on_epoch=stop, **how)
    assert "own_parts" not in lv.fit(config, manifest, resume=True, **how).provenance


@pytest.mark.parametrize(
    ("monitor", "figures", "error", "message"),
    [
        ("val_min", {"mine": brier}, ConfigError, "no figure 'val_min'. Did you mean 'val_mine'"),
        ("val_mine", {}, ConfigError, "no figure 'val_mine'.*val_auroc"),
        ("val_mine", {"mine": lv.OwnFigure(brier, better="neither")}, ConfigError, "no figure 'val_mine'"),
        ("val_auroc", {"loss": brier}, EvaluationError, "val_loss is a figure of validation already"),
        ("val_auroc", {"auroc": brier}, EvaluationError, "'auroc' is the name of a figure of this package"),
        ("val_auroc", {"classes_judged": brier}, EvaluationError, "is a figure of validation already"),
    ],
)
def test_what_cannot_be_watched_is_said_before_the_training(
    manifest: lv.Manifest, tmp_path: Path, monitor: str, figures: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lv.fit(CONFIG.override(f"train.monitor={monitor}"), manifest, run_dir=tmp_path / "run", figures=figures)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_failing_figure_ends_the_training_with_its_name(manifest: lv.Manifest, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'mine' failed with ZeroDivisionError"):
        lv.fit(CONFIG, manifest, run_dir=tmp_path / "run", device="cpu", figures={"mine": lambda y, p, w: 1 / 0})
