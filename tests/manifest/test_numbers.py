"""Labels that are numbers: reading, groups by quarter, and codes that look like values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.errors import LabelError
from lepton_vision.manifest.class_counts import count_classes, find_problem, label_groups
from lepton_vision.manifest.labels import infer_targets, warn_lost
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

AGE = Target("age", "regression", unit="years")


def table(values: list[object]) -> Manifest:
    names = [f"i{k}" for k in range(len(values))]
    columns = {"image_id": names, "path": names, "age": values, "status": ["ok"] * len(values)}
    return Manifest(pd.DataFrame(columns).convert_dtypes(), Path(), ("age",))


def test_numbers_are_read_and_blanks_are_unknown() -> None:
    labels = table(["61", " 58.5 ", "1e2", "-3", "", "NA", "unknown", None]).labels(AGE)
    np.testing.assert_array_equal(labels, np.float32([61, 58.5, 100, -3, *[np.nan] * 4]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("63,5", "decimal point"),
        ("old", "no number"),
        ("inf", "no number"),
        ("1_0", "no number"),
        ("045Y", "no number"),
    ],
)
def test_what_is_no_number_is_refused_with_its_row(value: str, said: str) -> None:
    with pytest.raises(LabelError, match=said) as caught:
        table(["61", value]).labels(AGE)
    assert (caught.value.row, caught.value.key) == (1, "age")


def test_groups_are_quarters_and_hold_each_known_value_once() -> None:
    labels = np.random.default_rng(0).normal(60, 10, 101).astype(np.float32)
    labels[::10] = np.nan
    groups = label_groups(labels, AGE)
    assert [int(rows.sum()) for rows in groups.values()] in ([23, 22, 22, 23], [23, 23, 22, 22], [22, 23, 22, 23])
    assert int(sum(rows.astype(int) for rows in groups.values()).max()) == 1
    assert sum(int(rows.sum()) for rows in groups.values()) == int((~np.isnan(labels)).sum())
    assert label_groups(np.float32([5, 5, np.nan]), AGE).keys() == {"5"}


def test_one_value_alone_is_nothing_to_learn() -> None:
    problem = find_problem(table(["5", "5.0"]), AGE, split="train")
    assert problem is not None
    assert "one value only" in str(problem)
    assert find_problem(table(["5", "6"]), AGE, split="train") is None
    assert count_classes(table(["5", "6"]), AGE) == ()


@pytest.mark.parametrize(
    ("code", "is_told"), [("999", True), ("-99", True), ("99", False), ("9999", True), ("88", False)]
)
def test_a_code_for_unknown_far_from_all_values_is_told(
    code: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_lost(table(["20", "90", "61", code, code]), [AGE])
    assert (f"Target 'age' holds {code} far from" in caplog.text) is is_told


def test_a_column_of_numbers_asks_whether_the_number_is_meant() -> None:
    with pytest.raises(LabelError, match="kind: regression"):
        infer_targets(table([f"{20 + k * 0.5}" for k in range(60)]))
