"""Descriptions of paths, bundles and manifests without patient data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.inference.samples import list_files
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.class_counts import label_groups
from lepton_vision.manifest.labels import evident_targets, unknown_name
from lepton_vision.manifest.patients import known_patients
from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.value_ranges import narrow_image, narrow_ranges
from lepton_vision.models import Bundle
from lepton_vision.models.bundle_files import is_bundle
from lepton_vision.predictions.answer_sets import IntervalRule
from lepton_vision.readers import read_image
from lepton_vision.readers.channels import named_channels
from lepton_vision.readers.content import is_folder
from lepton_vision.readers.identity import is_other_key
from lepton_vision.readers.series_list import SeriesFacts, describe_found, group_series
from lepton_vision.scoring.sink import ID_KEY, JOB_FILE, all_shards, read_job
from lepton_vision.types import SPLITS, Split, Target, VoiLut, Window


def data_flow(manifest: Manifest, targets: tuple[Target, ...]) -> dict[str, Any]:
    """Count files in, rows rejected by reason, and images, patients and classes per split."""
    frame = manifest.frame
    rejected = frame.loc[frame["status"] != "ok", "reason"].value_counts()
    return {
        "rows": len(frame),
        "rejected": {str(reason): int(count) for reason, count in rejected.items()},
        "splits": {split: count_split(manifest, targets, split) for split in SPLITS if len(manifest.subset(split))},
    }


def count_split(manifest: Manifest, targets: tuple[Target, ...], split: Split) -> dict[str, Any]:
    """Count images, patients and labels per class of one split; of a number, labels per quarter of all usable ones."""
    part, usable = manifest.subset(split), manifest.ok
    of_split = objects(usable.frame["split"]) == split
    classes: dict[str, dict[str, int]] = {}
    for target in targets:
        labels = usable.labels(target)
        counts = {name: int((rows & of_split).sum()) for name, rows in label_groups(labels, target).items()}
        classes[target.name] = counts | {unknown_name(target): int(np.isnan(labels[of_split]).sum())}
    facts = {"images": len(part), "patients": int(part.frame["patient_id"].nunique()), "classes": classes}
    masks = int(part.frame["mask_values"].notna().sum())
    return facts | ({"masks": masks} if masks else {})


def count_patients(manifest: Manifest) -> dict[str, int]:
    """Count the patients that usable images name, and the images that name none."""
    frame = manifest.ok.frame
    is_known = known_patients(frame)
    return {"patients": int(frame["patient_id"][is_known].nunique()), "unknown_patient": int((~is_known).sum())}


def describe(bundle: Bundle) -> dict[str, Any]:
    """Facts about a bundle for the report."""
    facts: dict[str, Any] = {"bundle": bundle.bundle_id, "configuration": bundle.config.fingerprint}
    facts |= {"backbone": bundle.config.model.backbone, "weights": Path(bundle.config.model.weights).name}
    facts |= {"members": bundle.config.model.members} if bundle.config.model.members > 1 else {}
    return facts | {name: value for name, value in bundle.provenance.items() if name != "id_key"}


def _whose_ids(key: str) -> str:
    """With which key ids were made, in words."""
    return ("made with another key" if is_other_key(key) else "made with this key") if key else "of an unknown key"


def inspect_path(path: str | Path, *, channels: Sequence[str] = ()) -> dict[str, Any]:
    """Facts about an image, a folder of one DICOM series or of scores, a bundle or a manifest, without patient data.

    Args:
        path: what to look at.
        channels: of a NIfTI file, or of the case that it is a file of; see ``config.VolumeConfig.channels``.

    Raises:
        LeptonError: the path is none of them.
    """
    path = Path(path)
    if is_bundle(path):
        return _of_bundle(Bundle.load(path))
    if path.suffix in (".parquet", ".csv") and path.is_file():
        manifest = Manifest.load(path)
        narrow = [one.message for one in narrow_ranges(manifest.ok.frame, PreprocessConfig())]
        return {
            "kind": "manifest",
            **data_flow(manifest, evident_targets(manifest)),
            "label_columns": ", ".join(manifest.label_columns),
            "ids": _whose_ids(manifest.id_key),
        } | ({"narrow_range": " ".join(narrow)} if narrow else {})
    if (path / JOB_FILE).is_file():
        job = read_job(path / JOB_FILE)
        facts = {"kind": "scores", "bundle": job.get("bundle_id"), "engine": job.get("engine")}
        return facts | {"files": len(all_shards(path)), "ids": _whose_ids(job.get(ID_KEY, ""))}
    image = read_image(path, member=named_channels(path, channels))
    low, high = float(image.pixels.min()), float(image.pixels.max())
    facts = {"kind": "image", "format": image.source_format, "shape": list(image.pixels.shape), "units": image.units}
    if path.is_dir():
        facts |= {"kind": "series", "slices": image.facts["slices"]}
    hint = narrow_image(image, PreprocessConfig())
    return facts | {
        "range": [low, high],
        **({"narrow_range": hint} if hint else {}),
        "spacing_mm": image.spacing_mm,
        "orientation": None if image.geometry is None else image.geometry.orientation,
        "modality": image.modality,
        "decoder": image.decoder,
        "window": None if image.window is None else _window_text(image.window),
        "image_id": image.image_id,
        "facts": dict(image.facts),
    }


def _of_bundle(bundle: Bundle) -> dict[str, Any]:
    targets = [target.described for target in bundle.targets]
    facts = {"kind": "bundle", **describe(bundle), "targets": "; ".join(targets), **choices_of(bundle)}
    if bundle.config.segmentation is not None:
        facts["structures"] = ", ".join(bundle.config.segmentation.names)
    calibrators = {name: one.method for name, one in bundle.calibrators.items()}
    facts |= {"temperatures": dict(bundle.temperatures), "calibrators": calibrators}
    return facts | {"ids": _whose_ids(bundle.provenance.get("id_key", ""))}


def choices_of(bundle: Bundle) -> dict[str, Any]:
    """Operating point of a bundle, and the interval of each number; a model of numbers alone decides nothing."""
    point, targets = bundle.operating_point, bundle.targets
    decides = not targets or any(not target.is_value for target in targets)
    facts: dict[str, Any] = {"operating_point": None if point is None else point.to_dict()} if decides else {}
    for target in targets:
        for rule in bundle.set_rules.get(target.name, ()):
            if isinstance(rule, IntervalRule):
                reach = (
                    "none: too few patients" if np.isnan(rule.half_width) else f"{rule.half_width:.4g} {target.unit}"
                )
                said = f"± {reach.strip()}, holds {rule.stated:.0%}, from {rule.n_patients} patients of val"
                facts[f"interval_{target.name}"] = said
    return facts


def _window_text(window: Window | VoiLut) -> str:
    if isinstance(window, Window):
        return f"center {window.center:g}, width {window.width:g}, {window.function}"
    return f"table of {len(window.values):,} values"


def list_series(folder: str | Path) -> dict[str, Any]:
    """List the DICOM series below a folder by their headers, without patient data.

    A series without a reason is a volume as far as headers tell; whether its pixels can be decoded is not looked at.

    Returns:
        ``series``, each volume with ``series`` (pseudonymous id, the ``member`` and ``series=`` of other functions),
        ``modality``, ``slices``, and ``size`` (D x H x W) and ``spacing_mm`` or the ``reason`` why it is no volume;
        ``left_out`` counts files of these series that are no slices, by reason; ``other_files`` what is of no series,
        and ``folders_not_listed`` folders that may not be entered.

    Raises:
        ReadError: the folder is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ReadError(
            "Expected a folder. Received: a file, or nothing. Check the path.", reason="missing", path=folder
        )
    found, others = group_series(list_files(folder))
    unlisted = sum(map(is_folder, others))
    lines = [_series_line(describe_found(one)) for one in found]
    left_out = Counter(reason for one in found for _, reason in one.left_out)
    facts = {"kind": "folder", "series": lines, "other_files": len(others) - unlisted}
    facts |= {"folders_not_listed": unlisted} if unlisted else {}
    return facts | ({"left_out": dict(left_out)} if left_out else {})


def _series_line(facts: SeriesFacts) -> dict[str, Any]:
    line = {"series": facts.series_id, "modality": facts.modality, "slices": facts.slices}
    if facts.shape is None or facts.spacing_mm is None:
        return line | {"reason": facts.reason}
    size, spacing = (" x ".join(f"{value:g}" for value in values) for values in (facts.shape, facts.spacing_mm))
    return line | {"size": size, "spacing_mm": spacing}
