"""Progress display: lines with rate and time left without a terminal, a bar with one."""

from __future__ import annotations

import time

import pytest

from lepton_vision.cli import console
from lepton_vision.progress import bars
from lepton_vision.progress.bars import Console


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(bars.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_tell_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        told.progress("score", 500, 10_000, "0 failed")  # an earlier run had them
        for clock.now, done in ((104.0, 700), (111.0, 1050), (112.0, 1100), (290.0, 10_000)):
            told.progress("score", done, 10_000, "3 failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Score: 500/10000  0 failed",
        "Score: 1050/10000  50/s  3 min left  3 failed",
        "Score: 10000/10000  50/s  3 failed",
    ]


def test_durations_are_told_in_the_unit_of_their_size(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        for number, total in enumerate((80, 4_000, 12_001)):
            clock.now = 1000.0 * number
            told.progress(f"stage {number}", 0, total, "")
            clock.now += 11.0
            told.progress(f"stage {number}", 11, total, "")
    lines = capsys.readouterr().err.splitlines()[1::2]
    assert [line.split("  ")[-1] for line in lines] == ["69 s left", "66 min left", "3 h 20 min left"]


def test_training_tells_its_own_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        told.progress("train", 0, 10, "70 images/s")
        clock.now += 20.0
        told.progress("train", 2, 10, "70 images/s")
    assert capsys.readouterr().err.splitlines()[-1] == "Train: 2/10  80 s left  70 images/s"


def test_the_next_fold_is_timed_from_its_own_start(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        for fold in range(3):
            for done in range(0, 101, 20):
                told.progress("train", done, 100, f"fold {fold + 1}/3")
                clock.now += 20.0
            clock.now += 1000.0  # validation
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "20/100" in line] == [
        f"Train: 20/100  80 s left  fold {fold + 1}/3" for fold in range(3)
    ]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "160")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("terminal")
def test_a_bar_moves_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        told.progress("score", 0, 100, "0 failed")
        time.sleep(0.02)
        told.progress("score", 50, 100, "2 failed")
    shown = capsys.readouterr().err
    assert "50/100" in shown
    assert "/s" in shown
    assert "2 failed" in shown


@pytest.mark.usefixtures("terminal")
def test_a_bar_begins_again_with_the_next_fold(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as told:
        told.progress("train", 100, 100, "fold 1/2")
        told.progress("train", 10, 100, "fold 2/2")
    shown = capsys.readouterr().err
    assert "10/100" in shown.split("\n")[-2]
    assert "fold 2/2" in shown


def test_facts_are_a_line_each_without_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    finding = {"kind": "leakage", "cause": "", "rows": [1, 2], "share": 0.123456, "of": None, "n": 0}
    console.show(
        {"findings": [finding], "thresholds": [0.3990780413], "figure": {"value": 0.5, "low": None, "high": None}}
    )
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "findings    1",
        "  -         kind: leakage  share: 0.1235  n: 0",
        "thresholds  [0.3991]",
        "figure      0.500 (no interval)  n",
    ]


def test_what_a_fact_of_a_list_holds_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 5}
    groups = [{"value": "F", "figures": {"y": {"auroc": figure}}}]
    console.show({"subgroups": [{"column": "sex", "subgroups": groups, "gap": figure, "notes": ["a", "b"]}], "n": 5})
    assert capsys.readouterr().out.splitlines() == [
        "subgroups              1",
        "  -                    column: sex  gap: 0.900 [0.800, 0.950]  n 5  notes: [a, b]",
        "      subgroups        1",
        "        -              value: F",
        "            figures",
        "              y",
        "                auroc  0.900 [0.800, 0.950]  n 5",
        "n                      5",
    ]


def test_no_text_controls_the_terminal_or_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.show({"maker [/x]": "ACME [/x] \x1b[2J\x07", "nested": {"[red]": "\x9b31m"}})
    with Console() as told:
        told.progress("train", 1, 1, "[/x] \x1b[2J")
    shown = capsys.readouterr()
    assert "\x1b[2J" not in shown.out + shown.err
    assert "ACME [/x] \\x1b[2J\\x07" in shown.out
    assert "\x9b" not in shown.out
    assert "[/x] \\x1b[2J" in shown.err


@pytest.mark.parametrize("looks", ["terminal", "notebook", "nobody"])
def test_progress_is_shown_to_who_looks(looks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars.RichConsole, "is_terminal", property(lambda self: looks == "terminal"))
    monkeypatch.setattr(bars, "is_notebook", lambda: looks == "notebook")
    with bars.show_progress(True) as told:
        assert (told is None) == (looks == "nobody")
    with bars.show_progress(False) as told:
        assert told is None
