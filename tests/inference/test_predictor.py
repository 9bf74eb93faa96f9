"""Predictor: order of the samples, failures, and equality of single images with a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, EvaluationError, LabelError, ManifestError
from lepton_vision.evaluation.choices.calibration import apply_temperature
from lepton_vision.evaluation.classes.figures import validation_figures
from lepton_vision.inference import predict
from lepton_vision.inference.predictor import examine_network
from lepton_vision.inference.samples import list_files, read_ahead
from lepton_vision.manifest.table import Manifest
from lepton_vision.models import Bundle, build_model
from lepton_vision.predictions import Predictions
from lepton_vision.readers.image import read_image
from lepton_vision.transforms import make_loader
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))
SIGNS = Target("signs", "multilabel", ("edema", "mass"))
N = 9
BROKEN = 4


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config.from_dict({"preprocess": {"size": [32, 32]}, "train": {"batch_size": 4}})
    config = config.model_copy(update={"targets": (SICK, ORGAN, SIGNS)})
    torch.manual_seed(0)
    network = build_model(config)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return Bundle(config=config, targets=config.targets, state=state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images, of which one is cut off."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for k in range(N):
        cv2.imwrite(str(root / f"{k}.png"), rng.integers(0, 255, (40 + k, 36), np.uint8))
    whole = (root / f"{BROKEN}.png").read_bytes()
    (root / f"{BROKEN}.png").write_bytes(whole[: len(whole) // 2])
    return root


def manifest_of(folder: Path, *, split: str = "val", labels: bool = True) -> Manifest:
    table = pd.DataFrame({"image_id": [f"id{k}" for k in range(N)], "path": [f"{k}.png" for k in range(N)]})
    table["patient_id"] = [None if k == 0 else f"p{k // 2}" for k in range(N)]
    table["split"] = split
    names: tuple[str, ...] = ()
    if labels:
        table["sick"] = ["yes" if k % 2 else "no" for k in range(N)]
        table["organ"] = ["abc"[k % 3] if k else None for k in range(N)]
        table["edema"], table["mass"] = [k % 2 for k in range(N)], [1] * N
        names = ("sick", "organ", "edema", "mass")
    return Manifest(table, root=folder, label_columns=names)


def by_hand(bundle: Bundle, path: Path) -> dict[str, np.ndarray]:
    """One image through the network in float32, without the package's inference."""
    config = bundle.config.preprocess
    pixels = torch.from_numpy(to_input(preprocess_image(read_image(path), config), config)[None])
    with torch.no_grad():
        logits = {name: values[0].numpy() for name, values in bundle.network()(pixels).logits.items()}
    t = bundle.temperature
    return {
        "sick": expit(logits["sick"][0] / t("sick")),
        "organ": softmax(logits["organ"] / t("organ")),
        "signs": expit(logits["signs"] / t("signs")),
    }


def test_rows_in_order_and_the_broken_one_is_told(
    bundle: Bundle, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, int]] = []
    predictions = predict(
        bundle,
        manifest_of(folder),
        device="cpu",
        precision="fp32",
        batch_size=2,
        progress=lambda done, total: told.append((done, total)),
    )
    read = [k for k in range(N) if k != BROKEN]
    assert predictions.image_id.tolist() == [f"id{k}" for k in read]
    assert predictions.patient_id.tolist() == ["" if k == 0 else f"p{k // 2}" for k in read]
    assert [tuple(failure) for failure in predictions.failures] == [(f"id{BROKEN}", "truncated")]
    named = f"1 of {N} rows cannot be read now and are in no figure (row {BROKEN}, id{BROKEN}: truncated)."
    assert sum(named in message for message in caplog.messages) == 1
    assert (predictions.split, predictions.bundle_id) == ("val", bundle.bundle_id)
    assert predictions.preprocess == bundle.config.preprocess
    assert predictions.addresses is not None
    assert [address.path for address in predictions.addresses] == [folder / f"{k}.png" for k in read]
    np.testing.assert_array_equal(predictions.y_true["sick"], [k % 2 for k in read])
    np.testing.assert_array_equal(predictions.y_true["organ"], [k % 3 if k else np.nan for k in read])
    np.testing.assert_array_equal(predictions.y_true["signs"], [[k % 2, 1] for k in read])
    assert told[-1] == (N, N)
    assert told == sorted(told)
    for row, k in enumerate(read):
        for name, expected in by_hand(bundle, folder / f"{k}.png").items():
            np.testing.assert_allclose(predictions.y_prob[name][row], expected, atol=2e-6)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 2), (20, 1)])
def test_a_batch_equals_one_by_one(bundle: Bundle, folder: Path, batch_size: int, workers: int) -> None:
    manifest = manifest_of(folder)
    whole = predict(bundle, manifest, device="cpu", precision="fp32", batch_size=N)
    other = predict(bundle, manifest, device="cpu", precision="fp32", batch_size=batch_size, workers=workers)
    assert other.image_id.tolist() == whole.image_id.tolist()
    for name, values in whole.y_prob.items():
        np.testing.assert_allclose(other.y_prob[name], values, atol=2e-6)


