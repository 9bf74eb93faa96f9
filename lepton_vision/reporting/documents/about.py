"""Author's statements about a study: the questions, and the user's file with the answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lepton_vision.errors import ReportError, nearest

LISTS = Path(__file__).parent / "checklists"


@lru_cache(maxsize=1)
def questions() -> Mapping[str, str]:
    """By key, what is asked."""
    return {str(key): str(text) for key, text in read_list("about").items()}


@lru_cache(maxsize=8)
def read_list(name: str) -> Mapping[str, Any]:
    """Read one list of this package."""
    found: dict[str, Any] = yaml.safe_load((LISTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def read_about(path: str | Path) -> dict[str, str]:
    """Read answers: YAML with a key of ``questions`` and a text in each line; an empty text counts as no answer.

    Raises:
        ReportError: no such file, not YAML, an unknown key (the nearest one is named), or an answer that is no text.

    Example:
        >>> read_about("about.yaml")["intended_use"]  # doctest: +SKIP
        'Triage of chest CT for a radiologist who reads every image.'
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(
            f"Expected a YAML file of answers. Received: one that cannot be read ({type(error).__name__}).", path=path
        ) from None
    if not isinstance(found, dict):
        raise ReportError("Expected lines such as `intended_use: text`. Received: something else.", path=path)
    return check_about(found)


def check_about(answers: Mapping[Any, Any]) -> dict[str, str]:
    """Return the answers that are there.

    Raises:
        ReportError: an unknown key (the nearest one is named), or an answer that is no text or number.
    """
    known = questions()
    for key, value in answers.items():
        if key not in known:
            raise ReportError(
                f"Unknown key {str(key)!r} about the study. {nearest(str(key), list(known))}", key=str(key)
            )
        if isinstance(value, dict | list):
            raise ReportError(f"Expected a text for {key!r}. Received: {type(value).__name__}.", key=str(key))
    return {key: str(answers[key]).strip() for key in known if str(answers.get(key) or "").strip()}
