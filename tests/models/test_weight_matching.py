"""Pretrained stem with other channels and another kernel: preserved responses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lepton_vision.models.weight_matching import adapt_stem


def kernel(channels: int, size: int = 7) -> torch.Tensor:
    return torch.randn(64, channels, size, size, generator=torch.Generator().manual_seed(channels))


@settings(max_examples=30, deadline=None)
@given(before=st.integers(1, 6), after=st.integers(1, 12))
def test_equal_channels_give_the_same_response_whatever_their_number(before: int, after: int) -> None:
    gray = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    weight = kernel(before)
    adapted = adapt_stem(weight, like=torch.empty(64, after, 7, 7))
    assert adapted.shape == (64, after, 7, 7)
    torch.testing.assert_close(
        F.conv2d(gray.expand(1, after, 20, 20), adapted), F.conv2d(gray.expand(1, before, 20, 20), weight),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_gray_takes_the_sum_over_rgb() -> None:
    weight = kernel(3)
    adapted = adapt_stem(weight, like=torch.empty(64, 1, 7, 7))
    torch.testing.assert_close(adapted[:, 0], weight[:, 0] + weight[:, 1] + weight[:, 2])


def test_two_windows_in_rgb_keep_their_colours() -> None:
    weight = kernel(3)
    adapted = adapt_stem(weight, like=torch.empty(64, 6, 7, 7))
    torch.testing.assert_close(adapted[:, 4], weight[:, 1] / 2)


def test_the_same_shape_is_left_alone() -> None:
    weight = kernel(3)
    assert adapt_stem(weight, like=torch.empty(64, 3, 7, 7)) is weight


def test_the_small_kernel_keeps_the_response_to_an_even_image() -> None:
    weight = kernel(3)
    adapted = adapt_stem(weight, like=torch.empty(64, 3, 3, 3))
    torch.testing.assert_close(adapted.sum(dim=(2, 3)), weight.sum(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_the_small_kernel_is_the_large_one_shrunk_by_area() -> None:
    weight = torch.zeros(64, 1, 7, 7)
    weight[:, 0, 3, 0] = 1.0  # the middle of the left edge stays there
    weight[:, 0, 2, 3] = 3.0  # this cell lies by a third in the upper row of the small kernel
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(adapt_stem(weight, like=torch.empty(64, 1, 3, 3))[5, 0], expected)


def test_the_large_kernel_holds_the_small_one_in_its_middle() -> None:
    weight = kernel(1, size=3)
    adapted = adapt_stem(weight, like=torch.empty(64, 1, 7, 7))
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(F.conv2d(image, adapted, padding=3), F.conv2d(image, weight, padding=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    adapted = adapt_stem(kernel(3).to(dtype), like=torch.empty(64, 1, 7, 7))
    assert adapted.dtype == torch.float32
