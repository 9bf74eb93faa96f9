"""Pages of the tables and of the bundle, from the schemas and docstrings of the code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lepton_vision.evaluation.masks.case import MaskFigures
from lepton_vision.evaluation.masks.table import COLUMNS as MASK_COLUMNS
from lepton_vision.evaluation.masks.table import IMAGE_COLUMN, VOLUME_COLUMN
from lepton_vision.manifest.findings import TABLE_COLUMNS as FINDINGS
from lepton_vision.manifest.schema import COLUMNS, MEANINGS
from lepton_vision.models import bundle_files
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.provenance import MEANINGS as PROVENANCE
from lepton_vision.predictions.aggregation import Aggregation
from lepton_vision.predictions.answer_sets import IntervalRule, SetRule
from lepton_vision.predictions.calibration import Calibrator, Isotonic, Platt
from lepton_vision.predictions.column_names import TABLE_COLUMNS
from lepton_vision.predictions.novelty import Novelty
from lepton_vision.predictions.operating_point import OperatingPoint, PointFigures
from lepton_vision.scoring.columns import CASE_COLUMNS, ROW_COLUMNS
from lepton_vision.scoring.rows import case_schema, row_schema
from lepton_vision.types import Target
from lepton_vision.types.columns import Column
from reference_pages.markdown import attributes, code, page, prose, table

TARGETS = (
    Target("TARGET", "binary", ("no", "yes")),
    Target("TARGET", "multilabel", ("CLASS", "other")),
    Target("TARGET", "multiclass", ("CLASS", "other")),
    Target("TARGET", "regression", unit="ml"),
)
_ROWS = """`score` writes a folder of tables, `part-000000.parquet` and so on (or CSV), that pandas, polars and
DuckDB read as one: a row for every image, frame or volume, and one for each input that could not be read. Ids are
keyed pseudonyms, 16 hexadecimal digits. A cell is empty where its column does not hold for the row."""
_CASES = """`_cases/series.parquet`, `_cases/study.parquet` and `_cases/patient.parquet` in the folder of scores
have a row for each series, study or patient whose images have probabilities. Rows of inputs that were scored
again because their files had changed move to `_superseded/`, with the same columns."""
_MANIFEST = """`scan` and `split` write a manifest: a row for every file, frame or volume, the rejected ones too.
Columns of labels, and further ones of a label table, stand behind these under their own names."""
_PREDICTIONS = """`evaluate` writes `predictions.csv`, or `predictions.parquet` where there are many cells;
`evaluate --predictions` and `compare` read such tables, and those of other tools with `image_id`, `patient_id`,
`y_true` and `y_prob`. What is known of the whole table (targets, split, bundle, preprocessing, failures, check
value of the id key) stands in `NAME.csv.json` beside a CSV, and in the metadata of a Parquet file; it may be
missing."""
_MASKS = """`evaluate --masks` and the evaluation of a bundle with a segmentation head write `cases.csv`: a row
for each structure of each case. `volumes.csv` has the same columns for the volumes that 2-D cases are slices of,
with the counted voxels `voxels_shared`, `voxels_truth` and `voxels_prediction`."""
_LESIONS = (
    ("lesions", "whole number", "components of the truth; where lesions are counted (`segmentation.lesions`)"),
    ("found", "whole number", "of these, hit by a candidate"),
    ("candidates", "whole number", "components of the prediction"),
    ("false", "whole number", "of these, without a lesion"),
)
_FINDINGS = """`audit --out findings.csv` (or `.parquet`) lists every image of every finding, for its owner alone
(mode 0600)."""
_GIVEN = """The table that `evaluate --masks` reads has these columns; paths are relative to the table:"""
_IN = {
    "image_id": "unique id of the case",
    "patient_id": "the patient; may be blank",
    "truth": "mask file of the truth",
    "prediction": "mask file of the prediction",
    IMAGE_COLUMN: "may be left out: image below the masks in pictures, a file or the folder of a series",
    VOLUME_COLUMN: "may be left out: the volume that a 2-D case is a slice of",
}


def rows() -> str:
    """The page of the tables that are written and read."""
    head = ("column", "type", "filled", "unit", "meaning")
    manifest = [(code(name), _dtype(dtype), prose(MEANINGS[name])) for name, dtype in COLUMNS.items()]
    cases = [
        (code("image_id"), "text", "the case"),
        (code("patient_id"), "text", "its patient"),
        (code("volume_id"), "text", "the volume that it is a slice of, where it is one"),
        (code("structure"), "text", "the structure"),
        *(row for row in attributes(MaskFigures) if row[0].strip("`") not in ("reasons", "voxels", "lesions")),
        *((code(f"lesions_{name}"), kind, text) for name, kind, text in _LESIONS),
        (code("reason"), "text", "why figures are undefined, or why the case could not be read"),
    ]
    return page(
        "Tables",
        "Columns of the tables of scores, manifests, predictions and masks.",
        *("## Rows of scores", _ROWS, table(head, _described(ROW_COLUMNS, _row_types()))),
        *("## Rows of series, studies and patients", _CASES, table(head, _described(CASE_COLUMNS, _case_types()))),
        *("## Manifest", _MANIFEST, table(("column", "type", "meaning"), manifest)),
        *("## Findings of an audit", _FINDINGS, table(("column", "filled", "unit", "meaning"), _untyped(FINDINGS))),
        *("## Predictions", _PREDICTIONS, table(("column", "filled", "unit", "meaning"), _untyped(TABLE_COLUMNS))),
        *("## Masks", _MASKS, table(("column", "type", "meaning"), cases)),
        *(
            _GIVEN,
            table(("column", "meaning"), [(code(k), _IN[k]) for k in (*MASK_COLUMNS, IMAGE_COLUMN, VOLUME_COLUMN)]),
        ),
    )


def _described(columns: Iterable[Column], types: dict[str, str]) -> list[tuple[str, ...]]:
    return [(code(c.name), types[c.name], prose(c.filled), prose(c.unit), prose(c.meaning)) for c in columns]


def _untyped(columns: Iterable[Column]) -> list[tuple[str, ...]]:
    return [(code(c.name), prose(c.filled), prose(c.unit), prose(c.meaning)) for c in columns]


def _dtype(dtype: Any) -> str:
    text = "text" if "string" in str(dtype) else str(dtype)
    return {"Int64": "whole number", "float64": "number", "boolean": "true or false"}.get(text, text)


def _row_types() -> dict[str, str]:
    found: dict[str, str] = {}
    for target in TARGETS:
        how: dict[str, Any] = {"sets": [target.name], "has_novelty": True, "has_reports": True, "has_repairs": True}
        for schema in (
            row_schema((target,), measures=[f"STRUCTURE_{u}" for u in ("ml", "mm2")], **how),
            _second(target),
        ):
            found |= {_pattern(one.name): _arrow(one.type) for one in schema}
    return found


def _case_types() -> dict[str, str]:
    found: dict[str, str] = {}
    for target in TARGETS:
        second = case_schema((TARGETS[0], target), unit="series", has_novelty=True)
        found |= {_pattern(one.name): _arrow(one.type) for one in second}
    return found


def _second(target: Target) -> Any:
    """Columns where the target is the second one."""
    return row_schema((Target("first", "binary", ("no", "yes")), target))


def _pattern(name: str) -> str:
    for word in ("TARGET", "CLASS", "STRUCTURE"):
        name = name.replace(word, f"<{word.lower()}>")
    return name


def _arrow(kind: Any) -> str:
    return {"string": "text", "double": "number", "int64": "whole number", "bool": "true or false"}[str(kind)]


_BUNDLE = f"""A bundle is a folder of two files. Neither can hold code, so a bundle from elsewhere may be opened;
every byte is checked against checksums when it is loaded. The format has version {bundle_files.VERSION}.

