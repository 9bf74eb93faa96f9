"""Labels that are lost on the way from the table to the images, told at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lepton_vision.manifest.table import Manifest
    from lepton_vision.types import Target

_LOGGER = logging.getLogger(__name__)


def warn_lost(manifest: Manifest, targets: Sequence[Target]) -> None:
    """Tell rows of the label table without an image, images without a row, and images without a label of a target."""
    for note in manifest.label_notes:
        _LOGGER.warning("%s", note)
    usable = manifest.ok
    for target in targets:
        if not target.mask_values:
            unknown = int(np.isnan(usable.labels(target).reshape(len(usable), -1)).all(axis=1).sum())
            if unknown:
                _LOGGER.warning(
                    "%d of %d usable images have no known label of target %r and take no part in it.",
                    unknown,
                    len(usable),
                    target.name,
                )


def lost_rows(lost: Sequence[int], *, rows: int, near: Mapping[str, int], key: str) -> str:
    """Tell rows of the label table that matched no file, without their values; "" where there are none.

    Args:
        lost: their numbers, from 0.
        rows: rows of the label table.
        near: by what would have to be the same, how many of them would then name a file.
        key: column that joins.
    """
    if not lost:
        return ""
    shown = ", ".join(map(str, lost[:5])) + (" …" if len(lost) > 5 else "")
    return (
        f"{len(lost)} of {rows} rows of the label table match no file by the column {key!r}, so their labels are lost "
        f"(counted from 0: {shown}).{hint_at(near)}"
    )


def hint_at(near: Mapping[str, int]) -> str:
    """End of a message about rows that match no file: what would have to be the same."""
    return "".join(f" But for {what}, {count} of them would." for what, count in near.items() if count)


def tell_images(manifest: Manifest, unnamed: frozenset[str]) -> Manifest:
    """Note usable images without a row in the label table, and tell all that was lost in the join."""
    images = manifest.ok.frame["image_id"]
    count = int(images.isin(unnamed).sum()) if unnamed else 0
    if count:
        note = f"{count} of {len(images)} usable images have no row in the label table; their labels are unknown."
        manifest = replace(manifest, label_notes=(*manifest.label_notes, note))
    warn_lost(manifest, ())
    return manifest
