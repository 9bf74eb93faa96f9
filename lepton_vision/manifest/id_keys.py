"""Check that the ids of a manifest and of a bundle were made with the same key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lepton_vision.manifest.table import Manifest
from lepton_vision.types.id_key import SAME_KEY, are_two_keys

_LOGGER = logging.getLogger(__name__)


def origin_of(manifest: Manifest) -> dict[str, Any]:
    """Provenance of a training manifest for the bundle: its fingerprint and, where it is known, its key."""
    return {"data_fingerprint": manifest.fingerprint} | ({"id_key": manifest.id_key} if manifest.id_key else {})


def warn_of_key(manifest: Manifest, provenance: Mapping[str, Any]) -> None:
    """Say that ids cannot tell whether patients of a bundle's training, by its provenance, stand in a manifest."""
    if are_two_keys(provenance.get("id_key", ""), manifest.id_key):
        _LOGGER.warning(
            "The ids of the manifest were made with another key than those of the bundle's training: nobody can tell "
            "by them whether patients of the training stand in it. If it is another site's, add --external. If it is "
            "the same study's, take manifest.parquet of the run; or: %s, then scan again.",
            SAME_KEY,
        )
