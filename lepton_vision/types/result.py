"""Results: values that become JSON, a table in a notebook and a few lines in a terminal, by one base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from html import escape
from typing import Any, ClassVar, NamedTuple, Self, get_args, get_origin, get_type_hints

import numpy as np

_MOST_LINES, _WIDEST = 28, 160


class Table(NamedTuple):
    """A table of a result; one without rows is a line of text.

    Attributes:
        caption: above it.
        rows: cells; the first of each row is its heading.
        head: headings of the columns, or none.
    """

    caption: str
    rows: Iterable[Iterable[object]] = ()
    head: Sequence[str] = ()

    @property
    def html(self) -> str:
        """It as HTML, everything escaped."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        rows = "".join(f"<tr>{_cells(row)}</tr>" for row in self.rows)
        if not head and not rows:
            return f"<p>{escape(self.caption)}</p>"
        return f"<table><caption>{escape(self.caption)}</caption>{head and f'<tr>{head}</tr>'}{rows}</table>"

    @property
    def lines(self) -> list[str]:
        """It as text."""
        return [self.caption, *("  ".join(map(str, row)) for row in ([self.head] if self.head else []) + [*self.rows])]


def _cells(row: Iterable[object]) -> str:
    first, *others = (escape(str(cell)) for cell in row)
    return f"<th>{first}</th>" + "".join(f"<td>{cell}</td>" for cell in others)


class Displayed:
    """Base of dataclasses that show themselves in fewer than thirty lines: their tables, or else their fields."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__repr__ = short_repr  # type: ignore[assignment, method-assign]  # else a dataclass writes its own

    def _tables(self) -> Iterable[Table]:
        """What is shown; nothing where the fields are."""
        return ()

    def _repr_html_(self) -> str:
        return "".join(table.html for table in self._tables()) or f"<pre>{escape(repr(self))}</pre>"


def short_repr(value: Displayed) -> str:
    """Text of a value: its tables, or its fields, arrays by their shape; at most 28 lines."""
    lines = [line.strip() for table in value._tables() for line in table.lines]
    if not lines:
        shown = [f"{one.name}={_brief(getattr(value, one.name))}" for one in fields(value) if one.repr]  # type: ignore[arg-type]
        lines = [f"{type(value).__name__}(", *(f"  {line}," for line in shown), ")"]
    lines = [line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…" for line in lines if line]
    more = len(lines) - _MOST_LINES
    return "\n".join([*lines[: _MOST_LINES - 1], f"… {more + 1} more lines"] if more > 0 else lines)


def _brief(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"{tuple(value.shape)} {value.dtype}" if hasattr(value, "dtype") else f"table {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_brief(one)}' for name, one in value.items())}}}"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"{len(value)} values"
    return f"<{type(value).__name__}>" if isinstance(value, Displayed) else " ".join(repr(value).split())


class Plain:
    """Base of frozen dataclasses whose fields become plain values for JSON, and come back."""

    __slots__ = ()
    _json: ClassVar[tuple[str, ...]] = ()
    """Attributes that are plain values, in order; () for all fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, named as the attributes; a number that is not finite is None."""
        return self._plain(*(self._json or (one.name for one in fields(self))))  # type: ignore[arg-type]

    def _plain(self, *names: str) -> dict[str, Any]:
        return {name: plain(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_dict`` gave, where it gave all fields; what is missing has its default."""
        kinds = get_type_hints(cls)
        known = [one for one in fields(cls) if one.name in values or _is_required(one)]  # type: ignore[arg-type]
        return cls(**{one.name: _rebuilt(values[one.name], kinds[one.name]) for one in known})


class Result(Plain, Displayed):
    """Base of results: plain values for JSON, a table in a notebook, a few lines in a terminal."""

    __slots__ = ()


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def figures_table(caption: str, figures: Mapping[str, Any], *, counted: str = "n") -> Table:
    """Table of figures with their intervals and what they count."""
    rows = [(name, figure, figure.n) for name, figure in figures.items()]
    return Table(caption, rows, ("figure", "value [interval]", counted))


def plain(value: Any) -> Any:
    """Plain values for JSON: results by ``to_dict``, arrays as lists, a number that is not finite as None."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple | list) else value


def _rebuilt(value: Any, kind: Any) -> Any:
    """What a plain value was, by the type of its field; None of a number is NaN."""
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Plain):
        return kind.from_dict(value)
    if origin is tuple:
        return tuple(_rebuilt(one, args[0]) for one in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {str(key): _rebuilt(one, args[1]) for key, one in value.items()}
    if kind is float and value is None:
        return float("nan")
    return kind(value) if kind in (float, int, str) else value
