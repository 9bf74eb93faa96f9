"""Demonstration of the whole path on a synthetic study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.demo.run import demo_config as demo_config
    from lepton_vision.demo.run import run_demo as run_demo
    from lepton_vision.demo.study import write_demo_study as write_demo_study

_HOMES = {
    "demo_config": "run",
    "run_demo": "run",
    "write_demo_study": "study",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
