"""File outputs of a scoring run beside its rows: masks and DICOM reports."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from lepton_vision.errors import ConfigError, ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.dicom.folder import ReportFolder, report_info, report_job
from lepton_vision.scoring.dicom.segmentation import Code
from lepton_vision.scoring.masks.folder import MaskFolder, MaskFormat, choose_format, mask_job, measure_names
from lepton_vision.scoring.rows import row_schema
from lepton_vision.scoring.sink import refuse_other_job

PARTS = "_parts"  # readers of tables pass over names that begin with an underscore


class OpenOutputs(NamedTuple):
    """Open output folders of a running run."""

    masks: MaskFolder | None = None
    reports: ReportFolder | None = None


@dataclass(frozen=True, slots=True)
class FileOutputs:
    """Requested outputs beside the rows; see ``batch.score``.

    Attributes:
        masks: folder, or None.
        mask_format: of the masks; "auto" until ``check`` has chosen.
        reports: folder, or None.
        report_codes: of the findings in reports.
        heat_maps: with reports, Grad-CAM of what is detected.
    """

    masks: Path | None = None
    mask_format: MaskFormat = "auto"
    reports: Path | None = None
    report_codes: Mapping[str, Code] = field(default_factory=dict)
    heat_maps: bool = False

    @classmethod
    def of(
        cls,
        *,
        masks: str | Path | None = None,
        mask_format: MaskFormat = "auto",
        reports: str | Path | None = None,
        report_codes: Mapping[str, Code] | None = None,
        heat_maps: bool = False,
    ) -> FileOutputs:
        """Requested outputs by the arguments of ``score``, with absolute paths."""
        folders = (None if one is None else Path(one).absolute() for one in (masks, reports))
        return cls(next(folders), mask_format, next(folders), dict(report_codes or {}), heat_maps)

    @property
    def folders(self) -> list[Path]:
        """Requested folders."""
        return [one for one in (self.masks, self.reports) if one is not None]

    def checked(self, bundle: Bundle, output: Path) -> FileOutputs:
        """Refuse before anything is written what this bundle cannot give; choose the format of the masks.

        Raises:
            ConfigError: masks of a bundle that predicts none, a format that cannot hold them, or one without a folder.
            ScoringError: a bundle without an operating point, nothing to give, or a folder within ``output``.
        """
        if bundle.targets and bundle.operating_point is None:
            raise ScoringError(
                "Expected a bundle with an operating point. Received: one without. Use bundle.with_operating_point "
                "first."
            )
        for key, folder in (("masks", self.masks), ("reports", self.reports)):
            _check_apart(folder, output, key=key)
        self._check_reports(bundle)
        if self.masks is not None:
            return replace(self, mask_format=choose_format(self.mask_format, bundle))
        if self.mask_format != "auto":
            raise ConfigError(
                f"Expected a mask folder with the mask format {self.mask_format!r}. Received: none.", key="masks"
            )
        if not bundle.targets:
            raise ScoringError(
                "Expected a mask folder, as the bundle has no targets: masks are all that it gives. Received: none. "
                "Name one with masks=FOLDER (--masks).",
                key="masks",
            )
        return self

    def _check_reports(self, bundle: Bundle) -> None:
        if self.reports is not None:
            report_info(bundle, self.report_codes)
        elif self.heat_maps:
            raise ConfigError("Expected a folder for reports with heat maps. Received: none.", key="heat_maps")

    def job(self) -> dict[str, Any]:
        """Settings that must be the same for all rows of an output folder."""
        found: dict[str, Any] = {"masks": None if self.masks is None else self.mask_format}
        if self.reports is not None:
            found["reports"] = "dicom with heat maps" if self.heat_maps else "dicom"
        return found

    def schema(self, bundle: Bundle) -> pa.Schema:
        """Columns of the rows."""
        return row_schema(
            bundle.targets,
            measures=() if self.masks is None else measure_names(bundle),
            sets=tuple(bundle.set_rules),
            has_novelty=bundle.novelty is not None,
            has_reports=self.reports is not None,
            has_repairs=bundle.config.is_volume,
        )

    def open(self, bundle: Bundle, *, taken: set[str], limits: Limits, held: ExitStack) -> OpenOutputs:
        """Take hold of the folders until ``held`` ends.

        Args:
            bundle: that scores.
            taken: image ids that have a mask which a row names.
            limits: what a source may cost.
            held: what lets go of them.
        """
        masks = reports = None
        if self.masks is not None:
            target = MaskFolder(self.masks, bundle=bundle, mask_format=self.mask_format, taken=taken, limits=limits)
            masks = held.enter_context(closing(target))
        if self.reports is not None:
            how: dict[str, Any] = {"codes": self.report_codes, "limits": limits, "has_maps": self.heat_maps}
            reports = held.enter_context(closing(ReportFolder(self.reports, bundle=bundle, **how)))
        return OpenOutputs(masks, reports)

    def of_part(self, part: str) -> FileOutputs:
        """Folders of one part of a run, within those of the run: what they hold is moved up when parts are merged."""
        masks, reports = (None if one is None else one / PARTS / part for one in (self.masks, self.reports))
        return replace(self, masks=masks, reports=reports)

    def refuse_other_jobs(self, bundle: Bundle) -> None:
        """Refuse folders that hold the files of another job, before a part of a run is scored for nothing.

        Raises:
            ScoringError: their records name another job.
        """
        if self.masks is not None:
            refuse_other_job(self.masks, mask_job(bundle, self.mask_format), what="mask folder")
        if self.reports is not None:
            refuse_other_job(self.reports, report_job(bundle, self.report_codes), what="report folder")


def _check_apart(folder: Path | None, output: Path, *, key: str) -> None:
    if folder is not None and folder.absolute().is_relative_to(output.absolute()):
        raise ScoringError(
            f"Expected a folder for {key} that is not within the output folder: tools read all files there as one "
            "table. Name another folder.",
            path=folder,
            key=key,
        )
