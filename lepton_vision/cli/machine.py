"""Command ``doctor``: what this machine has, and what to install."""

from __future__ import annotations

import sys

import typer

from lepton_vision.cli.options import Json, print_facts


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and what to install.

    Nothing is written or sent, and no user or home folder is named. Exit code 1 where something necessary is broken.
    """
    try:
        from lepton_vision.pipeline.machine import examine_machine
    except ImportError as error:  # without it, not even this command can look further
        from lepton_vision.errors import install_command

        told = f"error: {error.name or 'A dependency'} cannot be imported. In the folder that holds pyproject.toml:"
        print(f"{told} {install_command()}", file=sys.stderr)
        raise typer.Exit(1) from None
    machine = examine_machine()
    print_facts(machine.to_dict() if as_json else machine.summary(), as_json=as_json)
    if not machine.is_usable:
        raise typer.Exit(1)
