"""Small networks and bundles for the tests of the models."""

from __future__ import annotations

import pytest

from lepton_vision.config import Config
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("liver", "lung", "spleen"))
SIGNS = Target("signs", "multilabel", ("edema", "mass"))


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(targets=(SICK, ORGAN, SIGNS)).override("preprocess.size=[32, 32]")


@pytest.fixture(scope="session")
def bundle(config: Config) -> Bundle:
    state = build_model(config).state_dict()
    point = OperatingPoint({"sick": (0.25,), "organ": (), "signs": (0.5, 0.75)}, "stated")
    return Bundle(config, config.targets, state, {"sick": 1.5}, point, {"data_fingerprint": "0123"})
