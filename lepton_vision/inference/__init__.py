"""Inference: the one path from images to predictions for validation, test and scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.inference.explain import grad_cam as grad_cam
    from lepton_vision.inference.predictor import predict as predict

__getattr__ = resolver(__name__, __file__)
