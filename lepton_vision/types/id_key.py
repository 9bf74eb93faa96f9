"""Keys of pseudonymous ids: comparison of the keys of two tables."""

from __future__ import annotations

ENVIRONMENT_KEY = "LEPTON_VISION_ID_KEY"
SAME_KEY = (
    f"Set {ENVIRONMENT_KEY} to the text that they were made with, the same in every container and on every machine (or "
    "keep the home folder with the key file)"
)
"""What to do about ids of two keys; a sentence to be ended."""


def are_two_keys(first: str, second: str) -> bool:
    """Whether ids were made with two keys, by the ``key_check`` beside them; where one is "", nobody knows."""
    return "" not in (first, second) and first != second
