"""Pages of the command line and of its exit codes, from the click commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer.main

from lepton_vision.cli.app import app
from lepton_vision.cli.exit_codes import MEANINGS
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
    hints = _hints()
    parts = [_LEAD]
    for group, commands in _grouped(main).items():
        parts += [f"## {group}"] if group else []
        for name, command in commands.items():
            parts += _command(name, command, hints=hints, level="###" if group else "##")
    return page("Command line", *parts)


def _grouped(main: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, command in main.commands.items():
        if not command.hidden:
            panel = getattr(command, "rich_help_panel", None)
            found.setdefault(panel if isinstance(panel, str) else "", {})[name] = command
    return found


def _command(name: str, command: Any, *, hints: dict[str, Any], level: str) -> list[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = " ".join(["lepton-vision", name, *(_usage(one) for one in arguments), "[OPTIONS]"])
    text, example = _divide(command)
    shown = [f"{level} {name}", f"```text\n{usage}\n```", prose(text)]
    if arguments:
        rows = [(code(_name(one)), prose(getattr(one, "help", "") or "")) for one in arguments]
        shown.append(table(("argument", "meaning"), rows))
    if options:
        rows = [_option(one, hints[name]) for one in options if one.name in hints[name]]
        shown.append(table(("option", "values", "default", "meaning"), rows))
    return [*shown, *([f"```bash\n{example}\n```"] if example else [])]


def _divide(command: Any) -> tuple[str, str]:
    """Help and examples of a command: lines of help or epilog that begin with the program's name are examples."""
    lines = [*(command.help or "").splitlines(), *(command.epilog or "").splitlines()]
    plain = [line.replace("\b", "").strip() for line in lines]
    examples = [line.removeprefix("Example: ").removeprefix("$ ") for line in plain]
    told = [k for k, line in enumerate(examples) if line.startswith("lepton-vision ")]
    text = " ".join(
        line for k, line in enumerate(plain) if k not in told and line.rstrip(":") not in {"Example", "Examples"}
    )
    return text, "\n".join(examples[k] for k in told)


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
