"""Huge inputs: files of 2 GB, and images that decode to far more than their size, become rows."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np

from lepton_vision.demo.study import write_demo_study
from tests.scoring.bundles import image_bundle

ROOT = Path(__file__).resolve().parents[2]
SCORE = """
import json, resource, sys
from pathlib import Path
import pandas as pd
from lepton_vision.scoring.batch import score
bundle, first, inbox, out = map(Path, sys.argv[1:])
score(bundle, first, out / "first", device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score(bundle, inbox, out / "all", device="cpu", path_map=out / "map.csv")
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
rows = pd.read_parquet(out / "all").merge(pd.read_csv(out / "map.csv"), on="path_id")
reasons = {Path(path).name: reason or "ok" for path, reason in zip(rows["path"], rows["reason"].fillna(""))}
print(json.dumps({"grown": grown, "reasons": reasons}))
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG (ISO/IEC 15948, 5.3)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_bomb(path: Path, side: int) -> None:
    """A gray PNG of ``side`` squared pixels, all black, in a thousandth of its size."""
    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_giants_and_bombs_are_rows_and_take_no_memory(tmp_path: Path) -> None:
    write_demo_study(tmp_path / "demo", patients=20)
    source = sorted((tmp_path / "demo" / "study").rglob("*.dcm"))[0].read_bytes()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (tmp_path / "first.dcm").write_bytes(source)
    (inbox / "good.dcm").write_bytes(source)
    cv2.imwrite(str(inbox / "good.png"), np.arange(1600, dtype=np.uint8).reshape(40, 40))
    for name, size in (("above.dcm", 2**31 + 2), ("below.dcm", 2**31 - 2), ("above.png", 2**31 + 2)):
        (inbox / name).write_bytes(source if name.endswith("dcm") else (inbox / "good.png").read_bytes())
        os.truncate(inbox / name, size)  # sparse: it takes no disk
    (inbox / "nothing.dcm").write_bytes(b"")
    os.truncate(inbox / "nothing.dcm", 2**31 - 2)
    write_bomb(inbox / "bomb.png", 20_000)
    image_bundle("segmentation=null").save(tmp_path / "bundle")
    parts = [str(tmp_path / name) for name in ("bundle", "first.dcm", "inbox", "out")]
    done = subprocess.run([sys.executable, "-c", SCORE, *parts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    reasons = found["reasons"]
    assert {name for name, reason in reasons.items() if reason == "too_large"} == {"above.dcm", "above.png", "bomb.png"}
    assert (reasons["good.dcm"], reasons["good.png"]) == ("ok", "ok")
    assert reasons["nothing.dcm"] == "not_an_image"
    assert "below.dcm" in reasons
    assert found["grown"] < 200  # MiB; one of them read whole would be 2,048, the bomb 400 and 1,600 as float32
