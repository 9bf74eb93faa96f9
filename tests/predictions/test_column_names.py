"""Tables of other tools: columns under other names, and two tools on the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_vision.errors import EvaluationError
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.paired_cases import load_pair
from lepton_vision.types import Target


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _ours(folder: Path) -> Path:
    ids, patients = np.array(["a", "b", "c"]), np.array(["p", "p", "q"])
    target = Target("nodule", "binary", ("no", "yes"))
    truth, prob = {"nodule": np.array([0.0, 1.0, 1.0])}, {"nodule": np.array([0.2, 0.7, 0.9])}
    return Predictions((target,), ids, patients, ids, truth, prob, split="test").save(folder / "ours.csv")


@pytest.mark.parametrize(
    "header",
    ["filename,patient,label,score", "Image Name,PatientID,Ground-Truth,probability", "id,subject_id,gt,y_score"],
)
def test_usual_names_of_other_tools_are_known(header: str, tmp_path: Path) -> None:
    table = Predictions.load(_write(tmp_path / "t.csv", f"{header}\na,p,0,0.25\nb,q,1,0.75\n"))
    assert (table.image_id.tolist(), table.patient_id.tolist()) == (["a", "b"], ["p", "q"])
    assert (table.y_true["y"].tolist(), table.y_prob["y"].tolist()) == ([0, 1], [0.25, 0.75])


def test_semicolons_and_stated_columns(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv", "scan;who;y_true;y_pred\na;p;0;0.25\nb;q;1;0.75\n")
    with pytest.raises(EvaluationError, match=r"'image_id' is missing.*--columns image_id=COLUMN"):
        Predictions.load(path)
    table = Predictions.load(path, columns={"image_id": "scan", "patient_id": "who", "y_prob": "y_pred"})
    assert table.y_prob["y"].tolist() == [0.25, 0.75]
    with pytest.raises(EvaluationError, match=r"'scann' is missing. Did you mean 'scan'"):
        Predictions.load(path, columns={"image_id": "scann"})


def test_two_columns_that_may_both_be_meant_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv", "file,id,patient_id,y_true,y_prob\na,1,p,0,0.25\n")
    with pytest.raises(
        EvaluationError, match=r"'file', 'id', which may all be meant. Name it: --columns image_id=file"
    ):
        Predictions.load(path)


@pytest.mark.parametrize("is_second", [True, False])
def test_the_other_tool_needs_ids_and_probabilities_alone(is_second: bool, tmp_path: Path) -> None:
    theirs = _write(tmp_path / "theirs.csv", "filename,score\nc,0.8\na,0.1\nb,0.4\n")
    paths = (_ours(tmp_path), theirs) if is_second else (theirs, _ours(tmp_path))
    pair = load_pair(paths)
    found = pair[1] if is_second else pair[0]
    assert found.targets == pair[0].targets == pair[1].targets
    assert found.targets[0].name == "nodule"
    assert found.patient_id.tolist() == ["q", "p", "p"]
    assert found.y_true["nodule"].tolist() == [1, 0, 1]
    assert found.y_prob["nodule"].tolist() == [0.8, 0.1, 0.4]


def test_tables_of_two_other_tools_are_one_target(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.csv", "image_id,patient_id,y_true,y_prob\na,p,0,0.1\nb,q,1,0.9\n")
    second = _write(tmp_path / "b.csv", "image,confidence_of_it\nb,0.6\na,0.3\n")
    pair = load_pair((first, second), columns=(None, {"y_prob": "confidence_of_it"}))
    assert pair[1].y_true["y"].tolist() == [1, 0]
    with pytest.raises(EvaluationError, match="'y_prob' is missing"):
        load_pair((first, second))


def test_a_message_lists_the_columns_as_the_file_has_them(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv", "Scan Name,who,truth,p\na,p,0,0.25\n")
    stated = {"image_id": "Scan Name", "patient_id": "who"}
    with pytest.raises(EvaluationError, match=r"'y_prob' is missing\. Columns present: Scan Name, p, truth, who\."):
        Predictions.load(path, columns=stated)
    with pytest.raises(EvaluationError, match=r"'patient_id' is missing.*Columns present: Scan Name, p, truth, who\."):
        Predictions.load(path, columns={"image_id": "Scan Name"})
    with pytest.raises(EvaluationError, match=r"Columns present: Scan Name, p, truth, who\."):
        load_pair((_ours(tmp_path), path), columns=(None, {"image_id": "Scan Name"}))
