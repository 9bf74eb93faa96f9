"""Segmentation part of a study: masks predicted, written, evaluated and shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import LabelError, ReadError
from lepton_vision.evaluation.masks.evaluation import MaskCase, SegmentationEvaluation, evaluate_masks
from lepton_vision.evaluation.masks.froc import froc
from lepton_vision.evaluation.masks.lesions import LesionScores, score_lesions
from lepton_vision.evaluation.masks.surfaces import BoolArray
from lepton_vision.evaluation.masks.table import write_mask_results
from lepton_vision.files import file_name
from lepton_vision.inference.masks import MaskPrediction, predict_masks
from lepton_vision.inference.samples import warn_of_failures
from lepton_vision.manifest import Manifest
from lepton_vision.manifest.mask_values import check_truth
from lepton_vision.manifest.patients import known_patients
from lepton_vision.manifest.schema import objects
from lepton_vision.models import Bundle
from lepton_vision.pipeline.facts import describe
from lepton_vision.pipeline.heads import HeadFigures, LabelledMask, compare_heads
from lepton_vision.predictions.cells import Failure
from lepton_vision.readers import read_image
from lepton_vision.readers.mask import labels_of, read_mask
from lepton_vision.reporting import write_segmentation_report
from lepton_vision.reporting.masks.overlay_files import overlay_masks
from lepton_vision.reporting.masks.overlays import NoOverlay, Overlay
from lepton_vision.scoring import write_mask
from lepton_vision.transforms.masks import mask_table, read_structures
from lepton_vision.types import UNKNOWN, Progress, SampleAddress


@dataclass(frozen=True, slots=True)
class _Case:
    """Locations of image, truth and prediction of one case."""

    image: SampleAddress
    truth: SampleAddress
    prediction: Path


@dataclass(frozen=True, slots=True)
class _Seen:
    """Facts remembered of the cases beside the masks themselves."""

    places: dict[str, _Case] = field(default_factory=dict)
    heads: list[LabelledMask] = field(default_factory=list)
    lesions: dict[str, list[LesionScores]] = field(default_factory=dict)


def evaluate_mask_parts(
    parts: Sequence[tuple[Bundle, Manifest]],
    *,
    out: str | Path,
    split: str | None = None,
    tolerance_mm: float = 1.0,
    device: str = "auto",
    title: str | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[SegmentationEvaluation, Path]:
    """Predict the masks of rows that have a true one, and evaluate them on the pixels of the images.

    ``out`` gets ``predicted/`` with a file for each image (PNG, or NIfTI for a volume; 0 background, k the k-th
    structure), ``cases.csv``, ``figures.json`` and ``report.html``; ``volumes.csv`` too where images are slices of a
    series or frames of a file, which are then also judged together. With lesions (``SegmentationConfig.lesions``) these
    hold an FROC; with binary targets that structures explain, the agreement of label and mask and a pointing game.
    Where the truth is unknown (``UNKNOWN``), truth and prediction count as background.

    Args:
        parts: bundles of one set of structures, each with the rows that it is judged on; several are the folds of a
            cross-validation.
        out: folder.
        split: name of the rows' split.
        tolerance_mm: of the surface Dice.
        device: "auto", "cpu", "cuda" or "mps".
        title: of the page.
        facts: further provenance for the page, such as how often the split was looked at.
        progress: called with ("predict masks", done, total, "").

    Returns:
        The evaluation and the page.

    Raises:
        ConfigError: a bundle predicts no masks.
        LabelError: no row has a mask, or no mask holds a structure, but a value that counts as unknown.
    """
    out = Path(out)
    predicted = out / "predicted"
    first = parts[0][0]
    segmentation = first.require_masks()
    judged = [(bundle, manifest.select(manifest.frame["mask_values"].notna())) for bundle, manifest in parts]
    if not any(len(manifest) for _, manifest in judged):
        raise LabelError("Expected rows with masks. Received: none. Scan with a label table that names them.")
    check_truth([manifest for _, manifest in judged], segmentation)
    predicted.mkdir(parents=True, exist_ok=True)
    seen = _Seen()
    evaluation = evaluate_masks(
        _cases(judged, predicted, seen=seen, device=device, progress=progress),
        structures={name: number for number, name in enumerate(segmentation.names, start=1)},
        tolerance_mm=tolerance_mm,
        lesions=segmentation.lesions,
        config=first.config.evaluation,
    )
    evaluation = _with_unknown(evaluation, parts)
    curves = {name: froc(scores, config=first.config.evaluation) for name, scores in seen.lesions.items()}
    heads = _compare(seen.heads, parts, device=device)
    further = {"froc": {name: curve.to_dict() for name, curve in curves.items()}, "heads": heads.to_dict()}
    write_mask_results(evaluation, out, further={key: value for key, value in further.items() if value})
    report = write_segmentation_report(
        evaluation,
        out / "report.html",
        overlays=_overlays(evaluation, seen.places, bundle=first),
        froc=curves,
        agreement=heads.agreement,
        pointing=heads.pointing,
        split=split,
        title=title,
        provenance={**(describe(first) if len(parts) == 1 else {"models": len(parts)}), **(facts or {})},
    )
    return evaluation, report


def _with_unknown(
    evaluation: SegmentationEvaluation, parts: Sequence[tuple[Bundle, Manifest]]
) -> SegmentationEvaluation:
    """The evaluation with the number of its cases that name no patient."""
    nameless = {str(name) for _, part in parts for name in part.frame["image_id"][~known_patients(part.frame)]}
    unknown = len({row.image_id for row in evaluation.cases} & nameless)
    facts = {"unknown_patient": unknown} if unknown else {}
    return replace(evaluation, provenance={**evaluation.provenance, **facts})


def _cases(
    parts: Sequence[tuple[Bundle, Manifest]],
    folder: Path,
    *,
    seen: _Seen,
    device: str,
    progress: Progress | None,
) -> Iterator[MaskCase | Failure]:
    """Predict, write and give one case after the other; ``seen`` learns what is needed once they are gone."""
    total, before = sum(len(manifest) for _, manifest in parts), 0
    for bundle, manifest in parts:
        table, patients = mask_table(manifest), manifest.frame["patient_id"].fillna("")
        volumes = volume_ids(manifest)
        rows = {int(row): place for place, row in enumerate(table.index)}
        failed = list[Failure]()
        for found in predict_masks(bundle, manifest, device=device):
            before += 1
            if progress is not None:
                progress("predict masks", before, total, "")
            if isinstance(found, Failure):
                failed.append(found)
                continue
            who = {"patient_id": str(patients.iloc[found.row]), "volume_id": volumes[found.row]}
            case = _case(found, bundle, folder=folder, truth=table.locate(rows[found.row]), who=who, seen=seen)
            if isinstance(case, Failure):
                failed.append(case)
            else:
                yield case
        warn_of_failures(failed, manifest, rejected=int((~manifest.is_ok).sum()))
        yield from failed


def _remember(case: MaskCase, found: MaskPrediction, bundle: Bundle, *, is_unknown: BoolArray, seen: _Seen) -> None:
    """Keep what FROC and the comparison of heads need of one case: scores and counts, no pixels."""
    place, segmentation = seen.places[case.image_id], bundle.require_masks()
    most, who = len(segmentation.names) + 1, (case.image_id, case.patient_id)
    counts = [np.bincount(labels.ravel(), minlength=most) for labels in (case.prediction, case.truth)]
    seen.heads.append(LabelledMask(*who, place.image, place.truth, bundle, found.probabilities, *counts))
    for name in segmentation.lesions:
        number = segmentation.names.index(name) + 1
        share = np.where(is_unknown, np.float32(0.0), found.share(number))
        scores = score_lesions(case.truth == number, share, image_id=who[0], patient_id=who[1])
        seen.lesions.setdefault(name, []).append(scores)


def _compare(cases: Sequence[LabelledMask], parts: Sequence[tuple[Bundle, Manifest]], *, device: str) -> HeadFigures:
    """Compare label and mask at the bundle's operating point; at one half for the folds of a cross-validation."""
    first = parts[0][0]
    point = first.operating_point if len(parts) == 1 else None
    binary = [target for target in first.targets if target.is_binary]
    thresholds = {} if point is None else {one.name: point.thresholds[one.name][0] for one in binary}
    return compare_heads(
        cases,
        targets=[one for one in binary if not np.isnan(thresholds.get(one.name, 0.5))],
        segmentation=first.require_masks(),
        thresholds=thresholds,
        config=first.config.evaluation,
        device=device,
    )


