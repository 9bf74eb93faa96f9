"""Scores as DICOM Structured Reports (TID 1500, PS3.16), for storage in a PACS. Uses highdicom.

A report belongs to the record of its patient, as a DICOM Segmentation does: it carries the name, the identifiers and
the study of its source images. It is written only where it is asked for, and its owner alone may read the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lepton_vision._version import __version__
from lepton_vision.errors import ScoringError
from lepton_vision.files import write_atomic
from lepton_vision.readers.dicom.sources import SourceFile, read_sources
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.quiet import quiet
from lepton_vision.readers.versions import package_version
from lepton_vision.scoring.dicom.segmentation import (
    AI_FAMILY,
    PRODUCT,
    Code,
    build_file,
    check_code,
    check_text,
    content_time,
    fix_content_time,
    make_uid,
)

PRIVATE_SCHEME = "99LEPTON"  # PS3.16 8.2: schemes that begin with 99 are private
PROBABILITY: Code = ("122157", "DCM", "Probability")
VALUE: Code = ("value", PRIVATE_SCHEME, "Predicted value")
THRESHOLD: Code = ("threshold", PRIVATE_SCHEME, "Threshold of the operating point")
OUTCOME: Code = ("705057003", "SCT", "Presence")
DETECTED: Code = ("260373001", "SCT", "Detected")
NOT_DETECTED: Code = ("260415000", "SCT", "Not detected")
_IMAGING: Code = ("363679005", "SCT", "Imaging")  # procedure reported, CID 100 is extensible
_DEVICE: Code = ("121007", "DCM", "Device")
_NO_UNIT: Code = ("1", "UCUM", "no units")
# UCUM's codes of units that people write otherwise.
_UNITS = {
    **dict.fromkeys(("year", "years", "yr", "a"), ("a", "UCUM", "year")),
    **dict.fromkeys(("month", "months", "mo"), ("mo", "UCUM", "month")),
    **dict.fromkeys(("day", "days", "d"), ("d", "UCUM", "day")),
    **dict.fromkeys(("ml", "mL"), ("mL", "UCUM", "mL")),
    **{unit: (unit, "UCUM", unit) for unit in ("mm", "mm2", "mm3", "cm", "cm2", "cm3", "kg", "g", "%", "ms", "s")},
}
_SERIES_NUMBER = 9002  # behind that of the segmentations


@dataclass(frozen=True, slots=True)
class Statement:
    """Content of a report about one finding.

    Attributes:
        name: of the output, as in the columns of a row, e.g. "covid" or "signs_edema".
        probability: calibrated; of a number its value.
        is_detected: the decision at the operating point; for exclusive classes, whether it is the likeliest. None where
            there is no operating point: the report says nothing of a detection.
        threshold: of the operating point; None where there is none, as for exclusive classes.
        unit: of a number, "" where it has none; None of a probability.
    """

    name: str
    probability: float
    is_detected: bool | None
    threshold: float | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ReportInfo:
    """Description of a report inside the report.

    Attributes:
        bundle_id: of the model.
        codes: by name of a statement, what the finding is, e.g. ("840539006", "SCT", "COVID-19"). Not named: a private
            code of the name.
        criterion: how the operating point was chosen, in words; empty where there is nothing to say.
        created: written as Content Date and Time. None takes those of the source, so that a repeated run gives the same
            bytes; the report says nothing about the day of scoring then.
    """

    bundle_id: str
    codes: Mapping[str, Code] = field(default_factory=dict)
    criterion: str = ""
    created: datetime | None = None

    def code(self, name: str) -> Code:
        """Code of a finding."""
        return self.codes.get(name, (name[:16], PRIVATE_SCHEME, name))


def write_structured_report(
    statements: Sequence[Statement],
    path: str | Path,
    *,
    source: str | Path | Sequence[str | Path],
    info: ReportInfo,
    frame: int | None = None,
    series: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write the scores of an image or a series as a Comprehensive SR, an Imaging Measurement Report (TID 1500).

    THE FILE HOLDS PATIENT DATA: name, id, birth date, study and the rest of the patient and study modules of the
    source, as the standard wants it for filing in a PACS (PS3.3 A.35.3). Treat it as the source itself; it is readable
    by its owner alone (mode 0600).

    Each statement is a measurement group (TID 1501): the coded finding, its probability and the threshold as
    measurements, "Detected" or "Not detected", the algorithm with its version and bundle (TID 4019), and the source
    images. The same scores, source and ``info`` give the same bytes and UIDs. The report is complete and unverified.

    Args:
        statements: at least one.
        path: file to write (``.dcm``), whole or not at all.
        source: DICOM files, or their folder: a single file for an image, a series for a volume.
        info: model, codes and time.
        frame: number of the frame from 0, where the image is one of several of its file.
        series: pseudonymous id of the series in ``source``, where there are several.
        limits: what the source may cost.

    Returns:
        ``path``.

    Raises:
        ScoringError: no statement, a text that DICOM cannot hold, or a source that a report cannot refer to.
        ReadError: ``source`` cannot be read.

    Example:
        >>> said = Statement("covid", 0.93, True, threshold=0.41)  # doctest: +SKIP
        >>> info = ReportInfo(bundle.bundle_id)  # doctest: +SKIP
        >>> write_structured_report([said], "sr.dcm", source="ct.dcm", info=info)  # doctest: +SKIP
    """
    data = report_bytes(statements, source=source, info=info, frame=frame, series=series, limits=limits)
    write_atomic(path, data, private=True)
    return Path(path)


