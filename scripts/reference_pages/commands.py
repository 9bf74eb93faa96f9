"""Pages of the command line and of its exit codes, from the click commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer.main

from lepton_vision.cli.app import app
from lepton_vision.cli.exit_codes import MEANINGS
from lepton_vision.cli.help import GROUPS
from reference_pages.markdown import code, page, prose, table

_WORDS = {str: "text", int: "whole number", float: "number", Path: "path"}
_LEAD = """Every command prints its results on stdout and messages on stderr; `--json` makes the result one JSON
object. `lepton-vision COMMAND --help` shows what stands here. See the [exit codes](exit-codes.md), and the
[configuration](configuration.md) for `--config` and `--set`."""
_EXIT = """Every command ends with one of these codes, so that a script can tell a failed gate from a wrong call."""
_SCRIPT = """```bash
lepton-vision audit split.parquet --fail-on leakage,conflict || exit $?
```"""


def command_line() -> str:
    """The page of the commands."""
    main: Any = typer.main.get_command(app)
    hints, parts = _hints(), [_LEAD]
    for group, commands in GROUPS.items():
        parts += [f"## {group}"]
        for name, examples in commands.items():
            parts += _command(name, main.commands[name], hints=hints[name], examples=examples)
    return page("Command line", *parts)


def _command(name: str, command: Any, *, hints: dict[str, Any], examples: Sequence[str]) -> list[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = " ".join(["lepton-vision", name, *(_usage(one) for one in arguments), "[OPTIONS]"])
    shown = [f"### {name}", prose(command.help or ""), f"```text\n{usage}\n```"]
    if arguments:
        rows = [(code(_name(one)), prose(getattr(one, "help", "") or "")) for one in arguments]
        shown.append(table(("argument", "meaning"), rows))
    if options:
        rows = [_option(one, hints) for one in options if one.name in hints]
        shown.append(table(("option", "values", "default", "meaning"), rows))
    return [*shown, "```bash\n{}\n```".format("\n".join(examples))]


def _name(one: Any) -> str:
    return (one.metavar or str(one.name)).upper()


def _usage(one: Any) -> str:
    name = f"{_name(one)}{'...' if one.nargs == -1 else ''}"
    return name if one.required else f"[{name}]"


def _option(one: Any, hints: dict[str, Any]) -> tuple[str, str, str, str]:
    names = ", ".join(code(name) for name in (*one.opts, *one.secondary_opts))
    return names, _values(hints[one.name]), _default(one), prose(one.help or "")


def _hints() -> dict[str, dict[str, Any]]:
    """Type and declaration of each parameter of each command; click objects hold them in some versions of typer."""
    found = {}
    for one in app.registered_commands:
        assert one.callback is not None
        name = one.name or one.callback.__name__.replace("_", "-")
        found[name] = get_type_hints(one.callback, include_extras=True)
    return found


def _values(hint: Any) -> str:
    """What an option takes, in words."""
    plain, declared = get_args(hint)[:2]
    kinds = [kind for kind in get_args(plain) or (plain,) if kind is not type(None)]
    if kinds[0] is bool:
        return "flag"
    if get_origin(plain) is list or (get_origin(kinds[0]) is list):
        inner = kinds[0] if get_origin(plain) is list else get_args(kinds[0])[0]
        return f"{_WORDS[inner]} (may be repeated)"
    limits = [f"{sign} {bound:g}" for sign, bound in (("≥", declared.min), ("≤", declared.max)) if bound is not None]
    if get_origin(plain) is Literal:
        return ", ".join(code(choice) for choice in kinds)
    return " ".join([_WORDS[kinds[0]], " and ".join(limits)]).strip()


def _default(one: Any) -> str:
    if one.required:
        return "required"
    default = None if callable(one.default) else one.default
    if one.is_flag:
        return ""
    return "" if default in (None, (), [], "") or "UNSET" in repr(default).upper() else code(default)


def exit_codes() -> str:
    """The page of the exit codes."""
    rows = [(str(int(one)), prose(what), prose(todo)) for one, (what, todo) in MEANINGS.items()]
    return page("Exit codes", _EXIT, table(("code", "meaning", "what to do"), rows), _SCRIPT)
