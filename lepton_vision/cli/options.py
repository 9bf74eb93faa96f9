"""Shared parts of the command modules: options, checks, output of results, exit codes."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_vision.cli.completion import one_of
from lepton_vision.cli.exit_codes import ExitCode
from lepton_vision.errors import printable

_FULL_MEMORY = ("can't allocate memory", "out of memory")  # of torch, which raises RuntimeError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", autocompletion=one_of("auto", "cpu", "cuda", "mps"))
]


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Refuse a value that ``--name`` does not know.

    Raises:
        ConfigError: with the nearest valid value.
    """
    from lepton_vision.errors import ConfigError, nearest

    if value not in valid:
        raise ConfigError(f"--{name} does not know {value!r}. {nearest(value, list(valid))}", key=name)


def split_names(text: str) -> list[str]:
    """Names between commas, without the spaces around them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_columns(text: str) -> dict[str, str]:
    """Read ``image_id=file,y_prob=score``: our names of columns, and those of a table."""
    from lepton_vision.errors import ConfigError

    pairs = [part.partition("=") for part in split_names(text)]
    if any(not (ours.strip() and equals and theirs.strip()) for ours, equals, theirs in pairs):
        raise ConfigError(f"Expected columns as image_id=file,y_prob=score. Received: {text!r}.", key="columns")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def parse_codes(option: str, texts: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Read ``liver=10200004,SCT,Liver``; the meaning may hold commas."""
    from lepton_vision.errors import ConfigError

    found = {}
    for text in texts:
        name, _, code = text.partition("=")
        parts = [part.strip() for part in code.split(",", 2)]
        if not name.strip() or len(parts) != 3:
            raise ConfigError(
                f"--{option} takes name=value,scheme,meaning, e.g. liver=10200004,SCT,Liver. Received: {text!r}.",
                key=option,
            )
        found[name.strip()] = (parts[0], parts[1], parts[2])
    return found


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Print each distinct warning of the package as one line on stderr, with --json too."""
    logger, handler = logging.getLogger("lepton_vision"), _Warnings(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    """What the library says by ``logging``, for people."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message once."""
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            print(f"warning: {printable(message)}", file=sys.stderr, flush=True)


def print_facts(values: dict[str, Any], *, as_json: bool) -> None:
    """Print one JSON object, or a line per fact for people."""
    if as_json:
        print(json.dumps(values, default=str))
        return
    from lepton_vision.cli.console import show

    show(values)


def run_to_end(app: Callable[[], object]) -> int:
    """Run the command line; whatever ends it becomes its exit code and at most one message, never a traceback."""
    try:
        try:
            app()
        except SystemExit as ending:
            if isinstance(ending.__context__, BrokenPipeError):  # typer's own code for it is that of a gate
                raise ending.__context__ from None
            sys.stdout.flush()
            if ending.code != ExitCode.INTERRUPTED:  # typer turns Ctrl-C into this code without a word
                return ending.code if isinstance(ending.code, int) else 0
            raise KeyboardInterrupt from None
        sys.stdout.flush()
        return 0
    except BaseException as error:
        return _tell(error)


def _tell(error: BaseException) -> int:
    """Say on stderr what ended a command; return its exit code."""
    from lepton_vision.errors import LeptonError

    code, message = int(ExitCode.USAGE), ""
    if isinstance(error, LeptonError):
        code, message = error.exit_code, f"error: {error}" + ("" if error.row is None else f" (row {error.row})")
        gap = "\n" if "\n" in message else " "  # a block to be copied ends where it ends
        message += f"{gap}See {error.page}." if error.page else ""
    elif isinstance(error, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
        message = "interrupted: what was finished is on disk; the same command goes on (train: with --resume)"
    elif isinstance(error, BrokenPipeError):  # whoever read has left: nobody is there to be told
        code = ExitCode.PIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, MemoryError) or any(words in str(error).lower() for words in _FULL_MEMORY):
        message = "error: The memory of this machine is full. Take fewer workers, a smaller batch or smaller images."
    elif isinstance(error, OSError):
        message = f"error: {_what_failed(error)} Make room, look at its permissions, or choose another place."
    else:
        code, message = ExitCode.UNFORESEEN, f"error: This was not foreseen: {type(error).__name__}. {_keep(error)}"
    if message:
        print(printable(message), file=sys.stderr)
    return code


def _what_failed(error: OSError) -> str:
    """In the system's words, with the kind of file; its name may be a patient's."""
    kind = Path(os.fsdecode(error.filename)).suffix if isinstance(error.filename, str | bytes) else ""
    return f"Cannot read or write a {kind or 'file or folder'}: {error.strerror or type(error).__name__}."


def _keep(error: BaseException) -> str:
    """Write where it happened to a file, and say where that lies."""
    from lepton_vision._version import __version__

    lines = [f"lepton_vision {__version__}, Python {platform.python_version()}, {platform.system()}"]
    link: BaseException | None = error
    while link is not None:
        lines += ["", type(link).__qualname__]  # not its message, which may hold a path or an identifier
        for frame, line in traceback.walk_tb(link.__traceback__):
            lines.append(f"  {frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    try:
        handle, name = tempfile.mkstemp(prefix="lepton-vision-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as reason:
        return f"No report could be written ({reason.strerror})."
    return f"Where it happened, without patient data, stands in {name}: send it to whoever maintains lepton_vision."
