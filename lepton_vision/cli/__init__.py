"""Command-line interface: thin commands over the functions of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.cli.app import main as main

__getattr__ = resolver(__name__, __file__)
