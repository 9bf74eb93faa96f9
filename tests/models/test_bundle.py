"""Bundles: round trips, and detection of every kind of damage."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import BundleError, WeightsError
from lepton_vision.models import Bundle, build_model, bundle_files
from lepton_vision.predictions.answer_sets import SetRule
from lepton_vision.predictions.calibration import Calibrator, Isotonic, Platt
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

LINES = {
    "sick": Calibrator("isotonic", (Isotonic((0.1, 0.1 + 0.2), (1 / 3, 2 / 3)),)),
    "signs": Calibrator("platt", (Platt(0.7, -0.1), Platt(0.0, 2.0))),
}
RULES = {
    "organ": (SetRule(("liver", "lung", "spleen"), 0.9, (1 / 3, 0.1, 0.0), (30, 20, 4)),),
    "signs": (SetRule(("absent", "present"), 0.9, (0.5, 0.1), (30, 20)),) * 2,
}


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "bundle")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change ``bundle.json`` and make its checksum fit again."""
    facts = json.loads((folder / "bundle.json").read_text())
    facts.pop("checksum")
    change(facts)
    facts["checksum"] = bundle_files._checksum(facts)
    (folder / "bundle.json").write_text(json.dumps(facts))


def test_what_was_saved_comes_back_bit_by_bit(bundle: Bundle, folder: Path) -> None:
    loaded = Bundle.load(folder)
    assert (loaded.config, loaded.targets, loaded.temperatures) == (bundle.config, bundle.targets, {"sick": 1.5})
    assert loaded.operating_point == bundle.operating_point
    assert loaded.state.keys() == bundle.state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in bundle.state.items())
    assert loaded.bundle_id == bundle.bundle_id
    assert re.fullmatch(r"[0-9a-f]{16}", loaded.bundle_id)
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_files_that_are_links_or_devices_are_refused(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    place = folder / name
    place.rename(tmp_path / name)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if kind == "device" else tmp_path / name)
    with pytest.raises(BundleError, match="link, folder, device or pipe"):
        Bundle.load(folder)


def test_a_bundle_behind_a_link_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder, target_is_directory=True)
    assert Bundle.load(tmp_path / "latest").bundle_id == Bundle.load(folder).bundle_id


def test_the_network_predicts_what_the_trained_one_did(bundle: Bundle, folder: Path, config: Config) -> None:
    trained = build_model(config).eval()
    network = Bundle.load(folder).network()
    assert not network.training
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images).logits["organ"], trained(images).logits["organ"])


def test_training_the_network_leaves_the_bundle_alone(bundle: Bundle) -> None:
    before = bundle.state["encoder.stem.conv1.weight"].clone()
    with torch.no_grad():
        bundle.network().encoder.stem.conv1.weight.add_(1.0)
    assert torch.equal(bundle.state["encoder.stem.conv1.weight"], before)


def test_the_id_follows_what_changes_a_prediction_or_a_decision_and_nothing_else(bundle: Bundle) -> None:
    moved = dict(bundle.state)
    moved["heads.linear.target_sick.bias"] = torch.nextafter(
        bundle.state["heads.linear.target_sick.bias"], torch.tensor(1.0)
    )
    point = OperatingPoint({"sick": (0.26,), "organ": (), "signs": (0.5, 0.75)}, "stated")
    changing = [
        replace(bundle, state=moved),
        replace(bundle, config=bundle.config.override("preprocess.windows=[percentile]")),
        bundle.with_temperatures({"sick": 1.6}),
        bundle.with_operating_point(point),
        bundle.with_calibrators(LINES),
        bundle.with_set_rules(RULES),
    ]
    ids = {bundle.bundle_id, *(changed.bundle_id for changed in changing)}
    assert len(ids) == 1 + len(changing)
    same = [
        replace(bundle, provenance={"data_fingerprint": "other"}),
        replace(bundle, config=bundle.config.override("train.epochs=99", "model.dropout=0.3")),
        bundle.with_temperatures({"sick": 1.5, "organ": 1.0}),
        bundle.with_operating_point(replace(point, thresholds=bundle.operating_point.thresholds, criterion="chosen")),
    ]
    assert {changed.bundle_id for changed in same} == {bundle.bundle_id}


