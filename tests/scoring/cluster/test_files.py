"""Masks, reports and CSV of a run in parts, equal to those of a run on one machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.models import Bundle
from lepton_vision.scoring import list_run, merge_parts, score, score_on_ray, score_part
from lepton_vision.scoring.cluster import ray as cluster
from lepton_vision.scoring.sink import ShardSink
from tests.scoring.bundles import image_bundle, read, same_files, same_rows, volume_bundle
from tests.scoring.dicom_series import header, save, write_enhanced, write_series

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 4}
CODES = {"sick": ("64572001", "SCT", "Disease")}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return image_bundle()


@pytest.fixture(scope="module")
def plain_bundle() -> Bundle:
    return image_bundle("segmentation=null")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """12 slices of which 8 share an id, a file of two frames, 4 PNG files, one that is no image."""
    rng, folder = np.random.default_rng(0), tmp_path / "inbox"
    shared = "1.2.826.0.1.3680043.8.498.1"
    for k in range(12):
        place = {"ImagePositionPatient": [0, 0, k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        one = header(rng.integers(0, 300, (24, 32)), PixelSpacing=[0.5, 0.8], **place)
        if k % 3:
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = shared
        save(one, folder / f"{k:02}.dcm")
    shutil.copy(folder / "00.dcm", folder / "same-as-00.dcm")
    write_enhanced(folder / "frames.dcm", [0.0, 2.0])
    for k in range(4):
        Image.fromarray(rng.integers(0, 255, (24, 32)).astype(np.uint8)).save(folder / f"{k}.png")
    (folder / "broken.dcm").write_bytes(b"nothing")
    return folder


def sides(folder: Path, **more: Any) -> dict[str, Any]:
    return {"masks": folder / "masks", "reports": folder / "sr", **more}


def in_parts(bundle: Bundle, inbox: Path, folder: Path, parts: int = 4, **beside: Any) -> None:
    for part in reversed(range(parts)):
        score_part(bundle, inbox, folder / "out", part=part, parts=parts, shard_rows=2, **beside, **HOW)


def whole(bundle: Bundle, inbox: Path, folder: Path, **beside: Any) -> Path:
    score(bundle, inbox, folder / "out", **beside, **HOW)
    return folder


def merge(bundle: Bundle, inbox: Path, folder: Path, **more: Any) -> Any:
    beside = {"masks": folder / "masks", "reports": folder / "sr"} | more
    found = list_run(bundle, inbox, folder / "out", masks=beside["masks"], reports=beside["reports"])
    return merge_parts(bundle, folder / "out", inputs=found, **beside)


def assert_alike(one: Path, other: Path, *names: str) -> None:
    same_rows(one / "out", other / "out")
    for name in names:
        same_files(one / name, other / name)
        assert not (other / name / "_parts").exists()
    assert not (other / "out" / "_parts").exists()


def test_masks_and_reports_of_parts_are_those_of_one_run(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    how = {"mask_format": "dicom", "report_codes": CODES}
    plain = score(bundle, inbox, one / "out", **sides(one, **how), **HOW)
    in_parts(bundle, inbox, other, **sides(other, **how))
    told = merge(bundle, inbox, other)
    assert (told.masks, told.without_mask) == (plain.masks, plain.without_mask)
    assert told.without_mask["duplicate"] == 8  # 7 of the shared id, and the copy
    assert (read(other / "out")["report_reason"] == "duplicate").sum() == 7  # the copy has the same report
    assert_alike(one, other, "masks", "sr")
    score(bundle, inbox, other / "out", **sides(other, **how), **HOW)  # a plain run goes on with these folders


def test_heat_maps_of_parts_are_those_of_one_run(plain_bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    whole(plain_bundle, inbox, one, reports=one / "sr", heat_maps=True)
    in_parts(plain_bundle, inbox, other, reports=other / "sr", heat_maps=True)
    merge(plain_bundle, inbox, other, masks=None)
    assert list((other / "sr").glob("*.cam-*"))
    assert_alike(one, other, "sr")


def test_masks_of_series_in_parts(tmp_path: Path) -> None:
    bundle, one, other = volume_bundle(), tmp_path / "one", tmp_path / "other"
    for k in range(3):
        write_series(tmp_path / "inbox" / str(k), [0.0, 2.0, 4.0 + k])
    how = {"batch_size": 2}
    score(bundle, tmp_path / "inbox", one / "out", masks=one / "masks", **HOW | how)
    for part in range(2):
        score_part(bundle, tmp_path / "inbox", other / "out", part=part, parts=2, masks=other / "masks", **HOW | how)
    merge(bundle, tmp_path / "inbox", other, reports=None)
    assert_alike(one, other, "masks")


@pytest.mark.parametrize("cut", ["before rows", "after rows"])
def test_a_merge_that_was_cut_off_leaves_no_file_behind(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    whole(bundle, inbox, one, **sides(one))
    in_parts(bundle, inbox, other, **sides(other))
    flush = ShardSink.flush

    def broken(sink: ShardSink) -> None:
        if cut == "after rows":
            flush(sink)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardSink, "flush", broken)
        with pytest.raises(KeyboardInterrupt):
            merge(bundle, inbox, other)
    assert list((other / "masks").glob("*.png"))
    merge(bundle, inbox, other)
    assert_alike(one, other, "masks", "sr")


def masks_by_name(folder: Path) -> dict[str, list[Path]]:
    """Masks of all parts; images of one id have one name, so several parts may have it."""
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / "masks").glob("_parts/*/*.png")):
        found.setdefault(path.name, []).append(path)
    return found


def test_a_mask_that_is_gone_is_told(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    in_parts(bundle, inbox, tmp_path, masks=tmp_path / "masks")
    next(paths[0] for paths in masks_by_name(tmp_path).values() if len(paths) == 1).unlink()
    with pytest.raises(ScoringError, match="Expected the mask that a row of a part names"):
        merge(bundle, inbox, tmp_path, reports=None)


def test_masks_of_later_images_of_an_id_are_not_needed(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    whole(bundle, inbox, one, masks=one / "masks")
    in_parts(bundle, inbox, other, masks=other / "masks")
    later = [
        path
        for name, paths in masks_by_name(other).items()
        for path in paths
        if path.read_bytes() != (one / "masks" / name).read_bytes()
    ]
    assert later
    for path in later:
        path.unlink()
    merge(bundle, inbox, other, reports=None)
    assert_alike(one, other, "masks")


def test_a_damaged_shard_of_a_part_is_told(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    in_parts(bundle, inbox, tmp_path, masks=tmp_path / "masks")
    next((tmp_path / "out").glob("_parts/*/part-*.parquet")).write_bytes(b"nothing")
    with pytest.raises(ScoringError, match="A shard of a part is damaged"):
        merge(bundle, inbox, tmp_path, reports=None)


def test_what_cannot_be_merged_later_is_refused_before_it_is_scored(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    for setting, value in (("resume", False), ("file_format", "csv"), ("path_map", "map.csv")):
        with pytest.raises(ConfigError, match=f"Unknown setting '{setting}' of a part"):
            score_part(bundle, inbox, out, part=0, parts=2, **{setting: value})
    with pytest.raises(ScoringError, match="not within the output folder"):
        score_part(bundle, inbox, out, part=0, parts=2, masks=out / "masks")
    with pytest.raises(ConfigError, match="heat maps"):
        score_part(bundle, inbox, out, part=0, parts=2, heat_maps=True)
    whole(bundle, inbox, tmp_path, masks=masks, mask_format="nifti")
    with pytest.raises(ScoringError, match="holds masks of another job"):
        score_part(bundle, inbox, tmp_path / "new", part=0, parts=2, masks=masks)
    with pytest.raises(ScoringError, match=r"holds rows of another job \(differs in: masks\)"):
        score_part(bundle, inbox, out, part=0, parts=2)
    assert not (tmp_path / "new").exists()
    assert not (out / "_parts").exists()


def test_the_folder_of_the_masks_must_be_named_where_parts_are_merged(
    bundle: Bundle, inbox: Path, tmp_path: Path
) -> None:
    in_parts(bundle, inbox, tmp_path, masks=tmp_path / "masks")
    with pytest.raises(ConfigError, match="Expected masks=FOLDER"):
        merge_parts(bundle, tmp_path / "out")
    with pytest.raises(ConfigError, match="Expected reports=None"):
        merge_parts(bundle, tmp_path / "out", masks=tmp_path / "masks", reports=tmp_path / "sr")
    assert merge(bundle, inbox, tmp_path, reports=None).rows == 20


def test_parts_become_csv_where_they_are_merged(plain_bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    whole(plain_bundle, inbox, one, file_format="csv")
    in_parts(plain_bundle, inbox, other)
    told = merge(plain_bundle, inbox, other, masks=None, reports=None, file_format="csv")
    assert told.rows == 20
    tables = []
    for folder in (one, other):
        parts = [pd.read_csv(path, dtype=str) for path in sorted((folder / "out").glob("part-*.csv"))]
        tables.append(pd.concat(parts).drop(columns="seconds").sort_values(["path_id", "frame"], ignore_index=True))
    pd.testing.assert_frame_equal(*tables)
    assert (other / "out" / "_cases" / "patient.parquet").exists()
    assert score_part(plain_bundle, inbox, other / "out", part=0, parts=2, **HOW) is None
    assert score(plain_bundle, inbox, other / "out", file_format="csv", **HOW).new_rows == 0


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Parts in this process, in place of those of a cluster; the list gets the number of each."""
    done: list[int] = []

    def instead(task: Any, where: cluster.Cluster) -> Generator[dict[str, int]]:
        for part in reversed(range(task.parts)):
            yield task.run(part)
            done.append(part)

    monkeypatch.setattr(cluster, "_run", instead)
    return done


