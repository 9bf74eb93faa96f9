"""Where a scoring run puts the DICOM reports of its scores, and what its rows say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lepton_vision.errors import ScoringError
from lepton_vision.files import write_atomic
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.limits import Limits
from lepton_vision.scoring.dicom_report import ReportInfo, Statement, check_report, report_bytes
from lepton_vision.scoring.dicom_results import Code
from lepton_vision.scoring.inputs import Input
from lepton_vision.scoring.rows import Row, reason_of
from lepton_vision.scoring.schema import output_stems
from lepton_vision.scoring.sink import hold_job_folder
from lepton_vision.types import Image


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
    return [f"{found.name}_{name}" for name in found.classes] if found.is_exclusive else output_stems(found)


class ReportFolder:
    """Folder with a DICOM Structured Report for each image or series of one bundle, ``<image_id>.sr.dcm``.

    The reports hold patient data, see ``dicom_report.write_report``; their names do not.

    Args:
        folder: made if missing; held by one process at a time.
        bundle: with targets and an operating point.
        codes: see ``report_info``.
        limits: what a source may cost.

    Raises:
        ScoringError: see ``report_info``; or the folder holds reports of another bundle, is in use, or cannot be
            written.
    """

    def __init__(self, folder: Path, *, bundle: Bundle, codes: Mapping[str, Code], limits: Limits) -> None:
        self._folder, self._bundle, self._limits = folder, bundle, limits
        self._info = report_info(bundle, codes)
        stated = {name: list(code) for name, code in codes.items()}
        job = {"version": 1, "reports": "dicom", "bundle_id": bundle.bundle_id, "codes": stated}
        self._lock = hold_job_folder(folder, job=job, what="report folder")

    def columns(self, row: Row, *, image: Image, source: Input) -> Row:
        """Write the report of one row, and return what the row says of it: ``report`` and ``report_reason``.

        Args:
            row: with its probabilities and decisions.
            image: as it was read; its pixels are not looked at.
            source: what it was read from.

        Raises:
            ScoringError: the folder cannot be written (a full disk): no later report could be.
        """
        if row["status"] != "ok":
            return _no_report(row["reason"])
        if image.source_format != "dicom":
            return _no_report("not_dicom")
        name = f"{image.image_id}.sr.dcm"
        try:
            data = self._encode(row, source)
        except ScoringError as error:  # the source is of a kind that no report can refer to: in words, no code
            return _no_report(f"refused: {error}")
        except Exception as error:  # as for reading: a report that cannot be made must not end the run
            return _no_report(reason_of(error))
        return self._write(name, data)

    def _encode(self, row: Row, source: Input) -> bytes:
        series = None if source.series is None else source.series.series_id
        with source.on_disk(limits=self._limits) as files:
            return report_bytes(
                list(self._statements(row)),
                source=files,
                info=self._info,
                frame=row["frame"],
                series=series,
                limits=self._limits,
            )

    def _write(self, name: str, data: bytes) -> Row:
        path = self._folder / name
        try:
            if path.exists():  # of a run that was killed before its rows were on disk, or of another file of this id
                return {"report": name, "report_reason": None} if path.read_bytes() == data else _no_report("duplicate")
            write_atomic(path, data, private=True)
        except OSError as error:
            raise ScoringError(
                f"Cannot write a report: {error.strerror}. Rows written so far are safe; free space and resume.",
                path=path,
            ) from None
        return {"report": name, "report_reason": None}

    def _statements(self, row: Row) -> Iterator[Statement]:
        """What the columns of a row say."""
        point = self._bundle.operating_point
        for target in self._bundle.targets:
            names = output_names(target.name, self._bundle)
            if target.is_exclusive:
                for name, answer in zip(names, target.classes, strict=True):
                    yield Statement(name, row[f"{name}_probability"], row[f"{target.name}_class"] == answer)
            elif point is not None:
                for name, threshold in zip(names, point.thresholds[target.name], strict=True):
                    yield Statement(name, row[f"{name}_probability"], row[f"{name}_positive"], threshold)

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()


def _no_report(reason: str) -> Row:
    return {"report": None, "report_reason": reason}
