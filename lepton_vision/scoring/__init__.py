"""A bundle and new files in, one row for every file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.scoring.batch import ScoreSummary as ScoreSummary
    from lepton_vision.scoring.batch import score as score

_HOMES = {"ScoreSummary": "batch", "score": "batch"}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
