"""Facts without patient data: what a path is, what a bundle is, how many rows a manifest has of what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.models.bundle_files import is_bundle
from lepton_vision.readers import read_image
from lepton_vision.types import SPLITS, Split, Target


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
    """Count images, patients and labels per class of one split."""
    part = manifest.subset(split)
    classes: dict[str, dict[str, int]] = {}
    for target in targets:
        labels = part.labels(target)
        if target.kind == "multilabel":
            counts = {name: int(np.nansum(labels[:, k])) for k, name in enumerate(target.classes)}
        else:
            counts = {name: int((labels == k).sum()) for k, name in enumerate(target.classes)}
        classes[target.name] = counts | {"unknown": int(np.isnan(labels).sum())}
    facts = {"images": len(part), "patients": int(part.frame["patient_id"].nunique()), "classes": classes}
    masks = int(part.frame["mask_values"].notna().sum())
    return facts | ({"masks": masks} if masks else {})


def describe(bundle: Bundle) -> dict[str, Any]:
    """Facts about a bundle for the report."""
    facts: dict[str, Any] = {"bundle": bundle.bundle_id, "configuration": bundle.config.fingerprint}
    facts |= {"backbone": bundle.config.model.backbone, "weights": Path(bundle.config.model.weights).name}
    return facts | dict(bundle.provenance)


def inspect_path(path: str | Path) -> dict[str, Any]:
    """Facts about an image, a folder with one DICOM series, a bundle or a manifest, without patient data.

    Raises:
        LeptonError: the path is none of them.
    """
    path = Path(path)
    if is_bundle(path):
        bundle = Bundle.load(path)
        point = None if bundle.operating_point is None else bundle.operating_point.to_dict()
        targets = [f"{t.name} ({t.kind}: {', '.join(t.classes)})" for t in bundle.targets]
        facts = {"kind": "bundle", **describe(bundle), "targets": "; ".join(targets), "operating_point": point}
        if bundle.config.segmentation is not None:
            facts["structures"] = ", ".join(bundle.config.segmentation.names)
        calibrators = {name: one.method for name, one in bundle.calibrators.items()}
        return facts | {"temperatures": dict(bundle.temperatures), "calibrators": calibrators}
    if path.suffix in (".parquet", ".csv") and path.is_file():
        manifest = Manifest.load(path)
        return {"kind": "manifest", **data_flow(manifest, ()), "label_columns": ", ".join(manifest.label_columns)}
    image = read_image(path)
    low, high = float(image.pixels.min()), float(image.pixels.max())
    facts = {"kind": "image", "format": image.source_format, "shape": list(image.pixels.shape), "units": image.units}
    if path.is_dir():
        facts |= {"kind": "series", "slices": image.facts["slices"]}
    return facts | {
        "range": [low, high],
        "spacing_mm": image.spacing_mm,
        "orientation": None if image.geometry is None else image.geometry.orientation,
        "modality": image.modality,
        "decoder": image.decoder,
        "window": str(image.window),
        "image_id": image.image_id,
        "facts": dict(image.facts),
    }
