"""The command that writes a bundle for other programs. ``cli`` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_vision.cli_options import Json, check_choice, print_facts


def export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle of images.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml (weights beside it as .bin).")],
    to: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    as_json: Json = False,
) -> None:
    """Write a bundle as ONNX or OpenVINO, preprocessed pixels in, probabilities out; compared with torch first."""
    from lepton_vision.inference.export import export_bundle
    from lepton_vision.models import Bundle

    check_choice("to", to, ("onnx", "openvino"))
    loaded = Bundle.load(bundle)
    difference = export_bundle(loaded, out, to=to)  # type: ignore[arg-type]
    print_facts({"file": str(out), "bundle_id": loaded.bundle_id, "difference": difference}, as_json=as_json)
