"""Predictions: refused inputs, and bit-exact round trips through files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.predictions import Predictions
from lepton_vision.types import SampleAddress, Target

COVID = Target("covid", "binary", ("no", "yes"), column="label", is_lateral=True)
SIGNS = Target("signs", "multilabel", ("edema", "mass"))
ORGAN = Target("organ", "multiclass", ("liver", "lung", "brain"))


def binary(truth: Any, prob: Any, **more: Any) -> Predictions:
    n = len(prob)
    ids = np.array([f"i{k}" for k in range(n)])
    values = {"patient_id": ids, "series_id": ids} | more
    return Predictions((COVID,), values.pop("image_id", ids), y_true={"covid": truth}, y_prob={"covid": prob}, **values)


def mixed(n: int = 40, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = {
        "covid": np.where(rng.random(n) < 0.3, np.nan, rng.integers(0, 2, n)),
        "signs": np.where(rng.random((n, 2)) < 0.3, np.nan, rng.integers(0, 2, (n, 2))),
        "organ": rng.integers(0, 3, n).astype(float),
    }
    prob = {"covid": rng.random(n), "signs": rng.random((n, 2)), "organ": rng.dirichlet([1, 1, 1], n)}
    ids = np.array([f"image {k}" for k in range(n)])
    return Predictions(
        (COVID, SIGNS, ORGAN),
        ids,
        np.array([f"p{k // 3}" if k else "" for k in range(n)]),
        np.array([f"s{k // 2}" for k in range(n)]),
        truth,
        prob,
        split="val",
        bundle_id="b1",
        addresses=tuple(
            SampleAddress(Path(f"x/{k}.dcm"), "m" if k % 2 else None, k if k % 3 else None) for k in range(n)
        ),
        preprocess=PreprocessConfig(size=(28, 30), windows=("lung", "bone")),
        failures=(("lost", "truncated"),),
    )


def assert_same(a: Predictions, b: Predictions, *, with_addresses: bool) -> None:
    assert (a.targets, a.split, a.bundle_id, a.preprocess, a.failures) == (
        b.targets,
        b.split,
        b.bundle_id,
        b.preprocess,
        b.failures,
    )
    for name in ("image_id", "patient_id", "series_id"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    for target in a.targets:
        np.testing.assert_array_equal(a.y_true[target.name], b.y_true[target.name])
        np.testing.assert_array_equal(a.y_prob[target.name], b.y_prob[target.name])
    assert b.addresses == (a.addresses if with_addresses else None)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_brings_back_every_bit(tmp_path: Path, suffix: str) -> None:
    predictions = mixed()
    path = predictions.save(tmp_path / "new folder" / f"p{suffix}")
    assert_same(predictions, Predictions.load(path), with_addresses=suffix == ".parquet")
    assert {file.name for file in path.parent.iterdir()} - {"p.csv.json"} == {path.name}  # nothing temporary is left


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
)
@example([0.1], "0\r")
@example([1 / 3], 'a,"b\n# c')
def test_any_probability_and_any_id_survive_csv(
    tmp_path_factory: pytest.TempPathFactory, prob: list[float], name: str
) -> None:
    ids = np.array([f"{name}{k}" for k in range(len(prob))])
    predictions = binary(np.zeros(len(prob)), np.array(prob), image_id=ids)
    read = Predictions.load(predictions.save(tmp_path_factory.mktemp("csv") / "p.csv"))
    assert read.y_prob["covid"].tolist() == prob
    assert read.image_id.tolist() == ids.tolist()


def test_the_csv_is_a_plain_table_for_other_tools(tmp_path: Path) -> None:
    predictions = binary([0, 1, np.nan], [0.1, 0.25, 1 / 3], split="test")
    table = pd.read_csv(predictions.save(tmp_path / "p.csv"))
    assert list(table) == ["image_id", "patient_id", "series_id", "split", "y_true", "y_prob"]
    assert table["y_prob"].tolist() == pytest.approx([0.1, 0.25, 1 / 3], abs=1e-15)
    assert table["y_true"].isna().tolist() == [False, False, True]
    assert set(table["split"]) == {"test"}


def test_columns_of_several_targets(tmp_path: Path) -> None:
    table = pd.read_parquet(mixed().save(tmp_path / "p.parquet"))
    expected = ["y_true_covid", "y_prob_covid", "y_true_signs_edema", "y_true_signs_mass", "y_prob_signs_edema"]
    expected += ["y_prob_signs_mass", "y_true_organ", "y_prob_organ_liver", "y_prob_organ_lung", "y_prob_organ_brain"]
    assert set(expected) <= set(table)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_table_of_another_tool(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv", "﻿image_id,patient_id,y_true,y_prob\r\nNA,01,1,0.9\r\n008,01,,0.25\r\n009,,0,1e-3\r\n"
    )
    read = Predictions.load(path)
    assert read.image_id.tolist() == ["NA", "008", "009"]  # ids are text, and "NA" is an image
    assert read.patient_id.tolist() == ["01", "01", ""]
    np.testing.assert_array_equal(read.y_true["y"], [1, np.nan, 0])
    assert read.y_prob["y"].tolist() == [0.9, 0.25, 1e-3]
    assert (read.split, read.bundle_id, read.targets[0].kind) == (None, None, "binary")
    named = Predictions.load(path, targets=[COVID])
    assert named.targets == (COVID,)


def test_targets_are_read_from_the_columns(tmp_path: Path) -> None:
    header = "image_id,patient_id,split,y_true_organ,y_prob_organ_a,y_prob_organ_b,y_true_sick,y_prob_sick\n"
    read = Predictions.load(write(tmp_path / "p.csv", header + "1,1,val,0,0.5,0.5,1,0.7\n"))
    assert [(t.name, t.kind, t.classes) for t in read.targets] == [
        ("organ", "multiclass", ("a", "b")),
        ("sick", "binary", ("0", "1")),
    ]
    assert read.split == "val"


@pytest.mark.parametrize(
    ("text", "words", "key"),
    [
        ("image_id,patient_id,y_true,y_porb\na,a,1,0.5\n", ["'y_prob' is missing", "'y_porb'"], "y_prob"),
        ("image_id,patient_id,y_true,y_pred\na,a,1,0.5\n", ["'y_prob' is missing", "y_pred"], "y_prob"),
        ("image_id,y_true,y_prob\na,1,0.5\n", ["'patient_id' is missing", "copy image_id"], "patient_id"),
        ("scan,patient_id,y_true,y_prob\na,a,1,0.5\n", ["'image_id' is missing"], "image_id"),
        ("image_id,patient_id,y_true,y_prob\na,a,1,1.5\n", ["[0, 1]", "1.5", "row 0"], "y"),
        ("image_id,patient_id,y_true,y_prob\na,a,1,\n", ["needs a probability of 'y'", "none in row 0"], "y"),
        ("image_id,patient_id,y_true,y_prob\na,a,2,0.5\n", ["0 or 1", "2"], "y"),
        ("image_id,patient_id,y_true,y_prob\na,a,yes,0.5\n", ["needs numbers", "row 0"], "y_true"),
        ("image_id,patient_id,y_true,y_prob\na,a,1,0.5\na,b,1,0.5\n", ["once", "row 1"], "image_id"),
        ("image_id,patient_id,y_true,y_prob\n,a,1,0.5\n", ["no image_id", "Row 0"], "image_id"),
        ("image_id,patient_id,split,y_true,y_prob\na,a,dev,1,0.5\n", ["Unknown split", "dev"], "split"),
        ("image_id,patient_id,split,y_true,y_prob\na,a,val,1,0.5\nb,a,test,1,0.5\n", ["different splits"], "split"),
        ("image_id,patient_id,y_true,y_prob\na,a,1\n", ["3 cells", "header 4"], None),
        ("image_id,image_id,y_true,y_prob\na,a,1,1\n", ["twice"], None),
        ("", ["empty"], None),
        ('# {"version": 99}\nimage_id,patient_id,y_true,y_prob\n', ["format 99"], None),
        ('image_id,patient_id,y_true,y_prob\n"a,a,1,1\n' + "b,b,0,0\n" * 20_000, ["no CSV", "quotes"], None),
    ],
)
def test_a_bad_table_says_what_is_wrong(tmp_path: Path, text: str, words: list[str], key: str | None) -> None:
    with pytest.raises(EvaluationError) as caught:
        Predictions.load(write(tmp_path / "Jane_Doe.csv", text))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.key == key
    assert caught.value.path is not None
    assert "Jane" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    for name, word in {"none.csv": "No such file", "p.parquet": "Parquet", "p.csv": "UTF-8", "p.xlsx": ".csv"}.items():
        with pytest.raises(EvaluationError, match=word):
            Predictions.load(tmp_path / name)


@pytest.mark.parametrize("number", [1, 2])
def test_a_table_and_the_file_beside_it_are_written_both_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    syncs, real = list[int](), os.fsync

    def full(descriptor: int) -> None:
        syncs.append(descriptor)
        if len(syncs) == number:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EvaluationError, match="No space left"):
        binary([0], [0.25]).save(tmp_path / "p.csv")
    assert not list(tmp_path.iterdir())


def test_a_table_with_paths_is_for_its_owner_alone(tmp_path: Path) -> None:
    whole = mixed()
    assert whole.save(tmp_path / "paths.parquet").stat().st_mode & 0o777 == 0o600
    plain = tmp_path / "plain"
    plain.touch()
    for one in (whole.save(tmp_path / "p.csv"), replace(whole, addresses=None).save(tmp_path / "p.parquet")):
        assert one.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = binary([1], [0.5]).save(tmp_path / "p.csv")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EvaluationError, match="No space left"):
        binary([0], [0.25]).save(path)
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"p.csv", "p.csv.json"}


@pytest.mark.parametrize(
    ("truth", "prob", "more", "word"),
    [
        ([0, 1], [0.5, np.nan], {}, "needs a probability of 'covid'"),
        ([0, 1], [0.5, -0.01], {}, "sigmoid"),
        ([0, 0.5], [0.5, 0.5], {}, "0 or 1"),
        ([0, 1, 1], [0.5, 0.5], {}, "shape"),
        ([0, 1], [0.5, 0.5], {"image_id": np.array(["a", "a"])}, "once"),
        ([0, 1], [0.5, 0.5], {"patient_id": np.array(["a"])}, "one value for each sample"),
        ([0, 1], [0.5, 0.5], {"split": "dev"}, "Unknown split"),
        ([0, 1], [0.5, 0.5], {"addresses": ()}, "one value for each sample"),
    ],
)
def test_bad_values_are_refused(truth: Any, prob: Any, more: dict[str, Any], word: str) -> None:
    with pytest.raises(EvaluationError, match=word):
        binary(truth, prob, **more)


def test_multiclass_probabilities_sum_to_one() -> None:
    ids = np.array(["a"])
    with pytest.raises(EvaluationError, match="sum to 1"):
        Predictions((ORGAN,), ids, ids, ids, {"organ": [0]}, {"organ": [[0.5, 0.5, 0.5]]})
    with pytest.raises(EvaluationError, match="class index"):
        Predictions((ORGAN,), ids, ids, ids, {"organ": [3]}, {"organ": [[0.5, 0.5, 0.0]]})
    with pytest.raises(EvaluationError, match="at least one target"):
        Predictions((), ids, ids, ids, {}, {})


def test_select_and_concat_undo_each_other() -> None:
    whole = mixed()
    odd = np.arange(whole.n) % 2 == 1
    parts = [whole.select(~odd), whole.select(np.flatnonzero(odd))]
    joined = Predictions.concat(parts)
    order = np.argsort([int(name.split()[1]) for name in joined.image_id])
    back = joined.select(order)
    np.testing.assert_array_equal(back.y_prob["organ"], whole.y_prob["organ"])
    np.testing.assert_array_equal(back.y_true["signs"], whole.y_true["signs"])
    assert back.addresses == whole.addresses
    assert (back.split, back.bundle_id) == ("val", "b1")
    with pytest.raises(EvaluationError, match="once"):
        Predictions.concat([parts[0], parts[0]])
    with pytest.raises(EvaluationError, match="one value for each"):
        whole.select(np.ones(3, dtype=bool))
    with pytest.raises(EvaluationError, match="Positions"):
        whole.select([whole.n])


def test_parts_of_different_splits_stay_apart() -> None:
    with pytest.raises(EvaluationError, match="different splits"):
        Predictions.concat([binary([1], [0.5], split="val"), binary([1], [0.5], split="test")])
    with pytest.raises(EvaluationError, match="at least one"):
        Predictions.concat([])


def test_unknown_target_names_the_nearest() -> None:
    assert mixed().target("covid") is COVID
    with pytest.raises(EvaluationError, match="covid"):
        mixed().target("covit")


def test_the_table_in_a_notebook_escapes_names() -> None:
    ids = np.array(["a", "b"])
    target = Target("t", "binary", ("no", "<b>"))
    html = Predictions((target,), ids, ids, ids, {"t": [0, 1]}, {"t": [0.5, 0.5]})._repr_html_()
    assert "&lt;b&gt; 1" in html
    assert "<b>" not in html


def test_loading_a_table_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    path = binary([0, 1], [0.5, 0.75]).save(tmp_path / "p.csv")
    code = (
        "import sys, json; from lepton_vision.predictions import Predictions; Predictions.load(sys.argv[1]);"
        "print(json.dumps([m for m in ('torch', 'pandas', 'pyarrow', 'sklearn') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("word", "label"), [("NULL", None), ("n/a", None), ("unknown", None), ("True", 1.0), ("1.0", 1.0)]
)
def test_words_of_other_tools_for_labels(tmp_path: Path, word: str, label: float | None) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"image_id,patient_id,y_true,y_prob\na,A,0,0.5\nb,B,{word},0.2\n")
    found = Predictions.load(path).y_true["y"][1]
    assert np.isnan(found) if label is None else found == label


@pytest.mark.parametrize("word", ["", "NULL", "unknown", "nan", "n/a"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_unknown_patients_are_no_patient_of_many_images(tmp_path: Path, word: str, suffix: str) -> None:
    named = pd.DataFrame({"patient_id": [word, word, "p"], "y_true": [0, 1, 1], "y_prob": [0.1, 0.9, 0.8]})
    named.insert(0, "image_id", ["a", "b", "c"])
    path = tmp_path / f"p.{suffix}"
    (named.to_csv if suffix == "csv" else named.to_parquet)(path, index=False)
    read = Predictions.load(path)
    assert read.names_patient.tolist() == [False, False, True]
    assert read.patient_id.tolist() == ["", "", "p"]


def test_a_csv_says_the_same_with_and_without_the_file_beside_it(tmp_path: Path) -> None:
    predictions = _binary(["a", "b", "c"], target="nodule")
    path = predictions.save(tmp_path / "p.csv")
    assert path.read_text(encoding="utf-8").startswith("image_id,patient_id")
    assert Predictions.load(path).targets == predictions.targets
    facts = json.loads((tmp_path / "p.csv.json").read_text(encoding="utf-8"))
    assert facts["targets"][0]["name"] == "nodule"
    (tmp_path / "p.csv.json").unlink()
    alone = Predictions.load(path)
    assert alone.targets[0].name == "y"
    assert alone.y_prob["y"].tolist() == predictions.y_prob["nodule"].tolist()


def test_tables_of_before_with_their_facts_in_the_first_line_are_read(tmp_path: Path) -> None:
    predictions = _binary(["a", "b", "c"], target="nodule")
    path = predictions.save(tmp_path / "p.csv")
    facts = json.loads((tmp_path / "p.csv.json").read_text(encoding="utf-8"))
    old = tmp_path / "old.csv"
    old.write_bytes(b"# " + json.dumps(facts).encode() + b"\n" + path.read_bytes())
    assert Predictions.load(old).targets == predictions.targets


def test_the_file_beside_another_table_is_refused(tmp_path: Path) -> None:
    path = _binary(["a", "b"], target="nodule").save(tmp_path / "p.csv")
    path.write_text("image_id,patient_id,label,score\na,a,0,0.5\n")
    with pytest.raises(EvaluationError, match=r"p\.csv\.json beside the table .* Remove it"):
        Predictions.load(path)


@pytest.mark.parametrize("part", ["targets", "preprocess", "failures"])
def test_a_damaged_file_beside_a_table_is_refused_and_may_be_removed(part: str, tmp_path: Path) -> None:
    path = _binary(["a", "b"], target="y").save(tmp_path / "p.csv")
    beside = tmp_path / "p.csv.json"
    for damage in ("x", 5, [5], [{"name": 5}], {"size": "x"}):
        beside.write_text(json.dumps(json.loads(beside.read_text(encoding="utf-8")) | {part: damage}), encoding="utf-8")
        with pytest.raises(EvaluationError, match="is damaged"):
            Predictions.load(path)
    beside.write_bytes(b"[" * 100_000)  # another tool's, and deeper than anything is read
    assert Predictions.load(path).n == 2
    beside.unlink()
    assert Predictions.load(path).n == 2


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "'=a", "''-a", "'a", "-1.5", "+3"])
def test_no_cell_is_a_formula_and_every_id_comes_back(name: str, tmp_path: Path) -> None:
    ids = np.array([name, "b"])
    target = Target("t", "binary", ("no", "yes"))
    truth, prob = {"t": np.array([0.0, 1.0])}, {"t": np.array([1e-300, 0.9])}
    path = Predictions((target,), ids, ids, ids, truth, prob).save(tmp_path / "p.csv")
    assert Predictions.load(path).image_id.tolist() == [name, "b"]
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    for cell in cells:
        assert cell[:1] not in tuple("=+-@\t\r") or float(cell) == float(cell)


def test_a_spreadsheet_reads_letters_beyond_ascii(tmp_path: Path) -> None:
    ids = np.array(["Bär", "b"])
    target, truth = Target("t", "binary", ("no", "yes")), {"t": np.array([0.0, 1.0])}
    path = Predictions((target,), ids, ids, ids, truth, {"t": np.array([0.1, 0.9])}).save(tmp_path / "p.csv")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")  # the mark that Excel knows UTF-8 by
    assert pd.read_csv(path)["image_id"].tolist() == Predictions.load(path).image_id.tolist() == ["Bär", "b"]


def _binary(ids: list[str], *, target: str) -> Predictions:
    names, n = np.array(ids), len(ids)
    truth, prob = {target: np.arange(n) % 2}, {target: np.linspace(0.1, 0.9, n)}
    return Predictions((Target(target, "binary", ("no", "yes")),), names, names, names, truth, prob, split="test")


def test_a_wide_csv_is_never_text_as_a_whole(tmp_path: Path) -> None:
    """300 classes of 3,000 rows: 900,000 cells are 7 MB as numbers and more than 50 MB as text."""
    path, classes, rng = tmp_path / "p.csv", 300, np.random.default_rng(0)
    prob = rng.dirichlet(np.ones(classes), 3000)
    with path.open("w") as file:
        file.write("image_id,patient_id,y_true," + ",".join(f"y_prob_k{k}" for k in range(classes)) + "\n")
        file.writelines(
            f"i{n},p{n},{n % classes},{','.join(map(repr, map(float, row)))}\n" for n, row in enumerate(prob)
        )
    tracemalloc.start()
    try:
        read = Predictions.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6
    np.testing.assert_array_equal(read.y_prob["y"], prob)


def test_a_probability_that_is_no_number_is_named_by_its_row_in_any_block(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = [f"i{n},p{n},1,{'high' if n == 2500 else 0.5}" for n in range(3000)]
    path.write_text("\n".join(["image_id,patient_id,y_true,y_prob", *rows]) + "\n")
    with pytest.raises(EvaluationError, match="text in row 2500"):
        Predictions.load(path)


def test_single_precision_columns_of_parquet_are_read_as_they_are(tmp_path: Path) -> None:
    prob = np.array([0.1, 0.9], dtype=np.float32)
    pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["a", "b"], "y_true": [0, 1], "y_prob": prob}).to_parquet(
        tmp_path / "p.parquet"
    )
    assert Predictions.load(tmp_path / "p.parquet").y_prob["y"].tolist() == prob.astype(float).tolist()
