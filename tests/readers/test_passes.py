"""Passes of an MR that unique times tell apart, against single passes of the same look; right values by hand counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers.plane import Plane
from lepton_vision.readers.series_parts import divide_series
from lepton_vision.readers.stack import stack_planes
from lepton_vision.readers.traits import TRAITS


def plane(z: float, trait: str, value: object, **header: Any) -> Plane:
    """A slice at a height, one of whose traits is known."""
    traits = tuple(str(float(value)) if one.key == trait else "" for one in TRAITS)  # type: ignore[arg-type]
    ways = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Plane(4, 5, (0.0, 0.0, z), ways, (1.0, 1.0), modality="MR", instance=f"{z} {value}", traits=traits, **header)


def two_passes(trait: str, *, offset: float = 2.5, **header: Any) -> list[Plane]:
    """Six slices 5 mm apart, then six between them, each at a time of its own."""
    return [plane(5.0 * k + offset * which, trait, 600 * which + 7 * k, **header) for which in (0, 1) for k in range(6)]


def suffixes(planes: list[Plane]) -> dict[str, int]:
    return {part.suffix: len(part.numbers) for part in divide_series(planes, is_copy=lambda a, b: False).parts}


_WORDS = {"trigger": "trigger time", "acquisition": "acquisition number", "phase": "temporal position"}


@pytest.mark.parametrize(("trait", "words"), [*_WORDS.items(), ("time", "acquisition time")])
@pytest.mark.parametrize("header", [{"between_mm": 5.0}, {"thickness_mm": 5.0}, {"between_mm": 5.04}])
def test_passes_whose_slices_are_farther_apart_are_two_volumes(
    trait: str, words: str, header: dict[str, float]
) -> None:
    planes = two_passes(trait, **header)
    with pytest.raises(ReadError, match=f"12 kinds of {words} between") as caught:
        stack_planes(planes)
    assert caught.value.reason == "mixed_slices"
    assert suffixes(planes) == {f"-{trait}1": 6, f"-{trait}2": 6}
    assert [part.numbers for part in divide_series(planes, is_copy=lambda a, b: False).parts] == [
        tuple(range(6)), tuple(range(6, 12)),
    ]  # fmt: skip


@pytest.mark.parametrize("offset", [1.3, 0.006, 0.0])
def test_steps_of_two_sizes_tell_passes_apart_too(offset: float) -> None:
    assert suffixes(two_passes("trigger", offset=offset)) == {"-trigger1": 6, "-trigger2": 6}


@pytest.mark.parametrize("trait", _WORDS)
def test_two_passes_or_one_that_took_every_other_slice_first_are_refused(trait: str) -> None:
    planes = two_passes(trait)
    with pytest.raises(ReadError, match=f"{_WORDS[trait]} between each other, and no Spacing Between") as caught:
        stack_planes(planes)
    assert caught.value.reason == "mixed_slices"
    assert suffixes(planes) == {"": 12}


@pytest.mark.parametrize("passes", [3, 4, 6])
def test_many_passes_or_one_in_as_many_turns_are_refused_where_no_length_tells(passes: int) -> None:
    """Each slice at a moment of its own: 12 slices in 3 to 6 passes that lie between each other."""
    planes = [
        plane(2.5 * (passes * k + n), "trigger", 600 * n + 7 * k) for n in range(passes) for k in range(12 // passes)
    ]
    with pytest.raises(
        ReadError, match="12 kinds of trigger time between each other, and no Spacing Between"
    ) as caught:
        stack_planes(planes)
    assert caught.value.reason == "mixed_slices"
    told = [replace(one, thickness_mm=2.5) for one in planes]
    assert stack_planes(told).depth == 12


def test_times_in_no_order_are_refused_where_the_header_says_that_neighbours_lie_farther_apart() -> None:
    moments = [31, 18, 44, 9, 27, 50, 3, 39, 12, 21, 48, 6]
    planes = [plane(2.5 * k, "trigger", moment, between_mm=5.0) for k, moment in enumerate(moments)]
    with pytest.raises(ReadError, match="12 kinds of trigger time between each other"):
        stack_planes(planes)
    assert suffixes(planes) == {"": 12}
    alone = [plane(2.5 * k, "trigger", moment, between_mm=2.5) for k, moment in enumerate(moments)]
    assert stack_planes(alone).depth == 12


@pytest.mark.parametrize("planes", [
    two_passes("trigger", between_mm=2.5, thickness_mm=5.0),  # overlapping slices of one run, every other one first
    two_passes("trigger", thickness_mm=2.5),
    two_passes("acquisition", thickness_mm=2.0),
    two_passes("time", between_mm=2.5),
    two_passes("time"),
    [plane(2.5 * k, "trigger", 17 * k, between_mm=5.0) for k in range(12)],  # resampled: a distance of before
    [plane(2.5 * k, "trigger", 900 - 17 * k) for k in range(12)],
    [plane(2.5 * k, "trigger", (31 * k) % 12, thickness_mm=2.5) for k in range(12)],  # moments of the heart beat
    [plane(2.5 * k, "trigger", 3, between_mm=5.0) for k in range(12)],
])  # fmt: skip
def test_one_pass_stays_one_volume(planes: list[Plane]) -> None:
    assert stack_planes(planes).depth == 12
    assert suffixes(planes) == {"": 12}
