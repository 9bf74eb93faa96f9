"""Small bundles with random weights whose masks are a mixture of all structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lepton_vision.config import Config
from lepton_vision.models import Bundle
from lepton_vision.models.assemble import make_network
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target
from tests.transforms.volumes import volume_config

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))
POINT = OperatingPoint({"sick": (0.5,), "organ": ()}, "stated")


def random_bundle(config: Config) -> Bundle:
    torch.manual_seed(0)
    network = make_network(config)
    if network.decoder is not None:
        with torch.no_grad():
            weight = network.decoder.last.weight
            weight.normal_()
            weight -= weight.mean(dim=1, keepdim=True)  # features are positive: no structure wins everywhere
    point = POINT if config.targets else None
    return Bundle(config=config, targets=config.targets, state=network.state_dict(), operating_point=point)


def volume_bundle(*changes: str, targets: tuple[Target, ...] = (SICK, ORGAN)) -> Bundle:
    """Structures box and core, patches of 16 voxels, batches of 2."""
    return random_bundle(volume_config(*changes).model_copy(update={"targets": targets}))


def image_bundle(*changes: str, targets: tuple[Target, ...] = (SICK, ORGAN)) -> Bundle:
    """Structures disc and rim, 32 pixels."""
    values = {
        "preprocess": {"size": [32, 32], "windows": [{"center": 150, "width": 300, "function": "LINEAR_EXACT"}]},
        "model": {"backbone": "resnet10", "width": 8, "stem": "small"},
        "segmentation": {"structures": {"disc": 1, "rim": 2}, "channels": 8},
        "train": {"batch_size": 4, "precision": "fp32"},
    }
    return random_bundle(Config.from_dict(values).override(*changes).model_copy(update={"targets": targets}))


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("path_id", ignore_index=True)


def same_rows(one: Path, other: Path) -> None:
    """Both folders hold the same rows, times aside."""
    columns = [name for name in read(one) if name != "seconds"]
    pd.testing.assert_frame_equal(read(one)[columns], read(other)[columns], check_exact=True)


def same_files(one: Path, other: Path) -> None:
    """Both folders hold the same visible files, byte for byte."""
    pairs = [{path.name: path.read_bytes() for path in folder.glob("[!._]*")} for folder in (one, other)]
    assert pairs[0].keys() == pairs[1].keys()
    assert pairs[0] == pairs[1]
    assert not any(np.array_equal(data, b"") for data in pairs[0].values())
