"""Code blocks of a page of the documentation, and how the tests run them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from tests.e2e.conftest import run_cli

_REMARK = re.compile(r"<!--\s*(runs in|needs|not run|ends with):\s*(.+?)\s*-->", re.DOTALL)
_FILE = re.compile(r"#\s*([\w./-]+\.(?:yaml|yml|py|csv|toml))\s*$")
_SHELL = re.compile(r"[|<>$&;`*(]")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and text, its line in the page, and what a remark above it says.

    Attributes:
        why_not: the reason of ``<!-- not run: … -->``, or "".
        status: the exit code of its last command, as ``<!-- ends with: 1 -->`` states.
    """

    language: str
    text: str
    line: int
    why_not: str = ""
    status: int = 0


@dataclass(frozen=True)
class Page:
    """A page: its blocks, the name of the folder that it runs in, and the packages that it needs."""

    path: Path
    blocks: tuple[Block, ...]
    folder: str = "empty"
    needs: tuple[str, ...] = ()


def read_page(path: Path) -> Page:
    """Read a page and its remarks, HTML comments that no reader sees.

    ``<!-- runs in: NAME -->`` names a maker of ``folders.py``, ``<!-- needs: onnx, ray -->`` packages, both for the
    page; ``<!-- not run: why -->`` and ``<!-- ends with: 1 -->`` stand right above a block.
    """
    facts, blocks, waiting = {"runs in": "empty", "needs": ""}, [], {}
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block":
            for name, value in _REMARK.findall(token.content):
                (facts if name in facts else waiting)[name] = value
        elif token.type == "fence" and token.map is not None:
            status = int(waiting.get("ends with", "0"))
            words = token.info.split()
            language = words[0] if words else ""
            blocks.append(Block(language, token.content, token.map[0] + 2, waiting.get("not run", ""), status))
            waiting = {}
        elif token.type != "html_block" and token.nesting >= 0:
            waiting = {}
    return Page(path, tuple(blocks), facts["runs in"], tuple(re.findall(r"[\w.-]+", facts["needs"])))


def run_page(page: Page, folder: Path) -> None:
    """Run the blocks of a page in their order, in the current folder, which is ``folder``.

    Python blocks share one namespace; blocks of YAML, Python or CSV whose first line is a comment with a file's name
    are written there first. Other languages are text.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in page.blocks:
        where = f"{page.path.name}:{block.line}"
        written = _FILE.match(block.text.splitlines()[0]) if block.text.strip() else None
        if written and not block.why_not:
            (folder / written[1]).parent.mkdir(parents=True, exist_ok=True)
            text = block.text if block.language != "csv" else block.text.split("\n", 1)[1]
            (folder / written[1]).write_text(text, encoding="utf-8")
        elif block.why_not or block.language not in RUNNERS:
            continue
        else:
            RUNNERS[block.language](block, namespace, where)


def _run_python(block: Block, namespace: dict[str, Any], where: str) -> None:
    exec(compile("\n" * (block.line - 1) + block.text, where, "exec"), namespace)


def _run_shell(block: Block, namespace: dict[str, Any], where: str) -> None:
    """Commands of ours run in forks, which need not import everything again; all else is for bash."""
    commands = list(shell_commands(block.text))
    for number, (words, line) in enumerate(commands, start=1):
        if words[0] == "lepton-vision" and not _SHELL.search(line):
            done = run_cli(*words[1:])
        else:
            here = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; set -euo pipefail; {line}"
            done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=600, check=False)
        expected = block.status if number == len(commands) else 0
        assert done.returncode == expected, f"{where}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


RUNNERS: dict[str, Callable[[Block, dict[str, Any], str], None]] = {"python": _run_python, "bash": _run_shell}


def shell_commands(text: str) -> Iterator[tuple[list[str], str]]:
    """Words and text of each command of a shell block, continued lines joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words, line
