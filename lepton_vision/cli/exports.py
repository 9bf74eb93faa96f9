"""Command that exports a bundle for other programs, registered by ``cli.app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_vision.cli.completion import of_split, one_of
from lepton_vision.cli.options import Json, check_choice, print_facts


def export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle of images.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml (weights beside it as .bin).")],
    to: Annotated[
        str, typer.Option("--to", "--format", help="onnx or openvino.", autocompletion=one_of("onnx", "openvino"))
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="8 bits: refused where the AUROC on labelled images changes.")
    ] = False,
    manifest: Annotated[
        Path | None, typer.Option(help="With --int8: images to fit the ranges to, and labelled ones to judge on.")
    ] = None,
    calibrate_on: Annotated[
        str, typer.Option(help="Split that the ranges are fitted to.", autocompletion=of_split)
    ] = "train",
    judge_on: Annotated[str, typer.Option(help="Split that decides.", autocompletion=of_split)] = "val",
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest change of an AUROC.")] = 0.002,
    as_json: Json = False,
) -> None:
    """Write a bundle as a file of ONNX or OpenVINO.

    Preprocessed pixels go in, probabilities come out; it is compared with torch first.
    """
    from lepton_vision.errors import ConfigError
    from lepton_vision.inference.runtimes.export import export_bundle
    from lepton_vision.manifest import Manifest
    from lepton_vision.models import Bundle
    from lepton_vision.pipeline.int8 import export_int8
    from lepton_vision.types import SPLITS

    check_choice("to", to, ("onnx", "openvino"))
    for name, split in (("calibrate-on", calibrate_on), ("judge-on", judge_on)):
        check_choice(name, split, SPLITS)
    if int8 != (manifest is not None):
        raise ConfigError("--int8 and --manifest go together: one says what, the other on which images.", key="int8")
    loaded = Bundle.load(bundle)
    facts: dict[str, Any] = {"file": str(out), "bundle_id": loaded.bundle_id}
    if manifest is None:
        facts["difference"] = export_bundle(loaded, out, to=to)  # type: ignore[arg-type]
    else:
        facts |= export_int8(
            loaded,
            out,
            to=to,  # type: ignore[arg-type]
            manifest=Manifest.load(manifest),
            calibrate_on=calibrate_on,  # type: ignore[arg-type]
            judge_on=judge_on,  # type: ignore[arg-type]
            tolerance=tolerance,
        )
    print_facts(facts, as_json=as_json)