| file | holds |
| --- | --- |
| `{bundle_files.WEIGHTS}` | the weights of the network as tensors, and the arrays of `novelty` with that prefix |
| `{bundle_files.FACTS}` | everything else, as JSON |

`Bundle.load(folder)` reads it, `bundle.save(folder)` writes it whole or not at all, `lepton-vision inspect
FOLDER` shows it. `bundle_id` changes with whatever changes a prediction or a decision, and with nothing else."""
_FURTHER = {
    "channels": "channels of the network's input",
    "encoder": "for an encoder of another package: its name, module, distribution and version",
    "state": "",
}
_INNER = (OperatingPoint, PointFigures, SetRule, IntervalRule, Calibrator, Platt, Isotonic, Novelty, Aggregation)
_WHERE = {
    OperatingPoint: "operating_point",
    PointFigures: "each of operating_point.figures",
    SetRule: "each of set_rules, of classes",
    IntervalRule: "each of set_rules, of a number",
    Calibrator: "each of calibrators",
    Platt: "each of calibrators.maps, of the method platt",
    Isotonic: "each of calibrators.maps, of the method isotonic",
    Novelty: "novelty (k as a key, the others as tensors)",
    Aggregation: "provenance.unit_of_analysis.learnt",
}


def bundle() -> str:
    """The page of the bundle."""
    known = {name.strip("`"): text for name, _, text in attributes(Bundle)}
    names = [name for name in known if name not in ("state", "run_dir")]
    keys = [(code(name), known[name]) for name in names] + [(code(k), v) for k, v in _FURTHER.items() if v]
    keys += [(code(name), text) for name, text in bundle_files.SEALS.items()]
    inner = []
    for one in _INNER:
        inner += [f"### {_WHERE[one]}", table(("key", "type", "meaning"), attributes(one))]
    return page(
        "Bundle",
        _BUNDLE,
        *("## Keys of bundle.json", table(("key", "meaning"), keys)),
        "`config` has the keys of the [configuration](configuration.md); of folders and paths it has the last part.",
        *("## Provenance", table(("key", "meaning"), [(code(k), prose(v)) for k, v in PROVENANCE.items()])),
        *("## Keys inside", *inner),
    )
