"""Help of the command line: commands in groups along the data path, each with examples."""

from __future__ import annotations

from typing import Any

import typer.core

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Try": {"demo": ("lepton-vision demo", "lepton-vision demo --out small --patients 40 --epochs 2")},
    "Data": {
        "scan": (
            "lepton-vision scan data/ct --labels labels.csv --out all.parquet",
            "lepton-vision scan data/ct --volumes --out all.parquet",
        ),
        "inspect": ("lepton-vision inspect data/ct/1.dcm", "lepton-vision inspect data/ct --series"),
        "split": ("lepton-vision split all.parquet --out split.parquet --seed 0",),
        "audit": ("lepton-vision audit split.parquet --fail-on leakage,conflict",),
    },
    "Train and evaluate": {
        "train": (
            "lepton-vision train --manifest split.parquet --config ct.yaml --run-dir run",
            "lepton-vision train --manifest split.parquet --run-dir run --set train.epochs=10",
        ),
        "evaluate": (
            "lepton-vision evaluate --bundle run/bundle --manifest split.parquet --out e",
            "lepton-vision evaluate --predictions other_tool.csv --out report",
        ),
        "run": ("lepton-vision run --source data/ct --config ct.yaml --run-dir run2",),
    },
    "Use": {
        "score": ("lepton-vision score --bundle run/bundle --input inbox --output scores",),
        "export": ("lepton-vision export run/bundle --out model.onnx",),
        "export-mask": ("lepton-vision export-mask mask.png --source 1.dcm --out mask.dcm",),
    },
    "Compare and plan": {
        "compare": ("lepton-vision compare ours.csv theirs.csv --out comparison",),
        "plan": ("lepton-vision plan --figure auroc --expected 0.9 --width 0.1 --prevalence 0.2",),
    },
    "This machine": {"doctor": ("lepton-vision doctor", "lepton-vision doctor --json")},
}
"""Commands by group, and their examples; the first of each stands in the help of the whole."""


def shown(name: str) -> dict[str, Any]:
    """Name and examples of a command, for ``typer.Typer.command``."""
    examples = next(commands[name] for commands in GROUPS.values() if name in commands)
    lines = "\n".join(f"  {example}" for example in examples)
    return {"name": name, "epilog": f"\b\nExample{'s' if len(examples) > 1 else ''}:\n{lines}"}


class Commands(typer.core.TyperGroup):
    """Commands under the headings of ``GROUPS``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group: what its commands do, then how they are called."""
        widest = max(map(len, self.commands))
        for group, examples in GROUPS.items():
            rows = [
                (f"{name:<{widest}}", self.commands[name].get_short_help_str(formatter.width - widest - 4))
                for name in examples
            ]
            with formatter.section(group):
                formatter.write_dl(rows)
                formatter.write_paragraph()
                for lines in examples.values():
                    formatter.write(f"{'':>{formatter.current_indent}}{lines[0]}\n")
