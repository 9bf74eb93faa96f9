"""Label values to class indices, and targets that leave no doubt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LabelError
from lepton_vision.manifest.label_columns import class_index, is_negative_word
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

Make = Callable[..., Manifest]


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [
        ("COVID", ("NonCOVID", "COVID"), 1),
        (" COVID ", ("NonCOVID", "COVID"), 1),
        (1, ("NonCOVID", "COVID"), 1),
        (1.0, ("NonCOVID", "COVID"), 1),
        ("0", ("NonCOVID", "COVID"), 0),
        (True, ("NonCOVID", "COVID"), 1),
        ("1.0", ("0", "1"), 1),
        (1, ("1.0", "2.0"), 0),  # a class name wins over an index
        (2, ("1", "2", "3"), 1),
        (np.True_, ("0", "1"), 1),
        ("false", ("0", "1"), 0),
        ("True", ("False", "True"), 1),
        (2, ("a", "b", "c"), 2),
    ],
)
def test_a_value_finds_its_class(value: Any, classes: tuple[str, ...], expected: int) -> None:
    assert class_index(value, classes) == expected


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_a_blank_is_unknown(value: Any) -> None:
    assert np.isnan(class_index(value, ("0", "1")))


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        (2, ("a", "b")),
        (-1, ("a", "b")),
        (0, ("1", "2")),
        (0.5, ("0", "1")),
        ("covid", ("NonCOVID", "COVID")),
        (True, ("a", "b", "c")),
    ],
)
def test_anything_else_is_refused(value: Any, classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        class_index(value, classes)


def test_an_unknown_label_names_column_row_value_and_nearest_class(make_manifest: Make) -> None:
    manifest = make_manifest(y=["COVID", "NonCOVID", "Covid"])
    with pytest.raises(LabelError, match=r"'y' holds 'Covid' in row 2.*Did you mean 'COVID'") as caught:
        manifest.labels(Target("y", "binary", ("NonCOVID", "COVID")))
    assert (caught.value.row, caught.value.key) == (2, "y")


def test_a_misspelt_column_names_the_nearest(make_manifest: Make) -> None:
    with pytest.raises(LabelError, match="Did you mean 'tumour'"):
        make_manifest(("tumour",), tumour=[0, 1]).labels(Target("tumor", "binary", ("0", "1")))


def test_a_column_that_is_not_there_is_answered_by_the_label_columns_alone(make_manifest: Make) -> None:
    manifest = make_manifest(("lesion", "grade"), lesion=[0, 1], grade=[1, 2], Height=[170, 180])
    with pytest.raises(LabelError, match=r"(?m)'tumour' for target 'tumour'\. Expected one of: grade, lesion\.$"):
        manifest.labels(Target("tumour", "binary", ("0", "1")))
    for name, said in (("mask", "There is none."), ("sexx", "Did you mean 'sex'?")):
        with pytest.raises(LabelError, match=re.escape(said)):
            make_manifest((), split=["train"]).labels(Target(name, "binary", ("0", "1")))


@pytest.mark.parametrize("written", ["NonCOVID", "non-covid", "noncovid."])
def test_a_class_in_another_spelling_than_the_rows_may_be_the_configuration_that_errs(
    make_manifest: Make, written: str
) -> None:
    manifest = make_manifest(y=["COVID", written, written, written])
    said = (
        rf"'{re.escape(written)}'.*3 rows hold it.*'nonCOVID' in spelling only\. Correct the class in the configuration"
    )
    with pytest.raises(LabelError, match=said) as caught:
        manifest.labels(Target("y", "binary", ("nonCOVID", "COVID")))
    assert f"(to '{written}') or the label table (to 'nonCOVID')" in str(caught.value)


def test_multilabel_has_a_column_per_class_and_keeps_the_unknown(make_manifest: Make) -> None:
    manifest = make_manifest(("effusion", "mass"), effusion=[1, 0, None], mass=["", "1.0", "0"])
    labels = manifest.labels(Target("findings", "multilabel", ("effusion", "mass")))
    np.testing.assert_array_equal(labels, np.array([[1, np.nan], [0, 1], [np.nan, 0]], dtype=np.float32))
    with pytest.raises(LabelError, match=r"'-1.*`uncertain: unknown` \(unknown, positive or negative\)"):
        make_manifest(("a", "b"), a=[-1, 0], b=[0, 1]).labels(Target("f", "multilabel", ("a", "b")))


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([0, 1, None], "binary", ("0", "1")),
        ([False, True], "binary", None),
        (["COVID", "NonCOVID"], "binary", ("NonCOVID", "COVID")),
        (["no", "yes"], "binary", ("no", "yes")),
        (["malignant", "benign"], "binary", ("benign", "malignant")),
        (["No Finding", "Nodule"], "binary", ("No Finding", "Nodule")),
        (["cyst", "stone", "tumour"], "multiclass", ("cyst", "stone", "tumour")),
        ([10, 2, 1], "multiclass", ("1", "2", "10")),
    ],
)
def test_a_column_without_doubt_is_a_target(
    make_manifest: Make, values: list[Any], kind: str, classes: tuple[str, ...] | None
) -> None:
    manifest = make_manifest(y=values)
    (target,) = infer_targets(manifest)
    assert (target.name, target.kind) == ("y", kind)
    assert classes is None or target.classes == classes
    assert set(manifest.labels(target)[~manifest.frame["y"].isna()]) == set(map(float, range(len(target.classes))))


def test_two_words_without_a_known_negative_need_a_configuration(make_manifest: Make) -> None:
    with pytest.raises(LabelError, match="which one is the finding") as caught:
        infer_targets(make_manifest(y=["left", "right"]))
    shown = str(caught.value).split("\n", 1)[1]
    (target,) = Config.from_dict(yaml.safe_load(shown)).targets
    assert set(target.classes) == {"left", "right"}


def test_of_several_columns_one_must_be_named_label(make_manifest: Make) -> None:
    assert infer_targets(make_manifest(("age", "Label"), age=[1, 2, 3], Label=[0, 1, 1]))[0].columns == ("Label",)
    with pytest.raises(LabelError, match="several label columns"):
        infer_targets(make_manifest(("a", "b"), a=[0, 1], b=[0, 1]))
    with pytest.raises(LabelError, match="no label column"):
        infer_targets(make_manifest((), y=[0, 1]))


def test_one_class_only_and_a_measurement_are_no_targets(make_manifest: Make) -> None:
    with pytest.raises(LabelError, match="1 class"):
        infer_targets(make_manifest(y=[1, 1, None]))
    with pytest.raises(LabelError, match="measurements"):
        infer_targets(make_manifest(y=list(np.linspace(0, 1, 150))))


def test_a_column_with_a_blank_in_its_name_gets_a_valid_target_name(make_manifest: Make) -> None:
    (target,) = infer_targets(make_manifest(("has mass?",), **{"has mass?": [0, 1]}))
    assert (target.name, target.column) == ("has_mass_", "has mass?")


@pytest.mark.parametrize(
    "word", ["NULL", "null", "n/a", "#N/A", "unknown", "UNKNOWN", "?", "-", "not_available", "unk"]
)
def test_words_for_the_unknown_are_no_classes(make_manifest: Make, word: str) -> None:
    manifest = make_manifest(y=["yes", "no", word] * 4)
    (target,) = infer_targets(manifest)
    assert (target.kind, target.classes) == ("binary", ("no", "yes"))
    np.testing.assert_array_equal(manifest.labels(target), [1, 0, np.nan] * 4)
    grades = Target("y", "ordinal", ("low", "mid", "high"))
    np.testing.assert_array_equal(make_manifest(y=["low", word, "high"]).labels(grades), [0, np.nan, 2])
    findings = Target("f", "multilabel", ("a", "b"))
    labels = make_manifest(("a", "b"), a=["1", word], b=["0", "1"]).labels(findings)
    np.testing.assert_array_equal(labels, [[1, 0], [np.nan, 1]])


def test_a_class_of_the_configuration_may_be_called_unknown(make_manifest: Make) -> None:
    target = Target("y", "multiclass", ("no", "unknown", "yes"))
    manifest = make_manifest(y=["yes", "no", "unknown", None])
    np.testing.assert_array_equal(manifest.labels(target), [2, 0, 1, np.nan])
    with pytest.raises(LabelError, match="'NULL', which label tables hold where a cell is missing"):
        manifest.labels(Target("y", "multiclass", ("no", "NULL", "yes")))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["no", "yes", "None"], ("no", "yes")),
        (["0", "1", "None"], ("0", "1")),
        (["none", "mild", "severe"], ("mild", "none", "severe")),
        (["none", "benign", "malignant"], ("benign", "malignant", "none")),
        (["None", "tumour"], ("None", "tumour")),
    ],
)
def test_none_is_a_class_but_where_another_value_says_absent(
    make_manifest: Make, values: list[str], classes: tuple[str, ...]
) -> None:
    manifest = make_manifest(y=values)
    (target,) = infer_targets(manifest)
    assert target.classes == classes
    assert np.isnan(manifest.labels(target)).sum() == len(values) - len(classes)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["yes", "no", pd.NA], dtype="string"),
        pd.Series(["yes", "no", None], dtype="category"),
        pd.Series(["yes", "no", float("nan")], dtype=object),
        pd.Series(["yes", "no", "NULL"], dtype="category"),
        pd.Series([True, False, None], dtype=object),
        pd.Series([Decimal("1"), Decimal("0.0"), Decimal("NaN")], dtype=object),
        pd.Series([1, 0, None], dtype="Int64"),
        pd.Series([1.0, 0.0, np.nan]),
        pd.Series([1, 0, None], dtype="category"),
    ],
)
def test_any_kind_of_column_says_the_same(make_manifest: Make, values: pd.Series[Any]) -> None:
    manifest = make_manifest(y=values)
    (target,) = infer_targets(manifest)
    np.testing.assert_array_equal(manifest.labels(target), [1, 0, np.nan])


@pytest.mark.parametrize("mark", [-1, -1.0, "-1.0", "uncertain", "Equivocal", "indeterminate", "u"])
def test_uncertain_labels_are_asked_about(make_manifest: Make, mark: Any) -> None:
    manifest = make_manifest(("Edema",), Edema=[*map(type(mark), (1, 0)), mark, None] * 3)
    with pytest.raises(LabelError, match=r"in 3 rows, which looks like an uncertain label") as caught:
        infer_targets(manifest)
    (target,) = Config.from_dict(yaml.safe_load(str(caught.value).split("\n", 1)[1])).targets
    assert (target.kind, target.classes, target.uncertain) == ("binary", ("0", "1"), "unknown")
    for uncertain, code in (("unknown", np.nan), ("positive", 1), ("negative", 0)):
        labels = manifest.labels(replace(target, uncertain=uncertain))
        np.testing.assert_array_equal(labels, [1, 0, code, np.nan] * 3)
    if mark != "u":
        with pytest.raises(LabelError, match="looks like an uncertain label"):
            manifest.labels(replace(target, uncertain=None))


def test_uncertain_is_a_setting_of_a_target_that_the_configuration_keeps() -> None:
    given = {"name": "f", "kind": "multilabel", "classes": ["a", "b"], "uncertain": "positive"}
    config = Config.from_dict({"targets": [given]})
    assert Config.from_dict(config.to_dict()).targets[0].uncertain == "positive"
    assert Config().override(f"targets=[{given}]").targets == config.targets
    with pytest.raises(ConfigError, match="unknown"):
        Config.from_dict({"targets": [given | {"uncertain": "maybe"}]})
    with pytest.raises(ConfigError, match="binary and multilabel"):
        Config.from_dict({"targets": [given | {"kind": "multiclass"}]})


def test_an_uncertain_class_by_name_is_a_class(make_manifest: Make) -> None:
    target = Target("y", "multiclass", ("no", "uncertain", "yes"))
    np.testing.assert_array_equal(make_manifest(y=["yes", "uncertain", "no"]).labels(target), [2, 1, 0])


def test_0_and_1_in_two_formats_are_two_classes(make_manifest: Make) -> None:
    manifest = make_manifest(y=["0", "1", "0.0", "1.0", "00", " 1 "])
    np.testing.assert_array_equal(manifest.labels(infer_targets(manifest)[0]), [0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Non-COVID", True), ("NonCOVID", True), ("NORMAL", True), ("nodule", False), ("notable", False)],
)
def test_negative_words(word: str, expected: bool) -> None:
    assert is_negative_word(word) is expected
