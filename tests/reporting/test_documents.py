"""Model card and checklists: filled from the run, open where only a human can answer, and free of markup and paths."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from analysis_studies import make_analyses
from html_pages import HOSTILE
from report_studies import FLOW, PROVENANCE

from lepton_vision.config import Config
from lepton_vision.errors import ReportError
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.documents.about import questions, read_about, read_list
from lepton_vision.reporting.documents.checklist import CHECKLISTS, fill_checklist, render_checklist
from lepton_vision.reporting.documents.evidence import RunFacts, gather
from lepton_vision.reporting.documents.model_card import render_card, write_documents

SIZES = {"claim_2024": 44, "tripod_ai": 52}  # Tejani 2024, table 1; Collins 2024: 27 items, 52 with their parts


def full_run(evaluation: Evaluation) -> RunFacts:
    config = Config().override("model.weights=/home/DOE^JANE/weights.pt")
    return RunFacts(dataclasses.replace(evaluation, analyses=make_analyses()), FLOW, PROVENANCE, config.to_dict(), True)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_a_checklist_has_every_item_once_and_asks_only_what_is_known(name: str, binary: Evaluation) -> None:
    items = read_list(name)["items"]
    ids = [item["id"] for item in items]
    assert len(ids) == len(set(ids)) == SIZES[name]
    assert {int(re.match(r"\d+", one)[0]) for one in ids} == set(range(1, 45 if name == "claim_2024" else 28))  # type: ignore[index]
    assert {key for item in items for key in item["human"]} <= set(questions())
    assert {key for item in items for key in item["run"]} <= set(gather(full_run(binary)))
    assert all(item["run"] or item["human"] for item in items)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_items_are_open_until_they_are_answered(name: str, binary: Evaluation) -> None:
    evidence = gather(full_run(binary))
    nobody = fill_checklist(name, evidence=evidence, about={})
    assert nobody.count("open") > 10
    assert nobody.count("answered") > 10
    asked = {key for item in nobody.items for key in item.missing}
    everybody = fill_checklist(name, evidence=evidence, about=dict.fromkeys(asked, "text"))
    assert everybody.count("answered") == SIZES[name]
    assert fill_checklist(name, evidence={}, about={}).count("open") == SIZES[name]
    text = render_checklist(nobody)
    for key in asked:
        assert f"- `{key}`: {questions()[key]}" in text
    assert f"{SIZES[name]} items: {nobody.count('answered')} answered" in text
    assert "## Open" not in render_checklist(everybody)


def test_what_was_combined_is_said(binary: Evaluation) -> None:
    run = full_run(binary)
    several = dataclasses.replace(run, settings=Config().override("model.members=4").to_dict())
    folds = {**run.provenance, "models": 5}
    assert gather(run)["ensemble"] == "One model; nothing is combined."
    assert gather(several)["ensemble"].startswith("One model of 4 networks, trained side by side")
    assert gather(dataclasses.replace(run, provenance=folds))["ensemble"].endswith("Nothing is combined.")
    assert "Each is of 4 networks" in gather(dataclasses.replace(several, provenance=folds))["ensemble"]


def test_source_and_licence_of_the_initial_weights_are_said(binary: Evaluation) -> None:
    run = full_run(binary)
    assert gather(run)["initialization"].startswith("Weights: ")
    stated = {"file": "w.safetensors", "source": "https://example.org/w", "licence": "Apache-2.0"}
    told = dataclasses.replace(run, provenance={**run.provenance, "initial_weights": stated})
    expected = "; source https://example.org/w; licence Apache-2.0."
    assert gather(told)["initialization"] == gather(run)["initialization"].removesuffix(".") + expected


def test_items_are_answered_from_the_run(binary: Evaluation) -> None:
    filled = fill_checklist("claim_2024", evidence=gather(full_run(binary)), about={})
    claim = {item.id: " ".join(item.answers) for item in filled.items}
    assert "1,213 images found, 13 rejected (decoder_failed 1, not_an_image 5, truncated 7)" in claim["35"]
    assert "training 720 images of 240 patients" in claim["19"]
    assert f"AUROC {binary.figures['covid']['auroc'].value:.3f}" in claim["37"]
    assert "torch 2.14.0" in claim["23"]
    assert "100 replicates, seed 0" in claim["29"]
    assert "Threshold 0.400: sensitivity ≥ 0.9" in claim["38"]
    assert "Grad-CAM" in claim["31"]
    of_a_table = gather(RunFacts(binary))
    assert {"software", "training", "flow", "disjoint", "pseudonyms", "explanation"} & set(of_a_table) == set()
    assert "performance" in of_a_table


def test_the_card_holds_every_figure_and_says_what_is_open(binary: Evaluation) -> None:
    text = render_card(full_run(binary), about={"intended_use": "Triage | <b>only</b>"})
    for figure in binary.figures["covid"].values():
        interval = "" if figure.low != figure.low else f" ({figure.low:.3f} – {figure.high:.3f})"
        assert f"{figure.value:.3f}{interval}".replace("-", "−") in text
    assert "What the model is for. Triage \\| &lt;b>only&lt;/b>" in text
    assert "Who is to use it. **Open** (`intended_users`)" in text
    assert "weights.pt" in text
    assert "DOE" not in text


def test_hostile_names_stay_text(binary: Evaluation) -> None:
    named = dataclasses.replace(binary.targets[0], classes=("no", HOSTILE))
    run = dataclasses.replace(full_run(binary), evaluation=dataclasses.replace(binary, targets=(named,)))
    text = render_card(run, about={"title": HOSTILE}) + render_checklist(
        fill_checklist("claim_2024", evidence=gather(run), about={"title": HOSTILE})
    )
    assert "<script" not in text
    assert "<img" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 7)


def test_documents_are_written_and_answers_are_checked(binary: Evaluation, tmp_path: Path) -> None:
    answers = tmp_path / "about.yaml"
    answers.write_text("intended_use: Triage.\nlimitations: 2\nethics:\n")
    about = read_about(answers)
    assert about == {"intended_use": "Triage.", "limitations": "2"}
    paths = write_documents(RunFacts(binary), tmp_path / "out", about=about)
    assert [path.name for path in paths] == ["model_card.md", "checklist_claim_2024.md", "checklist_tripod_ai.md"]
    assert "Triage." in paths[1].read_text(encoding="utf-8")
    for text, message in (
        ("intended_usage: x", r"Unknown key 'intended_usage'.*intended_use"), ("- x", "Expected lines such as"),
        ("intended_use: [a]", "Expected a text for 'intended_use'. Received: list"), ("a: b: c", "cannot be read"),
    ):  # fmt: skip
        answers.write_text(text)
        with pytest.raises(ReportError, match=message):
            read_about(answers)
    with pytest.raises(ReportError, match="Unknown key"):
        write_documents(RunFacts(binary), tmp_path / "none", about={"x": "y"})
    assert not (tmp_path / "none").exists()
