"""Exit codes of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    GATE = 1
    USAGE = 2
    UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130
    PIPE = 141  # 128 + SIGPIPE


MEANINGS: Final[Mapping[ExitCode, tuple[str, str]]] = {
    ExitCode.DONE: ("done", "Read the result."),
    ExitCode.GATE: (
        "a gate failed: splits leak, a finding of `audit --fail-on`, or more failed rows than `--max-failures`",
        "What was computed is written. Look at what the message names, and decide.",
    ),
    ExitCode.USAGE: (
        "the call, the configuration or the input cannot be used, or this machine is full",
        "The message says what was expected, what was received and what to do.",
    ),
    ExitCode.UNFORESEEN: (
        "an error that nobody foresaw",
        "The message names a file that says where it happened, without patient data: send it to the maintainers.",
    ),
    ExitCode.INTERRUPTED: (
        "interrupted by Ctrl-C",
        "What was finished is on disk; the same command goes on (`train` and `run` with `--resume`).",
    ),
    ExitCode.PIPE: ("whoever read the output has left", "Nothing; so it is with `| head`."),
}
"""What each means, and what to do."""
