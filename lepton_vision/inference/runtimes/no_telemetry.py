"""Import of runtimes with their telemetry disabled."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import cast

_REPORTER = "openvino_telemetry"
_ONNX_RUNTIME_SWITCH = "ORT_DISABLE_TELEMETRY"


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """Hide openvino_telemetry, and switch off ONNX Runtime's reports, while one of them or nncf is imported.

    openvino and nncf send their use to a statistics service unless a file in the home says no; where the package is
    missing they take an empty stand-in for the rest of the process. ONNX Runtime writes an id of the device into the
    home and looks up a host as it is imported, unless the environment says no at that moment.
    """
    modules = cast(dict[str, ModuleType | None], sys.modules)
    kept, switch = modules.get(_REPORTER), os.environ.get(_ONNX_RUNTIME_SWITCH)
    modules[_REPORTER] = None  # an import of it raises ImportError (Python reference, 5.3.1)
    os.environ[_ONNX_RUNTIME_SWITCH] = "1"
    try:
        yield
    finally:
        if switch is None:
            del os.environ[_ONNX_RUNTIME_SWITCH]
        else:
            os.environ[_ONNX_RUNTIME_SWITCH] = switch
        if kept is None:
            del modules[_REPORTER]
        else:
            modules[_REPORTER] = kept
