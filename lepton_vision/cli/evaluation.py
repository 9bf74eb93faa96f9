"""Commands that evaluate predictions and masks or convert masks, registered by ``cli.app``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_vision.cli.completion import of_aggregate, of_split, of_unit, one_of, setting
from lepton_vision.cli.options import Device, Json, check_choice, parse_codes, parse_columns, print_facts, split_names


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for figures.json, tables and report.html.")],
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest with splits.")] = None,
    part: Annotated[str, typer.Option("--split", help="train, val or test.", autocompletion=of_split)] = "test",
    by: Annotated[list[str] | None, typer.Option(help="Columns for subgroups, e.g. sex,site; repeatable.")] = None,
    external: Annotated[bool, typer.Option("--external", help="With --bundle: another site's manifest.")] = False,
    reference: Annotated[
        Path | None, typer.Option(help="With --external: folder of the internal evaluation to compare with.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="CSV: image_id, patient_id, y_true, y_prob or y_value.")
    ] = None,
    columns: Annotated[str, typer.Option(help="For --predictions: image_id=file,y_prob=score, …")] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(help="For --predictions: [NAME:]kind=ordinal[,classes=a+b+c], kind=regression[,unit=years]."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Operating point for --predictions.")] = 0.5,
    masks: Annotated[
        Path | None, typer.Option(help="CSV: image_id, patient_id, truth, prediction[, image, volume_id] (files).")
    ] = None,
    structures: Annotated[str, typer.Option(help="For --masks: name=value, …; several values as 1+2.")] = "mask=1",
    tolerance_mm: Annotated[float, typer.Option(help="For --masks: surfaces so far apart agree.")] = 1.0,
    lesions: Annotated[str, typer.Option(help="For --masks: structures to count lesion by lesion.")] = "",
    min_iou: Annotated[float, typer.Option(help="For --lesions: IoU of a hit; 0 for any shared voxel.")] = 0.0,
    unknown: Annotated[
        int | None, typer.Option(help="For --masks: value of the truth where nobody knows; not judged there.")
    ] = None,
    about: Annotated[
        Path | None, typer.Option(help="YAML with what only a human can say; its keys stand in the checklists.")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="One case is an image, series, study or patient.",
            autocompletion=of_unit,
        ),
    ] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(
            help="With --unit: mean, max, noisy_or or learnt.",
            autocompletion=of_aggregate,
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="With --predictions and learnt: predictions of validation.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="evaluation.key=value, e.g. evaluation.interval=bca.", autocompletion=setting),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compute figures with intervals, and write a report.

    From a bundle and a split, a table of any other tool, or pairs of mask files.
    """
    from lepton_vision.config import Config
    from lepton_vision.errors import ConfigError
    from lepton_vision.progress.bars import Console
    from lepton_vision.reporting.documents.about import read_about

    modes = [bundle is not None or manifest is not None, predictions is not None, masks is not None]
    if modes.count(True) != 1 or (bundle is None) != (manifest is None):
        raise ConfigError("Give --bundle with --manifest, or --predictions alone, or --masks alone.", key="predictions")
    if bundle is None and (external or reference is not None):
        raise ConfigError("--external and --reference go with --bundle and --manifest.", key="external")
    if (by and masks is not None) or (target and predictions is None):
        raise ConfigError("--by goes with --bundle or --predictions, --target with --predictions.", key="by")
    groups = ",".join(by or ())
    answers = None if about is None else read_about(about)
    with Console(quiet=as_json) as console:
        if masks is not None:
            settings = _settings(Config(), None, None, assignments)
            result = _evaluate_masks(masks, out, structures, tolerance_mm, lesions, min_iou, unknown, settings, console)
        elif predictions is not None:
            settings = _settings(Config(), unit, aggregate, assignments)
            told = columns, target or (), groups
            result = _figures(*_evaluate_table(predictions, out, threshold, settings, validation, answers, told))
        else:
            options = _options(bundle, groups, external, reference, answers)
            changes = unit, aggregate, assignments
            result = _evaluate_split(bundle, manifest, part, out, device, options, console, changes)
    print_facts(result if as_json else _for_people(result), as_json=as_json)


