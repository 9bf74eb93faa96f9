"""Detection of images that use little of their value range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image as Pillow

from lepton_vision.config import Config
from lepton_vision.manifest import Manifest, audit_manifest
from lepton_vision.pipeline.facts import inspect_path
from lepton_vision.readers import read_image
from lepton_vision.transforms.preprocess import preprocess_image

RNG = np.random.default_rng(0)
Array = npt.NDArray[Any]


def study(folder: Path, *images: Array) -> Manifest:
    folder.mkdir(exist_ok=True)
    for number, values in enumerate(images):
        Pillow.fromarray(values).save(folder / f"{number}.png")
    return Manifest.scan(folder, workers=1)


def twelve_bits(count: int = 4) -> list[Array]:
    images = [RNG.integers(0, 4096, (16, 16)).astype(np.uint16) for _ in range(count)]
    images[0][0, :2] = (0, 4095)
    return images


def messages(manifest: Manifest, config: Config | None = None) -> list[str]:
    return [one.message for one in audit_manifest(manifest, config).findings if one.kind == "narrow_range"]


def windows(*names: Any) -> Config:
    return Config.model_validate({"preprocess": {"windows": list(names)}})


def test_twelve_bits_in_a_file_of_sixteen_are_found(tmp_path: Path) -> None:
    manifest = study(tmp_path / "in", *twelve_bits())
    columns = ["value_low", "value_high", "range_low", "range_high", "header_window"]
    assert manifest.frame[columns].iloc[0].tolist() == [0.0, 4095.0, 0.0, 65535.0, "full"]
    (found,) = [one for one in audit_manifest(manifest).findings if one.kind == "narrow_range"]
    assert (found.severity, found.rows) == ("warning", (0, 1, 2, 3))
    for part in ("0 to 4095", "0 to 65535", "0.00 to 0.06", "preprocess.windows", "[percentile]"):
        assert part in found.message
    for path in (tmp_path / "in" / "0.png", manifest.save(tmp_path / "m.parquet"), manifest.save(tmp_path / "m.csv")):
        assert "[percentile]" in inspect_path(path)["narrow_range"]


def test_the_settings_that_are_named_help(tmp_path: Path) -> None:
    manifest = study(tmp_path, *twelve_bits())
    (message,) = messages(manifest)
    named = yaml.safe_load(message[message.index("[{") : message.rindex("]") + 1])
    image = read_image(tmp_path / "0.png")
    dark = preprocess_image(image, Config().preprocess)
    assert dark.max() < 0.07 * 65535
    for config in (windows("percentile"), windows(*named)):
        assert messages(manifest, config) == []
        assert preprocess_image(image, config.preprocess).max() > 0.9 * 65535
    assert messages(manifest, windows("percentile", "full")) == [message]


def test_sound_images_are_no_finding(tmp_path: Path) -> None:
    full = [RNG.integers(0, 65536, (16, 16)).astype(np.uint16) for _ in range(3)]
    dark = RNG.integers(0, 900, (16, 16)).astype(np.uint16)
    assert messages(study(tmp_path / "one_dark", *full, dark)) == []
    assert messages(study(tmp_path / "constant", *[np.full((16, 16), k, np.uint16) for k in range(3)])) == []
    assert (
        messages(study(tmp_path / "eight", *[RNG.integers(0, 256, (16, 16)).astype(np.uint8) for _ in range(3)])) == []
    )
    apart = [np.uint16(k * 20000) + RNG.integers(0, 900, (16, 16)).astype(np.uint16) for k in range(3)]
    assert messages(study(tmp_path / "apart", *apart)) == []  # each narrow, all together not
    real = [RNG.random((16, 16)).astype(np.float32) for _ in range(3)]
    for number, values in enumerate(real):
        (tmp_path / "real").mkdir(exist_ok=True)
        Pillow.fromarray(values).save(tmp_path / "real" / f"{number}.tif")
    assert messages(Manifest.scan(tmp_path / "real", workers=1)) == []


def test_a_kind_of_its_own_is_found_beside_sound_images(tmp_path: Path) -> None:
    sound = [RNG.integers(0, 256, (16, 16)).astype(np.uint8) for _ in range(4)]
    (message,) = messages(study(tmp_path, *sound, *twelve_bits()))
    assert message.startswith("4 of the images (png, 16 bits)")


def test_one_hot_pixel_among_a_thousand_images_hides_nothing(tmp_path: Path) -> None:
    manifest = study(tmp_path, *twelve_bits())
    frame = manifest.frame.loc[np.arange(2000) % 4].reset_index(drop=True)
    frame["image_id"] = [str(number) for number in range(2000)]
    frame.loc[7, "value_high"] = 65535.0
    (message,) = messages(Manifest(frame, tmp_path))
    assert "from 0 to 4095" in message


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32"])
def test_arrays_of_wide_numbers(tmp_path: Path, kind: str) -> None:
    values = np.stack(twelve_bits()).astype(kind)
    np.savez(tmp_path / "x.npz", train_images=values, train_labels=np.arange(4))
    (message,) = messages(Manifest.scan(tmp_path / "x.npz", workers=1))
    assert "(npz)" in message


def test_nifti_without_a_window_is_shown_by_percentiles_unless_the_configuration_says_full(tmp_path: Path) -> None:
    values = np.stack(twelve_bits()).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii")  # type: ignore[no-untyped-call]
    manifest = Manifest.scan(tmp_path, workers=1)
    assert messages(manifest) == []
    assert len(messages(manifest, Config.model_validate({"preprocess": {"missing_window": "full"}}))) == 1
    assert len(messages(manifest, windows("full"))) == 1
    assert messages(manifest, windows("percentile")) == []


def test_a_manifest_without_the_columns_says_nothing(tmp_path: Path) -> None:
    manifest = study(tmp_path / "in", *twelve_bits())
    columns = ["value_low", "value_high", "range_low", "range_high", "header_window"]
    assert messages(Manifest(manifest.frame.drop(columns=columns), tmp_path)) == []


def test_twelve_bits_among_images_of_sixteen_are_found_and_counted(tmp_path: Path) -> None:
    full = [RNG.integers(0, 65536, (16, 16)).astype(np.uint16) for _ in range(5)]
    manifest = study(tmp_path / "in", *full[:2], *twelve_bits(3), *full[2:])
    (found,) = [one for one in audit_manifest(manifest).findings if one.kind == "narrow_range"]
    assert found.rows == (2, 3, 4)
    assert found.message.startswith("3 of the images (png, 16 bits) hold values from 0 to 4095, where")
    assert "0.00 to 0.06" in found.message
    assert messages(manifest, windows("percentile")) == []
    assert "3 of the images" in inspect_path(manifest.save(tmp_path / "m.parquet"))["narrow_range"]


def test_dark_pictures_of_eight_bits_among_others_are_no_finding(tmp_path: Path) -> None:
    bright = [RNG.integers(0, 256, (16, 16)).astype(np.uint8) for _ in range(4)]
    dark = [RNG.integers(0, 9, (16, 16)).astype(np.uint8) for _ in range(4)]
    assert messages(study(tmp_path, *bright, *dark)) == []
