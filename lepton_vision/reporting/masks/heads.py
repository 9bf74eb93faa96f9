"""Page section on the heads of a joint model: label against mask, and the classifier's attention."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_vision.evaluation.masks.agreement import AGREEMENT, CELLS, HeadAgreement
from lepton_vision.evaluation.masks.pointing import POINTING, PointingGame
from lepton_vision.reporting.classes.view import Shown, format_figure, number

_SPECS = {one.name: one for one in (*AGREEMENT, *POINTING)}
_CELL_NAMES = dict(
    zip(
        CELLS,
        ("positive, with a mask", "positive, without", "negative, with a mask", "negative, without"),
        strict=True,
    )
)


@dataclass(frozen=True, slots=True)
class HeadsShown:
    """Content of the page for one target of a joint model.

    Attributes:
        target: its name.
        threshold: from which probability on its label is positive.
        rows: figures of the agreement.
        tables: (which mask, [(cell, count), …]).
        pointing: figures of the pointing game; empty where none was played.
        rule: what counts as a hit there.
    """

    target: str
    threshold: str
    rows: list[Shown]
    tables: list[tuple[str, list[tuple[str, str]]]]
    pointing: list[Shown]
    rule: str


def show_heads(target: str, agreement: HeadAgreement, game: PointingGame | None) -> HeadsShown:
    """Put both into words."""
    tables = [
        (f"{name.capitalize()} masks", [(_CELL_NAMES[cell], f"{count:,}") for cell, count in table.items()])
        for name, table in agreement.tables.items()
    ]
    figures = {} if game is None else game.figures
    rule = "" if game is None else (
        f"Grad-CAM of the positive class in {game.n:,} images with a true mask; a hit is at most {game.tolerance:g} "
        f"{game.unit} away from it."
    )  # fmt: skip
    return HeadsShown(
        target,
        number(agreement.threshold),
        [format_figure(key, figure, words=_SPECS[key]) for key, figure in agreement.figures.items()],
        tables,
        [format_figure(key, figure, words=_SPECS[key]) for key, figure in figures.items()],
        rule,
    )
