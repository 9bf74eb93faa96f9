"""Command ``score``: bulk inference with a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_vision.cli.completion import of_gaps, of_tilt, one_of
from lepton_vision.cli.options import Device, Json, check_choice, parse_codes, print_facts, split_names

if TYPE_CHECKING:
    from lepton_vision.readers.limits import Limits
    from lepton_vision.scoring.summary import ScoreSummary

_FORMATS = "auto (NIfTI for volumes, PNG for images), nifti, png, or dicom (holds patient data)."
_INPUTS = "File, folder, glob pattern, manifest, archive, DICOMDIR or URL; - reads a list; may be repeated."
_CODES = "For --dicom-sr: what a finding is: name=value,scheme,meaning, e.g. covid=840539006,SCT,COVID-19; repeat it."
_BATCH = "Images per step of the model; default 32, for volumes as in training."
_ENGINES = "auto (the fastest here), torch, torch-compile, openvino, onnx, or a file of export (.onnx, .xml)."
_ON = "here, or ray: actors of a Ray cluster, a process for each CPU; what is lost is done again."
_KINDS = "What else is scored, with commas: segmentation, localizer, secondary_capture …; default: as in training."
_BYTES = "GiB of a file, of a member of an archive, or of what they inflate to."
_TOLERATED = 0.05  # share of failed rows at the end of a run that was given no limit
_SAMPLES = "Millions of samples (rows x columns x channels x frames) of an input."
_CHOICES = {
    "engine": ("auto", "torch", "torch-compile", "openvino", "onnx"),
    "mask-format": ("auto", "nifti", "png", "dicom"),
    "format": ("parquet", "csv"),
    "on": ("here", "ray"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}

Bundle = Annotated[Path, typer.Option(help="Folder of a bundle.")]
Named = Annotated[list[str], typer.Option("--input", help=_INPUTS)]
Output = Annotated[Path, typer.Option(help="Folder of the shards.")]
Masks = Annotated[Path | None, typer.Option(help="Folder for predicted masks, each on the grid of its source.")]
MaskFormat = Annotated[str, typer.Option(help=_FORMATS, autocompletion=one_of(*_CHOICES["mask-format"]))]
Reports = Annotated[Path | None, typer.Option("--dicom-sr", help="Folder for DICOM reports (they hold patient data).")]
Codes = Annotated[list[str] | None, typer.Option("--sr-code", help=_CODES)]
Cams = Annotated[bool, typer.Option("--dicom-cam", help="With --dicom-sr: Grad-CAM of what is detected, as pictures.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Keep rows that are there, or start over.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Score again what failed; its old rows are set aside.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads that read ahead.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help=_BATCH)]
Engine = Annotated[str, typer.Option(help=_ENGINES, autocompletion=one_of(*_CHOICES["engine"]))]
Precision = Annotated[
    str, typer.Option(help="auto, fp32, bf16 or fp16.", autocompletion=one_of(*_CHOICES["precision"]))
]
Format = Annotated[str, typer.Option("--format", help="parquet or csv.", autocompletion=one_of(*_CHOICES["format"]))]
ShardRows = Annotated[int, typer.Option(min=1, help="Rows of a shard: what a killed run has to score again.")]
MaxFailures = Annotated[
    float | None,
    typer.Option(
        help="Largest tolerated share of failed rows, past which a run is stopped. Without it 0.05, judged at its end."
    ),
]
PathMap = Annotated[Path | None, typer.Option(help="Also write path_id → path here, readable by you alone.")]
On = Annotated[str, typer.Option("--on", help=_ON, autocompletion=one_of(*_CHOICES["on"]))]
Address = Annotated[str, typer.Option(help="With --on ray: of the cluster, e.g. auto; else one on this machine.")]
Include = Annotated[str | None, typer.Option(help=_KINDS)]
FileGb = Annotated[float, typer.Option(min=0.0, help=_BYTES)]
ArchiveGb = Annotated[float, typer.Option(min=0.0, help="GiB that all members of an archive become.")]
Ratio = Annotated[float, typer.Option(min=1.0, help="Times its size that an archive above 256 MiB becomes.")]
Gaps = Annotated[
    str | None,
    typer.Option(
        help="Missing slices of a series: refuse or fill; default of the bundle.",
        autocompletion=of_gaps,
    ),
]
Tilt = Annotated[
    str | None,
    typer.Option(help="A tilted gantry: refuse or shear; default of the bundle.", autocompletion=of_tilt),
]
Megapixels = Annotated[float, typer.Option(min=0.0, help=_SAMPLES)]


def score(
    bundle: Bundle,
    inputs: Named,
    output: Output,
    masks: Masks = None,
    mask_format: MaskFormat = "auto",
    dicom_sr: Reports = None,
    sr_code: Codes = None,
    dicom_cam: Cams = False,
    resume: Resume = True,
    retry_failed: Retry = False,
    workers: Workers = 2,
    batch_size: BatchSize = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    file_format: Format = "parquet",
    shard_rows: ShardRows = 2048,
    max_failures: MaxFailures = None,
    path_map: PathMap = None,
    gaps: Gaps = None,
    tilt: Tilt = None,
    on: On = "here",
    ray_address: Address = "",
    include: Include = None,
    max_file_gb: FileGb = 2.0,
    max_archive_gb: ArchiveGb = 32.0,
    max_ratio: Ratio = 100.0,
    max_megapixels: Megapixels = 268.435456,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score files and folders, a row for each image or volume.

    One that cannot be read is a row with the reason.
    """
    from lepton_vision.errors import TooManyFailuresError
    from lepton_vision.scoring.summary import check_failures

    chosen = {"engine": engine, "mask-format": mask_format, "format": file_format, "precision": precision}
    chosen["on"] = on
    for name, value in chosen.items():
        if name != "engine" or not value.endswith((".onnx", ".xml")):
            check_choice(name, value, _CHOICES[name])
    how: dict[str, Any] = {"masks": masks, "mask_format": mask_format, "resume": resume, "workers": workers}
    how |= {"reports": dicom_sr, "report_codes": parse_codes("sr-code", sr_code or ())}
    how["heat_maps"] = dicom_cam
    how |= {"batch_size": batch_size, "engine": engine, "precision": precision, "device": device}
    how |= {"file_format": file_format, "shard_rows": shard_rows, "path_map": path_map}
    how["include"] = None if include is None else split_names(include)
    how |= {"gaps": gaps, "tilt": tilt, "retry_failed": retry_failed, "tune_process": True}
    how["max_failures"] = 1.0 if max_failures is None else max_failures
    how["limits"] = _limits(max_file_gb, max_archive_gb, max_ratio=max_ratio, max_megapixels=max_megapixels)
    if on == "ray":
        how = _cluster_settings(how, ray_address)
    try:
        summary = _score(bundle, inputs, output=output, how=how, quiet=as_json)
        if max_failures is None:
            check_failures(summary, _TOLERATED)
    except TooManyFailuresError as error:
        if error.facts:
            print_facts(error.facts | {"output": str(output)}, as_json=as_json)
        raise
    print_facts(summary.to_dict() | {"output": str(output)}, as_json=as_json)


