"""Predictions in, figures with intervals out; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.evaluation.classification import Evaluation as Evaluation
    from lepton_vision.evaluation.classification import evaluate as evaluate
    from lepton_vision.evaluation.operating_point import choose_operating_point as choose_operating_point

_HOMES = {"Evaluation": "classification", "choose_operating_point": "operating_point", "evaluate": "classification"}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
