"""Model card beside the page (Mitchell et al., FAccT 2019, arXiv:1810.03993), and the checklists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lepton_vision._version import __version__
from lepton_vision.reporting.classes.view import figure_groups
from lepton_vision.reporting.documents.about import check_about, questions
from lepton_vision.reporting.documents.checklist import CHECKLISTS, fill_checklist, render_checklist
from lepton_vision.reporting.documents.evidence import RunFacts, gather
from lepton_vision.reporting.documents.markdown import plain, table
from lepton_vision.reporting.page import write_page

# Heading, what the run answers, what a human answers.
_SECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Model", ("model", "output", "initialization", "training", "selection", "calibration", "bundle"), ()),
    ("Intended use", (), ("intended_use", "intended_users", "out_of_scope", "care_pathway")),
    (
        "Data",
        ("flow", "partitions", "disjoint", "preprocessing", "missing", "data_fingerprint"),
        ("data_sources", "data_dates", "setting", "eligibility", "demographics", "acquisition"),
    ),
    ("Reference standard", (), ("reference_standard", "annotators", "annotator_agreement")),
    ("Decisions", ("operating_point",), ()),
    ("Fairness", ("subgroups",), ("fairness", "health_inequalities")),
    ("Other sites", ("external",), ("external_testing",)),
    ("Limits", ("cautions",), ("limitations", "input_quality")),
    ("Ethics and contact", (), ("ethics", "license", "contact", "funding", "conflicts")),
    ("Software", ("software",), ()),
)


def render_card(run: RunFacts, *, about: Mapping[str, str], title: str | None = None) -> str:
    """Return the card as Markdown; what nobody has answered is marked as open, never made up."""
    evidence = gather(run)
    heading = title or about.get("title") or ", ".join(target.name for target in run.evaluation.targets)
    lines = [f"# Model card: {plain(heading)}", "", "For research; not a medical device."]
    for name, from_run, from_human in _SECTIONS:
        known = [plain(evidence[key]) for key in from_run if key in evidence]
        known += [f"{questions()[key]} {plain(about[key])}" for key in from_human if key in about]
        known += [f"{questions()[key]} **Open** (`{key}`)" for key in from_human if key not in about]
        if known:
            lines += ["", f"## {name}", "", *(f"- {text}" for text in known)]
        if name == "Decisions":
            lines += ["", "## Figures", "", *_figures(run)]
    return "\n".join([*lines, "", f"Made by lepton_vision {__version__} from the artefacts of the run.", ""])


def _figures(run: RunFacts) -> list[str]:
    """All figures of each target with intervals and n."""
    lines: list[str] = []
    for target in run.evaluation.targets:
        rows = [
            (one.name, f"{one.value} ({one.interval})" if one.interval else one.value, one.n)
            for _, group in figure_groups(run.evaluation, target)
            for one in group
        ]
        columns = (plain(target.name), f"value ({run.evaluation.confidence:.0%} interval)", "n")
        lines += [*table(columns, rows), ""]
    return lines[:-1]


def write_documents(
    run: RunFacts, folder: str | Path, *, about: Mapping[str, str] | None = None, title: str | None = None
) -> tuple[Path, ...]:
    """Write ``model_card.md``, ``checklist_claim_2024.md`` and ``checklist_tripod_ai.md`` into ``folder``.

    Args:
        run: what is known of the run.
        folder: made if it is missing.
        about: what a human answered (``about.read_about``), or None.
        title: heading of the card; None is that of ``about``, or the targets.

    Returns:
        The paths.

    Raises:
        ReportError: an unknown key in ``about``, or a file cannot be written.

    Example:
        >>> write_documents(RunFacts(evaluation), "runs/ct-01/evaluation")  # doctest: +SKIP
    """
    answers, folder = check_about(about or {}), Path(folder)
    evidence = gather(run)
    texts = {"model_card": render_card(run, about=answers, title=title)}
    for name in CHECKLISTS:
        texts[f"checklist_{name}"] = render_checklist(fill_checklist(name, evidence=evidence, about=answers))
    return tuple(write_page(folder / f"{name}.md", text) for name, text in texts.items())
