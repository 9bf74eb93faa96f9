"""RowTable and TextColumn: the manifest's own addresses, packed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lepton_vision.manifest.schema import STRING
from lepton_vision.manifest.table import Manifest
from lepton_vision.transforms.rows import RowTable, TextColumn

NAMES = ["", "a", None, "Müller/β.dcm", "z" * 300, "", "last"]
WITHOUT_NULL = [name or "n" for name in NAMES]  # nothing to fill, so that Arrow hands out its memory as it is


def column(values: list[str | None], *, how: str) -> pd.Series:
    """The same values in each of the ways in which Arrow may hold them."""
    if how == "one chunk":
        return pd.Series(values, dtype=STRING)
    if how == "part of a chunk":
        return pd.Series(["x" * 7, *values, "y"], dtype=STRING).iloc[1:-1]
    kind = pa.large_string() if how == "chunks of large strings" else pa.string()
    chunks = pa.chunked_array([pa.array(values[:3], kind), pa.array([], kind), pa.array(values[3:], kind)])
    return pd.Series(pd.arrays.ArrowStringArray(chunks), dtype=STRING)


@pytest.mark.parametrize("how", ["one chunk", "part of a chunk", "chunks", "chunks of large strings"])
@pytest.mark.parametrize("rows", [range(7), [1, 3, 4], [6], []])
@pytest.mark.parametrize("names", [NAMES, WITHOUT_NULL], ids=["null", "no null"])
def test_a_column_of_arrow_strings_is_packed_with_null_as_nothing(
    how: str, names: list[str | None], rows: list[int]
) -> None:
    packed = TextColumn.of_column(column(names, how=how), np.array(rows, np.int64))
    assert [packed[k] for k in range(len(packed))] == [names[row] or "" for row in rows]
    copy = pickle.loads(pickle.dumps(packed))
    assert [copy[k] for k in range(len(copy))] == [packed[k] for k in range(len(packed))]
    one_by_one = TextColumn.of(names[row] or "" for row in rows)
    assert packed.data.tobytes() == one_by_one.data.tobytes()  # the cache's name is a hash of these
    assert packed.ends.tobytes() == one_by_one.ends.tobytes()


def test_undecodable_names_survive_packing() -> None:
    names = [os.fsdecode(b"\xff\xfe"), "a", ""]
    packed = TextColumn.of(iter(names))
    assert [packed[k] for k in range(3)] == names


def test_addresses_are_those_of_the_manifest_with_members_and_frames() -> None:
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(5)],
            "path": ["a.npz", "ü/b.npz", "c.dcm", "d.dcm", "e.dcm"],
            "member": ["train", None, None, None, "test"],
            "frame": [0, 7, None, 3, None],
            "status": ["ok", "ok", "rejected", "ok", "ok"],
        }
    )
    manifest = Manifest(table, root=Path("data"))
    rows = RowTable.of(manifest)
    assert rows.index.tolist() == [0, 1, 3, 4]
    assert [rows.locate(k) for k in range(4)] == [manifest.locate(row) for row in (0, 1, 3, 4)]
    assert [rows.image_id(k) for k in range(4)] == ["i0", "i1", "i3", "i4"]


def test_a_manifest_without_usable_rows_gives_an_empty_table() -> None:
    table = pd.DataFrame({"image_id": ["a"], "path": ["a.dcm"], "status": ["rejected"]})
    assert len(RowTable.of(Manifest(table, root=Path("data")))) == 0
