"""Report page of an evaluated table of mask files: overlays from the files, and facts about the table."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation
from lepton_vision.evaluation.masks.table import read_mask_table
from lepton_vision.readers.versions import package_version
from lepton_vision.reporting.masks.card import write_segmentation_report
from lepton_vision.reporting.masks.overlay_files import read_overlays


def write_mask_table_report(
    evaluation: SegmentationEvaluation, table: str | Path, path: str | Path, *, title: str | None = None
) -> Path:
    """Write the page of what ``evaluate_mask_table`` returned, with the ranked cases drawn from their files.

    Args:
        evaluation: of this table.
        table: the CSV; it is named by its SHA-256 only, as a file name may hold a patient's.
        path: the file to write.
        title: heading; None makes one of the structures.

    Raises:
        EvaluationError: the table cannot be read any more.
        ReportError: see ``write_segmentation_report``.

    Example:
        >>> write_mask_table_report(evaluation, "masks.csv", "result/report.html")  # doctest: +SKIP
    """
    rows = read_mask_table(table)
    facts: dict[str, Any] = {
        "table": {"sha256": hashlib.sha256(Path(table).read_bytes()).hexdigest(), "rows": len(rows)},
        "structures": dict(evaluation.structures),
        "tolerance_mm": evaluation.tolerance_mm,
        **evaluation.provenance,
        "versions": {name: package_version(name).split()[-1] for name in ("numpy", "scipy")},
    }
    return write_segmentation_report(
        evaluation, path, overlays=read_overlays(rows, evaluation), title=title, provenance=facts
    )
