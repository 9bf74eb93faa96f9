"""Evaluation of another tool's plain CSV: the whole page without pictures, a model card and checklists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import run_cli, run_json


@pytest.mark.slow
def test_a_table_of_another_tool_gets_the_page_and_the_documents(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(90) % 2
    prob = (0.4 * truth + rng.random(90) * 0.6).round(4)
    frame = pd.DataFrame({"image_id": [f"a{k}" for k in range(90)], "patient_id": [f"p{k // 3}" for k in range(90)]})
    frame.assign(y_true=truth, y_prob=prob).to_csv(tmp_path / "Doe_Jane.csv", index=False)
    (tmp_path / "about.yaml").write_text("intended_use: Only to test.\n")
    arguments = ("evaluate", "--predictions", tmp_path / "Doe_Jane.csv", "--out", tmp_path / "out")
    found = run_json(*arguments, "--about", tmp_path / "about.yaml")
    assert found["n"] == 90
    documents = {"model_card.md", "checklist_claim_2024.md", "checklist_tripod_ai.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.csv", "predictions.csv.json", "figures.json", "report.html", "ledger.jsonl", *documents
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data-explorer" in page
    assert "there are no pictures" in page
    for path in (tmp_path / "out").iterdir():
        assert "Doe" not in path.read_text(encoding="utf-8")
    assert "Only to test." in (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")
    (tmp_path / "about.yaml").write_text("intended_usage: x\n")
    done = run_cli(*arguments, "--about", tmp_path / "about.yaml")
    assert done.returncode == 2
    assert "intended_use" in done.stderr


@pytest.mark.slow
def test_subgroups_are_short_for_people_and_whole_in_json(tmp_path: Path) -> None:
    truth, sex = np.arange(60) % 2, np.where(np.arange(60) % 4 < 2, "F", "M")
    frame = pd.DataFrame({"image_id": [f"a{k}" for k in range(60)], "patient_id": [f"p{k}" for k in range(60)]})
    prob = (0.4 * truth + np.random.default_rng(0).random(60) * 0.6).round(4)
    frame.assign(y_true=truth, y_prob=prob, sex=sex).to_csv(tmp_path / "t.csv", index=False)
    arguments = ("evaluate", "--predictions", tmp_path / "t.csv", "--by", "sex", "--set", "evaluation.replicates=100")
    told = run_cli(*arguments, "--out", tmp_path / "a").stdout.splitlines()
    assert max(map(len, told)) < 200
    assert not any("{" in line for line in told)
    assert sum(line.split()[0] == "auroc" for line in told) == 3  # of all, of F and of M: each once
    assert sum(line.split()[0] == "mcc" for line in told) == 1
    whole = run_json(*arguments, "--out", tmp_path / "b")
    assert "mcc" in whole["subgroups"][0]["subgroups"][0]["figures"]["y"]
