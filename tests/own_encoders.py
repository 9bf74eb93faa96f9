"""Encoders as a team would bring them, with the eight members of the protocol and nothing more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lepton_vision.config import ENCODERS


def step(inner: int, outer: int, *, dims: int, stride: int = 2) -> nn.Sequential:
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(conv(inner, outer, 3, stride=stride, padding=1), norm(outer), nn.ReLU())


class Mine(nn.Module):
    """Three stages, strides 2, 4 and 8."""

    def __init__(self, channels: int, dims: int, base: int = 4) -> None:
        super().__init__()
        self.channels, self.dims, self.width = channels, dims, 4 * base
        self.depths, self.strides = [base, 2 * base, 4 * base], [2, 4, 8]
        self.body = nn.ModuleDict(
            {
                "entry": step(channels, base, dims=dims),
                "middle": step(base, 2 * base, dims=dims),
                "exit": step(2 * base, 4 * base, dims=dims),
            }
        )

    def stages(self) -> dict[str, nn.Module]:
        return dict(self.body.items())

    def skips(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.body.values():
            maps.append(stage(maps[-1]))
        return maps[1:]

    def features(self, images: Tensor) -> Tensor:
        return self.skips(images)[-1].flatten(2).mean(2)


class Strongest(Mine):
    """Features that are no mean, without saying how they are pooled."""

    def features(self, images: Tensor) -> Tensor:
        return self.skips(images)[-1].flatten(2).amax(2)


class Vector(nn.Module):
    """No maps of places: a pooled vector alone."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.channels, self.dims, self.width, self.depths, self.strides = channels, dims, 6, (), ()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, 6), nn.ReLU())
        self.register_buffer("scale", torch.ones(1))

    def stages(self) -> dict[str, nn.Module]:
        return {"body": self.body}

    def skips(self, images: Tensor) -> list[Tensor]:
        return []

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)


class PlainVector(Vector):
    """The same without a tensor outside its stages."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__(channels, dims)
        del self.scale


@ENCODERS.register("test-mine")
def make_mine(*, channels: int, dims: int, base: int = 4) -> Mine:
    return Mine(channels, dims, base)


@ENCODERS.register("test-strongest")
def make_strongest(*, channels: int, dims: int) -> Strongest:
    return Strongest(channels, dims)


@ENCODERS.register("test-vector")
def make_vector(*, channels: int, dims: int) -> PlainVector:
    return PlainVector(channels, dims)


@ENCODERS.register("test-loose")
def make_loose(*, channels: int, dims: int) -> Vector:
    return Vector(channels, dims)
