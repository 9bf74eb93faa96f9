"""Networks (encoders, heads) and the bundle that stores a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.models.build import build_model as build_model
    from lepton_vision.models.bundle import Bundle as Bundle
    from lepton_vision.models.encoders import Encoder as Encoder
    from lepton_vision.models.encoders import register_encoder as register_encoder

__getattr__ = resolver(__name__, __file__)
