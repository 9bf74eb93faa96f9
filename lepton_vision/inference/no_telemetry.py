"""Imports of Intel's packages without their reports: what is scored here is nobody else's business."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import cast

_REPORTER = "openvino_telemetry"


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """Hide openvino_telemetry while openvino or nncf is imported.

    Both send their use to a statistics service unless a file in the home says no; where the package is missing they
    take an empty stand-in for the rest of the process.
    """
    modules = cast(dict[str, ModuleType | None], sys.modules)
    kept = modules.get(_REPORTER)
    modules[_REPORTER] = None  # an import of it raises ImportError (Python reference, 5.3.1)
    try:
        yield
    finally:
        if kept is None:
            del modules[_REPORTER]
        else:
            modules[_REPORTER] = kept
