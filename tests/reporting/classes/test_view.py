"""Numbers as text, figures in groups, flow and facts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.classes import view
from lepton_vision.reporting.wording import term
from lepton_vision.types import Figure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93149, "0.931"),
        (1.0, "1.000"),
        (0.0, "0.000"),
        (0.00004, "4.0e-05"),
        (-7e-17, "0.000"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert view.number(value) == text


def test_a_figure_without_an_interval_keeps_its_value_and_reason() -> None:
    shown = view.show_figure("auroc", Figure(0.9, math.nan, math.nan, 1200, "no interval: one patient only"))
    assert (shown.value, shown.interval, shown.n) == ("0.900", "", "1,200")
    assert shown.scale == (90.0, 90.0, 90.0)
    assert shown.reason == "no interval: one patient only"


def test_a_figure_that_is_no_share_has_no_scale() -> None:
    assert view.show_figure("log_loss", Figure(0.4, 0.3, 0.5, 10)).scale is None


def test_every_figure_stands_in_the_page_exactly_once(several: Evaluation) -> None:
    for target in several.targets:
        keys = [one.key for _, group in view.figure_groups(several, target) for one in group]
        assert len(keys) == len(set(keys))
        of_class = {key for key in several.figures[target.name] if key not in keys}
        assert all(any(key.endswith(f"_{name}") for name in target.classes) for key in of_class)
        assert bool(of_class) == (target.kind != "binary")


def test_confusion_percentages_are_of_the_row(several: Evaluation) -> None:
    (table,) = view.confusion_tables(several, several.targets[1])
    counts = several.confusion["grade"]
    for i, (name, n, cells) in enumerate(table.rows):
        assert name == several.targets[1].classes[i]
        assert n == str(counts[i].sum())
        assert [cell[0] for cell in cells] == [str(count) for count in counts[i]]
        assert [cell[1] for cell in cells] == [f"{100 * count / counts[i].sum():.1f}%" for count in counts[i]]
        assert sum(cell[2] for cell in cells) == pytest.approx(1.0, abs=0.003)


def test_flow_counts_what_is_left_and_orders_the_splits() -> None:
    flow = view.show_flow(
        {
            "rows": 10,
            "rejected": {"empty": 1, "truncated": 3},
            "splits": {"test": {"images": 2}, "train": {"images": 4}},
        }
    )
    assert flow is not None
    assert (flow.rows, flow.usable, flow.n_rejected) == ("10", "6", "4")
    assert flow.rejected[0] == ("file cut short", "truncated", "3")
    assert [name for name, *_ in flow.splits] == ["training", "test"]
    assert flow.splits[0][1] == view.NOTHING
    assert view.show_flow(None) is None


def test_facts_keep_plain_values_and_drop_folders() -> None:
    facts = {
        "a": np.float64(0.5),
        "b": None,
        "c": {"d": [1, 2]},
        "e": "/x/JANE/w.pt",
        "f": {},
        "g": True,
        "h": math.nan,
    }
    shown = dict(view.show_facts(facts))
    assert shown == {"a": "0.5000", "c": [("d", "1, 2")], "e": "w.pt", "g": "yes", "h": "–"}


def test_averages_over_classes_have_words_and_a_scale() -> None:
    words = term("sensitivity_micro")
    assert (words.title, words.scale) == ("Sensitivity (micro)", "share")
    assert words.meaning.startswith("Pooled over all classes")
    assert term("lr_positive_weighted").scale == "number"
    assert term("novel_micro").title == "novel micro"