def test_any_flipped_byte_is_found(folder: Path) -> None:
    rng = random.Random(0)
    for name in ("bundle.json", "weights.safetensors"):
        whole = (folder / name).read_bytes()
        places = (
            range(len(whole)) if name == "bundle.json" else [0, 8, len(whole) - 1, *rng.sample(range(len(whole)), 3)]
        )
        for place in list(places)[:: 7 if name == "bundle.json" else 1]:
            changed = bytearray(whole)
            changed[place] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(changed)
            try:
                Bundle.load(folder)
            except BundleError:
                continue
            same = json.loads(bytes(changed)) == json.loads(whole) if name == "bundle.json" else False
            assert same, f"byte {place} of {name}"  # white space carries nothing
        (folder / name).write_bytes(whole)
    Bundle.load(folder)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing. Copy"),
        (lambda folder: (folder / "bundle.json").unlink(), "bundle.json is missing. Copy"),
        (lambda folder: (folder / "bundle.json").write_text('{"format": "lepton'), "no JSON. Copy"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "does not describe a bundle"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\xfe\x00"), "no JSON"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b""), "weights.safetensors is damaged"),
        (lambda folder: rewrite(folder, lambda facts: facts.update(version=2)), "newer lepton_vision. Upgrade"),
        (lambda folder: rewrite(folder, lambda facts: facts.update(extra=1)), "unknown: extra"),
        (lambda folder: rewrite(folder, lambda facts: facts.pop("targets")), "Missing or unknown: targets"),
        (lambda folder: rewrite(folder, lambda facts: facts.update(temperatures=[1])), "another form"),
        (lambda folder: rewrite(folder, lambda facts: facts.update(channels=3)), "3 channels. Received: 1"),
        (
            lambda folder: rewrite(folder, lambda facts: facts["config"]["model"].update(backbone="resnet50")),
            "Expected weights of resnet50",
        ),
        (lambda folder: rewrite(folder, lambda facts: facts["targets"].pop()), "operating point"),
        (lambda folder: rewrite(folder, lambda facts: facts["config"].update(trian={})), "Did you mean 'train'"),
    ],
)
def test_damage_is_told_with_what_to_do_and_without_the_path(
    folder: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(folder)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert told in str(caught.value)
    assert str(folder.parent) not in str(caught.value)
    assert caught.value.path == folder


def test_a_hand_edited_threshold_is_refused(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    assert text.count("0.25") >= 1
    (folder / "bundle.json").write_text(text.replace("0.25", "0.52"))
    with pytest.raises(BundleError, match=r"use with_operating_point"):
        Bundle.load(folder)


def test_no_folder_and_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such bundle"):
        Bundle.load(tmp_path / "gone")
    with pytest.raises(BundleError, match=r"incomplete"):
        Bundle.load(tmp_path)


def test_saving_again_replaces_the_bundle_and_leaves_nothing_beside_it(bundle: Bundle, folder: Path) -> None:
    bundle.with_temperatures({"sick": 2.5}).save(folder)
    assert Bundle.load(folder).temperatures == {"sick": 2.5}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_save_that_fails_leaves_the_old_bundle(bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_files, "write_atomic", full)
    with pytest.raises(BundleError, match=r"No space left on device"):
        bundle.with_temperatures({"sick": 2.5}).save(folder)
    assert Bundle.load(folder).temperatures == {"sick": 1.5}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_kill_between_the_renames_is_explained_and_mended_by_the_next_save(bundle: Bundle, folder: Path) -> None:
    folder.rename(folder.with_name(".bundle.previous"))
    with pytest.raises(BundleError, match=r"previous"):
        Bundle.load(folder)
    bundle.save(folder)
    assert Bundle.load(folder).bundle_id == bundle.bundle_id


def test_other_peoples_files_are_not_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(BundleError, match=r"no bundle stands there"):
        bundle.save(tmp_path)
    with pytest.raises(BundleError, match=r"no bundle stands there"):
        bundle.save(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_no_path_of_this_machine_is_written(bundle: Bundle, tmp_path: Path) -> None:
    config = bundle.config.override("model.weights=/home/doe/start.npz", "cache.folder=/scratch/doe")
    provenance = {"source": Path("/home/doe/scans"), "nested": {"table": "/home/doe/labels.csv"}}
    saved = replace(bundle, config=config, provenance=provenance).save(tmp_path / "bundle")
    text = (saved / "bundle.json").read_text()
    assert "doe" not in text
    assert str(tmp_path) not in text
    assert Bundle.load(saved).config.model.weights == "start.npz"


def test_provenance_says_what_made_it_in_plain_json(bundle: Bundle, tmp_path: Path) -> None:
    given = {"validation": {"val_auroc": np.float32(0.5), "other": float("nan")}, "epochs": np.int64(3)}
    loaded = Bundle.load(replace(bundle, provenance=given).save(tmp_path / "bundle"))
    assert loaded.provenance["validation"] == {"val_auroc": 0.5, "other": None}
    assert loaded.provenance["epochs"] == 3
    assert loaded.provenance["seed"] == bundle.config.train.seed
    assert loaded.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert loaded.provenance["created"].endswith("+00:00")


@pytest.mark.parametrize("temperatures", [{"sick": 0.0}, {"sick": float("nan")}, {"lung": 1.0}, {"sick": -1.0}])
def test_a_temperature_that_cannot_be_is_refused(bundle: Bundle, temperatures: dict[str, float]) -> None:
    with pytest.raises(BundleError, match=r"temperatures above 0"):
        bundle.with_temperatures(temperatures)


@pytest.mark.parametrize(
    "thresholds",
    [
        {"sick": (0.5,)},
        {"sick": (0.5, 0.5), "organ": (), "signs": (0.5, 0.5)},
        {"sick": (float("inf"),), "organ": (), "signs": (0.5, 0.5)},
    ],
)
def test_an_operating_point_of_another_model_is_refused(bundle: Bundle, thresholds: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"operating point"):
        bundle.with_operating_point(OperatingPoint(thresholds, "stated"))


def test_the_page_shows_targets_and_escapes(bundle: Bundle) -> None:
    page = replace(bundle, provenance={"note": "<script>"})._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert bundle.bundle_id in page


def test_a_new_task_starts_from_the_encoder_with_new_heads(bundle: Bundle, folder: Path, config: Config) -> None:
    target = Target("grade", "multiclass", ("1", "2", "3", "4"))
    model = build_model(config.override(f"model.init_from={folder}", "train.seed=5"), targets=(target,))
    state = model.state_dict()
    for name, tensor in bundle.state.items():
        if name.startswith("encoder."):
            assert torch.equal(state[name], tensor), name
    assert model.start.startswith(f"bundle {bundle.bundle_id}")
    assert state["heads.linear.target_grade.weight"].shape == (4, 512)
    fresh = build_model(config.override("train.seed=5"), targets=(target,)).state_dict()
    assert torch.equal(state["heads.linear.target_grade.weight"], fresh["heads.linear.target_grade.weight"])


def test_heads_of_the_same_target_are_kept_where_asked_for(bundle: Bundle, folder: Path, config: Config) -> None:
    targets = (config.targets[0], Target("organ", "multiclass", ("lung", "liver", "spleen")))
    kept = config.override(f"model.init_from={folder}", "model.keep_heads=true", "train.seed=5")
    model = build_model(kept, targets=targets)
    state = model.state_dict()
    assert model.start.endswith("; kept heads sick")
    for name in ("heads.linear.target_sick.weight", "heads.linear.target_sick.bias"):
        assert torch.equal(state[name], bundle.state[name])
    organ = "heads.linear.target_organ.weight"
    assert not torch.equal(state[organ], bundle.state[organ]), "its classes stand in another order"


def test_keeping_heads_of_another_task_is_refused(folder: Path, config: Config) -> None:
    other = (Target("grade", "binary", ("low", "high")),)
    with pytest.raises(WeightsError, match=r"Received: sick, organ, signs\. Turn it off") as caught:
        build_model(config.override(f"model.init_from={folder}", "model.keep_heads=true"), targets=other)
    assert caught.value.key == "model.keep_heads"


def test_heads_that_see_something_else_are_not_kept(folder: Path, config: Config) -> None:
    masks = ("segmentation.structures={a: 1}", "segmentation.mode=evidence")
    with pytest.raises(WeightsError, match="as many features"):
        build_model(config.override(f"model.init_from={folder}", "model.keep_heads=true", *masks))


def test_other_channels_get_the_adapted_stem(bundle: Bundle, folder: Path, config: Config) -> None:
    model = build_model(config.override(f"model.init_from={folder}", "preprocess.color=rgb"))
    stem = bundle.state["encoder.stem.conv1.weight"]
    torch.testing.assert_close(model.encoder.stem.conv1.weight.detach().sum(1, keepdim=True), stem)


def test_another_backbone_is_refused(folder: Path, config: Config) -> None:
    with pytest.raises(WeightsError, match=r"backbone resnet34. Received: resnet18"):
        build_model(config.override(f"model.init_from={folder}", "model.backbone=resnet34"))


def test_calibrators_and_set_rules_come_back_as_they_were(bundle: Bundle, tmp_path: Path) -> None:
    calibrated = bundle.with_calibrators(LINES).with_set_rules(RULES)
    loaded = Bundle.load(calibrated.save(tmp_path / "calibrated"))
    assert loaded.calibrators == LINES
    assert loaded.set_rules == RULES
    assert loaded.bundle_id == calibrated.bundle_id


def test_a_bundle_of_before_calibrators_still_loads(bundle: Bundle, folder: Path) -> None:
    facts = json.loads((folder / "bundle.json").read_text())
    assert not {"calibrators", "set_rules"} & set(facts)
    rewrite(folder, lambda facts: [facts["operating_point"].pop("figures"), _drop_new_settings(facts)][0])
    old = Bundle.load(folder)
    assert (old.bundle_id, old.calibrators, old.set_rules) == (bundle.bundle_id, {}, {})
    assert old.config.evaluation.calibration == "temperature"


def _drop_new_settings(facts: dict[str, Any]) -> None:
    kept = ("min_sensitivity", "calibrate", "replicates", "confidence", "seed")
    facts["config"]["evaluation"] = {key: facts["config"]["evaluation"][key] for key in kept}


@pytest.mark.parametrize("calibrators", [{"sock": LINES["sick"]}, {"signs": LINES["sick"]}, {"sick": LINES["signs"]}])
def test_maps_that_do_not_fit_the_target_are_refused(bundle: Bundle, calibrators: dict[str, Calibrator]) -> None:
    with pytest.raises(BundleError, match="calibration maps by target"):
        bundle.with_calibrators(calibrators)


@pytest.mark.parametrize("rules", [{"sock": RULES["organ"]}, {"sick": RULES["organ"]}, {"signs": RULES["signs"][:1]}])
def test_rules_for_other_answers_are_refused(bundle: Bundle, rules: dict[str, tuple[SetRule, ...]]) -> None:
    with pytest.raises(BundleError, match="set rules for the answers"):
        bundle.with_set_rules(rules)


def test_a_damaged_calibrator_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.with_calibrators(LINES).save(tmp_path / "calibrated")
    rewrite(folder, lambda facts: facts["calibrators"]["sick"]["maps"][0].update(after=[0.9, 0.1]))
    with pytest.raises(BundleError, match="ascending"):
        Bundle.load(folder)
