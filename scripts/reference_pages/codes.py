"""Pages of the reason codes and of the public names."""

from __future__ import annotations

import importlib
import inspect
from typing import get_args

import lepton_vision
from lepton_vision.errors import ReadError
from lepton_vision.manifest.findings import KINDS
from lepton_vision.manifest.findings import MEANINGS as FINDINGS
from lepton_vision.types import ObjectKind
from lepton_vision.types.reasons import FILE_REASONS, FURTHER_REASONS, READ_REASONS, UNFORESEEN, Reason
from reference_pages.markdown import code, page, prose, table

_LEAD = """A reason code says why a file has no image, a row no score, a score no mask or report. It stands in the
column `reason` of manifests and scores, in `mask_reason` and `report_reason`, and in `ReadError.reason`. The
sentence that an error carries says more. In `cases.csv` of masks the file stands before it: `truth: truncated`."""
_LEFT_OUT = """In scores, rows with one of these codes have the status `left_out`: they are no images to classify,
which is no failure. The same holds for files of a DICOM series that are no slices of it."""
_UNFORESEEN = f"""`{UNFORESEEN}:TYPE` means that an error of that type ended this input, and no other one: report
it with the file, if it may be shared."""
_AUDIT = """`audit` sorts what it finds into these kinds; `--fail-on` takes them."""


def reason_codes() -> str:
    """The page of reason codes."""
    left_out = ", ".join(code(one) for one in sorted({*get_args(ObjectKind), "no_pixels"}))
    return page(
        "Reason codes",
        _LEAD,
        *("## Reading", _table(READ_REASONS)),
        *("## Rows and failures", _table(FURTHER_REASONS), _UNFORESEEN),
        *(
            "## Masks and reports",
            "Any code above, and these; `mask_` before a code of reading says that the mask itself has that fault:",
            _table(FILE_REASONS),
        ),
        *("## Left out", _LEFT_OUT, left_out + "."),
        *("## Findings of an audit", _AUDIT),
        table(("kind", "meaning"), [(code(kind), prose(FINDINGS[kind])) for kind in KINDS]),
    )


def _table(reasons: dict[str, Reason]) -> str:
    rows = [(code(name), prose(one.meaning), prose(one.advice), _page(name)) for name, one in sorted(reasons.items())]
    return table(("code", "meaning", "what to do", "page"), rows)


def _page(reason: str) -> str:
    """Link to the page that an error of this reason names, but for this one."""
    if reason not in READ_REASONS:
        return ""
    page = ReadError("", reason=reason).page.removeprefix("docs/").removesuffix(".md")
    return "" if page == "reference/reason-codes" else f"[{page.rpartition('/')[2].replace('-', ' ')}](../{page}.md)"


STAGES = {
    "readers": "Readers",
    "manifest": "Manifest",
    "transforms": "Transforms",
    "models": "Models",
    "training": "Training",
    "predictions": "Predictions",
    "inference": "Inference",
    "evaluation": "Evaluation",
    "reporting": "Reporting",
    "scoring": "Scoring",
    "pipeline": "Pipeline",
    "demo": "Demonstration",
    "config": "Configuration",
    "types": "Types",
    "errors": "Errors",
}
_API = """Names of `import lepton_vision as lv`, and those that its stages have beside them, in the order of the
data path: `lv.fit` is what most people need, `lepton_vision.evaluation.froc` what a few do. `help(lv.fit)` shows
the same text."""
_ELSEWHERE = {"config": "Sections and their keys stand in [Configuration](configuration.md)."}


def api() -> str:
    """The page of public names."""
    face = {name: _home(getattr(lepton_vision, name)) for name in lepton_vision.__all__ if name != "__version__"}
    parts = []
    for stage, title in STAGES.items():
        names = {name: f"lepton_vision.{name}" for name, home in face.items() if home == stage}
        package = importlib.import_module(f"lepton_vision.{stage}")
        for name in getattr(package, "__all__", ()):
            if _is_described(getattr(package, name)) and name not in face:
                names[name] = f"lepton_vision.{stage}.{name}"
        if stage == "config":
            names = {}
        if stage == "errors":
            names = {name: f"lepton_vision.errors.{name}" for name in _errors()}
        parts += [f"## {title}", _ELSEWHERE.get(stage, ""), *(_directive(where) for where in names.values())]
    return page("Python API", _API, *parts)


def _home(value: object) -> str:
    return str(getattr(value, "__module__", "")).split(".")[1]


def _is_described(value: object) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and str(value.__module__).startswith("lepton_vision.")


def _errors() -> list[str]:
    from lepton_vision import errors

    return [name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, errors.LeptonError)]


def _directive(where: str) -> str:
    module, _, name = where.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        members = "" if issubclass(value, Exception | tuple) else "\n   :members:"
        return f"```{{eval-rst}}\n.. autoclass:: {where}{members}\n```"
    return f"```{{eval-rst}}\n.. autofunction:: {where}\n```"
