"""Heads: linear layers, numbers in their unit, and classes in order by cut points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from lepton_vision.models.heads import CutPoints, Heads, ValueScale, value_scales
from lepton_vision.types import Target

AGE = Target("age", "regression", unit="years")
GRADE = Target("grade", "ordinal", ("none", "mild", "severe", "fatal"), loss="cumulative")


def test_a_number_starts_at_the_mean_of_the_labels_and_moves_by_their_deviation() -> None:
    heads = Heads(3, (AGE,))
    dict(value_scales(heads))["age"].set_from(torch.tensor([40.0, 60.0, torch.nan, 80.0]))
    torch.nn.init.zeros_(heads.linear["target_age"].weight)
    assert heads(torch.ones(2, 3))["age"].tolist() == [[60.0], [60.0]]
    torch.nn.init.ones_(heads.linear["target_age"].bias)
    # numpy's deviation of the three known labels, with divisor N
    assert heads(torch.ones(1, 3))["age"].item() == pytest.approx(60 + np.std([40, 60, 80]), rel=1e-6)


def test_labels_that_are_all_one_leave_the_deviation_at_one() -> None:
    scale = ValueScale()
    assert not scale.is_set
    scale.set_from(torch.tensor([7.0, 7.0]))
    assert (scale.mean.item(), scale.deviation.item(), scale.is_set) == (7.0, 1.0, True)


@pytest.mark.parametrize("training", [True, False])
def test_the_scale_is_kept_whatever_the_mode_and_travels_in_the_state(training: bool) -> None:
    heads = Heads(3, (AGE,)).train(training)
    dict(value_scales(heads))["age"].set_from(torch.tensor([1.0, 3.0]))
    other = Heads(3, (AGE,)).train(training)
    other.load_state_dict(heads.state_dict())
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(features)["age"], heads(features)["age"])


def test_cut_points_give_the_probabilities_of_proportional_odds() -> None:
    cuts = CutPoints(4)
    with torch.no_grad():
        cuts.first.fill_(-1.3)
        cuts.gaps.copy_(torch.log(torch.expm1(torch.tensor([0.4, 2.5]))))  # steps 0.4 and 2.5
    edges = np.array([-1.3, -0.9, 1.6])
    for score in (-40.0, -2.0, 0.0, 0.7, 40.0):
        said = torch.softmax(cuts(torch.tensor([[score]])), dim=1)[0].detach().numpy()
        below = np.concatenate([[0.0], logistic.cdf(edges - score), [1.0]])
        np.testing.assert_allclose(said, np.diff(below), atol=2e-7)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_cut_points_start_at_equal_shares_and_have_finite_gradients_far_out(classes: int) -> None:
    cuts = CutPoints(classes)
    np.testing.assert_allclose(torch.softmax(cuts(torch.zeros(1, 1)), 1).detach().numpy(), 1 / classes, rtol=1e-5)
    score = torch.tensor([[-300.0], [300.0]], requires_grad=True)
    torch.nn.functional.cross_entropy(cuts(score), torch.tensor([classes - 1, 0])).backward()
    assert score.grad is not None
    assert score.grad.isfinite().all()
    assert cuts.first.grad is not None
    assert bool(cuts.first.grad.isfinite().all())


def test_an_ordinal_head_with_cut_points_has_one_score_and_an_output_for_each_class() -> None:
    heads = Heads(5, (GRADE, AGE))
    assert heads.linear["target_grade"].out_features == 1
    assert {name: tuple(one.shape) for name, one in heads(torch.zeros(2, 5)).items()} == {
        "grade": (2, 4),
        "age": (2, 1),
    }
