"""What a person sees while a command runs: progress on stderr, facts on stdout. The doorway to rich."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Set
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lepton_vision.errors import printable
from lepton_vision.types import Progress as Progressed

_NAMES = {
    "write": "Write study",
    "scan": "Scan",
    "train": "Train",
    "settle": "Calibrate",
    "predict": "Predict",
    "evaluate": "Evaluate",
    "score": "Score",
}


class Console:
    """Progress bars for the stages of a run; a line per stage where stderr is no terminal.

    Args:
        quiet: show nothing (with --json, when stderr is no terminal).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = RichConsole(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._is_plain = not self._console.is_terminal and not quiet
        self._tasks: dict[str, TaskID] = {}
        self._last: tuple[str, float] = ("", 0.0)
        self._seen: dict[str, tuple[float, int, int]] = {}

    def __enter__(self) -> Console:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        """Move the bar of ``stage``; without a terminal, write a line at most every ten seconds."""
        note = printable(note)
        name = _NAMES.get(stage, stage)
        pace = self._pace(stage, done)
        rate = "" if stage == "train" or not pace else f"{pace:.{1 if pace < 10 else 0}f}/s"  # its note has images/s
        if self._is_plain:
            left = "" if not pace or done >= total else f"{_duration((total - done) / pace)} left"
            self._tell(name, f"{done}/{total or '?'}", rate, left, note, ends=done == total)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(name, total=total or None, note=note, rate=rate)
        self._progress.update(self._tasks[stage], completed=done, total=total or None, note=note, rate=rate)

    def _pace(self, stage: str, done: int) -> float:
        """Steps per second since the stage began, or began again, as with each fold; 0 where unknown.

        What an earlier run had done does not count.
        """
        now = time.monotonic()
        began, first, last = self._seen.get(stage, (now, done, done))
        if done < last:
            began, first = now, done
            if stage in self._tasks:
                self._progress.reset(self._tasks[stage])
        self._seen[stage] = (began, first, done)
        return (done - first) / (now - began) if done > first and now > began else 0.0

    def _tell(self, name: str, *words: str, ends: bool) -> None:
        now, (last_name, last_time) = time.monotonic(), self._last
        if name != last_name or now - last_time > 10 or ends:
            self._last = (name, now)
            self._console.print(f"{name}: {'  '.join(word for word in words if word)}", highlight=False, markup=False)


def is_notebook() -> bool:
    """Whether what is printed lands below the cell of a notebook."""
    return RichConsole().is_jupyter


@contextlib.contextmanager
def show_progress(is_wanted: bool) -> Iterator[Progressed | None]:
    """Show a bar where stderr is a terminal, lines in a notebook, and elsewhere nothing: then None is given."""
    if not (is_wanted and (RichConsole(stderr=True).is_terminal or is_notebook())):
        yield None
        return
    with Console() as shown:
        yield shown.progress


def _duration(seconds: float) -> str:
    """In words, e.g. "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def show(values: Mapping[str, Any]) -> None:
    """Print facts in two columns on stdout; nested facts as indented rows, a line each where no terminal cuts them."""
    rows = [(printable(key), printable(value)) for key, value in _flatten(values)]
    console = RichConsole(soft_wrap=True)
    if not console.is_terminal:  # for grep and the like
        wide = max((len(key) for key, _ in rows), default=0)
        for key, value in rows:
            console.print(f"{key:<{wide}}  {value}".rstrip(), highlight=False, markup=False, emoji=False)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in rows:
        table.add_row(escape(key), escape(value))  # names in square brackets are no markup
    console.print(table)


def _flatten(values: Mapping[str, Any], indent: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if _is_figure(value):
            rows.append((indent + str(key), _figure(value)))
        elif isinstance(value, Mapping):
            rows.append((indent + str(key), "" if value else "none"))
            rows.extend(_flatten(value, indent + "  "))
        elif _holds_facts(value):
            rows.append((indent + str(key), str(len(value))))
            rows.extend(row for item in value for row in _item(item, indent + "  "))
        else:
            rows.append((indent + str(key), _plain(value)))
    return rows


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)


def _holds_facts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _item(item: Mapping[str, Any], indent: str) -> list[tuple[str, str]]:
    """One line, and below it the facts of the item that have facts of their own."""
    deep = {k: v for k, v in item.items() if (isinstance(v, Mapping) and not _is_figure(v)) or _holds_facts(v)}
    return [(indent + "-", _line(item, without=set(deep))), *_flatten(deep, indent + "    ")]


def _line(item: Mapping[str, Any], *, without: Set[str]) -> str:
    told = {key: value for key, value in item.items() if key not in {"rows", *without} and value not in ("", None)}
    return "  ".join(f"{key}: {_plain(value)}" for key, value in told.items())


def _plain(value: Any) -> str:
    if _is_figure(value):
        return _figure(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return f"undefined ({value.get('reason', '')})"
    if value["low"] is None:
        interval = f"({value.get('reason') or 'no interval'})"
    else:
        from lepton_vision.types import decimals  # numpy, which a start does without

        digits = decimals(value["low"], value["high"])
        interval = f"[{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return f"{value['value']:.3f} {interval}  n {value.get('n', '')}"