def _for_people(facts: dict[str, Any]) -> dict[str, Any]:
    """Each figure once, under its target where there are several, and the headline figures of subgroups.

    Figures of masks stand under their structure.
    """
    from lepton_vision.evaluation.classes.figure_table import SPECS

    named = facts.get("targets", {})
    twice = {"targets"} if len(named) == 1 else set(next(iter(named.values()), {}))
    twice |= set(next(iter(facts.get("structures", {}).values()), {}))
    told = {key: value for key, value in facts.items() if key not in twice}
    headlines = {key for key, spec in SPECS.items() if spec.headline}
    for column in told.get("subgroups", ()):
        for group in column["subgroups"]:
            group["figures"] = {
                target: {key: figure for key, figure in figures.items() if key in headlines}
                for target, figures in group["figures"].items()
            }
    return told


def split_figures(found: Any) -> dict[str, Any]:
    """Plain figures of a ``SplitResult``: those of the first target, all targets, and masks."""
    from lepton_vision.pipeline.masks import mask_figures

    facts = {} if found.evaluation is None else _figures(found.evaluation, found.report)
    if found.masks is None:
        return facts
    masks = mask_figures(found.masks, found.mask_report)
    return {**facts, "masks": masks} if facts else {**next(iter(masks["structures"].values())), **masks}


def _figures(evaluation: Any, report: Path) -> dict[str, Any]:
    figures = {name: {k: f.to_dict() for k, f in values.items()} for name, values in evaluation.figures.items()}
    first = next(iter(figures.values()))
    facts = {**first, "targets": figures, "n": evaluation.n, "report": str(report)}
    facts |= {key: value for key, value in evaluation.provenance.items() if key == "unknown_patient"}
    units = {target.name: target.unit for target in evaluation.targets if target.unit}
    facts |= {"units": units} if units else {}
    analyses = evaluation.analyses.to_dict()
    return facts | {name: analyses[name] for name in ("subgroups", "external") if analyses[name] is not None}


def _evaluate_masks(
    table: Path,
    out: Path,
    structures: str,
    tolerance_mm: float,
    lesions: str,
    min_iou: float,
    unknown: int | None,
    settings: Any,
    console: Any,
) -> dict[str, Any]:
    from lepton_vision.evaluation.masks.table import evaluate_mask_table, parse_structures
    from lepton_vision.files import new_results
    from lepton_vision.pipeline.masks import plain_figures
    from lepton_vision.reporting.masks.table import write_mask_table_report

    with new_results(out) as stage:
        evaluation = evaluate_mask_table(
            table,
            out=stage,
            structures=parse_structures(structures),
            tolerance_mm=tolerance_mm,
            lesions=tuple(split_names(lesions)),
            min_iou=min_iou,
            unknown=unknown,
            config=settings,
            progress=lambda done, total: console.progress("evaluate", done, total, ""),
        )
        report = out / write_mask_table_report(evaluation, table, stage / "report.html").name
    plain = plain_figures(evaluation)
    files = {"figures": str(out / "figures.json"), "cases": str(out / "cases.csv"), "report": str(report)}
    return {**next(iter(plain["structures"].values())), **plain, **files}


def _settings(config: Any, unit: str | None, aggregate: str | None, assignments: list[str] | None) -> Any:
    """Evaluation section of ``config`` with what the command line changes."""
    from lepton_vision.errors import ConfigError

    for assignment in assignments or ():
        if not assignment.strip().startswith("evaluation."):
            raise ConfigError(f"--set takes evaluation.key=value here. Received: {assignment!r}.", key="set")
    changes = {"evaluation.unit": unit, "evaluation.aggregation": aggregate}
    stated = [f"{key}={value}" for key, value in changes.items() if value is not None]
    return config.override(*stated, *(assignments or ())).evaluation


