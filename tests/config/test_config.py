"""Configuration: complete, frozen, refused at the first unknown key."""

from __future__ import annotations

import pydoc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_vision.config import Config, fingerprint
from lepton_vision.config.sections import PreprocessConfig, TrainConfig
from lepton_vision.errors import ConfigError, LeptonError
from lepton_vision.types import Target, Window

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def test_yaml_round_trip_keeps_every_value(tmp_path: Path) -> None:
    config = Config(targets=(Target("t", "binary", ("no", "yes")),)).override(
        "preprocess.windows=[lung, {center: 40, width: 400}]", "train.epochs=3"
    )
    config.to_yaml(tmp_path / "c.yaml")
    again = Config.from_yaml(tmp_path / "c.yaml")
    assert again == config
    assert again.fingerprint == config.fingerprint
    assert again.preprocess.windows[1] == Window(40, 400)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"trian": {}}, "Unknown configuration key 'trian'. Did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "Unknown configuration key 'epoch'. Did you mean 'epochs'?"),
        ({"targets": [{"name": "a", "kind": "binary", "classes": [False, True]}]}, "put quotes around the word"),
        ({"train": {"epochs": "many"}}, "Received: 'many'"),
        ({"targets": [{"name": "a", "kind": "binary", "classes": ["x"]}]}, "exactly 2 classes"),
        ({"targets": [{"name": "a", "kind": "binary", "clases": ["x"]}]}, "Did you mean 'classes'?"),
        ({"preprocess": {"mean": [0.1, 0.2]}}, "mean needs 1 or 1 figures, received 2"),
        ({"model": {"init_from": "b", "weights": "imagenet"}}, "exclude each other"),
        ({"model": {"keep_heads": True}}, "keep_heads needs init_from"),
        ({"split": {"val": 0.6, "test": 0.5}}, "val + test must stay below 1"),
    ],
)
def test_a_wrong_value_gives_one_clear_message(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(values)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.epoch=3", "Did you mean 'epochs'?"),
        ("trian.epochs=3", "Did you mean 'train'?"),
        ("train.epochs", "Expected section.key=value"),
        ("train.lr=0", "greater than 0"),
    ],
)
def test_a_wrong_override_gives_one_clear_message(assignment: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().override(assignment)
    assert expected in str(caught.value)


def test_override_leaves_the_original_alone_and_takes_free_keys_of_target_weights() -> None:
    config = Config()
    changed = config.override("train.epochs=3", "train.target_weights.finding=2.0")
    assert (config.train.epochs, changed.train.epochs) == (20, 3)
    assert changed.train.target_weights == {"finding": 2.0}
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 4  # type: ignore[misc]


def test_a_structure_is_named_by_a_single_value() -> None:
    head = Config().override("segmentation.structures.lesion=255").segmentation
    assert head is not None
    assert head.structures == {"lesion": (255,)}
    with pytest.raises(ConfigError, match="Did you mean 'structures'"):
        Config().override("segmentation.structure.lesion=255")


def _target(name: str, *classes: str, kind: str = "multiclass") -> dict[str, object]:
    return {"name": name, "kind": kind, "classes": list(classes)}


def _binary(name: str) -> dict[str, object]:
    return _target(name, "no", "yes", kind="binary")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([_target("covid", "none", "mild", "severe"), _binary("covid_severe")], "'covid_severe_probability'"),
        ([_target("covid", "none", "mild", "severe", kind="ordinal"), _binary("covid_severe")], "class 'severe'"),
        ([_target("covid", "mild", "severe", kind="multilabel"), _binary("Covid_Severe")], "'Covid_Severe'"),
        ([_target("signs", "edema", "Edema", kind="multilabel")], "class 'Edema' of the target 'signs'"),
        ([_target("a", "b", "d", kind="multilabel"), _target("a_b", "q", "e")], "'a_b_set'"),
        ([_target("a", "b_c", "d"), _target("a_b", "c", "e")], "'a_b_c_probability'"),
        ([_binary("a"), _binary("A")], "'A_probability'"),
        ([_binary("a"), _binary("a_logits")], "'a_logits'"),
        ([_binary("features")], "the network's features"),
        ([_target("a", "b", "at_prevalence", kind="multilabel")], "Rename the class"),
    ],
)
def test_names_of_which_two_would_be_one_column_are_refused(values: list[object], expected: str) -> None:
    with pytest.raises(ConfigError, match="Rename") as caught:
        Config.from_dict({"targets": values})
    assert expected in str(caught.value)


