"""Laterality in names: left and right of targets, classes, columns and structures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from lepton_vision.types import Target

# Whole words, without accents: English, Latin, German, Dutch, French, Spanish, Italian, Portuguese, Swedish, Danish;
# then lobes and zones of a lung, mammographic views, quadrants of the abdomen, and coronary arteries that carry a side.
_SIDE_WORDS: Final = """
    left right laterality side sides situs dextrocardia sinister sinistra sinistro sinistrum dexter dextra dextrum
    links linke linker linkes linken linksseitig rechts rechte rechter rechtes rechten rechtsseitig seite
    gauche droit droite cote izquierda izquierdo derecha derecho lado destra destro lato
    esquerda esquerdo direita direito vanster hoger venstre hojre hoyre
    lul rul lll rll rml lcc rcc lmlo rmlo lml luz ruz lmz rmz llz rlz luq ruq llq rlq lca rca
"""
_SIDE_PAIRS: Final = ("l r", "lt rt", "od os", "od og", "li re", "dx sx", "dx sin")
_SINGLE: Final = re.compile(r"(?:\w[\W_]+|[\W_])(?:[LR]|Lt|Rt|LT|RT)(?![^\W_])|(?<![^\W_])(?:[LR]|Lt|Rt|LT|RT)[\W_]+\w")


def is_lateral_target(target: Target) -> bool:
    """Whether left and right mean something for a target.

    Example:
        >>> is_lateral_target(Target("opacity", "multilabel", ("LeftUpperLobe", "effusion")))
        True
    """
    return target.is_lateral or has_side_words((target.name, *target.columns, *target.classes))


def has_side_words(names: Sequence[str]) -> bool:
    """Whether a name holds a word for a side, or the names together hold both sides' letters.

    Words count whole ("bright" and "cleft" have no side), also inside CamelCase, and those that begin with "left" or
    "right"; a letter L or R counts in a compound name ("kidney_L"), and alone beside its counterpart.

    Example:
        >>> has_side_words(("LUL", "RLL")), has_side_words(("bright", "cleft"))
        (True, False)
    """
    tokens = {token.lower() for text in names for token in _words(text)}
    return (
        not tokens.isdisjoint(_SIDE_WORDS.split())
        or any(token.startswith(("left", "right")) for token in tokens)
        or any(tokens.issuperset(pair.split()) for pair in _SIDE_PAIRS)
        or any(_SINGLE.search(text) for text in names)
    )


def _words(text: str) -> list[str]:
    """Split at anything but letters, and inside CamelCase; accents are left out."""
    plain = unicodedata.normalize("NFKD", text.replace("ø", "o").replace("Ø", "O"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain)
