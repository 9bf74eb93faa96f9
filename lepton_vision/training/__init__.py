"""Training: from loaders to weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.training.loop import fit_model as fit_model

__getattr__ = resolver(__name__, __file__)