def _case(
    found: MaskPrediction, bundle: Bundle, *, folder: Path, truth: SampleAddress, who: dict[str, str], seen: _Seen
) -> MaskCase | Failure:
    segmentation = bundle.require_masks()
    try:
        true = read_structures(truth, segmentation, on=found.image)
    except ReadError as error:
        return Failure(found.image_id, f"truth: {error.reason}")
    suffix = ".png" if found.labels.ndim == 2 else ".nii.gz" if found.image.spacing_mm is not None else ".npz"
    path = folder / f"{file_name(found.image_id)}{suffix}"
    if suffix == ".npz":  # NIfTI needs a spacing
        np.savez_compressed(path, images=found.labels[None])
    else:
        source = found.address.path if found.image.source_format == "nifti" else None
        write_mask(found.labels, path, image=found.image, structures=segmentation.names, source=source)
    seen.places[found.image_id] = _Case(found.address, truth, path)
    is_unknown = true == UNKNOWN
    labels = np.where(is_unknown, 0, found.labels).astype(np.uint8)
    true = np.where(is_unknown, 0, true).astype(np.uint8)
    case = MaskCase(found.image_id, true, labels, found.image.spacing_mm, **who)
    _remember(case, found, bundle, is_unknown=is_unknown, seen=seen)
    return case


