"""Command-line application: thin commands over the library's functions, with heavy imports inside the commands.

Data goes to files or, with --json, as one object to stdout; progress and messages go to stderr. Exit codes are those of
``exit_codes``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_vision.cli import completion
from lepton_vision.cli.completion import of_gaps, of_tilt, setting
from lepton_vision.cli.evaluation import evaluate, export_mask
from lepton_vision.cli.exports import export
from lepton_vision.cli.help import Commands, shown
from lepton_vision.cli.machine import doctor
from lepton_vision.cli.options import (
    Device,
    Json,
    check_choice,
    print_facts,
    run_to_end,
    split_names,
    warnings_on_stderr,
)
from lepton_vision.cli.scoring import score
from lepton_vision.cli.statistics import compare, plan

_CHANNELS = "Of NIfTI: components in order (flair,t1w), or endings of the files of a case (_0000,_0001 or t1w=_0000)."
_INCLUDE = "Samples too: segmentation, localizer, secondary_capture, parametric_map, dose, mask_file; with commas."
_TILT = "With --volumes, a tilted gantry: refuse the series, or shear it straight."
_SHOW = "Print the completion script of bash, zsh, fish or powershell."
_INSTALL = "Let that shell complete commands, from its next start on."
_GAPS = "With --volumes, missing slices: refuse the series, or fill them in by interpolation."

app = typer.Typer(
    name="lepton-vision",
    help="Medical image classification from DICOM to an honest test result.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,  # typer's own guesses the shell
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML configuration.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.", autocompletion=setting)
]
Labels = Annotated[Path | None, typer.Option("--labels", help="Label table (CSV or Parquet).")]
PatientFrom = Annotated[
    str | None,
    typer.Option(
        "--patient-from", help="Column, or regular expression of the relative path, that names the patient of an image."
    ),
]


@app.command(**shown("demo"))
def demo(
    out: Annotated[Path, typer.Option(help="Folder that everything is written to.")] = Path("demo-run"),
    patients: Annotated[int, typer.Option(min=20, help="Patients in the synthetic study.")] = 180,
    seed: Annotated[int, typer.Option(help="Seed of the study, the split and the training.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 8,
    as_json: Json = False,
) -> None:
    """Run the whole path on a synthetic DICOM study.

    It is written, scanned, split, trained on and evaluated, and an inbox with damaged files is scored.
    """
    from lepton_vision.demo import run_demo
    from lepton_vision.models.allocator import keep_freed_memory
    from lepton_vision.progress.bars import Console

    keep_freed_memory()
    with Console(quiet=as_json) as console:
        result = run_demo(out, patients=patients, seed=seed, epochs=epochs, progress=console.progress)
    print_facts(result, as_json=as_json)


@app.command(**shown("scan"))
def scan(
    folder: Annotated[Path, typer.Argument(help="Folder of images, or an .npz file with official splits.")],
    out: Annotated[Path, typer.Option(help="Manifest to write (.parquet or .csv).")],
    labels: Labels = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; default one per core.")] = None,
    volumes: Annotated[bool, typer.Option("--volumes", help="Each DICOM series is one row.")] = False,
    include: Annotated[str, typer.Option(help=_INCLUDE)] = "",
    channels: Annotated[str, typer.Option(help=_CHANNELS)] = "",
    patient_from: PatientFrom = None,
    tilt: Annotated[str, typer.Option(help=_TILT, autocompletion=of_tilt)] = "refuse",
    gaps: Annotated[str, typer.Option(help=_GAPS, autocompletion=of_gaps)] = "refuse",
    as_json: Json = False,
) -> None:
    """Read every file of a folder into a manifest. A rejected file is a row with a reason."""
    from lepton_vision.manifest.storage import check_output
    from lepton_vision.pipeline.facts import count_patients, data_flow
    from lepton_vision.pipeline.prepare import scan_source
    from lepton_vision.progress.bars import Console

    check_output(out)
    with Console(quiet=as_json) as console:
        manifest = scan_source(
            folder,
            labels=labels,
            workers=workers,
            volumes=volumes,
            include=split_names(include),
            channels=split_names(channels),
            patient_from=patient_from,
            tilt=tilt,
            gaps=gaps,
            progress=console.progress,
        )
    manifest.save(out)
    flow = data_flow(manifest, ())
    facts = {"rows": flow["rows"], "rejected": flow["rejected"], **count_patients(manifest), "manifest": str(out)}
    print_facts(facts, as_json=as_json)


@app.command(**shown("audit"))
def audit(
    manifest: Annotated[Path, typer.Argument(help="Manifest (.parquet or .csv).")],
    fail_on: Annotated[
        str, typer.Option(help="Findings that fail, e.g. leakage,conflict,unknown_patient; or none.")
    ] = "leakage",
    out: Annotated[
        Path | None, typer.Option(help="Table of every finding with its rows and paths (.csv or .parquet).")
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Search a manifest for leaks, duplicates and conflicts.

    Leaks are patients and images in two splits. Equal findings are one line.
    """
    from lepton_vision.manifest import Manifest, audit_manifest
    from lepton_vision.manifest.findings import KINDS, check_output

    if out is not None:
        check_output(out)
    kinds = [kind for kind in split_names(fail_on) if kind != "none"]
    for kind in kinds:
        check_choice("fail-on", kind, KINDS)
    result = audit_manifest(Manifest.load(manifest), _load_config(config, assignments))
    if out is not None:
        result.save(out)
    print_facts(result.to_dict(with_paths=True) if as_json else result.summary(), as_json=as_json)
    result.raise_on(kinds)


