"""Help of the command line: groups, summaries and examples."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from lepton_vision.cli.app import app
from lepton_vision.cli.help import GROUPS

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EXAMPLES = [example for group in GROUPS.values() for lines in group.values() for example in lines]


def help_of(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}, prog_name="lepton-vision")
    assert done.exit_code == 0
    return done.output


def test_every_command_stands_in_one_group_with_its_whole_summary_and_an_example() -> None:
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(COMMANDS)
    told = help_of()
    lines = told.splitlines()
    assert "..." not in told.replace("[ARGS]...", "")
    assert max(map(len, lines)) <= 80
    for group, commands in GROUPS.items():
        assert f"{group}:" in lines
        for name, examples in commands.items():
            (summary,) = (line for line in lines if line.startswith(f"  {name} "))
            assert summary.endswith(".")
            assert f"  {examples[0]}" in lines


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_ends_with_its_examples(name: str) -> None:
    lines = help_of(name).splitlines()
    examples = next(commands[name] for commands in GROUPS.values() if name in commands)
    assert [line.strip() for line in lines[-len(examples) :]] == list(examples)
    assert lines[-len(examples) - 1].strip() in ("Example:", "Examples:")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_command_line_that_is_understood(example: str) -> None:
    tool, name, *words = shlex.split(example)
    assert tool == "lepton-vision"
    with COMMANDS[name].make_context(name, words) as context:  # parses: a wrong option or value raises
        assert context.args == []


def test_an_untrue_example_would_be_noticed() -> None:
    for words, told in ((["--nonsense"], "nonsense"), (["--seed", "x"], "integer")):
        with pytest.raises(Exception, match=told):
            COMMANDS["demo"].make_context("demo", words)


def test_help_loads_neither_rich_nor_what_computes() -> None:
    code = (
        "import sys; from lepton_vision.cli.options import run_to_end; from lepton_vision.cli.app import app; "
        "sys.argv[1:] = ['--help']; run_to_end(app); "
        "print(sorted({'rich', 'numpy', 'torch', 'pydantic', 'packaging'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
