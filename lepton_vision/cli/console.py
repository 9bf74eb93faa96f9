"""Console output of the commands: progress on stderr, results on stdout. The doorway to rich."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from lepton_vision.errors import printable


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
        interval = f"[{value['low']:z.{digits}f}, {value['high']:z.{digits}f}]"
    return f"{value['value']:.3f} {interval}  n {value.get('n', '')}"
