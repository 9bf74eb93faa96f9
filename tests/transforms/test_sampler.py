"""EpochSampler: orders and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_vision.transforms.sampler import EpochSampler, class_weights, patient_weights, sample_seeds


def epoch(sampler: EpochSampler, number: int) -> list[tuple[int, int]]:
    sampler.set_epoch(number)
    return list(sampler)


def test_an_epoch_shows_each_row_once_and_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochSampler(50, seed=3)
    first = epoch(sampler, 0)
    assert sorted(row for row, _ in first) == list(range(50))
    assert epoch(sampler, 1) != first
    assert epoch(sampler, 0) == first
    assert epoch(EpochSampler(50, seed=3), 0) == first
    assert epoch(EpochSampler(50, seed=4), 0) != first


def test_seeds_are_63_bit_and_differ() -> None:
    seeds = [seed for number in range(20) for _, seed in epoch(EpochSampler(500, seed=0), number)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


def test_seeds_are_stable_between_releases() -> None:
    # Golden: a change here changes every training run that is resumed or repeated.
    assert sample_seeds(np.asarray([0, 5, 5]), seed=0, epoch=0).tolist() == [
        2391539541053276776,
        7254568184099666231,
        4806632170029944503,
    ]


def test_a_seed_belongs_to_the_row_not_to_its_place() -> None:
    order = np.asarray([2, 0, 1])
    forward = dict(zip(order.tolist(), sample_seeds(order, seed=1, epoch=2).tolist(), strict=True))
    back = dict(zip(order[::-1].tolist(), sample_seeds(order[::-1], seed=1, epoch=2).tolist(), strict=True))
    assert forward == back


def test_seeds_of_a_long_epoch_are_those_of_its_parts() -> None:
    order = np.random.default_rng(0).integers(0, 9000, 40_000)  # longer than a chunk, rows up to a dozen times
    seeds = sample_seeds(order, seed=5, epoch=3)
    for row in (0, 17, 8999):
        places = np.flatnonzero(order == row)
        assert seeds[places].tolist() == sample_seeds(np.full(len(places), row), seed=5, epoch=3).tolist()
    assert len(np.unique(seeds)) == len(seeds)
    shuffled = np.random.default_rng(1).permutation(40_000)
    alone = [int(sample_seeds(np.array([row]), seed=5, epoch=3)[0]) for row in shuffled[[0, 20_000, -1]]]
    assert sample_seeds(shuffled, seed=5, epoch=3)[[0, 20_000, -1]].tolist() == alone


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), world=st.integers(1, 7), number=st.integers(0, 3), is_weighted=st.booleans())
def test_processes_share_an_epoch_in_equal_parts(rows: int, world: int, number: int, is_weighted: bool) -> None:
    weights = np.arange(1, rows + 1, dtype=np.float64) if is_weighted else None
    alone = epoch(EpochSampler(rows, seed=1, weights=weights), number)
    parts = [epoch(EpochSampler(rows, seed=1, rank=r, world=world, weights=weights), number) for r in range(world)]
    assert {len(part) for part in parts} == {len(EpochSampler(rows, seed=1, world=world))}
    dealt = [sample for group in zip(*parts, strict=True) for sample in group]
    assert dealt[:rows] == alone
    assert {row for row, _ in dealt[rows:]} <= {row for row, _ in alone}


def test_start_at_goes_on_where_the_run_stopped() -> None:
    sampler = EpochSampler(20, seed=0, rank=1, world=2)
    whole = epoch(sampler, 5)
    sampler.set_epoch(5)
    sampler.start_at(4)
    assert list(sampler) == whole[4:]
    assert len(sampler) == 10
    assert epoch(sampler, 5) == whole


@pytest.mark.parametrize("samples", [-1, 21])
def test_start_at_refuses_places_outside_the_epoch(samples: int) -> None:
    with pytest.raises(ValueError, match="Expected 0 to 20"):
        EpochSampler(20, seed=0).start_at(samples)


def test_class_weights_by_hand() -> None:
    weights = class_weights(np.asarray([0, 0, 0, 1, np.nan], np.float32))
    np.testing.assert_allclose(weights, [4 / 3, 4 / 3, 4 / 3, 4, 2])
    multi = class_weights(np.asarray([[0, 1], [0, 1], [1, np.nan]], np.float32))
    np.testing.assert_allclose(multi, [(1.5 + 1) / 2, (1.5 + 1) / 2, (3 + 1) / 2])
    np.testing.assert_allclose(class_weights(np.full(3, np.nan, np.float32)), np.ones(3))


def test_balanced_sampling_draws_classes_alike_and_repeats_get_their_own_seed() -> None:
    labels = np.zeros(2000, np.float32)
    labels[:100] = 1
    drawn = epoch(EpochSampler(2000, seed=0, weights=class_weights(labels)), 0)
    assert len(drawn) == 2000
    assert np.mean([labels[row] for row, _ in drawn]) == pytest.approx(0.5, abs=0.05)
    assert len({seed for _, seed in drawn}) == 2000


def test_patients_come_equally_often_whatever_the_number_of_their_images() -> None:
    patients = np.repeat([0, 1, 2], [400, 40, 4])
    drawn = epoch(EpochSampler(444, seed=0, weights=patient_weights(patients), samples=3000), 0)
    counts = np.bincount([patients[row] for row, _ in drawn])
    np.testing.assert_allclose(counts, 1000, atol=100)


@pytest.mark.parametrize(("samples", "least", "most"), [(4, 0, 1), (10, 1, 1), (25, 2, 3)])
def test_an_epoch_of_a_stated_length_shows_rows_alike(samples: int, least: int, most: int) -> None:
    sampler = EpochSampler(10, seed=0, samples=samples)
    drawn = epoch(sampler, 3)
    counts = np.bincount([row for row, _ in drawn], minlength=10)
    assert len(sampler) == len(drawn) == samples
    assert (counts.min(), counts.max()) == (least, most)
    assert len(set(drawn)) == samples, "a row that comes again is augmented anew"
    assert drawn[:4] == epoch(EpochSampler(10, seed=0, samples=40), 3)[:4]


def test_an_epoch_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        EpochSampler(10, seed=0, samples=0)


@pytest.mark.parametrize("weights", [np.ones(3), np.zeros(4), np.asarray([1.0, -1, 1, 1])])
def test_weights_that_cannot_be_drawn_from_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Expected 4 weights"):
        EpochSampler(4, seed=0, weights=weights)
