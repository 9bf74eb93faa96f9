"""Exception classes of lepton_vision, all derived from ``LeptonError``.

An error says what is wrong, what was expected, what was received and what to do. It carries the place
(``path``, ``row`` or ``key``) as an attribute, and ``page``, where the documentation goes on. The message never holds a
full path, a patient name or an identifier from a header: ``path`` is for the caller, who decides what may be printed.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

from lepton_vision.types.reasons import READ_REASONS

DOCS = "docs/{}.md"
"""Address of a page of the documentation, by its room and name."""

_PAGES: dict[str, dict[str, str]] = {
    "ReadError": {
        "how-to/volumes": "geometry no_slices one_slice several_series several_volumes mixed_slices no_position "
        "no_spacing duplicate_position missing_slices tilt channels missing_channel channel_grid volume",
        "how-to/masks": "mask_size mask_spacing mask_orientation mask_position mask_values mask_overlap",
        "how-to/score-a-pacs-export": "segmentation localizer secondary_capture parametric_map dose mask_file "
        "no_pixels",
        "start/install": "decoder_missing",
        "reference/reason-codes": "*",
    },
    "MissingExtraError": {"start/install": "*"},
    "UnknownKeyError": {"reference/configuration": "*"},
    "LeakageError": {"explanation/splits": "*"},
    "WeightsError": {"how-to/weights": "*"},
    "TooManyFailuresError": {"how-to/score-a-pacs-export": "*"},
    "LabelError": {
        "how-to/masks": "mask_path mask_values segmentation",
        "how-to/label-tables": "*",
    },
    "LabelTableError": {"how-to/label-tables": "*"},
    "ManifestError": {
        "how-to/masks": "mask_path",
        "how-to/score-a-pacs-export": "include",
        "explanation/splits": "split patient_from",
        "explanation/ids-and-privacy": "LEPTON_VISION_ID_KEY",
    },
    "BundleError": {
        "how-to/own-backbone": "model.backbone",
        "explanation/operating-points": "operating_point",
        "reference/bundle": "*",
    },
    "TrainingError": {
        "how-to/masks": "segmentation",
        "reference/configuration": "train",
        "how-to/label-tables": "targets",
    },
    "EvaluationError": {
        "explanation/operating-points": "criterion sensitivity specificity ppv cost threshold",
        "explanation/calibration": "calibration temperature",
        "explanation/conformal-sets": "conformal conformal_coverage",
        "explanation/splits": "split",
        "explanation/ids-and-privacy": "LEPTON_VISION_ID_KEY",
        "how-to/plan-a-study": "expected width confidence icc prevalence",
        "how-to/own-figure": "figures",
        "how-to/evaluate-tables": "image_id patient_id columns target volume_id structures unknown masks",
    },
    "ScoringError": {
        "how-to/ray-and-slurm": "on part",
        "how-to/dicom-sr-and-seg": "reports codes source image",
        "how-to/score-a-pacs-export": "inputs max_failures",
        "how-to/masks": "mask masks labels structures",
        "explanation/ids-and-privacy": "LEPTON_VISION_ID_KEY",
    },
    "ConfigError": {
        "start/install": "device",
        "how-to/label-tables": "targets uncertain classes",
        "how-to/volumes": "volume tilt gaps",
        "how-to/masks": "segmentation masks mask_format",
        "how-to/own-backbone": "model.backbone model.options",
        "how-to/weights": "model.weights model.init_from model.keep_heads",
        "explanation/deep-ensembles": "model.members",
        "how-to/own-augmentation": "augment",
        "how-to/own-loss": "loss optimizer own",
        "how-to/export-runtimes": "engine int8 judge_on calibrators",
        "how-to/score-a-pacs-export": "inputs include",
        "how-to/dicom-sr-and-seg": "heat_maps sr-code code category algorithm-type",
        "how-to/ray-and-slurm": "ray processes",
        "how-to/evaluate-tables": "predictions columns validation by",
        "explanation/ids-and-privacy": "LEPTON_VISION_ID_KEY",
        "reference/configuration": "split preprocess model train evaluation audit scan target",
    },
}
"""Pages by the class of an error, and there by its reason or by the key that it is about: "*" is any other."""


class LeptonError(Exception):
    """Base of all errors raised on purpose. A traceback ends with its page.

    Attributes:
        exit_code: what the command line returns (1 a gate failed, 2 usage, configuration or input).
        path: the file the error is about, or None.
        row: the row of a table the error is about, or None.
        key: the configuration key or column the error is about, or None.
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        row: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)
        self.row = row
        self.key = key
        if self.page:
            self.add_note(f"See {self.page}")

    @property
    def page(self) -> str:
        """Page of the documentation that tells more, by class, reason and key; "" where none does."""
        about = str(getattr(self, "reason", None) or self.key or "")
        for kind in type(self).__mro__:
            for page, subjects in _PAGES.get(kind.__name__, {}).items():
                if any(about == one or about.startswith(f"{one}.") for one in subjects.split()) or subjects == "*":
                    return DOCS.format(page)
        return ""


