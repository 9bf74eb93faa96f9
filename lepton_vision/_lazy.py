"""Lazy import of a package's public names, so that importing the package loads nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def resolver(package: str, file: str) -> Callable[[str], Any]:
    """Return a module ``__getattr__`` that imports a name when it is first used.

    The names, and the modules that they come from, are what the block ``if TYPE_CHECKING`` of the package's own file
    imports: one list for people, type checkers and the interpreter. ``__all__`` is these names.

    Args:
        package: ``__name__`` of the package.
        file: its ``__file__``.
    """

    @cache
    def homes() -> dict[str, str]:
        import ast
        from pathlib import Path

        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        block = next(node for node in tree.body if isinstance(node, ast.If))
        imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
        return {alias.name: str(node.module) for node in imports for alias in node.names}

    def resolve(name: str) -> Any:
        if name == "__all__":
            return sorted(homes())
        if (name.startswith("__") and name != "__version__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes()[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return resolve
