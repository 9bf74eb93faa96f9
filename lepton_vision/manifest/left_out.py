"""Counts of the files that a scan reads but leaves out, each with the setting that includes them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar, get_args

from lepton_vision.errors import ManifestError, nearest
from lepton_vision.manifest.record import Record
from lepton_vision.types import ObjectKind

CAPTURE: Final = "secondary_capture"
REPAIR_FLAGS: Final = {"tilt": "--tilt shear", "missing_slices": "--gaps fill"}
_NEVER_VOLUMES: Final = "localizer"
KINDS: Final = get_args(ObjectKind)
_LOGGER = logging.getLogger(__name__)
_Job = TypeVar("_Job")


def check_include(include: Collection[str]) -> frozenset[str]:
    """The kinds that are to be samples too.

    Raises:
        ManifestError: one that does not exist.
    """
    for name in include:
        if name not in KINDS:
            raise ManifestError(f"Unknown kind {name!r} in include. {nearest(name, list(KINDS))}", key="include")
    return frozenset(include)


def take_lone_captures(
    described: list[list[Record]],
    jobs: Sequence[_Job],
    *,
    again: Callable[[Sequence[_Job]], Sequence[list[Record]]],
) -> None:
    """Describe secondary captures anew, as samples, where a scan found no other DICOM image.

    Whole data sets are stored as such (pictures that were converted). Beside other images they are pictures of a
    screen, of text, or of what another image shows, and stay out.

    Args:
        described: the rows of each file or series; changed in place.
        jobs: that file or series.
        again: describes some of them with secondary captures taken in.
    """
    is_dicom = [any(r["status"] == "ok" and r.get("source_format") == "dicom" for r in rows) for rows in described]
    lone = [number for number, rows in enumerate(described) if any(row.get("reason") == CAPTURE for row in rows)]
    if any(is_dicom) or not lone:
        return
    for number, rows in zip(lone, again([jobs[number] for number in lone]), strict=True):
        described[number] = rows
    _LOGGER.warning(
        "All DICOM images here are secondary captures (converted pictures, or pictures of a screen), and are taken as "
        "samples: %d files. Say so with --include %s (include=…, scan.include).",
        len(lone),
        CAPTURE,
    )


def warn_of_left_out(records: Sequence[Record], *, volumes: bool) -> None:
    """Warn of what was left out; of files that lie in a series ``series_list`` has told."""
    kinds = [record["reason"] for record in records if "reason" in record and record.get("object_kind")]
    counts = Counter(kind for kind in kinds if kind in KINDS)
    if counts:
        shown = ", ".join(f"{kind}: {count}" for kind, count in counts.most_common())
        _LOGGER.warning(
            "Left out as no images to classify: %s. %s", shown, include_hint(may_include(counts, volumes=volumes))
        )


def may_include(kinds: Collection[str], *, volumes: bool) -> list[str]:
    """Those of some kinds that can be samples: the planes of a localizer form no volume."""
    return [kind for kind in kinds if not (volumes and kind == _NEVER_VOLUMES)]


def include_hint(reasons: Collection[str]) -> str:
    """How to take in what was rejected for these reasons; empty where nothing can be."""
    kinds = ",".join(name for name in KINDS if name in reasons)
    repairs = " ".join(flag for reason, flag in REPAIR_FLAGS.items() if reason in reasons)
    words = [f"--include {kinds} takes them in (include=…, scan.include)."] if kinds else []
    words += [f"{repairs} repairs such series (volume.tilt, volume.gaps)."] if repairs else []
    if "geometry" in reasons:
        words.append("--gaps fill repairs series in which single steps, as the last one, differ (volume.gaps).")
    return " ".join(words)