def test_a_cluster_gives_what_one_machine_gives(bundle: Bundle, inbox: Path, tmp_path: Path, actors: list[int]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    how: dict[str, Any] = {"mask_format": "dicom", "report_codes": CODES}
    whole(bundle, inbox, one, path_map=tmp_path / "one.csv", **sides(one, **how))
    where = cluster.Cluster(inputs_per_part=4)
    run = {**sides(other, **how), "cluster": where, "path_map": tmp_path / "other.csv", **HOW}
    score_on_ray(bundle, inbox, other / "out", **run)
    assert len(actors) == 5
    assert_alike(one, other, "masks", "sr")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert score_on_ray(bundle, inbox, other / "out", **run).new_rows == 0
    again = score_on_ray(bundle, inbox, other / "out", resume=False, **run)
    assert (again.new_rows, len(actors)) == (20, 10)
    assert_alike(one, other, "masks", "sr")


def test_a_cluster_that_was_lost_goes_on_with_masks(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actors: list[int]
) -> None:
    other, where = tmp_path / "other", cluster.Cluster(inputs_per_part=4)

    def lost(done: int, total: int, failed: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_on_ray(bundle, inbox, other / "out", cluster=where, progress=lost, **sides(other), **HOW)
    assert list((other / "masks").glob("_parts/*/*.png"))
    told = score_on_ray(bundle, inbox, other / "out", cluster=where, **sides(other), **HOW)
    assert told.rows == 20
    plain = score(bundle, inbox, tmp_path / "one" / "out", **sides(tmp_path / "one"), **HOW)
    assert (told.masks, told.without_mask) == (plain.masks, plain.without_mask)
    same = {path.name for path in (other / "masks").glob("*.png")}
    assert same == {path.name for path in (tmp_path / "one" / "masks").glob("*.png")}


def test_the_command_line_gives_all_of_it_to_a_cluster(
    bundle: Bundle, inbox: Path, tmp_path: Path, actors: list[int]
) -> None:
    bundle.save(tmp_path / "bundle")
    words: tuple[Any, ...] = ("score", "--bundle", tmp_path / "bundle", "--input", inbox, "--on", "ray", "--json")
    words += ("--output", tmp_path / "out", "--format", "csv", "--masks", tmp_path / "masks", "--max-failures", "1")
    words += ("--dicom-sr", tmp_path / "sr", "--sr-code", "sick=64572001,SCT,Disease", "--no-resume")
    words += ("--path-map", tmp_path / "map.csv", "--device", "cpu", "--precision", "fp32")
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == 20
    assert list((tmp_path / "out").glob("part-*.csv"))
    assert list((tmp_path / "masks").glob("*.png"))
    assert list((tmp_path / "sr").glob("*.sr.dcm"))
    assert (tmp_path / "map.csv").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_actors_of_ray_write_masks_and_reports(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    one, other = tmp_path / "one", tmp_path / "other"
    whole(bundle, inbox, one, **sides(one, report_codes=CODES))
    where = cluster.Cluster(actors=2, inputs_per_part=4)
    score_on_ray(bundle, inbox, other / "out", cluster=where, **sides(other, report_codes=CODES), **HOW)
    assert_alike(one, other, "masks", "sr")
