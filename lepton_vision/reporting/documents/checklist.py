"""Reporting checklists, filled in as far as a run answers them, with the open items listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lepton_vision.reporting.documents.about import questions, read_list
from lepton_vision.reporting.documents.markdown import plain, table

CHECKLISTS = ("claim_2024", "tripod_ai")
Status = Literal["answered", "partly", "open"]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a guideline.

    Attributes:
        id: its number.
        section: where it belongs.
        asks: what it asks for, in our words.
        answers: what is known, from the run first.
        missing: keys of ``about.questions`` that nobody has answered.
        status: "answered", "partly" or "open".
    """

    id: str
    section: str
    asks: str
    answers: tuple[str, ...]
    missing: tuple[str, ...]
    status: Status


@dataclass(frozen=True, slots=True)
class Checklist:
    """A guideline with its items as answered by a run.

    Attributes:
        name: of its file.
        title: of the guideline.
        source: where it was published.
        items: in its order.
    """

    name: str
    title: str
    source: str
    items: tuple[Item, ...]

    def count(self, status: Status) -> int:
        """Number of items of a status."""
        return sum(item.status == status for item in self.items)


def fill_checklist(name: str, *, evidence: Mapping[str, str], about: Mapping[str, str]) -> Checklist:
    """Fill one guideline.

    Args:
        name: one of ``CHECKLISTS``.
        evidence: what the run answers (``evidence.gather``).
        about: what a human answered (``about.read_about``).
    """
    found = read_list(name)
    items = []
    for one in found["items"]:
        from_run = [evidence[key] for key in one["run"] if key in evidence]
        from_human = [about[key] for key in one["human"] if key in about]
        wanted, got = len(one["run"]) + len(one["human"]), len(from_run) + len(from_human)
        status: Status = "open" if not got else "answered" if got == wanted else "partly"
        missing = tuple(key for key in one["human"] if key not in about)
        answers = tuple(from_run + from_human)
        items.append(Item(str(one["id"]), one["section"], one["asks"], answers, missing, status))
    return Checklist(name, found["title"], found["source"], tuple(items))


def render_checklist(checklist: Checklist) -> str:
    """Return it as Markdown."""
    counts = ", ".join(f"{checklist.count(status)} {status}" for status in ("answered", "partly", "open"))
    rows = [
        (item.id, item.section, item.asks, item.status, " ".join(item.answers) or "–", ", ".join(item.missing) or "–")
        for item in checklist.items
    ]
    missing = sorted({key for item in checklist.items for key in item.missing})
    lines = [
        f"# {checklist.title}",
        "",
        f"{len(checklist.items)} items: {counts}. Items after {plain(checklist.source)}, in our words: report by the "
        "original. What stands here was taken from the run; a human must check it.",
        "",
        *table(("Item", "Section", "Asks for", "Status", "Answer", "Open keys"), rows),
    ]
    if missing:
        lines += ["", "## Open", "", "Answer these in a YAML file, and give it to `evaluate --about FILE`.", ""]
        lines += [f"- `{key}`: {questions()[key]}" for key in missing]
    return "\n".join(lines) + "\n"