class ConfigError(LeptonError):
    """A configuration that cannot be used: unknown key, wrong type, contradicting values."""


class UnknownKeyError(ConfigError):
    """A key that a configuration does not have."""


class InvalidValueError(ConfigError, ValueError):
    """A value that a target, a window or a section of a configuration cannot have."""


def install_command(extra: str = "") -> str:
    """Return the command that installs this package with an extra, in the folder that holds pyproject.toml."""
    return f"pip install -e '.[{extra}]'" if extra else "pip install -e ."


class MissingExtraError(ConfigError):
    """A package that an extra of this one brings is not installed.

    Args:
        package: what is missing.
        extra: the extra of ``pyproject.toml`` that brings it.
        key: the setting or option that asked for it.
    """

    def __init__(self, package: str, *, extra: str, key: str) -> None:
        super().__init__(
            f"Expected the package {package}. Found: none. In the folder that holds pyproject.toml: "
            f"{install_command(extra)}.",
            key=key,
        )
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_extra_error, (self.package, self.extra, self.key)


def _rebuild_extra_error(package: str, extra: str, key: str) -> MissingExtraError:
    """Rebuild a MissingExtraError that crossed a process boundary."""
    return MissingExtraError(package, extra=extra, key=key)


class ReadError(LeptonError):
    """A file that cannot become an Image. ``reason`` is a stable code (see ``types.reasons``)."""

    REASONS: ClassVar[frozenset[str]] = frozenset(READ_REASONS)

    def __init__(self, message: str, *, reason: str, path: str | Path | None = None) -> None:
        if reason not in self.REASONS:
            raise ValueError(f"Unknown reason code {reason!r}.")
        self.reason = reason
        super().__init__(message, path=path)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_read_error, (str(self), self.reason, self.path)


def _rebuild_read_error(message: str, reason: str, path: Path | None) -> ReadError:
    """Rebuild a ReadError that crossed a process boundary (exceptions with keywords do not pickle)."""
    return ReadError(message, reason=reason, path=path)


class ManifestError(LeptonError):
    """A manifest that cannot be used, or nothing to make one of."""


class LabelTableError(ManifestError):
    """A label table that cannot be read, or whose rows cannot be joined to files."""


class LabelError(ManifestError):
    """A label outside the classes, a missing label column, or too few classes in a split."""


class LeakageError(LeptonError):
    """The same patient or the same image stands in two splits: a gate, exit code 1."""

    exit_code = 1


class WeightsError(LeptonError):
    """Pretrained weights that are not there, do not load, or do not fit the network."""


class BundleError(LeptonError):
    """A bundle folder that is incomplete, damaged, or of a newer format."""


class MachineError(LeptonError):
    """What this machine, or torch on it, cannot do: memory, open files, a process that was ended, a missing step."""


class TrainingError(LeptonError):
    """Training cannot go on: non-finite loss, no checkpoint to resume, no labelled sample."""


class EvaluationError(LeptonError):
    """Predictions that cannot be evaluated: probabilities outside [0, 1], duplicate ids, wrong split."""


class OutputError(LeptonError):
    """A place for results that cannot be written, or that another process is writing to."""


class ReportError(LeptonError):
    """A page that cannot be written where it was asked for."""


