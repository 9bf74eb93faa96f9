"""Scoring runs: one row for every input, and equal probabilities after any interruption."""

from __future__ import annotations

import json
import logging
import re
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, ScoringError, TooManyFailuresError
from lepton_vision.inference.engine import Engine, EngineOutput
from lepton_vision.inference.streams import streams_here
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.models.bundle_files import _checksum
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring import batch, merge_parts, score_part
from lepton_vision.scoring import scorer as images
from lepton_vision.scoring.batch import score
from lepton_vision.scoring.inputs import inputs
from lepton_vision.scoring.rows import decide
from lepton_vision.types import Target
from tests.readers.test_folders import refuse
from tests.scoring.dicom_series import COLUMNS, ROWS, header, random_labels

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))
SIGNS = Target("signs", "multilabel", ("edema", "mass"))
POINT = OperatingPoint({"sick": (0.5,), "organ": (), "signs": (0.4, 0.6)}, "stated")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config(targets=(SICK, ORGAN, SIGNS)).override("preprocess.size=[32, 32]", "model.stem=standard")
    state = build_model(config).state_dict()
    return Bundle(config=config, targets=config.targets, state=state, operating_point=POINT)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(11):
        cv2.imwrite(str(folder / f"{number:02d}.png"), rng.integers(0, 255, (40, 30), dtype=np.uint8))
    (folder / "04-broken.png").write_bytes((folder / "04.png").read_bytes()[:100])
    (folder / "05-text.png").write_text("no image")
    return folder


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("path_id", ignore_index=True)


