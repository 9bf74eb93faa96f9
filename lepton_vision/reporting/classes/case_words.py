"""Wording of the unit of analysis: image, series, study or patient."""

from __future__ import annotations

import re
from typing import Any

from lepton_vision.evaluation.classes.evaluation import Evaluation

_PLURALS = {"image": "images", "series": "series", "study": "studies", "patient": "patients"}
_IMAGE = re.compile(r"\b([Ii])mage(s?)\b")
_ARTICLE = re.compile(r"\b([Aa])n (series|study|patient)\b")


def unit_of(evaluation: Evaluation) -> str:
    """Return "image", "series", "study" or "patient"."""
    return str(evaluation.provenance.get("unit", "image"))


def plural(unit: str) -> str:
    """Return the unit for several.

    Example:
        >>> plural("study")
        'studies'
    """
    return _PLURALS.get(unit, f"{unit}s")


def in_units(text: str, unit: str) -> str:
    """Say the unit of analysis where a text of ours says image; for fixed texts, not for names of classes.

    Example:
        >>> in_units("An image is called positive. Images are sorted.", "study")
        'A study is called positive. Studies are sorted.'
    """
    if unit == "image":
        return text

    def swap(found: re.Match[str]) -> str:
        word = plural(unit) if found[2] else unit
        return word.capitalize() if found[1] == "I" else word

    return _ARTICLE.sub(r"\1 \2", _IMAGE.sub(swap, text))


def count_cases(n: int, patients: int, *, unit: str) -> str:
    """Return how many cases of how many patients, e.g. "120 studies of 40 patients".

    Example:
        >>> count_cases(1, 1, unit="image"), count_cases(80, 80, unit="patient")
        ('1 image of 1 patient', '80 patients')
    """
    if unit == "patient":
        return several(n, "patient")
    return f"{several(n, unit)} of {several(patients, 'patient')}"


def several(n: int, unit: str) -> str:
    """Return a number with its unit, e.g. "1 image", "2,400 images"."""
    return f"{n:,} {unit if n == 1 else plural(unit)}"


def facts_of_unit(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a template needs to speak of cases."""
    unit = unit_of(evaluation)
    return {"unit": unit, "units": plural(unit), "counted": count_cases(evaluation.n, evaluation.n_patients, unit=unit)}
