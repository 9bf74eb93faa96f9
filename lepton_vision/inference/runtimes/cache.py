"""Cache folder of this package in the user's own: what may be lost, such as the choice of an engine."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """Return ``lepton-vision`` in XDG_CACHE_HOME, or in ~/.cache where that is not set."""
    home = os.path.expanduser("~")  # noqa: PTH111  Path.home() raises where HOME is unset
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache")) / "lepton-vision"
