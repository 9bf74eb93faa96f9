"""Demonstration of the whole path on a synthetic study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.demo.run import demo_config as demo_config
    from lepton_vision.demo.run import run_demo as run_demo
    from lepton_vision.demo.study import write_demo_study as write_demo_study

__getattr__ = resolver(__name__, __file__)
