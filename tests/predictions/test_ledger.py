"""Ledger: one line per look, also with two processes at once, and no effect on an evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lepton_vision.predictions.ledger import Ledger, LedgerEntry, find_ledger, record_look

LOOK = LedgerEntry("0123", "4567", "test", "evaluate", {"covid": ["auroc", "sensitivity"]})


def test_a_look_is_a_line_with_its_facts(tmp_path: Path) -> None:
    assert record_look(tmp_path, LOOK).to_dict() == {"test_looks": 1}
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    entry = json.loads(line)
    when = datetime.fromisoformat(entry.pop("when"))
    assert when.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=10)
    assert entry == {
        "bundle_id": "0123",
        "manifest": "4567",
        "split": "test",
        "command": "evaluate",
        "figures": {"covid": ["auroc", "sensitivity"]},
        "cases": "",
        "id_key": "",
    }


def test_looks_of_one_bundle_at_the_same_data_add_up_and_others_stay_apart(tmp_path: Path) -> None:
    first = record_look(tmp_path, LOOK)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    assert (first.count, record_look(tmp_path, replace(LOOK, command="run")).count) == (1, 2)
    assert record_look(tmp_path, replace(LOOK, bundle_id="a neighbour")).count == 1
    assert record_look(tmp_path, replace(LOOK, manifest="other data")).count == 1
    away = replace(LOOK, manifest="site b", command="evaluate --external")
    assert [record_look(tmp_path, away).count for _ in range(2)] == [1, 2]
    assert record_look(tmp_path, replace(away, manifest="site c")).count == 1
    assert record_look(tmp_path, LOOK).count == 3
    assert (tmp_path / "ledger.jsonl").read_bytes().startswith(before)


def test_the_same_cases_are_the_same_data_whatever_manifest_holds_them(tmp_path: Path) -> None:
    record_look(tmp_path, replace(LOOK, cases="c1"))
    assert record_look(tmp_path, replace(LOOK, manifest="moved", cases="c1")).count == 2
    assert record_look(tmp_path, replace(LOOK, cases="c2")).count == 1
    assert record_look(tmp_path, LOOK).count == 3, "which cases is not known: both at this manifest count"


def test_a_look_is_noted_once_its_results_are_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "4567", "evaluate")
    with pytest.raises(FileNotFoundError), ledger.recording("0123", {}):
        (tmp_path / "no results").read_text()
    assert not (tmp_path / "ledger.jsonl").exists()
    with ledger.recording("0123", {}) as facts:
        assert facts == {"test_looks": 1}
        assert not (tmp_path / "ledger.jsonl").exists()
    assert ledger.record("0123", {}) == {"test_looks": 2}


def test_a_torn_line_is_left_alone_and_the_next_one_is_whole(tmp_path: Path) -> None:
    record_look(tmp_path, LOOK)
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"when":"2026-01')
    (tmp_path / "ledger.jsonl").open("ab").close()
    assert record_look(tmp_path, LOOK).count == 2
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert lines[1] == '{"when":"2026-01'
    assert json.loads(lines[2])["bundle_id"] == "0123"
    assert record_look(tmp_path, LOOK).count == 3


def test_eight_processes_at_once_lose_no_line_and_count_each_once(tmp_path: Path) -> None:
    code = (
        "import sys; from lepton_vision.predictions.ledger import LedgerEntry, record_look\n"
        "for k in range(25): print(record_look(sys.argv[1], "
        "LedgerEntry('b', 'm', 'test', 'evaluate', {'t': ['x' * 3000]})).count)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    counts = [int(word) for one in running for word in one.communicate(timeout=120)[0].split()]
    assert sorted(counts) == list(range(1, 201))
    assert len([json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]) == 200


@pytest.mark.parametrize("place", ["no such folder", "a file"])
def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    if place == "a file":
        folder.write_text("")
    looks = record_look(folder, LOOK)
    assert (looks.count, looks.is_written) == (1, False)
    assert "cannot be written" in looks.to_dict()["ledger"]
    assert str(tmp_path) not in str(looks.to_dict())


def test_a_ledger_that_can_only_be_read_is_still_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    record_look(tmp_path, LOOK)
    record_look(tmp_path, LOOK)

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    looks = record_look(tmp_path, LOOK)
    assert (looks.count, looks.is_written) == (3, False)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2


def test_tables_without_a_split_are_counted_by_their_cases(tmp_path: Path) -> None:
    table = replace(LOOK, split="unknown", command="evaluate --predictions")
    assert [record_look(tmp_path, table).count for _ in range(2)] == [1, 2]
    assert record_look(tmp_path, replace(table, manifest="other cases")).count == 1
    assert record_look(tmp_path, LOOK).count == 1  # a test split is another matter


def test_the_ledger_of_a_run_is_found_from_the_folders_in_it(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    (run / "evaluation").mkdir(parents=True)
    assert find_ledger(run / "evaluation", out) == out  # none anywhere: it begins beside the results
    record_look(run, LOOK)
    assert find_ledger(run / "evaluation", out) == run
    assert find_ledger(run, out) == run
