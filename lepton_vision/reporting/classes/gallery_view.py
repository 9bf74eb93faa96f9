"""Case galleries of a page: choice of cases, pictures and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton_vision.evaluation.classes.cases import WorstCase
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.reporting.classes import view
from lepton_vision.reporting.classes.gallery import LARGEST_SIDE, Thumbnail, make_heat, make_thumbnail
from lepton_vision.reporting.wording import READING, in_unit
from lepton_vision.types import CaseKey, HeatMaps, Target
from lepton_vision.types.target import are_called

_MANY_PICTURES = 36
_SMALL_SIDE = 112


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of a gallery.

    Attributes:
        case: which decision.
        picture: the image as the network saw it, or a reason.
        heat: where the evidence lies, or None.
        badge: "missed", "false alarm", "confused" or "correct"; of a number "too high" or "too low".
        truth: what is true.
        called: what was decided, or predicted.
        of: class that ``probability`` is of; "" of a number.
        probability: as text; of a number its error.
        percent: of a meter, in [0, 100].
        threshold: on the meter, in [0, 100]; None where there is none.
    """

    case: WorstCase
    picture: Thumbnail
    heat: Thumbnail | None
    badge: str
    truth: str
    called: str
    of: str
    probability: str
    percent: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cases of one kind.

    Attributes:
        name: unique in the page.
        title: heading.
        reading: how to look at it.
        cases: what is shown.
        nothing: what to say where there are none.
    """

    name: str
    title: str
    reading: str
    cases: tuple[Case, ...]
    nothing: str

    @property
    def has_places(self) -> bool:
        """Whether it is known where any image lies."""
        return any(one.case.address is not None for one in self.cases)

    @property
    def has_maps(self) -> bool:
        """Whether any case has a heat map."""
        return any(one.heat is not None for one in self.cases)


def make_galleries(
    evaluation: Evaluation, target: Target, *, anchor: str, maps: HeatMaps | None = None
) -> tuple[Gallery, ...]:
    """Return the most wrong and the least sure cases of a target; pictures are read again from where they lie.

    A number has its largest errors alone.
    """
    shown = [*evaluation.worst.values(), *evaluation.unsure.values()]
    side = LARGEST_SIDE if sum(map(len, shown)) <= _MANY_PICTURES else _SMALL_SIDE
    largest = _largest_heats(maps or {})

    def build(cases: Sequence[WorstCase]) -> tuple[Case, ...]:
        return tuple(_case(evaluation, target, case, side=side, maps=maps or {}, largest=largest) for case in cases)

    worst = build(evaluation.worst.get(target.name, ()))
    if target.is_value:
        return (Gallery(f"{anchor}-worst", "Largest errors", READING["errors"], worst, "No image has an error."),)
    unsure = build(evaluation.unsure.get(target.name, ()))
    return (
        Gallery(f"{anchor}-worst", "Most wrong cases", READING["gallery"], worst, "No image was decided wrongly."),
        Gallery(f"{anchor}-unsure", "Least sure cases", READING["unsure"], unsure, "There is no decision to show."),
    )


def _largest_heats(maps: HeatMaps) -> Mapping[tuple[str, str], float]:
    """By target and class, the largest value of all maps: pictures of one class share a scale."""
    found: dict[tuple[str, str], float] = {}
    for key, heat in maps.items():
        name = (key.target, key.class_name)
        found[name] = max(found.get(name, 0.0), float(heat.max(initial=0.0)))
    return found


def _case(
    evaluation: Evaluation,
    target: Target,
    case: WorstCase,
    *,
    side: int,
    maps: HeatMaps,
    largest: Mapping[tuple[str, str], float],
) -> Case:
    heat = maps.get(CaseKey(case.image_id, target.name, case.class_name))
    shown = None if heat is None else make_heat(heat, largest=largest[target.name, case.class_name])
    picture = make_thumbnail(case.address, evaluation.preprocess, side=side)
    if target.is_value:
        return _number(case, target, picture=picture, heat=shown)
    thresholds = evaluation.operating_point.thresholds.get(target.name, ())
    names = target.answers if target.is_yes_no else ()
    place = names.index(case.class_name) if case.class_name in names else len(thresholds)
    threshold = thresholds[place] if place < len(thresholds) and view.is_known(thresholds[place]) else None
    called, is_correct = _decide(case, target, threshold=threshold)
    wrong = "confused" if target.is_exclusive else "missed" if case.y_true == 1 else "false alarm"
    percent = 100.0 * case.y_prob if view.is_known(case.y_prob) else 0.0
    return Case(
        case,
        picture,
        shown,
        "correct" if is_correct else wrong,
        case.truth,
        called,
        case.truth if target.is_exclusive else case.class_name,
        view.number(case.y_prob),
        round(min(max(percent, 0.0), 100.0), 2),
        None if threshold is None else round(100.0 * min(threshold, 1.0), 2),
    )


def _number(case: WorstCase, target: Target, *, picture: Thumbnail, heat: Thumbnail | None) -> Case:
    error = case.y_prob - case.y_true
    badge = "too high" if error > 0 else "too low"
    truth, said = (in_unit(text.replace("-", "−"), target) for text in (case.truth, f"{case.y_prob:.4g}"))
    off = f"{in_unit(f'{abs(error):.4g}', target)} {badge}"
    return Case(case, picture, heat, badge, truth, said, "", off, 0.0, None)


def _decide(case: WorstCase, target: Target, *, threshold: float | None) -> tuple[str, bool]:
    """Decision, and whether it is correct; without a threshold a case of the worst is a wrong one."""
    if target.is_exclusive:
        return case.class_name, case.class_name == case.truth
    is_called = case.y_true != 1
    if threshold is not None and view.is_known(case.y_prob):
        is_called = bool(are_called(case.y_prob, threshold))
    names = target.classes if target.is_binary else ("absent", "present")
    return names[int(is_called)], is_called == (case.y_true == 1)
