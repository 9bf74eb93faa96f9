"""Predictions and the decisions made from them; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.predictions.operating_point import OperatingPoint as OperatingPoint
    from lepton_vision.predictions.operating_point import PointFigures as PointFigures
    from lepton_vision.predictions.predictions import Predictions as Predictions

__getattr__ = resolver(__name__, __file__)
