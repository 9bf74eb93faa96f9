"""Manifest of a data set: images, patients, labels and splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.manifest.audit import audit_manifest as audit_manifest
    from lepton_vision.manifest.audit import drop_leaks as drop_leaks
    from lepton_vision.manifest.findings import Audit as Audit
    from lepton_vision.manifest.findings import Finding as Finding
    from lepton_vision.manifest.labels import infer_targets as infer_targets
    from lepton_vision.manifest.split import fold_split as fold_split
    from lepton_vision.manifest.split import split_manifest as split_manifest
    from lepton_vision.manifest.table import Manifest as Manifest

__getattr__ = resolver(__name__, __file__)
