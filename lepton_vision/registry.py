"""Registers of parts that research teams bring: names that a configuration may use, and the factories behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from lepton_vision.errors import ConfigError, InvalidValueError, nearest

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Home:
    """Where the factory of a name is from: its module, and the distribution and version that hold it ("" if none)."""

    name: str
    module: str
    distribution: str
    version: str


class Registry:
    """Factories by name: registered in this process, or found by the entry points of installed packages.

    Args:
        what: a name means, in words.
        key: of the configuration, where such a name stands.
        group: of the entry points; each gives a factory, or a module that registers one under the same name.
        ours: names that nobody else may take.
    """

    def __init__(self, what: str, *, key: str, group: str, ours: Sequence[str] = ()) -> None:
        self.what, self.key, self.group, self.ours = what, key, group, tuple(ours)
        self._factories: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Return a decorator that registers a factory; the same one again, as when a cell is run again, replaces it.

        Raises:
            InvalidValueError: the name is taken, or holds more than letters, digits, "_" and "-".
        """
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name) or name in self.ours:
            raise InvalidValueError(
                f"Expected a name of letters, digits, '_' and '-' that is none of ours. Received: {name!r}. "
                f"Give the {self.what} another.",
                key=self.key,
            )

        def keep(factory: Factory) -> Factory:
            before = self._factories.get(name)
            if before is not None and _address(before) != _address(factory):
                raise InvalidValueError(
                    f"The {self.what} {name!r} is registered already, by {_address(before)}. Choose another name.",
                    key=self.key,
                )
            self._factories[name] = factory
            return factory

        return keep

    def names(self) -> list[str]:
        """Return all names that are known here; nothing is imported."""
        return sorted({*self.ours, *self._factories, *metadata.entry_points(group=self.group).names})

    def check(self, name: str) -> None:
        """Refuse a name that nobody knows; nothing is imported.

        Raises:
            ConfigError: the message names the nearest one.
        """
        if name in self.ours or name in self._factories:
            return
        if name not in (known := self.names()):
            raise ConfigError(
                f"Unknown {self.what} {name!r}. {nearest(name, known)} One of your own is registered by a decorator "
                f"(import its module first) or by an entry point of the group {self.group}.",
                key=self.key,
            )

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory of a name, importing its package where an entry point names it.

        Raises:
            ConfigError: nobody knows it, or the entry point gives no factory.
        """
        self.check(name)
        if name not in self._factories:
            loaded = metadata.entry_points(group=self.group)[name].load()
            if not callable(loaded) and name not in self._factories:
                raise ConfigError(f"The entry point {name!r} of {self.group} gives no factory.", key=self.key)
            self._factories.setdefault(name, loaded)
        return self._factories[name]

    def home(self, name: str) -> Home:
        """Return where the factory of a name is from."""
        module = str(getattr(self.get(name), "__module__", ""))
        entries = [entry for entry in metadata.entry_points(group=self.group) if entry.name == name]
        named = [entry.dist.name for entry in entries if entry.dist is not None]
        named = named or metadata.packages_distributions().get(module.partition(".")[0], [])
        return Home(name, module, named[0] if named else "", metadata.version(named[0]) if named else "")


def _address(factory: Callable[..., Any]) -> str:
    return f"{getattr(factory, '__module__', '')}.{getattr(factory, '__qualname__', repr(factory))}"