def test_temperatures_are_those_of_evaluation(bundle: Bundle, folder: Path) -> None:
    manifest = manifest_of(folder)
    temperatures = {"sick": 2.5, "organ": 0.7, "signs": 1.4}
    plain = predict(bundle, manifest, device="cpu", precision="fp32")
    scaled = predict(bundle.with_temperatures(temperatures), manifest, device="cpu", precision="fp32")
    for target in (SICK, ORGAN, SIGNS):
        expected = apply_temperature(plain.y_prob[target.name], temperatures[target.name], kind=target.kind)
        np.testing.assert_allclose(scaled.y_prob[target.name], expected, atol=1e-5)
        assert not np.allclose(scaled.y_prob[target.name], plain.y_prob[target.name], atol=1e-3)


def test_files_and_folders(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    named = predict(bundle, [folder / "3.png", folder, tmp_path / "none.png"], device="cpu", precision="fp32")
    assert named.addresses is not None
    assert [address.path.stem for address in named.addresses] == ["3", "0", "1", "2", "5", "6", "7", "8"]
    assert [failure.reason for failure in named.failures] == ["truncated", "missing"]
    assert named.split is None
    assert all(np.isnan(values).all() for values in named.y_true.values())
    table = predict(bundle, manifest_of(folder), device="cpu", precision="fp32")
    assert table.y_prob["sick"][3] == pytest.approx(named.y_prob["sick"][0], abs=2e-6)
    single = predict(bundle, folder / "3.png", device="cpu", precision="fp32")
    assert single.n == 1
    assert single.image_id[0] == named.image_id[0] == read_image(folder / "3.png").image_id


def test_each_frame_is_a_sample(bundle: Bundle, tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 255, (3, 40, 40), np.uint8)
    assert cv2.imwritemulti(str(tmp_path / "pages.tiff"), list(pages))
    cv2.imwrite(str(tmp_path / "first.png"), pages[0])
    found = predict(bundle, tmp_path / "pages.tiff", device="cpu", precision="fp32")
    assert found.n == 3
    assert found.addresses is not None
    assert [address.frame for address in found.addresses] == [0, 1, 2]
    assert len(set(found.image_id)) == 3
    first = predict(bundle, tmp_path / "first.png", device="cpu", precision="fp32")
    assert found.y_prob["sick"][0] == pytest.approx(first.y_prob["sick"][0], abs=2e-6)
    frames = [read_image(tmp_path / "pages.tiff", frame=k).image_id for k in range(3)]
    assert found.image_id.tolist() == frames


def test_a_folder_of_a_bundle_and_images_in_memory(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    files = [folder / "3.png", folder / "5.png"]
    by_path = predict(bundle, files, device="cpu", precision="fp32")
    for held in ([read_image(path) for path in files], [read_image(files[0])]):
        given = held if len(held) > 1 else held[0]
        found = predict(bundle.save(tmp_path / f"bundle{len(held)}"), given, device="cpu", precision="fp32")
        np.testing.assert_array_equal(found.y_prob["sick"], by_path.y_prob["sick"][: len(held)])
        assert found.image_id.tolist() == [image.image_id for image in held]
        assert found.addresses is None


def test_a_table_with_paths(bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    table = pd.DataFrame({"path": ["3.png", str(folder / "5.png"), f"{BROKEN}.png"], "sick": ["no", "yes", "no"]})
    found = predict(bundle, table, device="cpu", precision="fp32")
    expected = predict(bundle, [folder / "3.png", folder / "5.png"], device="cpu", precision="fp32")
    np.testing.assert_array_equal(found.y_prob["organ"], expected.y_prob["organ"])
    assert found.y_true["sick"].tolist() == [0.0, 1.0]
    assert [failure.reason for failure in found.failures] == ["truncated"]
    named = predict(bundle, table.assign(image_id=["a", "b", "c"]), device="cpu", precision="fp32")
    assert named.image_id.tolist() == ["a", "b"]
    with pytest.raises(ManifestError, match=r"column 'path'.*paths"):
        predict(bundle, table.rename(columns={"path": "paths"}), device="cpu")


def test_what_it_cannot_take_is_told(bundle: Bundle, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"Received: int"):
        predict(bundle, 3, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"both in one list"):
        predict(bundle, [folder / "3.png", read_image(folder / "3.png")], device="cpu")


def test_nothing_is_shown_where_nobody_looks(bundle: Bundle, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    predict(bundle, folder / "3.png", device="cpu", precision="fp32")
    assert capfd.readouterr() == ("", "")


def test_nothing_readable_is_an_empty_table(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    found = predict(bundle, [folder / f"{BROKEN}.png"], device="cpu")
    assert (found.n, len(found.failures)) == (0, 1)
    again = Predictions.load(found.save(tmp_path / "p.parquet"))
    assert again.y_prob["organ"].shape == (0, 3)
    assert again.failures == found.failures


def test_rejected_rows_are_failures_and_unlabelled_rows_are_unknown(bundle: Bundle, folder: Path) -> None:
    table = manifest_of(folder, labels=False).frame.copy()
    table.loc[2, "status"], table.loc[2, "reason"] = "rejected", "leakage"
    predictions = predict(bundle, Manifest(table, root=folder), device="cpu")
    assert [tuple(failure) for failure in predictions.failures] == [("id2", "leakage"), (f"id{BROKEN}", "truncated")]
    assert predictions.n == N - 2
    assert np.isnan(predictions.y_true["sick"]).all()
    assert predictions.y_true["signs"].shape == (N - 2, 2)


def test_refusals(bundle: Bundle, folder: Path) -> None:
    manifest = manifest_of(folder)
    mixed = manifest.frame.copy()
    mixed.loc[0, "split"] = "test"
    with pytest.raises(EvaluationError, match="one split"):
        predict(bundle, replace(manifest, frame=mixed), device="cpu")
    odd = manifest.frame.copy()
    odd.loc[1, "sick"] = "maybe"
    with pytest.raises(LabelError):
        predict(bundle, replace(manifest, frame=odd), device="cpu")
    with pytest.raises(ManifestError):
        predict(bundle, manifest.select([]), device="cpu")
    for wrong in ({"batch_size": 0}, {"workers": -1}, {"device": "abacus"}, {"precision": "fp8"}):
        with pytest.raises(ConfigError):
            predict(bundle, manifest, **wrong)  # type: ignore[arg-type]


def test_damaged_weights_are_told(bundle: Bundle, folder: Path) -> None:
    state = {name: tensor.clone() for name, tensor in bundle.state.items()}
    name = next(name for name in state if name.startswith("heads.") and name.endswith("bias"))
    state[name][:] = torch.nan
    with pytest.raises(EvaluationError, match="not numbers"):
        predict(replace(bundle, state=state), manifest_of(folder), device="cpu")


def test_a_network_in_training_is_predicted_the_same_way(bundle: Bundle, folder: Path) -> None:
    manifest = manifest_of(folder).select(np.arange(N) != BROKEN)
    loader = make_loader(manifest, bundle.config, targets=bundle.targets, batch_size=3)
    network = bundle.network().train()
    network.encoder.eval()  # as frozen stages are
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    findings = examine_network(network, loader, targets=bundle.targets, device="cpu", precision="fp32")
    assert findings.overlap is None
    found = findings.predictions
    assert found is not None
    expected = predict(bundle, manifest, device="cpu", precision="fp32")
    assert found.image_id.tolist() == expected.image_id.tolist()
    for name in ("sick", "organ", "signs"):
        np.testing.assert_allclose(found.y_prob[name], expected.y_prob[name], atol=2e-6)
        np.testing.assert_array_equal(found.y_true[name], expected.y_true[name])
    assert network.training
    assert not network.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    counts = {"val_classes_judged", "val_classes_left_out"}  # one sign has no negative sample
    assert set(validation_figures(found)) == {"val_auroc", "val_average_precision", "val_loss"} | counts


def test_the_cache_changes_nothing(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    manifest = manifest_of(folder)
    plain = predict(bundle, manifest, device="cpu", precision="fp32")
    for _ in range(2):
        cached = predict(bundle, manifest, device="cpu", precision="fp32", cache_dir=tmp_path)
        np.testing.assert_array_equal(cached.y_prob["sick"], plain.y_prob["sick"])
        assert cached.failures == plain.failures
    assert any(tmp_path.iterdir())


def test_reading_ahead_keeps_order_and_is_bounded() -> None:
    taken: list[int] = []

    def jobs() -> object:
        for k in range(50):
            taken.append(k)
            yield k

    results = read_ahead(jobs(), lambda k: k * k, workers=3, depth=5)  # type: ignore[arg-type]
    for k, value in enumerate(results):
        assert value == k * k
        assert len(taken) <= k + 7
    with pytest.raises(ZeroDivisionError):
        list(read_ahead([1, 0, 2], lambda k: 1 // k, workers=2, depth=2))


def test_jobs_that_a_thread_takes_at_once_stay_in_order_and_bounded() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for k in range(200):
            taken.append(k)
            yield k

    for k, value in enumerate(read_ahead(jobs(), lambda k: k * k, workers=2, depth=64)):
        assert value == k * k
        assert len(taken) <= k + 64 + 4  # 4 at once
    assert len(taken) == 200


def test_a_few_jobs_are_shared_by_all_threads() -> None:
    both = threading.Barrier(2, timeout=60)  # broken, if one thread were to take both jobs
    list(read_ahead(range(2), lambda _: both.wait(), workers=2, depth=64))


def test_what_was_read_before_a_failure_is_given_before_it() -> None:
    results = read_ahead(range(20, -5, -1), lambda k: 60 // k, workers=1, depth=64)
    assert [next(results) for _ in range(20)] == [60 // k for k in range(20, 0, -1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_hidden_files_are_no_inputs(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", ".hidden/d.png", ".e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_files(tmp_path)] == ["b.png", "c.png"]
    assert [path.name for path in list_files([tmp_path / "b.png", tmp_path, tmp_path / ".e.png"])] == [
        "b.png",
        "c.png",
        ".e.png",
    ]
