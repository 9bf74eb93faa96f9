"""Allocator setting, measured in a process of its own, as it stays until the process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT_FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lepton_vision.models.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def fill():
    blocks = [np.ones(6_000_000) for _ in range(4)]
pool = ThreadPoolExecutor(1)
run = (lambda work: pool.submit(work).result()) if sys.argv[2] == "thread" else (lambda work: work())
run(fill)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    run(fill)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str, where: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_FAULTS, mode, where], capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is found on Linux only")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_blocks_are_used_again_without_new_page_faults(where: str) -> None:
    kept, faults_with = _faults("keep", where)
    if kept != "True":
        pytest.skip("this C library has no mallopt that takes the setting")
    _, faults_without = _faults("default", where)
    assert faults_with * 5 < faults_without
