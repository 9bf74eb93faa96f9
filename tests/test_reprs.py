"""Terminal text of results, in fewer than thirty lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lepton_vision as lv
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.classes.curves import RocCurve
from lepton_vision.types import Batch, ModelOutput, short_repr

CLASSES = tuple(f"grade {k}" for k in range(12))


@pytest.fixture(scope="module")
def results() -> list[Any]:
    rng, names = np.random.default_rng(0), np.array([f"i{k}" for k in range(36)])
    prob = rng.dirichlet(np.ones(12), size=36)
    target = lv.Target("grade", "multiclass", CLASSES)
    predictions = lv.Predictions((target,), names, names, names, {"grade": np.arange(36) % 12}, {"grade": prob})
    point, fast = lv.OperatingPoint({"grade": ()}, "stated"), EvaluationConfig(replicates=100)
    frame = pd.DataFrame({"image_id": names, "path": names, "status": "ok", "finding": 0})
    return [
        predictions,
        lv.evaluate(predictions, operating_point=point, config=fast),
        lv.compare(predictions, predictions, operating_point=point, config=fast),
        lv.audit_manifest(lv.Manifest(frame, root=Path(), label_columns=("finding",))),
        lv.Manifest(frame, root=Path(), label_columns=("finding",)),
        lv.build_model(lv.Config(targets=(lv.Target("a", "binary", ("no", "yes")),), model={"members": 2})),
        lv.Config(),
        point,
        target,
        lv.Image(np.zeros((1, 40, 64, 64), np.float32), image_id="i"),
        Batch(torch.zeros(40, 1, 8, 8), {"a": torch.zeros(40)}, torch.arange(40), tuple("abcdefghij" * 4)),
        ModelOutput({"a": torch.zeros(40, 1)}, torch.zeros(40, 2, 8, 8)),
        RocCurve(np.zeros(900), np.zeros(900), np.zeros(900)),
    ]


def test_no_result_fills_the_screen(results: list[Any]) -> None:
    for value in results:
        text = repr(value)
        assert text == str(value)
        assert len(text.splitlines()) < 30, type(value).__name__
        assert max(map(len, text.splitlines())) < 2000
        assert "<t" not in text


def test_the_text_of_figures_tells_how_much_was_left_out(results: list[Any]) -> None:
    lines = repr(results[1]).splitlines()
    assert lines[0].startswith("Evaluation · split unknown · 36 images of 36 patients")
    assert lines[-1].startswith("… ")
    assert lines[-1].endswith(" more lines")


def test_arrays_are_told_by_their_shape_and_text_by_itself() -> None:
    @dataclass(frozen=True)
    class Found:
        pixels: Any
        name: str
        many: tuple[int, ...]

        __repr__ = short_repr

    lines = ["Found(", "  pixels=(3, 4) float32,", "  name='a & b',", "  many=99 values,", ")"]
    assert repr(Found(np.zeros((3, 4), np.float32), "a & b", tuple(range(99)))).splitlines() == lines


@pytest.mark.parametrize("name", ["x & y", "a <b> c"])
def test_what_html_escapes_reads_as_it_was(name: str) -> None:
    ids = np.array(["a", "b"])
    target = lv.Target("t", "binary", ("no", name))
    shown = repr(lv.Predictions((target,), ids, ids, ids, {"t": np.array([0, 1])}, {"t": np.array([0.1, 0.9])}))
    assert name in shown
