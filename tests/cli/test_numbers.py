"""``evaluate`` and ``compare`` on tables of numbers, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, r2_score
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import EvaluationError

STATED = ("--target", "age:kind=regression,unit=years")


@pytest.fixture
def tables(tmp_path: Path) -> tuple[pd.DataFrame, Path, Path]:
    """Two tools on 60 patients with one to three images, some without a known age; the second errs less."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    age = rng.normal(60, 12, 60).round(1)[who]
    frame = pd.DataFrame({"image_id": [f"i{k}" for k in range(who.size)], "patient_id": [f"p{k}" for k in who]})
    frame["age"], frame["sex"] = np.where(rng.random(who.size) < 0.05, np.nan, age), np.where(who % 2, "f", "m")
    paths = []
    for name, error in (("first", 6.0), ("second", 2.0)):
        frame["predicted"] = age + rng.normal(0, error, who.size)
        paths.append(tmp_path / f"{name}.csv")
        frame.to_csv(paths[-1], index=False)
    return pd.read_csv(paths[0]), paths[0], paths[1]


def facts(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_evaluate_tells_the_figures_of_a_number(tables: tuple[pd.DataFrame, Path, Path], tmp_path: Path) -> None:
    frame, path, _ = tables
    found = facts("evaluate", "--predictions", path, *STATED, "--by", "sex", "--out", tmp_path / "out")
    known = frame.dropna(subset="age")
    assert found["mae"]["value"] == pytest.approx(mean_absolute_error(known["age"], known["predicted"]))
    assert found["r2"]["value"] == pytest.approx(r2_score(known["age"], known["predicted"]))
    assert (found["n"], found["units"]) == (len(known), {"age": "years"})
    assert [one["value"] for one in found["subgroups"][0]["subgroups"]] == ["f", "m"]
    assert (tmp_path / "out" / "report.html").is_file()
    kept = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert kept["targets"]["age"]["unit"] == "years"
    again = facts("evaluate", "--predictions", tmp_path / "out" / "predictions.csv", "--out", tmp_path / "again")
    assert again["mae"] == found["mae"]


def test_patients_are_cases_where_that_is_asked(tables: tuple[pd.DataFrame, Path, Path], tmp_path: Path) -> None:
    frame, path, _ = tables
    found = facts("evaluate", "--predictions", path, *STATED, "--unit", "patient", "--out", tmp_path / "out")
    cases = frame.groupby("patient_id").agg({"age": "max", "predicted": "mean"}).dropna()
    assert found["mae"]["value"] == pytest.approx(mean_absolute_error(cases["age"], cases["predicted"]))
    assert found["n"] == len(cases)


def test_compare_tells_which_model_of_a_number_errs_less(
    tables: tuple[pd.DataFrame, Path, Path], tmp_path: Path
) -> None:
    _, first, second = tables
    found = facts("compare", first, second, *STATED, "--margin", "1", "--out", tmp_path / "out")
    figures = found["targets"]["age"]
    assert set(figures) == {"mae", "rmse", "r2"}
    assert figures["mae"]["difference"]["high"] < 0
    assert figures["mae"]["is_non_inferior"] is True
    assert "margin" not in figures["r2"]
    assert (tmp_path / "out" / "comparison.html").is_file()


@pytest.mark.parametrize(
    ("stated", "message"),
    [((), "--target kind=regression"), (("--target", "age:kind=regression,classes=a+b"), "has no classes")],
)
def test_what_cannot_be_meant_is_refused(
    tables: tuple[pd.DataFrame, Path, Path], tmp_path: Path, stated: tuple[str, ...], message: str
) -> None:
    frame, path, _ = tables
    frame.rename(columns={"age": "y_true"}).to_csv(path, index=False)
    for command in (("evaluate", "--predictions", path), ("compare", path, path)):
        done = CliRunner().invoke(app, [*map(str, (*command, *stated, "--out", tmp_path / "out"))])
        assert isinstance(done.exception, EvaluationError)
        assert message in str(done.exception)
