"""Metadata of a prediction table: targets, split, bundle, and samples without a row."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import EvaluationError, LeptonError
from lepton_vision.predictions.cells import as_failures
from lepton_vision.types import Target

JOB_FILE = "_job.json"  # beside scores; readers of tables pass over names that begin with an underscore
ID_KEY = "id_key"  # among facts: the check value of the key that ids are made with
VERSION = 1


def targets_of(facts: Mapping[str, Any]) -> tuple[Target, ...]:
    """Targets that the facts of a table name; none where it is another tool's."""
    return tuple(Target(**spec | {"classes": tuple(spec["classes"])}) for spec in facts.get("targets", ()))


def preprocess_of(facts: Mapping[str, Any]) -> PreprocessConfig | None:
    """Preprocessing of the images, as stated; None where it is not."""
    stated = facts.get("preprocess")
    return None if stated is None else PreprocessConfig.model_validate(stated)


def key_of(facts: Mapping[str, Any], path: Path) -> str:
    """Check value of the key of a table's ids, off its facts, or off the record beside scores; "" where unknown."""
    record = path.parent / JOB_FILE
    if path.name.startswith("part-") and record.is_file():
        with contextlib.suppress(ValueError, AttributeError):  # a damaged record tells nothing
            return str(json.loads(record.read_text(encoding="utf-8", errors="replace")).get(ID_KEY, ""))
    return str(facts.get(ID_KEY, ""))


def parse_facts(text: str, path: Path) -> dict[str, Any]:
    """Return our facts, or nothing where the comment is another tool's."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(facts, dict) or "version" not in facts:
        return {}
    if facts["version"] != VERSION:
        raise EvaluationError(
            f"These predictions have format {facts['version']}, this version reads {VERSION}. Update lepton-vision.",
            path=path,
        )
    try:
        targets_of(facts), preprocess_of(facts), as_failures(facts.get("failures", ()))
    except (LeptonError, AttributeError, KeyError, TypeError, ValueError):
        raise EvaluationError(
            "What tells of the table as a whole is damaged: the .json file beside it, its first line or its metadata. "
            "Save the predictions again, or remove that file or line: classes are then read from the columns.",
            path=path,
        ) from None
    return facts
