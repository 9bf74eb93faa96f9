"""Masked losses against torch's own loss functions and hand counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from lepton_vision.errors import TrainingError
from lepton_vision.training.losses import LossWeights, balanced_weights, count_known, multitask_loss
from lepton_vision.types import ModelOutput, Target

BINARY = Target("a", "binary", ("no", "yes"))
MULTICLASS = Target("b", "multiclass", ("x", "y", "z"))
MULTILABEL = Target("c", "multilabel", ("p", "q"))
NAN = float("nan")


@pytest.fixture
def output() -> ModelOutput:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 1), "b": (4, 3), "c": (4, 2)}
    return ModelOutput({k: torch.randn(*s, generator=generator).requires_grad_() for k, s in shapes.items()})


def test_binary_is_torchs_loss_over_the_known_labels(output: ModelOutput) -> None:
    labels = {"a": torch.tensor([1.0, NAN, 0.0, 1.0])}
    expected = functional.binary_cross_entropy_with_logits(output.logits["a"][[0, 2, 3], 0], labels["a"][[0, 2, 3]])
    torch.testing.assert_close(multitask_loss(output, labels, targets=[BINARY]).total, expected)


def test_multiclass_is_torchs_loss_with_smoothing_over_the_known_labels(output: ModelOutput) -> None:
    labels = {"b": torch.tensor([2.0, 0.0, NAN, 1.0])}
    expected = functional.cross_entropy(output.logits["b"][[0, 1, 3]], torch.tensor([2, 0, 1]), label_smoothing=0.1)
    found = multitask_loss(output, labels, targets=[MULTICLASS], weights=LossWeights(smoothing=0.1)).total
    torch.testing.assert_close(found, expected)


def test_multilabel_masks_single_entries(output: ModelOutput) -> None:
    labels = {"c": torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 1.0], [1.0, 1.0]])}
    known = ~torch.isnan(labels["c"])
    expected = functional.binary_cross_entropy_with_logits(output.logits["c"][known], labels["c"][known])
    torch.testing.assert_close(multitask_loss(output, labels, targets=[MULTILABEL]).total, expected)


def test_binary_smoothing_moves_labels_towards_a_half(output: ModelOutput) -> None:
    labels = {"a": torch.tensor([1.0, 0.0, 0.0, 1.0])}
    soft = torch.tensor([0.9, 0.1, 0.1, 0.9])
    expected = functional.binary_cross_entropy_with_logits(output.logits["a"][:, 0], soft)
    found = multitask_loss(output, labels, targets=[BINARY], weights=LossWeights(smoothing=0.2)).total
    torch.testing.assert_close(found, expected)


def test_unknown_label_gives_no_gradient(output: ModelOutput) -> None:
    multitask_loss(output, {"a": torch.tensor([1.0, NAN, 0.0, 1.0])}, targets=[BINARY]).total.backward()
    gradient = output.logits["a"].grad
    assert gradient is not None
    assert gradient[1].item() == 0.0
    assert gradient[0].item() < 0.0 < gradient[2].item()


@pytest.mark.parametrize(("target", "shape"), [(BINARY, (4,)), (MULTICLASS, (4,)), (MULTILABEL, (4, 2))])
def test_batch_without_known_labels_gives_zero_loss_and_zero_gradient(
    output: ModelOutput, target: Target, shape: tuple[int, ...]
) -> None:
    loss = multitask_loss(output, {target.name: torch.full(shape, NAN)}, targets=[target]).total
    loss.backward()
    assert loss.item() == 0.0
    gradient = output.logits[target.name].grad
    assert gradient is not None, "a head without gradient would stop the other processes"
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_targets_add_up_with_their_weights(output: ModelOutput) -> None:
    labels = {"a": torch.tensor([1.0, NAN, 0.0, 1.0]), "b": torch.tensor([2.0, 0.0, NAN, 1.0])}
    parts = multitask_loss(output, labels, targets=[BINARY, MULTICLASS], weights=LossWeights({"b": 0.25}))
    torch.testing.assert_close(parts.total.detach(), parts.by_target["a"] + 0.25 * parts.by_target["b"])


@pytest.mark.parametrize("is_balanced", [False, True])
def test_members_learn_each_by_its_own_loss(output: ModelOutput, is_balanced: bool) -> None:
    """Not by that of their mean, which two members that err in opposite ways would have none of."""
    other = ModelOutput({name: (-2.0 * logits).detach().requires_grad_() for name, logits in output.logits.items()})
    mean = ModelOutput({name: (a + other.logits[name]) / 2 for name, a in output.logits.items()})
    rows = torch.tensor([[0.3, -0.2, 0.1], [0.7, 0.0, -0.5]]) if is_balanced else None
    labels = {"a": torch.tensor([1.0, NAN, 0.0, 1.0]), "b": torch.tensor([2.0, NAN, NAN, 1.0])}
    labels |= {"c": torch.tensor([[1.0, 0.0], [NAN, 1.0], [0.0, NAN], [NAN, NAN]])}
    targets = [BINARY, MULTICLASS, MULTILABEL]
    found = multitask_loss(replace(mean, members=(output, other)), labels, targets=targets, log_variance=rows)
    alone = [
        multitask_loss(one, labels, targets=targets, log_variance=None if rows is None else rows[place])
        for place, one in enumerate((output, other))
    ]
    torch.testing.assert_close(found.total, (alone[0].total + alone[1].total) / 2)
    for name, value in found.by_target.items():
        torch.testing.assert_close(value, (alone[0].by_target[name] + alone[1].by_target[name]) / 2)
    for one, own in zip((output, other), alone, strict=True):
        for logits in one.logits.values():
            (shared,) = torch.autograd.grad(found.total, logits, retain_graph=True)
            (expected,) = torch.autograd.grad(own.total, logits, retain_graph=True)
            torch.testing.assert_close(2 * shared, expected)


def test_parts_of_a_batch_add_up_to_the_whole(output: ModelOutput) -> None:
    labels = {"a": torch.tensor([1.0, NAN, 0.0, 1.0]), "b": torch.tensor([2.0, NAN, NAN, 1.0])}
    targets = [BINARY, MULTICLASS]
    known = count_known(labels, targets)
    assert known.tolist() == [3.0, 2.0, 0.0, 0.0]  # no masks
    whole = multitask_loss(output, labels, targets=targets).total
    parts = [
        multitask_loss(
            ModelOutput({k: v[rows] for k, v in output.logits.items()}),
            {k: v[rows] for k, v in labels.items()},
            targets=targets,
            known=known,
        ).total
        for rows in (slice(0, 3), slice(3, 4))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_class_weights_multiply_single_losses(output: ModelOutput) -> None:
    labels = {"b": torch.tensor([2.0, 0.0, NAN, 1.0])}
    classes = torch.tensor([1.0, 3.0, 0.5])
    single = functional.cross_entropy(output.logits["b"][[0, 1, 3]], torch.tensor([2, 0, 1]), reduction="none")
    expected = (single * torch.tensor([0.5, 1.0, 3.0])).mean()
    found = multitask_loss(output, labels, targets=[MULTICLASS], weights=LossWeights(classes={"b": classes})).total
    torch.testing.assert_close(found, expected)


def test_multilabel_class_weights_are_per_column(output: ModelOutput) -> None:
    labels = {"c": torch.tensor([[1.0, NAN], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])}
    classes = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    factor = torch.tensor([[2.0, 0.0], [1.0, 3.0], [1.0, 4.0], [2.0, 4.0]])
    safe = labels["c"].nan_to_num(0.0)
    single = functional.binary_cross_entropy_with_logits(output.logits["c"], safe, reduction="none")
    found = multitask_loss(output, labels, targets=[MULTILABEL], weights=LossWeights(classes={"c": classes})).total
    torch.testing.assert_close(found, (single * factor).sum() / 7.0)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    known = np.array([0, 0, 0, 1, 2, 2], np.float32)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=known.astype(int))
    found = balanced_weights(np.append(known, np.float32("nan")), MULTICLASS)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_balanced_weights_of_a_multilabel_column_that_never_occurs_stay_one() -> None:
    weights = balanced_weights(np.array([[0, 0], [0, 1], [0, 1], [0, 1]], np.float32), MULTILABEL)
    np.testing.assert_allclose(weights.numpy(), [[1.0, 0.0], [2.0, 2 / 3]], rtol=1e-6)


def test_balanced_weights_refuse_a_target_without_labels() -> None:
    with pytest.raises(TrainingError, match="no known label among 3"):
        balanced_weights(np.full(3, np.nan, np.float32), BINARY)
