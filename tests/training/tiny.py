"""Tiny network, data set and configuration for tests of training; also a script for child processes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lepton_vision.config import Config
from lepton_vision.config.sections import TrainConfig
from lepton_vision.models.ensemble import Ensemble
from lepton_vision.training import loop
from lepton_vision.training.loop import FitResult, fit_model
from lepton_vision.training.own_parts import OwnParts
from lepton_vision.transforms.sampler import EpochSampler
from lepton_vision.types import Batch, ModelOutput, Target

FINDING = Target("finding", "binary", ("no", "yes"))
# Everything that has a state of its own: averaged weights, accumulated batches, unfreezing, dropout, sample seeds.
RICH = (
    "train.ema_decay=0.9",
    "train.accumulate_steps=2",
    "train.freeze_stages=3",
    "train.unfreeze_every=1",
    "train.checkpoint_seconds=0",
)
KIND = Target("kind", "multiclass", ("a", "b", "c"))


class TinyEncoder(nn.Module):
    def __init__(self, *, norms: bool = True) -> None:
        super().__init__()
        sizes = [1, 4, 4, 6, 6, 8]
        for place, name in enumerate(("stem", "layer1", "layer2", "layer3", "layer4")):
            conv = nn.Conv2d(sizes[place], sizes[place + 1], 3, padding=1)
            norm = nn.BatchNorm2d(sizes[place + 1]) if norms else nn.Identity()
            self.add_module(name, nn.Sequential(conv, norm, nn.ReLU()))

    def run(self, maps: Tensor, stages: slice) -> Tensor:
        for stage in list(self.children())[stages]:
            maps = stage(maps)
        return maps.float().mean((2, 3)) if stages.stop is None or stages.stop == 5 else maps

    def pool(self, maps: Tensor) -> Tensor:
        return maps.float().mean((2, 3))

    def stages(self) -> dict[str, nn.Module]:
        return dict(self.named_children())

    def features(self, images: Tensor) -> Tensor:
        return self(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images, slice(None))


class TinyHeads(nn.Module):
    def __init__(self, targets: Sequence[Target], *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.ModuleDict({target.name: nn.Linear(8, target.outputs) for target in targets})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {name: head(self.dropout(features)) for name, head in self.linear.items()}


class TinyNetwork(nn.Module):
    dims, log_variance, segmentation = 2, None, None
    strides = (2, 4, 8, 16, 32)
    apart: tuple[nn.Module, ...] = ()

    def __init__(
        self, targets: Sequence[Target] = (FINDING,), *, dropout: float = 0.3, norms: bool = True, seed: int = 7
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder, self.heads = TinyEncoder(norms=norms), TinyHeads(targets, dropout=dropout)

    @property
    def members(self) -> tuple[TinyNetwork, ...]:
        return (self,)

    def encoder_stages(self) -> dict[str, nn.Module]:
        return dict(self.encoder.named_children())

    def parameter_stages(self) -> dict[str, nn.Module]:
        return self.encoder_stages() | {"heads": self.heads}

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def lower(self, images: Tensor, count: int) -> Tensor:
        return self.encoder.run(images, slice(0, count))

    def upper(self, maps: Tensor, *, below: int) -> ModelOutput:
        return ModelOutput(self.heads(maps if below == 5 else self.encoder.run(maps, slice(below, None))))

    def forward(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self.heads(self.features(images)))


def tiny_ensemble(count: int, targets: Sequence[Target] = (FINDING,), **options: Any) -> Ensemble:
    """The first member is ``TinyNetwork()``."""
    members = [TinyNetwork(targets, seed=7 + place, **options) for place in range(count)]
    return Ensemble(members)  # type: ignore[arg-type]


class TinyDataset(Dataset[Batch]):
    """Bright images are positive; a sample seed adds noise as an augmentation would."""

    def __init__(self, rows: int = 22, *, targets: Sequence[Target] = (FINDING,), unknown: Sequence[int] = ()) -> None:
        rng = np.random.default_rng(3)
        self.targets = tuple(targets)
        self.values = {target.name: (np.arange(rows) % len(target.classes)).astype(np.float32) for target in targets}
        bright = self.values[targets[0].name][:, None, None, None]
        self.images = (rng.normal(size=(rows, 1, 8, 8)) + bright).astype(np.float32)
        for values in self.values.values():
            values[list(unknown)] = np.nan
        self.seen: list[tuple[int, int | None]] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> Batch:
        pairs = [(key, None) if isinstance(key, int) else key for key in keys]
        self.seen += pairs
        images = np.stack([self._image(row, seed) for row, seed in pairs])
        rows = np.array([row for row, _ in pairs])
        labels = {name: torch.from_numpy(values[rows]) for name, values in self.values.items()}
        return Batch(torch.from_numpy(images), labels, torch.from_numpy(rows), tuple(str(row) for row in rows))

    def labels(self, target: str) -> np.ndarray:
        return self.values[target]

    def source_key(self, row: int) -> str:
        return f"image {row}"

    def _image(self, row: int, seed: int | None) -> np.ndarray:
        if seed is None:
            return self.images[row]
        noise = np.random.default_rng(seed).normal(scale=0.1, size=(1, 8, 8))
        return (self.images[row] + noise).astype(np.float32)


def as_batch(batch: Batch) -> Batch:
    return batch


def tiny_loader(
    dataset: TinyDataset | None = None,
    *,
    batch_size: int = 4,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    drop_last: bool = False,
) -> DataLoader[Batch]:
    dataset = TinyDataset() if dataset is None else dataset
    sampler = EpochSampler(len(dataset), seed=5, rank=rank, world=world)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=as_batch,
        num_workers=workers,
        drop_last=drop_last,
        generator=torch.Generator(),
    )


def tiny_config(*assignments: str, targets: Sequence[Target] = (FINDING,)) -> Config:
    fixed = ("train.epochs=3", "train.precision=fp32", "train.lr=0.01", "train.monitor=val_loss")
    return Config(targets=tuple(targets)).override(*fixed, *assignments)


def validate(model: nn.Module) -> dict[str, float]:
    """Loss over all rows without noise."""
    with torch.no_grad():
        batch = TinyDataset().__getitems__(range(22))
        logits = model(batch.images).logits["finding"].squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.labels["finding"])
    return {"val_loss": loss.item(), "val_auroc": float("nan")}


def plain_descent(model: nn.Module, config: TrainConfig, *, device: torch.device) -> torch.optim.Optimizer:
    """AdamW hardly notices gradients of a wrong scale: comparisons of gradients replace it with this."""
    return torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 10.0}], lr=config.lr)


def steep_descent(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1.0)


def plain_loss(output: ModelOutput, batch: Batch) -> Tensor:
    """Ours, divided by the images in place of the known labels."""
    logits, labels = output.logits["finding"].squeeze(1), batch.labels["finding"]
    known = ~torch.isnan(labels)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (losses * known).sum() / len(batch.images)


WATCHED = {"val_loss": "lower", "val_auroc": "higher"}


def run_tiny(run_dir: Path, config: Config | None = None, **arguments: object) -> FitResult:
    given: dict[str, object] = {"validate": validate, "watched": WATCHED, "device": "cpu"} | arguments
    model = given.pop("model") if "model" in given else TinyNetwork()
    loader = given.pop("loader") if "loader" in given else tiny_loader()
    return fit_model(model, loader, config or tiny_config(), run_dir=run_dir, **given)  # type: ignore[arg-type]


def main(run_dir: Path, options: dict[str, object]) -> None:
    """Child process: train, killed without warning at one step or stopped by Ctrl-C where asked for."""
    torch.set_num_threads(1)
    if options.get("plain_descent"):
        loop.make_optimizer = plain_descent  # type: ignore[assignment]
    calls = {"steps": 0}

    def progress(row: dict[str, object]) -> None:
        calls["steps"] += 1
        if calls["steps"] == options.get("kill_at"):
            os.kill(os.getpid(), 9)
        if calls["steps"] == options.get("interrupt_at"):
            os.kill(os.getpid(), 2)

    shape = {"dropout": float(options.get("dropout", 0.3)), "norms": bool(options.get("norms", True))}
    model = tiny_ensemble(int(options["members"]), **shape) if "members" in options else TinyNetwork(**shape)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    batch_size = int(options["batch_sizes"][rank] if "batch_sizes" in options else options.get("batch_size", 4))
    dataset = TinyDataset(unknown=options.get("unknown", ()))
    if rank == options.get("fails_in"):
        dataset.values["finding"] = dataset.values["finding"][:3]  # rows behind these are gone
    loader = tiny_loader(dataset, batch_size=batch_size, rank=rank, world=world, workers=int(options.get("workers", 0)))
    config = tiny_config(*options.get("overrides", ()))
    arguments = {"resume": bool(options.get("resume", False)), "progress": progress}
    arguments["own"] = OwnParts(plain_loss, steep_descent) if options.get("own") else None
    result = run_tiny(run_dir, config, model=model, loader=loader, **arguments)
    torch.save({"state": result.state, "final": model.state_dict()}, run_dir / f"weights{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
