"""Targets and subgroups of other tools' tables, against scikit-learn on the columns themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import EvaluationError
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.stated_targets import stated_targets, table_subgroups
from lepton_vision.types import Target

GRADES = ("none", "mild", "severe")


@pytest.fixture
def frame() -> pd.DataFrame:
    """A grade in words, two findings, a sex and an age for each of 90 images of 45 patients."""
    rng = np.random.default_rng(0)
    grade = rng.integers(0, 3, 90)
    prob = rng.dirichlet([1, 1, 1], 90) * 0.5 + 0.5 * np.eye(3)[grade]
    mass, air = rng.integers(0, 2, (2, 90))
    columns = {f"y_prob_grade_{name}": prob[:, k] for k, name in enumerate(GRADES)}
    return pd.DataFrame({
        "image_id": [f"a{k}" for k in range(90)], "patient_id": [f"p{k // 2}" for k in range(90)],
        "y_true_grade": np.array(GRADES)[grade], **columns,
        "y_true_mass": mass, "y_prob_mass": (0.4 * mass + 0.6 * rng.random(90)).round(3),
        "y_true_air": air, "y_prob_air": (0.4 * air + 0.6 * rng.random(90)).round(3),
        "sex": np.array(["F", "M"])[np.arange(90) // 2 % 2], "age": rng.integers(20, 90, 90),
    })  # fmt: skip


def evaluate(tmp_path: Path, frame: pd.DataFrame, *options: str) -> dict[str, object]:
    frame.to_csv(tmp_path / "table.csv", index=False)
    arguments = ["evaluate", "--predictions", str(tmp_path / "table.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--set", "evaluation.replicates=100", "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads((tmp_path / "out" / "figures.json").read_text())


def test_an_ordinal_target_and_two_findings_stand_in_one_table(tmp_path: Path, frame: pd.DataFrame) -> None:
    found = evaluate(tmp_path, frame, "--target", "grade:kind=ordinal", "--by", "sex", "--by", "age")
    assert {name: one["kind"] for name, one in found["targets"].items()} == {
        "grade": "ordinal", "mass": "binary", "air": "binary"
    }  # fmt: skip
    truth = frame["y_true_grade"].map(GRADES.index)
    called = frame[[f"y_prob_grade_{name}" for name in GRADES]].to_numpy().argmax(axis=1)
    kappa = cohen_kappa_score(truth, called, weights="quadratic")
    assert found["targets"]["grade"]["figures"]["kappa_quadratic"]["value"] == pytest.approx(kappa)
    area = roc_auc_score(frame["y_true_mass"], frame["y_prob_mass"])
    assert found["targets"]["mass"]["figures"]["auroc"]["value"] == pytest.approx(area)
    sexes, ages = found["analyses"]["subgroups"]
    women = frame[frame["sex"] == "F"]
    expected = roc_auc_score(women["y_true_mass"], women["y_prob_mass"])
    assert [one["n"] for one in sexes["subgroups"]] == [len(women), 90 - len(women)]
    assert sexes["subgroups"][0]["figures"]["mass"]["auroc"]["value"] == pytest.approx(expected)
    assert len(ages["subgroups"]) < 10  # bands of a number, not one group for each year


@pytest.mark.parametrize("option", ["kind=multilabel,classes=mass+air", "signs:kind=multilabel,classes=mass+air"])
def test_columns_of_findings_become_one_multilabel_target(tmp_path: Path, frame: pd.DataFrame, option: str) -> None:
    found = evaluate(tmp_path, frame, "--target", option)["targets"]
    name = "signs" if option.startswith("signs") else "y"
    assert set(found) == {"grade", name}
    areas = [roc_auc_score(frame[f"y_true_{one}"], frame[f"y_prob_{one}"]) for one in ("mass", "air")]
    assert found[name]["figures"]["auroc"]["value"] == pytest.approx(np.mean(areas))


def test_one_plain_target_is_ordinal_where_it_is_said(tmp_path: Path, frame: pd.DataFrame) -> None:
    plain = frame.rename(columns=lambda name: name.replace("_grade", ""))[
        ["image_id", "patient_id", "y_true", "y_prob_none", "y_prob_mild", "y_prob_severe"]
    ]
    found = evaluate(tmp_path, plain, "--target", "kind=ordinal")["targets"]
    assert found["y"]["classes"] == list(GRADES)
    assert "kappa_quadratic" in found["y"]["figures"]


def test_the_only_finding_may_bear_its_name(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame[["image_id", "patient_id", "y_true_mass", "y_prob_mass"]].to_csv(tmp_path / "one.csv", index=False)
    table = Predictions.load(tmp_path / "one.csv")
    assert table.targets == (Target("mass", "binary", ("0", "1")),)
    assert table.y_true["mass"].tolist() == frame["y_true_mass"].tolist()


def test_the_order_of_the_classes_is_the_stated_one(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    (grade, *_) = stated_targets(tmp_path / "t.csv", ["grade:kind=ordinal,classes=severe+mild+none"])
    assert grade == Target("grade", "ordinal", ("severe", "mild", "none"))
    table = Predictions.load(tmp_path / "t.csv", targets=[grade])
    assert table.y_true["grade"].tolist() == [GRADES[::-1].index(one) for one in frame["y_true_grade"]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ordinal", "--target kind=ordinal"),
        ("kind=ordinl", "'ordinal'"),
        ("grad:kind=ordinal", "'grade'"),
        ("kind=multilabel,classes=mass+ear", "ear"),
        ("mass:kind=binary,classes=a", "2 classes"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, frame: pd.DataFrame, text: str, word: str) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(EvaluationError, match=word):
        stated_targets(tmp_path / "t.csv", [text])


def test_subgroups_are_numbers_or_words_and_unknown_cells_are_none(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame["site"] = ["A", None] * 45
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = table_subgroups(tmp_path / "t.csv", ["age", "site"])
    assert found["age"] == frame["age"].tolist()
    assert found["site"][:2] == ["A", None]
    with pytest.raises(EvaluationError, match="'site'"):
        table_subgroups(tmp_path / "t.csv", ["sit"])


def test_words_of_a_binary_label_are_the_names_of_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image_id,patient_id,truth,y_prob\na,p,neg,0.25\nb,q,pos,0.75\nc,r,1,0.5\nd,s,,0.5\n")
    table = Predictions.load(path, targets=stated_targets(path, ["kind=binary,classes=neg+pos"]))
    np.testing.assert_array_equal(table.y_true["y"], [0, 1, 1, np.nan])
    path.write_text(path.read_text().replace("c,r,1", "c,r,unclear"))
    with pytest.raises(
        EvaluationError, match=r"'truth' needs numbers.*row 2 .*0 and 1 or the name of a class: neg, pos"
    ):
        Predictions.load(path, targets=stated_targets(path, ["kind=binary,classes=neg+pos"]))


@pytest.mark.parametrize(("column", "name"), [("truth", ""), ("y_true_mass", "mass:")])
def test_two_words_that_are_not_named_are_asked_for(tmp_path: Path, column: str, name: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"image_id,patient_id,{column},y_prob\na,p,neg,0.25\nb,q,pos,0.75\nc,r,,0.5\n")
    with pytest.raises(EvaluationError) as caught:
        Predictions.load(path)
    line = f"--target {name}kind=binary,classes="
    assert f"the negative one first: {line}neg+pos or {line}pos+neg." in str(caught.value)
    assert Predictions.load(path, targets=stated_targets(path, [f"{line[9:]}neg+pos"])).targets[0].classes[1] == "pos"


@pytest.mark.parametrize("words", [("a", "b", "c"), ("x+y", "b"), ("7 mm", "8")])
def test_words_that_cannot_be_two_classes_are_not_proposed(tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = "".join(f"{k},p,{word},0.5\n" for k, word in enumerate(words))
    (tmp_path / "t.csv").write_text(f"image_id,patient_id,y_true,y_prob\n{rows}")
    with pytest.raises(EvaluationError, match="Labels are 0 and 1, empty where unknown") as caught:
        Predictions.load(tmp_path / "t.csv")
    assert "--target" not in str(caught.value)