class ScoringError(LeptonError):
    """A scoring run that cannot start or must not go on."""


class TooManyFailuresError(ScoringError):
    """More inputs failed than ``max_failures`` allows: a gate, exit code 1.

    Attributes:
        facts: counts of a run that came to its end (``ScoreSummary.to_dict``); empty where it was stopped.
    """

    exit_code = 1

    def __init__(self, message: str, *, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = dict(facts or {})


@contextlib.contextmanager
def explain_os_error(what: str, *, error: type[LeptonError], advice: str, path: str | Path) -> Iterator[None]:
    """Raise an OSError inside as an ``error``: what could not be done, the system's reason, and what to do."""
    try:
        yield
    except OSError as cause:
        raise error(f"Cannot {what}: {cause.strerror or type(cause).__name__}. {advice}", path=path) from None


def nearest(name: str, valid: Sequence[str], *, listed: Sequence[str] | None = None) -> str:
    """End of a message that names the nearest valid name, or all (or those to be ``listed``) where none is near."""
    plain = {one.casefold(): one for one in reversed(valid)}
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    close = close or [plain[one] for one in difflib.get_close_matches(name.casefold(), list(plain), n=1, cutoff=0.6)]
    if close:
        return f"Did you mean {close[0]!r}?"
    known = sorted(valid if listed is None else listed)
    return f"Expected one of: {', '.join(known)}." if known else "There is none."


def unknown_key(key: str, valid: Sequence[str]) -> str:
    """Message about a configuration key that there is not."""
    return f"Unknown configuration key {key!r}. {nearest(key, valid)}"


def valid_keys(model: Any, place: Sequence[str]) -> list[str]:
    """Keys that the section at ``place`` of a configuration class knows; none where names are free."""
    for part in place:
        if part.isdigit() or not hasattr(model, "model_fields"):
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in get_args(annotation) if isinstance(a, type)), annotation)
    return list(getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {}))


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def explain_validation(problems: Sequence[Mapping[str, Any]], model: Any) -> ConfigError:
    """Turn the first of pydantic's errors on a configuration class into one sentence; the others are counted."""
    first = min(problems, key=lambda problem: problem["type"] not in _UNKNOWN)  # a misspelt key explains a missing one
    place = [str(part) for part in first["loc"] if "[" not in str(part)]  # a union names its members there
    key = ".".join(place)
    if first["type"] in _UNKNOWN:
        where = ".".join(place[:-1]) or "the configuration"
        message = f"In {where}: {unknown_key(place[-1], valid_keys(model, place[:-1]))}"
    else:
        received = first.get("input")
        is_section = isinstance(received, dict) or hasattr(received, "model_fields")
        shown = "" if is_section else f" Received: {received!r}."
        if isinstance(received, bool):
            shown += " YAML reads no, yes, on and off as booleans: put quotes around the word."
        told = first["msg"].removeprefix("Value error, ")
        if first["type"] == "literal_error":
            told = nearest(str(received), re.findall("'([^']+)'", first["ctx"]["expected"]))
        place_in_words = f"Configuration key {key}" if key else "Configuration"
        message = f"{place_in_words}: {told}{'' if told[-1] in '.?' else '.'}{shown}"
    more = f" ({len(problems) - 1} more problems.)" if len(problems) > 1 else ""
    return (UnknownKeyError if first["type"] in _UNKNOWN else ConfigError)(message + more, key=key)


def describe_keys(described: type, core: Any, handler: Any) -> dict[str, Any]:
    """JSON schema of a class, with what ``Attributes`` of its docstring says of each key (a hook of pydantic)."""
    schema: dict[str, Any] = handler.resolve_ref_schema(handler(core))
    for name, key in schema["properties"].items():
        said = re.search(rf"^ *{name}: (.+(?:\n {{12,}}.+)*)", described.__doc__ or "", re.MULTILINE)
        key["description"] = "" if said is None else " ".join(said[1].split())
    return schema


def printable(text: str) -> str:
    r"""A text in which nothing controls a terminal: colours, bells and moves of the cursor are shown as codes.

    Example:
        >>> printable("red: \x1b[31m")
        'red: \\x1b[31m'
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)
