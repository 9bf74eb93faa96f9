"""Columns that are no labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.other_columns import findings_of, is_other_column, left_out
from lepton_vision.manifest.table import Manifest


def test_an_index_of_pandas_and_a_comma_at_the_end_are_no_columns(study: Path, tmp_path: Path) -> None:
    table = pd.read_csv(tmp_path / "labels.csv")
    table.index = table.index * 3 + 7
    table.to_csv(tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text().replace("\n", ",\n")
    (tmp_path / "t.csv").write_text(text)
    manifest = Manifest.scan(study, labels=tmp_path / "t.csv", workers=1)
    assert manifest.label_columns == ("finding",)
    assert not [name for name in manifest.frame.columns if not name or "Unnamed" in name]
    (target,) = infer_targets(manifest)
    assert (target.name, target.kind) == ("finding", "binary")


@pytest.mark.parametrize("name", ["index", "level_0", "Patient Age", "OriginalImage[Width", "Height]", "View Position"])
def test_facts_by_name(name: str) -> None:
    assert is_other_column(name)


@pytest.mark.parametrize("name", ["y", "label", "finding", "width_class", "pathology", "dx", "grade"])
def test_labels_by_name(name: str) -> None:
    assert not is_other_column(name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["path", "y"], set()),
        (["path", "x", "y"], set()),
        (["path", "x", "y", "width", "height", "Target"], {"x", "y", "width", "height"}),
        (["path", "x_min", "y_min", "x_max", "y_max", "class_name"], {"x_min", "y_min", "x_max", "y_max"}),
        (["path", "Bbox [x", "y", "w", "h]"], {"Bbox [x", "y", "w", "h]"}),
        (["Unnamed: 0", "", "path", "study_id"], {"Unnamed: 0", "", "study_id"}),
    ],
)
def test_what_is_left_out(names: list[str], expected: set[str]) -> None:
    assert left_out(names) == expected


def test_lists_of_findings() -> None:
    found = findings_of(pd.Series(["mass|cyst", "cyst", None, "unknown", "No Finding"]))
    assert {name: values.tolist() for name, values in found.items()} == {
        "No Finding": [0, 0, pd.NA, pd.NA, 1],
        "cyst": [1, 1, pd.NA, pd.NA, 0],
        "mass": [1, 0, pd.NA, pd.NA, 0],
    }
    assert set(findings_of(pd.Series(["['mass', 'cyst']", "[]"]))) == {"mass", "cyst"}
    assert findings_of(pd.Series(["[mass]", "[x]"])) == {}
    assert findings_of(pd.Series(["mass", "cyst"])) == {}
    assert findings_of(pd.Series([0, 1])) == {}
