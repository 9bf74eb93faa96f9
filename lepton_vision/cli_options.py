"""What the modules of the command line share: options, checks and the printing of results."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Refuse a value that ``--name`` does not know.

    Raises:
        ConfigError: with the nearest valid value.
    """
    from lepton_vision.config import nearest
    from lepton_vision.errors import ConfigError

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


def printable(text: str) -> str:
    r"""A text in which nothing controls a terminal: colours, bells and moves of the cursor are shown as codes.

    Example:
        >>> printable("red: \x1b[31m")
        'red: \\x1b[31m'
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)


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
    from lepton_vision.console import show

    show(values)
