"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# One thread per process: tests run side by side, and results must not depend on the number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["LEPTON_VISION_ID_KEY"] = "key of the tests, never of real patients"
os.environ.setdefault("MPLBACKEND", "Agg")
# What a shell without job control runs behind it is deaf to Ctrl-C, which some tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

SHARED = Path(os.environ.get("LEPTON_VISION_DATA", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the real data sets and the DICOM corpus; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real data sets are not here: set LEPTON_VISION_DATA to the folder that holds data/ and corpus/")
    return SHARED
