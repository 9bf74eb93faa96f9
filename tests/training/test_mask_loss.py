"""The masks' loss against MONAI's and hand counts; unknown voxels and absent masks contribute nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from lepton_vision.training.losses import LossWeights, count_known, count_masks, mask_loss_sum, multitask_loss
from lepton_vision.types import UNKNOWN, ModelOutput, Target

SICK = Target("sick", "binary", ("no", "yes"))
GENERATOR = torch.Generator()


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR.manual_seed(seed))


def masks(*shape: int, values: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, values, shape, generator=GENERATOR.manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(9, 7), (4, 5, 6)])
@pytest.mark.parametrize(("kind", "factors"), [("dice", (1, 0)), ("ce", (0, 1)), ("dice_ce", (1, 1))])
def test_it_is_monais_where_all_is_known_and_present(
    size: tuple[int, ...], kind: str, factors: tuple[int, int]
) -> None:
    losses = pytest.importorskip("monai.losses")
    given, truth = logits(3, 3, *size), masks(3, *size)
    dice = losses.DiceLoss(include_background=False, softmax=True, to_onehot_y=True, reduction="sum")
    expected = dice(given, truth[:, None].long()) / 2 * factors[0]  # MONAI sums over the two structures
    expected = expected + 3 * functional.cross_entropy(given, truth.long()) * factors[1]
    torch.testing.assert_close(mask_loss_sum(given, truth, kind=kind), expected)  # type: ignore[arg-type]


def test_unknown_voxels_do_not_count() -> None:
    given, truth = logits(2, 3, 6, 8), masks(2, 6, 8)
    truth[:, :, 5:] = UNKNOWN
    for kind in ("dice", "ce", "dice_ce"):
        seen = mask_loss_sum(given[..., :5], truth[..., :5], kind=kind)  # type: ignore[arg-type]
        torch.testing.assert_close(mask_loss_sum(given, truth, kind=kind), seen)  # type: ignore[arg-type]


def test_a_sample_without_a_mask_gives_no_loss_and_no_gradient() -> None:
    given = logits(2, 3, 6, 8).requires_grad_()
    truth = masks(2, 6, 8)
    truth[1] = UNKNOWN
    loss = mask_loss_sum(given, truth, kind="dice_ce")
    torch.testing.assert_close(loss, mask_loss_sum(given[:1], truth[:1], kind="dice_ce"))
    loss.backward()
    assert given.grad is not None
    assert given.grad[1].abs().max() == 0
    assert given.grad[0].abs().max() > 0
    nothing = mask_loss_sum(given, torch.full_like(truth, UNKNOWN), kind="dice_ce")
    assert nothing == 0
    nothing.backward()


def test_an_empty_mask_is_known_and_pulls_towards_background() -> None:
    given = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = mask_loss_sum(given, torch.zeros(1, 4, 4, dtype=torch.uint8), kind="dice_ce")
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert given.grad is not None
    assert (given.grad[0, 0] < 0).all()
    assert (given.grad[0, 1] > 0).all()


def test_dice_is_the_mean_over_the_structures_that_are_there() -> None:
    given = torch.zeros(1, 3, 1, 3)
    given[0, 1] = 100.0  # structure 1 is predicted everywhere
    truth = torch.tensor([[[1, 0, 0]]], dtype=torch.uint8)
    assert mask_loss_sum(given, truth, kind="dice").item() == pytest.approx(1 - 2 / 4, abs=1e-4)
    truth = torch.tensor([[[1, 2, 2]]], dtype=torch.uint8)
    assert mask_loss_sum(given, truth, kind="dice").item() == pytest.approx((0.5 + 1) / 2, abs=1e-4)


def test_masks_are_counted_by_sample() -> None:
    truth = masks(4, 2, 2)
    truth[1], truth[2, 0] = UNKNOWN, UNKNOWN
    assert count_masks(truth) == 3
    assert count_masks(None) == 0
    labels = {"sick": torch.tensor([1.0, torch.nan, 0.0, torch.nan])}
    assert count_known(labels, [SICK], masks=truth).tolist() == [2, 3, 3]


def batch(rows: slice) -> tuple[ModelOutput, dict[str, torch.Tensor], torch.Tensor]:
    """Rows with label and mask, label only, mask only and neither."""
    truth = masks(4, 5, 5)
    truth[1], truth[3] = UNKNOWN, UNKNOWN
    labels = torch.tensor([1.0, 0.0, torch.nan, torch.nan])
    output = ModelOutput({"sick": logits(4, 1)[rows]}, logits(4, 3, 5, 5, seed=2)[rows])
    return output, {"sick": labels[rows]}, truth[rows]


@pytest.mark.parametrize("log_variance", [None, torch.tensor([0.3, -0.7])])
def test_a_step_in_parts_is_the_whole_step(log_variance: torch.Tensor | None) -> None:
    def loss(rows: slice, known: torch.Tensor | None) -> torch.Tensor:
        output, labels, truth = batch(rows)
        return multitask_loss(output, labels, targets=[SICK], masks=truth, known=known, log_variance=log_variance).total

    known = torch.tensor([2.0, 2.0, 2.0])
    whole = loss(slice(0, 4), None)
    parts = [loss(rows, known) for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), whole)
    if log_variance is None:
        output, labels, truth = batch(slice(0, 4))
        expected = functional.binary_cross_entropy_with_logits(output.logits["sick"][:2, 0], labels["sick"][:2])
        assert output.mask_logits is not None
        expected = expected + mask_loss_sum(output.mask_logits[[0, 2]], truth[[0, 2]], kind="dice_ce") / 2
        torch.testing.assert_close(whole, expected)


def test_dice_is_a_mean_over_the_samples_that_have_a_structure() -> None:
    """Empty masks count in the cross entropy alone, in whichever part of a step they stand."""
    truth = masks(5, 6, 6)
    truth[[0, 2, 3]] = 0
    truth[4, 0] = UNKNOWN
    given = logits(5, 3, 6, 6)

    def loss(rows: list[int], known: torch.Tensor) -> torch.Tensor:
        output = ModelOutput({}, given[rows])
        return multitask_loss(output, {}, targets=[], masks=truth[rows], known=known).total

    known = count_known({}, [], masks=truth)
    assert known.tolist() == [5, 2]
    whole = loss([0, 1, 2, 3, 4], known)
    ce = mask_loss_sum(given, truth, kind="ce") / 5
    dice = mask_loss_sum(given[[1, 4]], truth[[1, 4]], kind="dice") / 2
    torch.testing.assert_close(whole, ce + dice)
    torch.testing.assert_close(loss([0, 1], known) + loss([2, 3, 4], known), whole)
    torch.testing.assert_close(loss([0, 2], known), mask_loss_sum(given[[0, 2]], truth[[0, 2]], kind="ce") / 5)


def test_weights_and_kind_of_the_masks_loss_count() -> None:
    output, labels, truth = batch(slice(0, 4))
    parts = multitask_loss(
        output,
        labels,
        targets=[SICK],
        masks=truth,
        weights=LossWeights(mask=0.25, mask_loss="ce", targets={"sick": 2.0}),
    )
    assert output.mask_logits is not None
    ce = mask_loss_sum(output.mask_logits, truth, kind="ce") / 2
    torch.testing.assert_close(parts.by_target["masks"], ce)
    torch.testing.assert_close(parts.total, 2.0 * parts.by_target["sick"] + 0.25 * ce)


def test_the_learnt_variance_settles_where_the_paper_says() -> None:
    """The minimum over s of exp(-s) L + s / 2 lies at exp(s) = 2 L."""
    output, labels, truth = batch(slice(0, 4))
    variance = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([variance], lr=0.2)
    for _ in range(300):
        parts = multitask_loss(output, labels, targets=[SICK], masks=truth, log_variance=variance)
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
    expected = torch.log(2 * torch.stack([parts.by_target["sick"], parts.by_target["masks"]]))
    torch.testing.assert_close(variance.detach(), expected, atol=1e-3, rtol=0)


def test_a_loss_without_anything_known_does_not_move_its_variance() -> None:
    output, labels, truth = batch(slice(0, 4))
    variance = torch.zeros(2, requires_grad=True)
    nothing = torch.full_like(truth, UNKNOWN)
    multitask_loss(output, labels, targets=[SICK], masks=nothing, log_variance=variance).total.backward()
    assert variance.grad is not None
    assert variance.grad[1] == 0
    assert variance.grad[0] != 0
