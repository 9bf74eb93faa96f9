"""Short forms of the scripts of hostile and broken files: bombs of each kind, and mutants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# What a reader must say of each, whoever asks.
BOMBS = {
    "many_frames": "too_large",
    "many_frames_compressed": "too_large",
    "many_items": "too_large",
    "many_items_of_known_length": "too_large",
    "deflated": "too_large",
    "progressive_jpeg": "too_large",
    "progressive_jpeg_in_dicom": "too_large",
    "jpeg_segments": "too_large",
    "png_blank": "too_large",
    "png_text_deep": "corrupt",
    "png_chunks": "too_large",
    "tiff_chain": "too_large",
    "tiff_circle": "corrupt",
    "tiff_numbers": "too_large",
    "tiff_tile": "too_large",
    "nifti_sizes": "too_large",
    "nifti_offset": "too_large",
    "nifti_parts": "too_large",
    "npz_entries": "too_large",
    "npz_empty_entries": "corrupt",
    "pipe": "not_an_image",
    "unix_socket": "not_an_image",
    "device": "not_an_image",
    "endless_file": "empty",
}


def run_script(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, f"scripts/{name}.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_no_bomb_goes_off() -> None:
    *lines, last = (json.loads(line) for line in run_script("bombs", *BOMBS))
    assert {line["kind"]: line["read"] for line in lines} == BOMBS
    assert last == {"kinds": len(BOMBS), "bad": []}


def test_no_mutant_crashes_a_reader_or_is_judged_in_two_ways() -> None:
    counts = json.loads("\n".join(run_script("fuzz", "--dicom", "40", "--others", "40", "--seed", "1")))
    assert [counts[kind]["tried"] for kind in ("dicom", "others")] == [40, 40]
    assert counts["examples"] == []
