"""Shell completion: its script, and the values that it completes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.completion

Complete = Callable[[str], list[str]]
_typer: Any = typer.completion  # it does not say what it exports
SHELLS = ("bash", "zsh", "fish", "powershell")
_ASKED = {"prog_name": "lepton-vision", "complete_var": "_LEPTON_VISION_COMPLETE"}


def begin() -> None:
    """Prepare typer for what a shell asks, where one asks."""
    if _ASKED["complete_var"] in os.environ:
        _typer.completion_init()


def script(shell: str) -> str:
    """Return what a shell runs to complete commands."""
    return str(_typer.get_completion_script(shell=shell, **_ASKED))


def install(shell: str) -> str:
    """Let a shell complete commands from its next start on; return where that is written, without the home folder."""
    _, path = _typer.install(shell=shell, **_ASKED)
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else path.name


def one_of(*values: str) -> Complete:
    """Completion by a fixed list of values."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


of_unit = one_of("image", "series", "study", "patient")
of_aggregate = one_of("mean", "max", "noisy_or", "learnt")
of_split = one_of("train", "val", "test")
of_tilt, of_gaps = one_of("refuse", "shear"), one_of("refuse", "fill")


def setting(incomplete: str) -> list[str]:
    """``section.key=`` of the configuration, and its values where they are names."""
    key, equals, _ = incomplete.partition("=")
    known = dict(_settings())
    found = [f"{key}={value}" for value in known.get(key, ())] if equals else [f"{one}=" for one in known]
    return [one for one in found if one.startswith(incomplete)]


def _settings() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each key of the configuration, with its values where they are names."""
    from lepton_vision.config import ENCODERS, Config

    for name, section in Config.model_fields.items():
        kinds = [one for one in (section.annotation, *get_args(section.annotation)) if hasattr(one, "model_fields")]
        for key, field in kinds[0].model_fields.items() if kinds else ():
            yield f"{name}.{key}", _names(field.annotation)
    yield "model.backbone", tuple(ENCODERS.names())


def _names(annotation: Any) -> tuple[str, ...]:
    """Values of a type that is one of several names, and those of its parts."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if annotation is bool:
        return "true", "false"
    return tuple(value for part in get_args(annotation) for value in _names(part))