def report_bytes(
    statements: Sequence[Statement],
    *,
    source: str | Path | Sequence[str | Path],
    info: ReportInfo,
    frame: int | None,
    series: str | None,
    limits: Limits,
) -> bytes:
    """Return the file of ``write_structured_report``."""
    check_report(info, names=[one.name for one in statements])
    with quiet:  # values of headers must reach no log
        sources = read_sources(source, series=series, limits=limits)
        return build_file(
            lambda: _build(statements, sources, info=info, frame=frame),
            expected="Expected DICOM images of one study that a report can refer to. Received: something else",
        )


def check_report(info: ReportInfo, *, names: Sequence[str]) -> None:
    """Texts must fit their value representation; a code needs a finding.

    Raises:
        ScoringError: they do not.
    """
    if not names:
        raise ScoringError("Expected at least one finding to report. Received: none.", key="statements")
    unknown = sorted(set(info.codes) - set(names))
    if unknown:
        raise ScoringError(
            f"Expected codes for findings that are there: {', '.join(names)}. Received: {unknown[0]!r}.", key="codes"
        )
    for name in names:
        check_text(name, "targets")
        check_code(info.code(name), "codes")


def _build(
    statements: Sequence[Statement], sources: Sequence[SourceFile], *, info: ReportInfo, frame: int | None
) -> Any:
    from highdicom.sr import ComprehensiveSR, MeasurementReport

    headers = [one.header for one in sources]
    day, time = content_time(headers, info.created)
    series_uid, own_uid = _uids(statements, headers, info=info, frame=frame, time=(day, time))
    content = MeasurementReport(
        observation_context=_observer(info),
        procedure_reported=_concept(_IMAGING),
        imaging_measurements=[_group(one, headers, info=info, frame=frame, uid=own_uid) for one in statements],
    )
    report = ComprehensiveSR(
        evidence=headers,
        content=content[0],
        series_instance_uid=series_uid,
        series_number=_SERIES_NUMBER,
        sop_instance_uid=own_uid,
        instance_number=1,
        manufacturer=PRODUCT,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="Scores",
        specific_character_set="ISO_IR 192",
    )
    report.ContentDate, report.ContentTime = day, time  # type: ignore[assignment]
    report.DeviceSerialNumber, report.SoftwareVersions = info.bundle_id or "none", __version__
    report.ManufacturerModelName = PRODUCT
    fix_content_time(report, time=(day, time))
    return report


def _observer(info: ReportInfo) -> Any:
    """The program as the observer (TID 1004)."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext

    device = DeviceObserverIdentifyingAttributes(
        uid=make_uid(["device", info.bundle_id]),
        name=PRODUCT,
        manufacturer_name=PRODUCT,
        model_name=PRODUCT,
        serial_number=info.bundle_id or "none",
    )
    return ObservationContext(observer_device_context=ObserverContext(_concept(_DEVICE), device))


def _group(one: Statement, headers: Sequence[Any], *, info: ReportInfo, frame: int | None, uid: str) -> Any:
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    frames = None if frame is None else [frame + 1]
    parameters = [f"bundle_id={info.bundle_id}", *([f"operating point: {info.criterion}"] if info.criterion else [])]
    outcomes = [] if one.is_detected is None else [DETECTED if one.is_detected else NOT_DETECTED]
    figures = [(PROBABILITY if one.unit is None else VALUE, one.probability)]
    figures += [] if one.threshold is None else [(THRESHOLD, one.threshold)]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=make_uid([uid, one.name]), identifier=one.name),
        finding_type=_concept(info.code(one.name)),
        algorithm_id=AlgorithmIdentification(
            name=PRODUCT, version=__version__, parameters=parameters, family=_concept(AI_FAMILY)
        ),
        measurements=[
            Measurement(name=_concept(code), value=round(float(value), 6), unit=_concept(_unit(one)))
            for code, value in figures
        ],
        qualitative_evaluations=[QualitativeEvaluation(_concept(OUTCOME), _concept(code)) for code in outcomes] or None,
        source_images=[SourceImageForMeasurementGroup.from_source_image(header, frames) for header in headers],
    )


def _unit(one: Statement) -> Code:
    return _UNITS.get(one.unit, (one.unit[:16], PRIVATE_SCHEME, one.unit)) if one.unit else _NO_UNIT


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def _uids(
    statements: Sequence[Statement],
    headers: Sequence[Any],
    *,
    info: ReportInfo,
    frame: int | None,
    time: tuple[str, str],
) -> tuple[str, str]:
    """UIDs of the series and of the object (PS3.5 B.2): the same input, the same UIDs; other bytes, another object."""
    series = ["report series", str(headers[0].SeriesInstanceUID), info.bundle_id]
    instances = sorted(str(header.SOPInstanceUID) for header in headers)
    versions = (__version__, package_version("highdicom"))
    content = [instances, frame, [asdict(one) for one in statements], asdict(info), time, versions]
    return make_uid(series), make_uid([*series, *content])
