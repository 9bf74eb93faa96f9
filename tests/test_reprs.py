"""Results as text of fewer than thirty lines, as tables, and as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lepton_vision as lv
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation.classes.curves import RocCurve
from lepton_vision.types import Batch, Displayed, Figure, ModelOutput, Plain, Result, Table

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
    class Found(Displayed):
        pixels: Any
        name: str
        many: tuple[int, ...]

    lines = ["Found(", "  pixels=(3, 4) float32,", "  name='a & b',", "  many=99 values,", ")"]
    assert repr(Found(np.zeros((3, 4), np.float32), "a & b", tuple(range(99)))).splitlines() == lines


@pytest.mark.parametrize("name", ["x & y", "a <b> c"])
def test_what_html_escapes_reads_as_it_was(name: str) -> None:
    ids = np.array(["a", "b"])
    target = lv.Target("t", "binary", ("no", name))
    shown = repr(lv.Predictions((target,), ids, ids, ids, {"t": np.array([0, 1])}, {"t": np.array([0.1, 0.9])}))
    assert name in shown


@dataclass(frozen=True, slots=True)
class Inner(Plain):
    share: float
    left: float | None


@dataclass(frozen=True, slots=True)
class Outer(Result):
    parts: Mapping[str, tuple[Inner, ...]]
    cuts: tuple[float, ...]
    note: str = "none"
    hidden: str = field(default="secret", compare=False)
    _json = ("note", "cuts", "parts")

    def _tables(self) -> tuple[Table, ...]:
        return (Table("a < b"), Table("rows", [("x & y", 1), ("z", None)], ("name", "count")))


def test_plain_values_come_back_as_they_were() -> None:
    value = Outer({"a": (Inner(float("nan"), None), Inner(0.5, 1.0))}, (0.25, 1.0), "said")
    written = json.loads(json.dumps(value.to_dict(), allow_nan=False))
    assert list(written) == ["note", "cuts", "parts"]
    assert written["parts"] == {"a": [{"share": None, "left": None}, {"share": 0.5, "left": 1.0}]}
    again = Outer.from_dict(written)
    assert (again.note, again.cuts, again.hidden) == ("said", (0.25, 1.0), "secret")
    first, second = again.parts["a"]
    assert math.isnan(first.share)
    assert (first.left, second) == (None, Inner(0.5, 1.0))
    with pytest.raises(KeyError):
        Outer.from_dict({"cuts": [], "note": "no parts"})


def test_arrays_and_figures_become_lists_and_numbers_without_infinity() -> None:
    @dataclass(frozen=True)
    class Found(Plain):
        numbers: Any
        figure: Figure
        nothing: None = None

    plain = Found(np.array([[1.0, np.inf], [np.nan, np.float32(2)]]), Figure(0.5, 0.25, 0.75, 8)).to_dict()
    assert plain["numbers"] == [[1.0, None], [None, 2.0]]
    assert (plain["figure"]["value"], plain["figure"]["n"], plain["nothing"]) == (0.5, 8, None)


def test_a_table_is_html_and_text_of_the_same_cells() -> None:
    value = Outer({}, ())
    html = "<table><caption>rows</caption><tr><th>name</th><th>count</th></tr><tr><th>x &amp; y</th><td>1</td></tr>"
    assert value._repr_html_() == f"<p>a &lt; b</p>{html}<tr><th>z</th><td>None</td></tr></table>"
    assert repr(value).splitlines() == ["a < b", "rows", "name  count", "x & y  1", "z  None"]
