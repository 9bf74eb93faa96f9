"""Manifest tables: types, round trips, damage, and messages without patient data."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_vision.errors import ManifestError
from lepton_vision.manifest.schema import COLUMNS
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SampleAddress, Target

Make = Callable[..., Manifest]
LABEL_VALUES = {
    "whole": [1, None, 2**60 + 1],
    "decimal": [0.1, np.nan, 1e-300],
    "truth": [True, None, False],
    "text": ['a,"b"\nc', None, "NA"],
    "lines": ["\r", "a\r\nb", "#"],
    "blank": [None, None, None],
}


def rich(make: Make) -> Manifest:
    return make(
        tuple(LABEL_VALUES),
        status=["ok", "rejected", "ok"],
        reason=[None, "truncated", None],
        split=["train", None, "test"],
        fold=[0, None, 1],
        frame=[None, 3, 0],
        kvp=[119.99999999999999, np.nan, 100.0],
        **LABEL_VALUES,
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_saved_manifest_comes_back_with_the_same_types_and_nulls(
    make_manifest: Make, tmp_path: Path, suffix: str
) -> None:
    manifest = rich(make_manifest)
    loaded = Manifest.load(manifest.save(tmp_path / f"m{suffix}"))
    pd.testing.assert_frame_equal(loaded.frame, manifest.frame, check_exact=True)
    assert (loaded.label_columns, loaded.fingerprint) == (manifest.label_columns, manifest.fingerprint)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\x00"))), min_size=1, max_size=5
    ),
    st.lists(st.floats(allow_infinity=False), min_size=5, max_size=5),
)
def test_any_text_and_figure_survives_both_formats(
    make_manifest: Make, tmp_path: Path, texts: list[str | None], figures: list[float]
) -> None:
    manifest = make_manifest((), note=texts, figure=figures[: len(texts)])
    for suffix in (".csv", ".parquet"):
        loaded = Manifest.load(manifest.save(tmp_path / f"m{suffix}"))
        pd.testing.assert_frame_equal(loaded.frame, manifest.frame, check_exact=True)


def test_labels_stand_behind_the_fixed_columns(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 1])
    assert list(manifest.frame.columns) == [*COLUMNS, "y"]
    assert manifest.frame["patient_known"].tolist() == [False, False]
    assert manifest.frame["patient_id"].tolist() == ["i0", "i1"]


def test_the_folder_is_found_again_when_manifest_and_images_move_together(make_manifest: Make, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "images").mkdir(parents=True)
    (old / "images" / "f00000.png").write_bytes(b"x")
    manifest = Manifest(make_manifest(y=[0]).frame, root=old / "images", label_columns=("y",))
    manifest.save(old / "m.parquet")
    old.rename(tmp_path / "new")
    loaded = Manifest.load(tmp_path / "new" / "m.parquet")
    assert loaded.locate(0) == SampleAddress(tmp_path / "new" / "images" / "f00000.png")
    assert loaded.fingerprint == manifest.fingerprint


def test_a_manifest_that_moves_alone_still_finds_its_images(make_manifest: Make, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "f00000.png").write_bytes(b"x")
    manifest = Manifest(make_manifest(y=[0]).frame, root=tmp_path / "images", label_columns=("y",))
    manifest.save(tmp_path / "m.csv")
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "m.csv").rename(tmp_path / "deep" / "deeper" / "m.csv")
    with pytest.raises(ManifestError, match=r"m\.csv\.json says where the images .* are"):
        Manifest.load(tmp_path / "deep" / "deeper" / "m.csv")
    (tmp_path / "m.csv.json").rename(tmp_path / "deep" / "deeper" / "m.csv.json")
    assert Manifest.load(tmp_path / "deep" / "deeper" / "m.csv").root == tmp_path / "images"


def test_fingerprint_follows_labels_splits_and_pixels_but_not_the_folder(make_manifest: Make) -> None:
    manifest = make_manifest(y=[0, 1], split=["train", "test"], pixel_hash=["a", "b"], manufacturer=["A", "B"])

    def changed(**columns: Any) -> str:
        return Manifest(manifest.frame.assign(**columns), root=Path("elsewhere"), label_columns=("y",)).fingerprint

    assert changed() == changed(manufacturer=["X", "Y"]) == manifest.fingerprint
    assert (
        len({manifest.fingerprint, changed(y=[1, 1]), changed(split=["train", "val"]), changed(pixel_hash=["a", "c"])})
        == 4
    )


def test_rows_are_chosen_by_mask_position_and_split(make_manifest: Make) -> None:
    manifest = make_manifest(
        y=[0, 1, 2, 3],
        status=["ok", "rejected", "ok", "ok"],
        split=["val", "val", "train", "val"],
        reason=[None, "empty", None, None],
    )
    assert manifest.subset("val").frame["image_id"].tolist() == ["i0", "i3"]
    assert manifest.select([3, 0]).frame["y"].tolist() == [3, 0]
    assert manifest.select(np.array([True, False, False, True])).frame.index.tolist() == [0, 1]
    assert (len(manifest.ok), manifest.rejected, len(manifest.subset("test"))) == (3, {"empty": 1}, 0)
    with pytest.raises(ManifestError, match="Did you mean 'train'"):
        manifest.subset("trian")  # type: ignore[arg-type]
    with pytest.raises(ManifestError, match="mask of 4"):
        manifest.select(np.array([True]))


def test_chosen_rows_are_a_table_of_their_own_checked_and_typed_like_any(make_manifest: Make) -> None:
    manifest = rich(make_manifest)
    for rows in ([2, 0], [1], []):
        alone = replace(manifest, frame=manifest.frame.iloc[rows])
        pd.testing.assert_frame_equal(manifest.select(np.array(rows, int)).frame, alone.frame, check_exact=True)
    with pytest.raises(ManifestError, match="1 repeated ids"):
        manifest.select([0, 0])
    manifest.frame["score"] = [1, 2, 3]  # by hand, in a type of pandas' own
    assert str(manifest.select([0]).frame["score"].dtype) == "Int64"


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"path": ["a"]}, "image_id"),
        ({"image_id": ["a", "a"], "path": ["a", "b"]}, "unique"),
        ({"image_id": ["a"], "path": ["a"], "status": ["fine"]}, "'ok' or 'rejected'"),
        ({"image_id": ["a"], "path": ["a"], "split": ["holdout"]}, "train, val, test.*in row 0"),
        ({"image_id": ["a"], "path": ["a"], "rows": ["many"]}, "rows"),
    ],
)
def test_a_table_that_cannot_be_a_manifest_is_refused(columns: dict[str, list[str]], what: str) -> None:
    with pytest.raises(ManifestError, match=what):
        Manifest(pd.DataFrame(columns), root=Path())


def test_a_column_that_stands_twice_is_refused() -> None:
    table = pd.DataFrame([["a", "b", 1, 2]], columns=["image_id", "path", "y", "y"])
    with pytest.raises(ManifestError, match=r"twice: \['y'\]"):
        Manifest(table, root=Path(), label_columns=("y",))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_newer_damaged_or_foreign_file_is_refused_without_its_path(
    make_manifest: Make, tmp_path: Path, suffix: str
) -> None:
    path = rich(make_manifest).save(tmp_path / f"secret-name{suffix}")
    if suffix == ".csv":
        beside = path.with_name(f"{path.name}.json")
        beside.write_text(beside.read_text().replace('"version": 1', '"version": 99', 1))
    else:
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[b"lepton_vision_manifest"]) | {"version": 99}
        pq.write_table(table.replace_schema_metadata({b"lepton_vision_manifest": json.dumps(facts).encode()}), path)
    with pytest.raises(ManifestError, match="version 99") as newer:
        Manifest.load(path)
    content = path.read_bytes()
    if suffix == ".csv":
        beside.write_text(beside.read_text().replace('"version": 99', '"version": 1', 1))
    path.write_bytes(content[: len(content) // 4])
    with pytest.raises(ManifestError) as damaged:
        Manifest.load(path)
    path.write_text("path,label\na.png,1\n") if suffix == ".csv" else pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(ManifestError, match="no manifest") as foreign:
        Manifest.load(path)
    assert not any("secret-name" in str(error.value) for error in (newer, damaged, foreign))


@pytest.mark.parametrize(
    "facts", [[1], {}, {"version": "x"}, {"dtypes": [1]}, {"dtypes": {"path": "x"}}, {"root": 5}, {"label_columns": 5}]
)
def test_facts_that_were_changed_are_refused(make_manifest: Make, tmp_path: Path, facts: Any) -> None:
    path = rich(make_manifest).save(tmp_path / "m.csv")
    beside = path.with_name("m.csv.json")
    whole = json.loads(beside.read_text(encoding="utf-8"))
    beside.write_text(json.dumps(whole | facts if facts and isinstance(facts, dict) else facts), encoding="utf-8")
    with pytest.raises(ManifestError):
        Manifest.load(path)
    beside.write_bytes(b"[" * 100_000)
    with pytest.raises(ManifestError, match="damaged"):
        Manifest.load(path)


def test_a_missing_file_or_another_suffix_is_refused(make_manifest: Make, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        Manifest.load(tmp_path / "none.parquet")
    with pytest.raises(ManifestError, match=r"\.xlsx"):
        make_manifest(y=[1]).save(tmp_path / "m.xlsx")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    make_manifest: Make, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_manifest(y=[1, 0]).save(tmp_path / f"m{suffix}")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ManifestError, match="No space left on device"):
        make_manifest(y=[5, 6, 7]).save(path)
    assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} - {"m.csv.json"} == {path.name}


@pytest.mark.parametrize("number", [1, 2])
def test_a_csv_and_the_file_beside_it_are_written_both_or_neither(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, syncs, real = tmp_path / "m.csv", list[int](), os.fsync

    def full(descriptor: int) -> None:
        syncs.append(descriptor)
        if len(syncs) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ManifestError, match="Nothing was written"):
            make_manifest(y=[1, 2, 3]).save(path)
    assert not list(tmp_path.iterdir())
    make_manifest(("x",), x=[1, 2, 3]).save(path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    syncs.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ManifestError, match="Nothing was written"):
            make_manifest(y=[5, 6, 7]).save(path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    assert sorted(before) == ["m.csv", "m.csv.json"]


def test_the_summary_shows_counts_and_escapes_text(make_manifest: Make) -> None:
    page = make_manifest(y=["<b>", "x", None])._repr_html_()
    assert "&lt;b&gt;: 1" in page
    assert "unknown: 1" in page


def test_labels_of_all_rows_come_in_manifest_order(make_manifest: Make) -> None:
    manifest = make_manifest(y=["sick", None, "well"], status=["ok", "rejected", "ok"])
    labels = manifest.labels(Target("y", "binary", ("well", "sick")))
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.array([1, np.nan, 0], dtype=np.float32))


@pytest.mark.parametrize("has_facts", [True, False])
def test_a_csv_is_a_plain_table_that_no_spreadsheet_computes(
    make_manifest: Make, tmp_path: Path, has_facts: bool
) -> None:
    frame = make_manifest(y=[0, 1]).frame.assign(**{"=note": ["=1+1", "-x"]})
    for name in frame["path"]:
        (tmp_path / name).write_bytes(b"x")
    path = Manifest(frame, root=tmp_path, label_columns=("y", "=note")).save(tmp_path / "m.csv")
    table = pd.read_csv(path)
    assert table["image_id"].tolist() == frame["image_id"].tolist()
    assert table["'=note"].tolist() == ["'=1+1", "'-x"]
    if not has_facts:
        (tmp_path / "m.csv.json").unlink()
    again = Manifest.load(path)
    assert (again.root, again.label_columns) == (tmp_path, ("y", "=note"))
    assert again.frame["=note"].tolist() == ["=1+1", "-x"]
    assert again.frame["y"].tolist() == [0, 1]


def test_a_csv_of_before_with_its_facts_in_the_first_line_is_read(make_manifest: Make, tmp_path: Path) -> None:
    manifest = rich(make_manifest)
    path = manifest.save(tmp_path / "m.csv")
    facts = json.loads((tmp_path / "m.csv.json").read_text())
    old = tmp_path / "old.csv"
    old.write_bytes(f"# {json.dumps(facts)}\n".encode() + path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    pd.testing.assert_frame_equal(Manifest.load(old).frame, manifest.frame)


@pytest.mark.parametrize("name", ["all.csv", "all.parquet"])
def test_a_manifest_is_for_its_owner_alone(make_manifest: Make, tmp_path: Path, name: str) -> None:
    assert make_manifest(y=[0, 1]).save(tmp_path / name).stat().st_mode & 0o777 == 0o600
