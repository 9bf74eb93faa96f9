"""Pictures of batches: the pixels that a loader gives, back in grey values, with labels and outlines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

import lepton_vision as lv
from lepton_vision.config import Config
from lepton_vision.errors import InvalidValueError
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes $x$"))
SIGNS = Target("signs", "multilabel", ("edema", "mass"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> lv.Manifest:
    root, rng = tmp_path_factory.mktemp("batches"), np.random.default_rng(0)
    for k in range(4):
        Picture.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(root / f"{k}.png")
        Picture.fromarray((np.add.outer(range(16), range(16)) > 12 + k).astype(np.uint8)).save(root / f"m{k}.png")
    table = pd.DataFrame(
        {
            "path": [f"{k}.png" for k in range(4)],
            "mask": [f"m{k}.png" for k in range(4)],
            "sick": ["no", "yes $x$", "no", None],
            "edema": [1, 0, None, 0],
            "mass": [1, 0, 0, 0],
        }
    )
    return lv.Manifest.from_frame(table, root=root, workers=0)


def test_pictures_are_the_images_with_labels_and_outlines(manifest: lv.Manifest) -> None:
    config = Config(targets=(SICK, SIGNS)).override(
        "preprocess.size=[16, 16]", "segmentation.structures={lesion: 1}", "augment.preset=none", "train.batch_size=4"
    )
    figure = lv.show_batch(lv.make_loader(manifest, config))
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "sick: no\nsigns: edema, mass",
        "sick: yes $x$\nsigns: none",
        "sick: no\nsigns: unknown",
        "sick: unknown\nsigns: none",
    ]
    for k, axes in enumerate(figure.axes):
        shown = np.asarray(axes.images[0].get_array(), np.float64)
        original = np.asarray(Picture.open(manifest.root / f"{k}.png"), np.float64) / 255
        np.testing.assert_allclose(shown, original, atol=2e-3)
        assert axes.collections, "the outline of the mask"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_training_images_are_augmented_and_no_more_are_drawn_than_asked_for(manifest: lv.Manifest) -> None:
    config = Config(targets=(SICK,)).override("preprocess.size=[16, 16]", "train.batch_size=3", "augment.preset=ct")
    figure = lv.show_batch(lv.make_loader(manifest, config, training=True), images=2)
    assert len(figure.axes) == 2
    with pytest.raises(InvalidValueError):
        lv.show_batch(lv.make_loader(manifest, config), images=0)


def test_of_a_volume_the_slice_with_most_of_its_mask_is_drawn() -> None:
    from lepton_vision.reporting.batches import _slice

    mask = np.zeros((6, 4, 4), np.uint8)
    mask[4, :2] = 1
    mask[1] = 255  # unknown
    assert (_slice(6, mask), _slice(6, None), _slice(6, np.zeros_like(mask))) == (4, 3, 3)
