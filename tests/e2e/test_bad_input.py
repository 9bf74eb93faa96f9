"""Bad input at the command line: one clear message, the designed exit code, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as PillowImage

from .conftest import run_cli

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        PillowImage.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def table(folder: Path, **columns: list[object]) -> Path:
    path = folder.parent / "labels.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def files() -> list[str]:
    return [f"{number}.png" for number in range(6)]


def message_of(*arguments: str | Path, code: int = 2) -> str:
    done = run_cli(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_misspelt_key_column_names_what_is_there(folder: Path) -> None:
    labels = table(folder, fiel=files(), label=[0, 1] * 3)
    message = message_of("scan", folder, "--labels", labels, "--out", folder.parent / "m.parquet")
    assert "fiel" in message
    assert not (folder.parent / "m.parquet").exists()


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message_of("scan", tmp_path / "empty", "--out", tmp_path / "m.parquet")
    message_of("scan", tmp_path / "absent", "--out", tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def config(folder: Path, *, column: str = "label") -> Path:
    path = folder.parent / "config.yaml"
    target = f"{{name: finding, kind: binary, classes: ['no', 'yes'], column: {column}}}"
    path.write_text(f"targets:\n  - {target}\npreprocess: {{size: [32, 32]}}\ntrain: {{epochs: 1, batch_size: 2}}\n")
    return path


def train(folder: Path, labels: Path, configuration: Path) -> str:
    manifest, run_dir = folder.parent / "m.parquet", folder.parent / "run"
    done = run_cli("scan", folder, "--labels", labels, "--out", manifest)
    assert done.returncode == 0, done.stderr
    message = message_of("train", "--manifest", manifest, "--config", configuration, "--run-dir", run_dir)
    assert not run_dir.exists()
    return message


SPLITS = ["train", "train", "train", "train", "val", "val"]


def test_a_label_outside_the_classes_is_named(folder: Path) -> None:
    labels = table(folder, file=files(), label=["no", "yes", "maybe", "no", "yes", "no"], split=SPLITS)
    assert "maybe" in train(folder, labels, config(folder))


def test_a_missing_label_column_names_the_nearest(folder: Path) -> None:
    labels = table(folder, file=files(), labell=["no", "yes"] * 3, split=SPLITS)
    assert "labell" in train(folder, labels, config(folder))


def test_one_class_only_in_a_split_is_refused(folder: Path) -> None:
    labels = table(folder, file=files(), label=["no", "yes", "no", "yes", "no", "no"], split=SPLITS)
    message = train(folder, labels, config(folder))
    assert "one class" in message
    assert "val" in message


def test_a_split_without_rows_is_refused(folder: Path) -> None:
    labels = table(folder, file=files(), label=["no", "yes"] * 3, split=["train"] * 6)
    assert "val" in train(folder, labels, config(folder))


def test_an_unknown_configuration_key_names_the_nearest(folder: Path) -> None:
    labels = table(folder, file=files(), label=["no", "yes"] * 3, split=SPLITS)
    path = config(folder)
    path.write_text(path.read_text().replace("epochs", "epoch"))
    assert "Did you mean 'epochs'?" in train(folder, labels, path)


def test_predictions_outside_0_to_1_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    columns = {"image_id": ["a", "b"], "patient_id": ["p", "q"], "y_true": [0, 1]}
    pd.DataFrame({**columns, "y_prob": [0.2, 1.2]}).to_csv(path, index=False)
    assert "1.2" in message_of("evaluate", "--predictions", path, "--out", tmp_path / "out")
    pd.DataFrame({**columns, "y_porb": [0.2, 0.4]}).to_csv(path, index=False)
    assert "y_porb" in message_of("evaluate", "--predictions", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "bundle").mkdir()
    message_of("score", "--bundle", tmp_path / "bundle", "--input", folder, "--output", tmp_path / "out")
    message_of("evaluate", "--bundle", tmp_path / "bundle", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"a letter\n" * 50, b"DICM" * 100])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Doe^John.dcm"
    path.write_bytes(content)
    assert "Doe" not in message_of("inspect", path)


def test_heads_are_kept_of_the_bundle_that_an_option_names(tmp_path: Path) -> None:
    start = ("--init-from", tmp_path / "bundle", "--set", "model.keep_heads=true")
    done = run_cli("train", "--manifest", tmp_path / "none.parquet", "--run-dir", tmp_path / "run", *start)
    assert done.returncode == 2
    assert "no such manifest" in done.stderr