def test_structures_share_the_columns_of_scores_with_targets() -> None:
    head = {"structures": {"Liver": 1, "liver": 2}}
    with pytest.raises(ConfigError, match="'liver_ml': those of the structure 'Liver' and the structure 'liver'"):
        Config.from_dict({"segmentation": head})
    kinds = [_binary("liver"), _target("grade", "1", "2", kind="ordinal"), _target("signs", "x", kind="multilabel")]
    assert len(Config.from_dict({"targets": kinds, "segmentation": {"structures": {"liver": 1}}}).targets) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"targets": [_binary("finding")]}, "'findng' is no target. Did you mean 'finding'?"),
        ({"segmentation": {"structures": {"lung": 1}}}, "'findng' is no target. There is none."),
    ],
)
def test_a_mapping_by_target_names_one_that_is_there(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({**values, "train": {"target_weights": {"findng": 2.0}}})
    assert str(caught.value).endswith(expected)
    open_config = Config().override("train.target_weights.findng=2")
    with pytest.raises(ConfigError, match="'findng' is no target"):
        open_config.with_targets([Target("finding", "binary", ("no", "yes"))])


def test_the_weight_of_masks_is_not_among_those_of_targets() -> None:
    values = {"targets": [_binary("a")], "segmentation": {"structures": {"lung": 1}}}
    with pytest.raises(ConfigError, match=r"segmentation\.weight"):
        Config.from_dict({**values, "train": {"target_weights": {"masks": 2.0}}})
    with pytest.raises(ConfigError, match="'b' is no binary target"):
        Config.from_dict({"segmentation": {"structures": {"lung": 1}, "explains": {"b": ["lung"]}}})


@given(st.integers(1, 10_000), st.floats(1e-6, 1.0))
def test_the_fingerprint_follows_the_values(epochs: int, lr: float) -> None:
    config = Config().override(f"train.epochs={epochs}", f"train.lr={lr!r}")
    assert config.train.lr == lr
    assert config.fingerprint == Config.from_dict(config.to_dict()).fingerprint
    assert (config.fingerprint == Config().fingerprint) == (config == Config())


def test_the_fingerprint_does_not_depend_on_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_bad_yaml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  epochs: [1\n")
    with pytest.raises(ConfigError, match=r"not valid YAML in line \d"):
        Config.from_yaml(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="Cannot read the configuration"):
        Config.from_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configurations_load(path: Path) -> None:
    config = Config.from_yaml(path)
    has_folders_of_classes = path.stem == "png"  # its targets are the names of folders
    assert bool(config.targets or config.segmentation) != has_folders_of_classes


def test_every_key_is_described_in_the_schema_and_in_help() -> None:
    schema = Config.model_json_schema()
    parts = {"Config": schema, **schema["$defs"]}
    keys = [(part, name, key) for part, one in parts.items() for name, key in one.get("properties", {}).items()]
    assert {"Target", "Window", "TrainConfig", "ScanConfig"} <= set(parts)
    assert len(keys) > 100
    assert [(part, name) for part, name, key in keys if len(key.get("description", "").split()) < 2] == []
    shown = pydoc.plain(pydoc.render_doc(TrainConfig))
    for name, key in parts["TrainConfig"]["properties"].items():
        assert f"{name}: {' '.join(key['description'].split())[:60]}" in shown


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Config(train={"epoch": 3}), "Did you mean 'epochs'?"),
        (lambda: Config(trian={"epochs": 3}), "Did you mean 'train'?"),
        (lambda: TrainConfig(epoch=3), "Did you mean 'epochs'?"),
        (lambda: Config.model_validate({"train": {"epoch": 3}}), "Did you mean 'epochs'?"),
        (lambda: PreprocessConfig(windows=["lungs"]), "Did you mean 'lung'?"),
        (lambda: Config(model={"backbone": "resnet19"}), "Did you mean 'resnet18'?"),
        (lambda: Target("x", "regresion", ("a", "b")), "Did you mean 'regression'"),
        (lambda: Target("x", "multi-label", ("a", "b")), "Did you mean 'multilabel'?"),
        (lambda: Target("x", "binary", "ab"), "('no', 'yes')"),
        (lambda: Target("x", "binary", None), "('no', 'yes')"),
        (lambda: Target("x", "binary", ("a", "b"), uncertain="maybe"), "unknown, positive, negative"),
        (lambda: Window(40, 400, "LINER"), "LINEAR_EXACT"),
        (lambda: setattr(Config().train, "epochs", 3), "epochs=value"),
    ],
)
def test_values_made_in_python_are_refused_in_one_sentence(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(LeptonError) as caught:
        make()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_the_text_of_a_configuration_is_what_differs_from_the_defaults() -> None:
    config = Config(train={"epochs": 3}, preprocess={"windows": [Window(40, 400)]})
    assert repr(Config()) == "Config()"
    assert repr(config.train) == str(config.train) == "TrainConfig(epochs=3)"
    names = {"Config": Config, "TrainConfig": TrainConfig, "PreprocessConfig": PreprocessConfig, "Window": Window}
    assert eval(repr(config), names) == config


def test_classes_given_as_a_list_are_kept_as_a_tuple() -> None:
    assert Target("x", "binary", ["a", "b"]) == Target("x", "binary", ("a", "b"))  # type: ignore[arg-type]


def test_a_key_without_its_section_is_refused_with_it() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'train\.epochs'\?"):
        Config().override("epochs=3")