def _cluster_settings(how: dict[str, Any], address: str) -> dict[str, Any]:
    """Settings of a run on a cluster: those of a run here, on one engine that all machines have."""
    from lepton_vision.scoring.cluster.ray import Cluster

    engine = "torch" if how["engine"] == "auto" else how["engine"]  # machines might each choose another
    if engine.endswith((".onnx", ".xml")):
        engine = str(Path(engine).absolute())
    return how | {"engine": engine, "cluster": Cluster(address)}


def _limits(file_gb: float, archive_gb: float, *, max_ratio: float, max_megapixels: float) -> Limits:
    from lepton_vision.readers.limits import Limits

    return Limits(
        max_pixels=int(max_megapixels * 1e6),
        max_bytes=int(file_gb * 2**30),
        max_archive_bytes=int(archive_gb * 2**30),
        max_ratio=max_ratio,
    )


def _score(bundle: Path, inputs: list[str], *, output: Path, how: dict[str, Any], quiet: bool) -> ScoreSummary:
    from lepton_vision.models import Bundle
    from lepton_vision.progress.bars import Console
    from lepton_vision.scoring.batch import score as run_here
    from lepton_vision.scoring.cluster.ray import score_on_ray
    from lepton_vision.scoring.inputs.inputs import read_names

    loaded = Bundle.load(bundle)
    run: Callable[..., ScoreSummary] = score_on_ray if "cluster" in how else run_here
    with Console(quiet=quiet) as console:
        return run(loaded, read_names(inputs, sys.stdin.buffer), output, progress=_told(console.progress), **how)


def _told(progress: Callable[[str, int, int, str], None]) -> Callable[[int, int, int], None]:
    """What scoring calls, of what the console shows."""
    return lambda done, total, failed: progress("score", done, total, f"{failed} failed")