def _overlays(
    evaluation: SegmentationEvaluation, places: dict[str, _Case], *, bundle: Bundle
) -> Iterator[Overlay | NoOverlay]:
    """Best, median and worst case of each structure, read again one at a time."""
    dice = {(row.structure, row.image_id): row.figures.dice for row in evaluation.cases}
    for number, (structure, ranked) in enumerate(evaluation.ranked.items(), start=1):
        for image_id in dict.fromkeys(name for name in ranked if name is not None):
            value = dice.get((structure, image_id), math.nan)
            case = places[image_id]
            try:
                overlay = _read_overlay(case, structure, image_id=image_id, number=number, bundle=bundle)
            except ReadError as error:
                yield NoOverlay(structure, image_id, value, f"the case cannot be read again ({error.reason})")
                continue
            yield replace(overlay, dice=value)


def _read_overlay(case: _Case, structure: str, *, image_id: str, number: int, bundle: Bundle) -> Overlay:
    image = read_image(case.image.path, member=case.image.member, frame=case.image.frame, **case.image.repairs)
    truth = read_structures(case.truth, bundle.require_masks(), on=image) == number
    prediction = labels_of(read_mask(case.prediction)) == number
    return overlay_masks(Overlay(structure, image_id, truth, prediction), image, preprocess=bundle.config.preprocess)


def mask_figures(evaluation: SegmentationEvaluation, report: Path) -> dict[str, Any]:
    """Plain figures by structure, for ``--json``."""
    return plain_figures(evaluation) | {"report": str(report)}


def plain_figures(evaluation: SegmentationEvaluation) -> dict[str, Any]:
    """Figures by structure and counts; those by volume, where cases are slices, under ``by_volume``."""
    plain = evaluation.to_dict()
    facts: dict[str, Any] = {"structures": {name: part["figures"] for name, part in plain["structures"].items()}}
    facts |= {key: plain[key] for key in ("n", "n_patients", "n_failed", "tolerance_mm")}
    facts |= {key: value for key, value in evaluation.provenance.items() if key == "unknown_patient"}
    if evaluation.by_volume is not None:
        facts["by_volume"] = plain_figures(evaluation.by_volume)
    return facts


def volume_ids(manifest: Manifest) -> list[str]:
    """Name the volume of each row: its series, or the file that it is a frame of.

    Returns:
        (N,) pseudonymous ids; "" for a row that is alone (also the only one of its series here), is a volume itself, or
        stands in a file whose frames are of several patients, as in a data set that is one array.
    """
    keys = ("series_id", "image_id", "frame", "patient_id", "path", "member")
    names: list[str] = []
    files: dict[
        tuple[object, object], str
    ] = {}  # by place, named after the first frame: entries of an npz have own ids
    rows: dict[str, int] = {}
    patients: dict[str, set[str]] = {}
    columns = (objects(manifest.frame[name]) for name in keys)
    for series, image, frame, patient, path, member in zip(*columns, strict=True):
        name = "" if series is None else str(series)
        if series is None and frame is not None:
            name = files.setdefault((path, member), str(image).removesuffix(f"-{frame}"))
        names.append(name)
        rows[name] = rows.get(name, 0) + 1
        patients.setdefault(name, set()).add(str(patient))
    return [name if rows[name] > 1 and len(patients[name]) == 1 else "" for name in names]
