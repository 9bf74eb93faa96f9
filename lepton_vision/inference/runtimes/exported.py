"""Network of an engine loaded from an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lepton_vision.types import Pixels

KEY = "lepton_vision"


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported file, opened with its runtime.

    Attributes:
        run: (B, C, H, W) uint16 to the outputs by name.
        metadata: texts in the file, by key.
        runtime: name and version, e.g. "openvino 2026.4.1".
    """

    run: Callable[[Any], dict[str, Pixels]]
    metadata: Mapping[str, str]
    runtime: str

    @property
    def facts(self) -> dict[str, Any]:
        """Metadata of the file; empty where it has none."""
        found = json.loads(self.metadata.get(KEY, "{}"))
        return found if isinstance(found, dict) else {}
