"""Public names: few, true, documented, and resolved lazily."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import lepton_vision as lv

NAMES = [
    "Bundle",
    "Comparison",
    "Config",
    "Encoder",
    "Evaluation",
    "Image",
    "LeptonError",
    "Manifest",
    "OperatingPoint",
    "OwnFigure",
    "Predictions",
    "Target",
    "Window",
    "__version__",
    "aggregate",
    "audit_manifest",
    "build_model",
    "choose_operating_point",
    "compare",
    "cross_validate",
    "embed",
    "evaluate",
    "explain",
    "fit",
    "make_loader",
    "predict",
    "read_image",
    "register_encoder",
    "run_study",
    "score",
    "show_batch",
    "split_manifest",
    "write_report",
]


def test_the_public_names_are_these_and_no_more() -> None:
    assert sorted(lv.__all__) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(lv, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("lepton_vision.")


@pytest.mark.parametrize("name", [name for name in NAMES if name[0].islower()])
def test_a_public_function_takes_at_most_two_positional_parameters_before_keywords(name: str) -> None:
    kinds = [p.kind for p in inspect.signature(getattr(lv, name)).parameters.values()]
    positional = [kind for kind in kinds if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= (3 if name == "score" else 2)  # score(bundle, inputs, output)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Manifst'"):
        lv.Manifst  # noqa: B018


@pytest.mark.parametrize("package", sorted(p.parent.name for p in Path(lv.__file__).parent.glob("*/__init__.py")))
def test_every_name_of_every_package_resolves(package: str) -> None:
    face = importlib.import_module(f"lepton_vision.{package}")
    for name in getattr(face, "__all__", ()):
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_this_name'"):
        face.nothing_of_this_name  # noqa: B018
