"""Notes on figures of images without a patient, wherever they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import aggregate, evaluate, evaluate_masks
from lepton_vision.evaluation.masks.evaluation import MaskCase
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.reporting import write_report, write_segmentation_report
from lepton_vision.reporting.documents.evidence import RunFacts
from lepton_vision.reporting.documents.model_card import write_documents
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
FEW = EvaluationConfig(replicates=100)
SAID = "12 of 40 images name no patient"


@pytest.fixture
def predictions() -> Predictions:
    """40 images in pairs of 20 patients; those of the first 6 are known by their study alone."""
    rng, ids = np.random.default_rng(0), np.array([f"i{k}" for k in range(40)])
    groups = np.array([f"g{k // 2}" for k in range(40)])
    truth = np.arange(40) // 2 % 2
    prob = np.clip(0.3 * truth + rng.uniform(0, 0.7, 40), 0, 1)
    known = np.arange(40) >= 12
    return Predictions((SICK,), ids, groups, ids, {"sick": truth}, {"sick": prob}, "test", patient_known=known)


def test_what_names_no_patient_is_kept_with_the_predictions(predictions: Predictions, tmp_path: Path) -> None:
    assert predictions.select([0, 1, 39]).names_patient.tolist() == [False, False, True]
    parts = [predictions.select(np.arange(12)), predictions.select(np.arange(12, 40))]
    assert Predictions.concat(parts).names_patient.sum() == 28
    assert aggregate(predictions, unit="patient").names_patient.sum() == 14
    for suffix in (".csv", ".parquet"):
        loaded = Predictions.load(predictions.save(tmp_path / f"p{suffix}"))
        assert loaded.names_patient.tolist() == predictions.names_patient.tolist()
    plain = predictions.select(np.arange(12, 40)).save(tmp_path / "known.csv").read_text(encoding="utf-8")
    assert "patient_known" not in plain


def test_page_card_and_figures_say_how_many(predictions: Predictions, tmp_path: Path) -> None:
    found = evaluate(predictions, operating_point=POINT, config=FEW)
    assert found.to_dict()["provenance"]["unknown_patient"] == 12
    assert SAID in write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    card = write_documents(RunFacts(found), tmp_path)[0].read_text(encoding="utf-8")
    assert SAID in card
    known = evaluate(predictions.select(np.arange(12, 40)), operating_point=POINT, config=FEW)
    assert "unknown_patient" not in known.provenance


def test_the_page_of_masks_says_how_many(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 1:3] = 1
    cases = [MaskCase(f"i{k}", mask, mask, None, "" if k < 2 else f"p{k}") for k in range(5)]
    found = evaluate_masks(cases, structures={"organ": 1}, config=FEW)
    page = write_segmentation_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 of 5 images name no patient" in page


def test_the_command_line_says_how_many_of_another_tools_table(tmp_path: Path) -> None:
    rows = [f"i{k},{'' if k < 3 else k},{k % 2},{0.1 + 0.7 * (k % 2)}" for k in range(10)]
    table = tmp_path / "p.csv"
    table.write_text("image_id,patient_id,y_true,y_prob\n" + "\n".join(rows) + "\n", encoding="utf-8")
    common = [str(table), "--out", str(tmp_path / "out"), "--json"]
    shown = CliRunner().invoke(app, ["evaluate", "--predictions", *common, "--set", "evaluation.replicates=100"])
    assert json.loads(shown.stdout)["unknown_patient"] == 3
    assert "3 of 10 images name no patient" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    shown = CliRunner().invoke(app, ["compare", str(table), *common, "--replicates", "100"])
    assert json.loads(shown.stdout)["unknown_patient"] == 3
