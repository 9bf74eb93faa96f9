"""Evaluation in, one self-contained page out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.reporting.card import write_report as write_report

_HOMES = {"write_report": "card"}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