def _evaluate_table(
    predictions: Path,
    out: Path,
    threshold: float,
    settings: Any,
    validation: Path | None,
    about: dict[str, str] | None,
    told: tuple[str, Sequence[str], str],
) -> tuple[Any, Path]:
    from lepton_vision.errors import ConfigError
    from lepton_vision.evaluation import evaluate, fit_aggregation
    from lepton_vision.files import check_folder, new_results
    from lepton_vision.pipeline.case_points import stated_point
    from lepton_vision.pipeline.results import table_look, write_results
    from lepton_vision.predictions import Predictions
    from lepton_vision.predictions.stated_targets import stated_targets, table_subgroups

    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"--threshold is a probability from 0 to 1. Received: {threshold:g}.", key="threshold")
    check_folder(out, what="results folder")
    named = parse_columns(told[0])
    targets = stated_targets(predictions, told[1], columns=named)
    table = Predictions.load(predictions, columns=named, targets=targets)
    groups = table_subgroups(predictions, split_names(told[2]), columns=named)
    learnt = None
    if settings.aggregation == "learnt" and settings.unit != "image":
        if validation is None:
            raise ConfigError("--aggregate learnt needs --validation: predictions to fit it on.", key="validation")
        learnt = fit_aggregation(Predictions.load(validation, columns=named, targets=targets), unit=settings.unit)
    point = stated_point(table.targets, threshold=threshold)
    evaluation = evaluate(table, operating_point=point, config=settings, aggregation=learnt, columns=groups or None)
    with table_look(evaluation, table, out, table=predictions) as evaluation, new_results(out) as stage:
        return evaluation, out / write_results(evaluation, table, stage, about=about).name


def _options(bundle: Any, by: str, external: bool, reference: Path | None, about: dict[str, str] | None) -> Any:
    """The ledger is that of the folder above the bundle: the run's."""
    from lepton_vision.pipeline.classes import EvaluationOptions

    return EvaluationOptions(
        tuple(split_names(by)), external, reference, run_dir=Path(bundle).absolute().parent, about=about or {}
    )


def _evaluate_split(
    bundle: Any, manifest: Any, part: str, out: Path, device: str, options: Any, console: Any, changes: Any
) -> dict[str, Any]:
    from lepton_vision.errors import ConfigError, nearest
    from lepton_vision.manifest import Manifest
    from lepton_vision.models import Bundle
    from lepton_vision.pipeline import evaluate_bundle
    from lepton_vision.types import SPLITS

    if part not in SPLITS:
        raise ConfigError(f"Unknown split {part!r}. {nearest(part, list(SPLITS))}", key="split")
    loaded, table = Bundle.load(bundle), Manifest.load(manifest)
    options = replace(options, settings=_settings(loaded.config, *changes))
    found = evaluate_bundle(
        loaded, table, split=part, out=out, device=device, progress=console.progress, options=options
    )
    return split_figures(found)


def export_mask(
    mask: Annotated[Path, typer.Argument(help="Label mask on the grid of the source: NIfTI, PNG or npz.")],
    source: Annotated[Path, typer.Option(help="Image that it lies on: a file, or a folder with a DICOM series.")],
    out: Annotated[Path, typer.Option(help="File to write: .png, .nii.gz, .nii, or .dcm (holds patient data).")],
    structures: Annotated[str, typer.Option(help="name=value, … in the order of the labels written.")] = "mask=1",
    series: Annotated[str | None, typer.Option(help="Id of the series, where the folder holds several.")] = None,
    code: Annotated[
        list[str] | None, typer.Option(help="For .dcm: what a structure is: name=value,scheme,meaning; repeat it.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="For .dcm: of which kind it is: name=value,scheme,meaning; repeat it.")
    ] = None,
    bundle_id: Annotated[str, typer.Option(help="For .dcm: bundle that predicted the mask.")] = "",
    algorithm_type: Annotated[
        str,
        typer.Option(
            help="For .dcm: automatic, semiautomatic or manual.",
            autocompletion=one_of("automatic", "semiautomatic", "manual"),
        ),
    ] = "automatic",
    algorithm_name: Annotated[str, typer.Option(help="For .dcm: who or what made the mask.")] = "",
    as_json: Json = False,
) -> None:
    """Write a mask as PNG, NIfTI or DICOM Segmentation.

    Refused where it does not lie on the grid of its source.
    """
    from lepton_vision.evaluation.masks.table import parse_structures
    from lepton_vision.scoring import SegmentationInfo
    from lepton_vision.scoring import export_mask as export

    check_choice("algorithm-type", algorithm_type, ("automatic", "semiautomatic", "manual"))
    info = SegmentationInfo(
        bundle_id=bundle_id,
        codes=parse_codes("code", code or ()),
        categories=parse_codes("category", category or ()),
        algorithm_type=algorithm_type.upper(),  # type: ignore[arg-type]
        algorithm_name=algorithm_name,
    )
    result = export(mask, out, source=source, structures=parse_structures(structures), series=series, info=info)
    print_facts(result.to_dict(), as_json=as_json)
