"""Evidence of masks against a count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lepton_vision.models.regions import EVIDENCE_FIGURES, mask_evidence


@pytest.mark.parametrize("size", [(6, 5), (3, 6, 5)])
def test_evidence_is_the_surest_pixel_and_the_share(size: tuple[int, ...]) -> None:
    logits = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)) * 3
    found = mask_evidence(logits).double().numpy()
    assert found.shape == (2, EVIDENCE_FIGURES * 3)
    prob = logits.double().softmax(dim=1).flatten(2).numpy()
    for image in range(2):
        for structure in range(3):
            own = prob[image, structure + 1]
            assert found[image, structure] == pytest.approx(math.log((own / (1 - own)).max()), rel=1e-4)
            assert found[image, 3 + structure] == pytest.approx(math.log(own.mean() + 1e-4), rel=1e-4)


def test_one_lesion_of_a_pixel_is_seen_and_two_are_more_than_one() -> None:
    logits = torch.zeros(3, 2, 64, 64)
    logits[:, 0] = 20.0
    logits[1, 1, 5, 5] = logits[2, 1, 5, 5] = logits[2, 1, 40, 40] = 30.0
    most, share = mask_evidence(logits).T
    assert most[0] == -20.0
    assert most[1] == most[2] == 10.0
    assert share[0] < share[1] < share[2]


def test_extreme_logits_give_finite_evidence_and_gradients() -> None:
    logits = torch.tensor([-1e4, 1e4]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    for sign in (1.0, -1.0):
        evidence = mask_evidence(sign * logits)
        (slope,) = torch.autograd.grad(evidence.sum(), logits)
        assert np.isfinite(evidence.detach().numpy()).all()
        assert torch.isfinite(slope).all()
