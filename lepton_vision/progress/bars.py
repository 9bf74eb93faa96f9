"""Progress bars on stderr, and progress lines in notebooks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lepton_vision.errors import printable
from lepton_vision.types import Progress as Progressed

_NAMES = {
    "write": "Write study",
    "scan": "Scan",
    "train": "Train",
    "choose": "Calibrate",
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
