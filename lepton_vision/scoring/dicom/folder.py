"""Folder of DICOM reports of a scoring run, and the columns that refer to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import ScoringError, explain_os_error
from lepton_vision.files import file_name, write_atomic
from lepton_vision.inference.explain import RgbPixels, overlay
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import key_check
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.dicom.heat_maps import HeatMaps, heat_map_bytes
from lepton_vision.scoring.dicom.report import ReportInfo, Statement, check_report, report_bytes
from lepton_vision.scoring.dicom.segmentation import Code
from lepton_vision.scoring.inputs.inputs import Input
from lepton_vision.scoring.rows import Row, reason_of
from lepton_vision.scoring.sink import ID_KEY, ROWS_ARE_SAFE, hold_job_folder
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.types import Image
from lepton_vision.types.target import output_stems


def report_info(bundle: Bundle, codes: Mapping[str, Code]) -> ReportInfo:
    """Return what the reports of a bundle say about themselves.

    Args:
        bundle: with targets and an operating point.
        codes: by output, e.g. "covid" or "signs_edema" of a multilabel target, what the finding is.

    Raises:
        ScoringError: no targets, a code for an output that is not there, or a text that DICOM cannot hold.
    """
    point = bundle.operating_point
    if not bundle.targets or point is None:
        raise ScoringError(
            "Expected a bundle with targets and an operating point for DICOM reports. Received: one without. Leave "
            "the reports out.",
            key="reports",
        )
    chosen = f" on {point.chosen_on}" if point.chosen_on else ""
    info = ReportInfo(bundle.bundle_id, codes, f"{point.criterion}{chosen}")
    check_report(info, names=[name for target in bundle.targets for name in output_names(target.name, bundle)])
    return info


def output_names(target: str, bundle: Bundle) -> list[str]:
    """Names of the findings of a target."""
    found = next(one for one in bundle.targets if one.name == target)
    return output_stems(found)


def report_job(bundle: Bundle, codes: Mapping[str, Code]) -> dict[str, Any]:
    """Return what must be the same for all reports of a folder."""
    stated = {name: list(code) for name, code in codes.items()}
    return {"version": 1, "reports": "dicom", "bundle_id": bundle.bundle_id, "codes": stated, ID_KEY: key_check()}


def report_files(image_id: str, bundle: Bundle) -> list[str]:
    """Names of the files that may belong to one report, heat maps first."""
    findings = [name for target in bundle.targets for name in output_names(target.name, bundle)]
    return [*(f"{image_id}.cam-{file_name(finding)}.dcm" for finding in findings), f"{image_id}.sr.dcm"]


class ReportFolder:
    """Folder with a DICOM Structured Report for each image or series of one bundle, ``<image_id>.sr.dcm``.

    The reports hold patient data, see ``report.write_structured_report``; their names do not.

    Args:
        folder: made if missing; held by one process at a time.
        bundle: with targets and an operating point.
        codes: see ``report_info``.
        limits: what a source may cost.
        has_maps: a finding that is detected gets ``<image_id>.cam-<finding>.dcm`` too: where the classifier looks.

    Raises:
        ConfigError: maps of a bundle that Grad-CAM does not know.
        ScoringError: see ``report_info``; or the folder holds reports of another bundle, is in use, or cannot be
            written.
    """

    def __init__(
        self, folder: Path, *, bundle: Bundle, codes: Mapping[str, Code], limits: Limits, has_maps: bool = False
    ) -> None:
        self._folder, self._bundle, self._limits = folder, bundle, limits
        self._maps = HeatMaps(bundle) if has_maps else None
        self._info = report_info(bundle, codes)
        self._lock = hold_job_folder(folder, job=report_job(bundle, codes), what="report folder")

    def columns(self, row: Row, *, image: Image, source: Input, pixels: UInt16Pixels | None = None) -> Row:
        """Write the report of one row, and return what the row says of it: ``report`` and ``report_reason``.

        Args:
            row: with its probabilities and decisions.
            image: as it was read; its pixels are not looked at.
            source: what it was read from.
            pixels: (C, H, W) uint16 that the network saw; heat maps need them.

        Raises:
            ScoringError: the folder cannot be written (a full disk): no later report could be.
        """
        if row["status"] != "ok":
            return _no_report(row["reason"])
        if image.source_format != "dicom":
            return _no_report("not_dicom")
        series = None if source.series is None else source.series.series_id
        said, made = list(self._statements(row)), dict[str, bytes]()
        how: dict[str, Any] = {"frame": row["frame"], "limits": self._limits}
        try:
            with source.on_disk(limits=self._limits) as files:
                report = report_bytes(said, source=files, info=self._info, series=series, **how)
                for finding, picture in self._pictures(said, pixels):
                    made[f"{image.image_id}.cam-{file_name(finding)}.dcm"] = heat_map_bytes(
                        picture, finding=finding, bundle_id=self._bundle.bundle_id, source=files, **how
                    )
        except ScoringError as error:  # the source is of a kind that no report can refer to: in words, no code
            return _no_report(f"refused: {error}")
        except Exception as error:  # as for reading: a report that cannot be made must not end the run
            return _no_report(reason_of(error))
        name = f"{image.image_id}.sr.dcm"
        is_new = all(self._write(file, data) for file, data in made.items()) and self._write(name, report)
        return {"report": name, "report_reason": None} if is_new else _no_report("duplicate")

    def _pictures(self, said: list[Statement], pixels: UInt16Pixels | None) -> Iterator[tuple[str, RgbPixels]]:
        """Heat maps of the findings that are detected."""
        if self._maps is None or pixels is None:
            return
        detected = {one.name for one in said if one.is_detected}
        for target in self._bundle.targets:
            for number, name in enumerate(output_names(target.name, self._bundle)):
                if name in detected:
                    index = 1 if target.is_binary else number
                    yield name, overlay(self._maps.of(pixels, target=target.name, class_index=index), pixels)

    def _write(self, name: str, data: bytes) -> bool:
        """Write a file; False where another of this name is there, of another image of the same id."""
        path = self._folder / name
        with explain_os_error("write a report", error=ScoringError, advice=ROWS_ARE_SAFE, path=path):
            if path.exists():  # of a run that was killed before its rows were on disk
                return path.read_bytes() == data
            write_atomic(path, data, private=True)
        return True

    def _statements(self, row: Row) -> Iterator[Statement]:
        """Statements of a report from the columns of a row."""
        point = self._bundle.operating_point
        for target in self._bundle.targets:
            names = output_names(target.name, self._bundle)
            if target.is_exclusive:
                for name, answer in zip(names, target.classes, strict=True):
                    yield Statement(name, row[f"{name}_probability"], row[f"{target.name}_class"] == answer)
            elif target.is_value:
                yield Statement(names[0], row[f"{names[0]}_value"], None, unit=target.unit)
            elif point is not None:
                for name, threshold in zip(names, point.thresholds[target.name], strict=True):
                    limit = None if np.isnan(threshold) else threshold
                    yield Statement(name, row[f"{name}_probability"], row[f"{name}_positive"], limit)

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()


def _no_report(reason: str) -> Row:
    return {"report": None, "report_reason": reason}