def test_every_input_is_a_row_with_probabilities_or_a_reason(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    told = lambda *state: seen.append(state)  # noqa: E731
    summary = score(bundle, inbox, tmp_path / "out", batch_size=4, progress=told)
    rows = read(tmp_path / "out")
    assert (summary.rows, summary.scored, summary.new_rows) == (13, 11, 13)
    assert sum(summary.failed.values()) == 2
    assert set(summary.failed) == {"truncated", "not_an_image"}
    assert seen[-1] == (13, 13, 2)
    good = rows[rows["status"] == "ok"]
    assert good[["organ_a_probability", "organ_b_probability", "organ_c_probability"]].sum(axis=1).round(5).eq(1).all()
    assert (good["signs_mass_positive"] == (good["signs_mass_probability"] >= 0.6)).all()
    assert good["threshold"].eq(0.5).all()
    assert good["organ_class"].isin(["a", "b", "c"]).all()
    assert rows.loc[rows["status"] == "failed", "sick_probability"].isna().all()


def test_linked_folders_and_those_that_cannot_be_entered_are_rows_as_in_a_scan(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "archive").mkdir()
    cv2.imwrite(str(tmp_path / "archive" / "far.png"), np.arange(1200, dtype=np.uint8).reshape(40, 30))
    (inbox / "patient").symlink_to(tmp_path / "archive", target_is_directory=True)
    (inbox / "circle").symlink_to(inbox, target_is_directory=True)
    (inbox / "locked").mkdir()
    refuse(inbox / "locked", monkeypatch)
    scanned = Manifest.scan(inbox).frame
    counts = scanned["status"].replace("rejected", "failed").value_counts().to_dict()
    assert counts == {"ok": 12, "failed": 3}
    for place, name in ((inbox, "whole"), (f"{inbox}/**", "pattern"), ([inbox / "patient", inbox], "several")):
        score(bundle, place, tmp_path / name, batch_size=8)
        rows = read(tmp_path / name)
        assert rows["status"].value_counts().to_dict() == counts
        assert (rows["reason"] == "missing").sum() == (scanned["reason"] == "missing").sum() == 1


def test_a_folder_of_ids_of_another_key_is_refused(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names.csv"
    score(bundle, inbox, tmp_path / "out", batch_size=4, path_map=names)
    record, before = tmp_path / "out" / "_job.json", names.read_bytes()
    assert "key of the tests" not in record.read_text()
    with monkeypatch.context() as patch:
        patch.setenv("LEPTON_VISION_ID_KEY", "key of another container")
        with pytest.raises(ScoringError, match=r"made with another key.*LEPTON_VISION_ID_KEY"):
            score(bundle, inbox, tmp_path / "out", batch_size=4, path_map=names)
        assert names.read_bytes() == before
        with pytest.raises(ScoringError, match="made with another key"):
            score_part(bundle, inbox, tmp_path / "out", part=0, parts=2)
    assert len(read(tmp_path / "out")) == 13
    job = json.loads(record.read_text())
    job.pop("id_key")  # a folder that an older version began
    record.write_text(json.dumps(job))
    assert score(bundle, inbox, tmp_path / "out", batch_size=4).new_rows == 0


def test_a_damaged_record_of_a_job_is_told(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    score(bundle, inbox / "00.png", tmp_path / "out")
    for text in ("", "{", "[1]", "[" * 100_000):
        (tmp_path / "out" / "_job.json").write_text(text)
        with pytest.raises(ScoringError, match=r"_job\.json.* is damaged"):
            score(bundle, inbox / "00.png", tmp_path / "out")
    assert score(bundle, inbox / "00.png", tmp_path / "out", resume=False).rows == 1  # as the message says


def test_parts_of_two_keys_are_told_at_once(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_part(bundle, inbox, tmp_path / "out", part=0, parts=2)
    monkeypatch.setenv("LEPTON_VISION_ID_KEY", "key of another machine")
    with pytest.raises(ScoringError, match="made with another key"):
        score_part(bundle, inbox, tmp_path / "out", part=1, parts=2)
    with pytest.raises(ScoringError, match="made with another key"):
        merge_parts(bundle, tmp_path / "out")


def test_steps_side_by_side_give_the_rows_of_one_after_the_other(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1, 3):
        monkeypatch.setattr(batch, "streams_here", lambda count=count: count)
        score(bundle, inbox, tmp_path / str(count), batch_size=2, precision="fp32")
    one, three = (pd.read_parquet(tmp_path / name).drop(columns="seconds") for name in ("1", "3"))
    pd.testing.assert_frame_equal(one, three)  # the order too


def test_steps_of_a_file_of_many_frames_do_not_run_far_ahead_of_its_rows(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [np.full((40, 30), number, np.uint8) for number in range(40)]
    cv2.imwritemulti(str(tmp_path / "many.tif"), frames)
    steps, ahead = 0, list[int]()
    original = Engine.examine_pixels

    def examine(self: Engine, pixels: np.ndarray) -> EngineOutput:
        nonlocal steps
        steps += 1
        return original(self, pixels)

    def decide_late(*args: Any, **named: Any) -> dict[str, Any]:
        sleep(0.01)  # time for steps to run ahead
        ahead.append(2 * steps - len(ahead))
        return decide(*args, **named)

    monkeypatch.setattr(Engine, "examine_pixels", examine)
    monkeypatch.setattr(images, "decide", decide_late)
    summary = score(bundle, tmp_path / "many.tif", tmp_path / "out", batch_size=2)
    assert (summary.scored, steps, len(ahead)) == (40, 20, 40)
    assert max(ahead) <= 4 * (1 + streams_here())


def test_an_interrupted_run_goes_on_to_the_same_rows(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(bundle, inbox, tmp_path / "whole", batch_size=4, precision="fp32")
    calls = 0
    original = Engine.examine_pixels

    def failing(self: Engine, images: np.ndarray) -> EngineOutput:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "examine_pixels", failing)
        with pytest.raises(KeyboardInterrupt):
            score(bundle, inbox, tmp_path / "parts", batch_size=4, precision="fp32")
    half = len(read(tmp_path / "parts"))
    assert 0 < half < 13
    summary = score(bundle, inbox, tmp_path / "parts", batch_size=4, precision="fp32")
    assert summary.new_rows == 13 - half
    columns = [name for name in read(tmp_path / "whole") if name != "seconds"]
    pd.testing.assert_frame_equal(
        read(tmp_path / "parts")[columns], read(tmp_path / "whole")[columns], check_exact=True
    )


def test_new_files_are_added_and_old_rows_kept(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    score(bundle, inbox, tmp_path / "out")
    cv2.imwrite(str(inbox / "99.png"), np.zeros((20, 20), np.uint8))
    summary = score(bundle, inbox, tmp_path / "out")
    assert (summary.new_rows, summary.rows) == (1, 14)
    assert score(bundle, inbox, tmp_path / "out", resume=False).new_rows == 14


def test_an_unexpected_error_is_a_row_too(
    bundle: Bundle, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, **_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(inputs, "read_named", broken)
    summary = score(bundle, inbox, tmp_path / "out")
    assert summary.failed == {"unexpected:RuntimeError": 13}


def test_a_network_that_gives_no_number_fails_the_row(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in bundle.state.items()}
    head = next(name for name in state if "sick" in name and name.endswith("bias"))
    state[head][:] = float("nan")
    sick = Bundle(config=bundle.config, targets=bundle.targets, state=state, operating_point=POINT)
    summary = score(sick, inbox, tmp_path / "out")
    assert summary.failed["non_finite_output"] == 11


def test_a_run_leaves_warnings_and_loggers_as_they_were(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    logger, during = logging.getLogger("pydicom"), list[int]()
    beside, heard = ThreadPoolExecutor(1), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logger.addHandler(handler)

    def progress(done: int, _count: int, _failures: int) -> None:
        logger.warning("of the thread that reads")
        beside.submit(logger.warning, "of another thread").result()
        during.append(len(heard))
        if done == 9:
            raise KeyboardInterrupt

    filters = list(warnings.filters)
    with pytest.raises(KeyboardInterrupt):
        score(bundle, inbox, tmp_path / "out", batch_size=4, progress=progress)
    logger.removeHandler(handler)
    assert during == list(range(1, 10))
    assert {record.getMessage() for record in heard} == {"of another thread"}
    assert (logger.disabled, logger.filters) == (False, [])
    before = [one for one in warnings.filters if one in filters]  # imports put others in front
    assert before == filters
    assert {type(one[3]) for one in warnings.filters} <= {type(None), str, re.Pattern}


def test_gates_and_missing_parts(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyFailuresError, match=r"15\.4%"):
        score(bundle, inbox, tmp_path / "out", max_failures=0.1)
    assert len(read(tmp_path / "out")) == 13
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoringError, match=r"Received: none\. Check the path"):
        score(bundle, tmp_path / "empty", tmp_path / "other")
    without = Bundle(config=bundle.config, targets=bundle.targets, state=bundle.state)
    with pytest.raises(ScoringError, match="operating point"):
        score(without, inbox, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_path_map_is_complete_and_private(bundle: Bundle, inbox: Path, tmp_path: Path) -> None:
    score(bundle, inbox, tmp_path / "out", path_map=tmp_path / "map.csv")
    table = pd.read_csv(tmp_path / "map.csv")
    assert set(table["path_id"]) == set(read(tmp_path / "out")["path_id"])
    assert set(table["path"]) == {str(path) for path in inbox.iterdir()}
    assert stat.S_IMODE((tmp_path / "map.csv").stat().st_mode) == 0o600


_OBJECTS: dict[str, dict[str, Any]] = {
    "image": {},
    "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "screen": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "mask": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
}


def test_what_is_no_image_has_no_probability_unless_training_took_it_in(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bundle says what is scored, a flag says otherwise."""
    for number, elements in enumerate(_OBJECTS.values()):  # a name such as segmentation.dcm would tell
        (tmp_path / "inbox").mkdir(exist_ok=True)
        header(random_labels(ROWS, COLUMNS), **elements).save_as(
            tmp_path / "inbox" / f"{number}.dcm", enforce_file_format=True
        )
    report = header(random_labels(ROWS, COLUMNS), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "inbox" / "report.dcm", enforce_file_format=True)
    lost = header(random_labels(ROWS, COLUMNS))
    del lost.PixelData
    lost.save_as(tmp_path / "inbox" / "lost.dcm", enforce_file_format=True)
    summary = score(bundle, tmp_path / "inbox", tmp_path / "out")
    assert (summary.scored, summary.failed) == (1, {"truncated": 1})
    assert summary.left_out == {"localizer": 1, "secondary_capture": 1, "segmentation": 1, "no_pixels": 1}
    assert (read(tmp_path / "out")["status"] == "left_out").sum() == 4
    assert "--include localizer,secondary_capture,segmentation" in caplog.text
    by_table: dict[str, Any] = {"max_failures": 0.2, "file_format": "csv"}
    assert score(bundle, tmp_path / "inbox", tmp_path / "csv", **by_table).left_out == summary.left_out
    assert score(bundle, tmp_path / "inbox", tmp_path / "csv", **by_table).new_rows == 0
    assert score_part(bundle, tmp_path / "inbox", tmp_path / "all", part=0, parts=1, max_failures=0.2)
    assert merge_parts(bundle, tmp_path / "all", max_failures=0.2).left_out == summary.left_out
    assert read(tmp_path / "out")["sick_probability"].notna().sum() == 1
    trained = bundle.with_include(["secondary_capture"])
    assert trained.bundle_id == bundle.bundle_id
    trained.save(tmp_path / "bundle")
    assert score(tmp_path / "bundle", tmp_path / "inbox", tmp_path / "out2").scored == 2
    assert score(bundle, tmp_path / "inbox", tmp_path / "out3", include=["localizer", "segmentation"]).scored == 3
    with pytest.raises(ConfigError, match=r"scan\.include"):
        score(bundle, tmp_path / "inbox", tmp_path / "out4", include=["scout"])


def test_a_bundle_from_before_the_setting_scores_captures(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    del facts["config"]["scan"], facts["checksum"]
    facts["checksum"] = _checksum(facts)
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(facts))
    assert Bundle.load(tmp_path / "bundle").config.scan.include == ("secondary_capture",)