@app.command(**shown("split"))
def split(
    manifest: Annotated[Path, typer.Argument(help="Manifest (.parquet or .csv).")],
    out: Annotated[Path, typer.Option(help="Manifest to write.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the division.")] = None,
    folds: Annotated[int | None, typer.Option(help="Also write K patient-grouped folds.")] = None,
    redraw: Annotated[bool, typer.Option("--redraw", help="Forget given splits, official ones too.")] = False,
    patient_from: PatientFrom = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Divide patients into train, val and test. Official splits are kept and checked."""
    from lepton_vision.manifest import Manifest, split_manifest
    from lepton_vision.manifest.mask_values import warn_of_masks
    from lepton_vision.manifest.storage import check_output
    from lepton_vision.pipeline.facts import data_flow
    from lepton_vision.pipeline.prepare import with_targets

    check_output(out)
    settings = _load_config(config, assignments)
    for key, value in (("seed", seed), ("folds", folds)):
        settings = settings if value is None else settings.override(f"split.{key}={value}")
    table = Manifest.load(manifest)
    table = table if patient_from is None else table.with_patients(patient_from)
    settings = with_targets(settings, table)
    table = split_manifest(table, settings.split, targets=settings.targets, redraw=redraw)
    warn_of_masks(table, settings.segmentation)
    table.save(out)
    print_facts(data_flow(table, settings.targets)["splits"], as_json=as_json)


@app.command(**shown("train"))
def train(
    manifest: Annotated[Path, typer.Option(help="Manifest with splits.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of the run.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    init_from: Annotated[Path | None, typer.Option(help="Bundle whose encoder is the start.")] = None,
    tilt: Annotated[str | None, typer.Option(help="As volume.tilt.")] = None,
    gaps: Annotated[str | None, typer.Option(help="As volume.gaps.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train on the train split and choose on val. Splits that leak stop it with exit code 1."""
    from lepton_vision.manifest import Manifest
    from lepton_vision.pipeline import fit
    from lepton_vision.pipeline.facts import choices_of
    from lepton_vision.progress.bars import Console
    from lepton_vision.training.distributed import is_main_process

    start = [] if init_from is None else ["model.weights=none", f"model.init_from={json.dumps(str(init_from))}"]
    settings = _load_config(config, [*(assignments or ()), *start], tilt=tilt, gaps=gaps)
    table = Manifest.load(manifest)
    with Console(quiet=as_json) as console:
        how: dict[str, Any] = {"resume": resume, "device": device, "tune_process": True}
        bundle = fit(settings, table, run_dir=run_dir, progress=console.progress, **how)
    facts = {"bundle": str(run_dir / "bundle"), "bundle_id": bundle.bundle_id, **choices_of(bundle)}
    facts |= dict(bundle.provenance["validation"])
    facts |= {key: bundle.provenance[key] for key in ("not_validated", "kept_epoch") if key in bundle.provenance}
    if is_main_process():
        print_facts(facts, as_json=as_json)


app.command(**shown("evaluate"))(evaluate)


@app.command(**shown("run"))
def run(
    source: Annotated[Path, typer.Option(help="Folder, .npz file or manifest.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of the runs.")],
    config: ConfigFile = None,
    labels: Labels = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds; one run each.")] = "0",
    folds: Annotated[
        int, typer.Option(help="Above 1: k-fold cross-validation over all rows instead of a test split.")
    ] = 0,
    patient_from: PatientFrom = None,
    assignments: Assignments = None,
    tilt: Annotated[str | None, typer.Option(help="As volume.tilt.")] = None,
    gaps: Annotated[str | None, typer.Option(help="As volume.gaps.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoints.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Go from files to a report in one command.

    Scan, split, audit, train, choose and evaluate, once or over several seeds or folds.
    """
    from lepton_vision.errors import ConfigError
    from lepton_vision.models.allocator import keep_freed_memory
    from lepton_vision.pipeline.folds import run_seeds
    from lepton_vision.progress.bars import Console

    try:
        numbers = [int(text) for text in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds takes whole numbers with commas. Received: {seeds!r}.", key="seeds") from None
    settings = _load_config(config, assignments, tilt=tilt, gaps=gaps)
    keep_freed_memory()
    with Console(quiet=as_json) as console:
        result = run_seeds(
            settings,
            source,
            labels=labels,
            patient_from=patient_from,
            run_dir=run_dir,
            seeds=numbers,
            folds=folds,
            resume=resume,
            device=device,
            progress=console.progress,
        )
    print_facts(result, as_json=as_json)


app.command(**shown("score"))(score)


@app.command(**shown("inspect"))
def inspect(
    path: Annotated[
        Path, typer.Argument(help="An image, a folder with a DICOM series or scores, a bundle or a manifest.")
    ],
    series: Annotated[bool, typer.Option("--series", help="List the DICOM series below a folder.")] = False,
    channels: Annotated[str, typer.Option(help=_CHANNELS)] = "",
    as_json: Json = False,
) -> None:
    """Print the facts of an image, series, manifest or bundle. Of scores too; no patient data."""
    from lepton_vision.pipeline.facts import inspect_path, list_series

    facts = list_series(path) if series else inspect_path(path, channels=split_names(channels))
    print_facts(facts, as_json=as_json)


def _load_config(
    path: Path | None, assignments: list[str] | None, *, tilt: str | None = None, gaps: str | None = None
) -> Any:
    from lepton_vision.config import Config
    from lepton_vision.errors import ConfigError

    config = Config() if path is None else Config.from_yaml(path)
    config = config.override(*(assignments or ()))
    for key, value in (("tilt", tilt), ("gaps", gaps)):
        if value is not None and not config.is_volume:
            raise ConfigError(
                f"--{key} is for volumes. Received: a configuration without a section volume. Set volume.view.", key=key
            )
        config = config if value is None else config.override(f"volume.{key}={value}")
    return config


app.command(**shown("export"))(export)
app.command(**shown("export-mask"))(export_mask)
app.command(**shown("compare"))(compare)
app.command(**shown("plan"))(plan)
app.command(**shown("doctor"))(doctor)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    show: Annotated[str, typer.Option("--show-completion", metavar="SHELL", help=_SHOW)] = "",
    install: Annotated[str, typer.Option("--install-completion", metavar="SHELL", help=_INSTALL)] = "",
) -> None:
    context.with_resource(warnings_on_stderr())
    if show or install:
        check_choice("show-completion" if show else "install-completion", show or install, completion.SHELLS)
        print(completion.script(show) if show else f"Written to {completion.install(install)}: start the shell again.")
        raise typer.Exit
    if version:
        from lepton_vision._version import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every error becomes one message and its exit code, see ``run_to_end``."""
    completion.begin()
    sys.exit(run_to_end(app))


if __name__ == "__main__":
    main()
