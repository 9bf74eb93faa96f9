"""Preparation of a study: scan of the source, targets, cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lepton_vision.config import Config, ScanConfig
from lepton_vision.errors import ConfigError
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.labels import infer_targets, warn_lost
from lepton_vision.manifest.left_out import CAPTURE, KINDS, REPAIR_FLAGS
from lepton_vision.pipeline.case_points import stated_point as stated_point
from lepton_vision.transforms.presets import may_flip
from lepton_vision.types import Progress

_LOGGER = logging.getLogger(__name__)


def with_targets(config: Config, manifest: Manifest) -> Config:
    """Return ``config`` with its targets, taken from the manifest where it names neither targets nor structures.

    Raises:
        ConfigError: mirror images are asked for of what is trained without flips, or tells left from right.
    """
    if not config.targets and config.segmentation is None:
        config = config.with_targets(infer_targets(manifest))
    warn_lost(manifest, config.targets)
    if config.model.mirrored and not may_flip(config.augment, targets=config.targets):
        raise ConfigError(
            "model.mirrored: expected a model that is trained with left–right flips. Received: augment without them or "
            "a target that tells left from right. Set model.mirrored=false, or augment.flip=true.",
            key="model.mirrored",
        )
    return config


def cache_folder(config: Config, run_dir: Path) -> Path | None:
    """Folder of the decoded cache, or None where it is turned off."""
    if config.cache.max_gb <= 0:
        return None
    return Path(config.cache.folder) if config.cache.folder else run_dir / "cache"


def scan_source(
    source: str | Path,
    *,
    labels: str | Path | None = None,
    patient_from: str | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> Manifest:
    """Scan with the pipeline's progress; ``source`` is a folder, an .npz file, or a saved manifest.

    Further arguments are those of ``Manifest.scan``.
    """
    source = Path(source)
    if source.suffix in (".parquet", ".csv") and source.is_file() and labels is None:
        manifest = Manifest.load(source)
        return manifest if patient_from is None else manifest.with_patients(patient_from)
    told = None if progress is None else lambda done, total: progress("scan", done, total, "")
    return Manifest.scan(source, labels=labels, patient_from=patient_from, progress=told, **how)


def with_kinds(config: Config, manifest: Manifest) -> Config:
    """Let a configuration include what is among the usable rows of a manifest, too: scoring will take it in.

    For a model of other files than DICOM a secondary capture is a picture like any other.
    """
    frame = manifest.ok.frame
    kinds = {*config.scan.include, *frame["object_kind"].dropna()}
    kinds |= set() if (frame["source_format"] == "dicom").any() else {CAPTURE}
    include = tuple(kind for kind in KINDS if kind in kinds)
    return config.model_copy(update={"scan": ScanConfig(include=include)})


def with_repairs(config: Config, manifest: Manifest) -> Config:
    """Return ``config`` with the repairs that series of the manifest needed: scoring will do them, too.

    Repairs are done by the scan: a warning names rows that it rejected and that the configuration would have repaired.
    """
    if config.volume is None:
        return config
    asked = {"tilt": config.volume.tilt != "refuse", "missing_slices": config.volume.gaps != "refuse"}
    rejected = {reason: count for reason, count in manifest.rejected.items() if asked.get(reason)}
    if rejected:
        _LOGGER.warning(
            "%s rows of the manifest are rejected (%s) though the configuration repairs such series: the scan decides. "
            "Scan again with %s.",
            sum(rejected.values()),
            ", ".join(f"{reason}: {count}" for reason, count in rejected.items()),
            " ".join(REPAIR_FLAGS[reason] for reason in rejected),
        )
    done = {name for text in manifest.ok.frame["repair"].dropna() for name in str(text).split(",")}
    changes = {name: choice for name, choice in (("tilt", "shear"), ("gaps", "fill")) if name in done}
    return config.model_copy(update={"volume": config.volume.model_copy(update=changes)})
