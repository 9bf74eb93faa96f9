"""Evaluations shared by several tests, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_studies import BINARY, GRADE, SIGNS, make_evaluation

from lepton_vision.evaluation.classes.evaluation import Evaluation


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return make_evaluation((BINARY,), tmp_path_factory.mktemp("binary"))


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Binary, multiclass and multilabel targets at once."""
    return make_evaluation((BINARY, GRADE, SIGNS), tmp_path_factory.mktemp("several"))
