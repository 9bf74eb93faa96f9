"""Augment: reproducible, bounded, and never mirrored where sides matter."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_vision.config.sections import AugmentConfig, PreprocessConfig
from lepton_vision.transforms import changes
from lepton_vision.transforms.augment import Augment, _draw_holes, _draw_warp, build_augment
from lepton_vision.transforms.laterality import has_side_words, is_lateral_target
from lepton_vision.transforms.presets import PRESETS
from lepton_vision.types import Target

PLAIN = Target("tumour", "binary", ("absent", "present"))
SHOWN = sorted(set(PRESETS) - {"none"})


def image(channels: int = 1, *, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).random((channels, side, side + 5), np.float32)


@settings(max_examples=60, deadline=None)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    strength=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    channels=st.integers(1, 6),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_result_is_an_image_of_the_same_kind(preset: str, strength: float, channels: int, seed: int) -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": preset, "strength": strength}), targets=[PLAIN])
    pixels = image(channels)
    before = pixels.copy()
    result = augment(pixels, seed)
    assert (pixels == before).all()
    assert result.shape == pixels.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    if preset == "none" or strength == 0:
        assert (result == pixels).all()


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.25,)), ((0.1, 0.2, 0.3), (0.5,)), ((0.5,), (0.5, 0.25, 2.0))])
def test_one_mean_or_deviation_is_for_all_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    augment = build_augment(AugmentConfig(preset="photo"), targets=[PLAIN])
    pixels = image(3)
    changes_drawn = augment.draw(pixels.shape[1:], 7)
    norm = PreprocessConfig(color="rgb", mean=mean, std=std)
    plain = augment.apply(pixels, changes_drawn)
    expected = (plain - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    got = augment.apply(pixels, changes_drawn, norm=norm)
    inside = (plain > 0) & (plain < 1)  # the normalised image is not clipped
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize("preset", SHOWN)
def test_the_seed_alone_decides(preset: str) -> None:
    config = AugmentConfig.model_validate({"preset": preset})
    one, other = build_augment(config, targets=[PLAIN]), build_augment(config, targets=[PLAIN])
    pixels = image(2)
    wanted = {seed: one(pixels, seed) for seed in range(30)}
    for seed in reversed(range(30)):
        np.random.seed(seed)  # noqa: NPY002 - the global state must not matter
        other(image(1, seed=seed), seed + 1000)
        assert (other(pixels, seed) == wanted[seed]).all()
    assert (pickle.loads(pickle.dumps(one))(pixels, 7) == wanted[7]).all()
    assert len({result.tobytes() for result in wanted.values()}) > 20


def test_steps_happen_independently_of_each_other() -> None:
    # With one seed for every step, all steps of the same probability would happen together or not at all.
    augment = build_augment(AugmentConfig(preset="photo"), targets=[])
    names = [changes.mirror, changes.flip_vertical, changes.apply_gamma, changes.add_noise]
    happened = []
    for seed in range(300):
        applied = {apply for apply, _ in augment.draw((32, 37), seed)}
        happened.append([name in applied for name in names])
    both = np.corrcoef(np.asarray(happened, float).T)
    assert abs(both[0, 1]) < 0.2
    assert abs(both[2, 3]) < 0.2


def drawn_by_albumentations(augment: Augment) -> list:
    """Steps whose values come from the numbers that albumentations would draw: all but noise and holes."""
    return [step for step in augment._steps if not isinstance(step, A.GaussNoise | A.CoarseDropout)]


def by_albumentations(augment: Augment, pixels: np.ndarray, seed: int) -> np.ndarray:
    """What albumentations itself makes of the same steps, channel by channel."""
    compose = A.Compose(augment._steps)
    planes = []
    for plane in pixels:
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        planes.append(np.clip(compose(image=plane[:, :, None])["image"][:, :, 0], 0.0, 1.0))
    return np.stack(planes)


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("preset", SHOWN)
def test_the_result_is_that_of_albumentations(preset: str, strength: float) -> None:
    config = AugmentConfig.model_validate({"preset": preset, "strength": strength, "flip": True})
    augment = build_augment(config, targets=[])
    augment._steps = drawn_by_albumentations(augment)
    seen = set()
    for seed in range(60):
        pixels = image(1 + 2 * (seed % 2), seed=seed, side=(28, 64)[seed % 4 // 2])
        seen |= {apply for apply, _ in augment.draw(pixels.shape[1:], seed)}
        wanted = by_albumentations(augment, pixels, seed)
        np.testing.assert_allclose(augment(pixels, seed), wanted, rtol=0, atol=2e-5, err_msg=str(seed))
    assert len(seen) == len(augment._steps)  # each kind of change was among them


def test_the_matrix_is_the_product_that_albumentations_forms() -> None:
    for preset in ("ct", "photo"):
        augment = build_augment(AugmentConfig.model_validate({"preset": preset}), targets=[])
        (step,) = (step for step in augment._steps if isinstance(step, A.Affine))
        for seed in range(50):
            step.set_random_state(np.random.default_rng(seed), random.Random(seed))
            wanted = step.get_params_dependent_on_data({"shape": (224, 200, 1)}, {"image": np.zeros((224, 200, 1))})
            drawn = _draw_warp(step, (224, 200), random.Random(seed))
            np.testing.assert_allclose(drawn["matrix"], wanted["matrix"], rtol=0, atol=1e-10)


def test_holes_are_as_many_and_as_large_as_the_preset_says_and_lie_inside() -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": "ct"}), targets=[])
    (step,) = (step for step in augment._steps if isinstance(step, A.CoarseDropout))
    holes = [np.asarray(_draw_holes(step, (224, 100), random.Random(seed))["holes"]) for seed in range(600)]
    assert {len(some) for some in holes} == {1, 2, 3}
    left, top, right, bottom = np.concatenate(holes).T
    assert min(left.min(), top.min()) == 0  # the edges are reached,
    assert (right.max(), bottom.max()) == (100, 224)  # not crossed
    step.set_random_state(np.random.default_rng(0), random.Random(0))
    theirs = [step.get_params_dependent_on_data({"shape": (224, 100, 1)}, {})["holes"] for _ in range(600)]
    for ours, wanted, tolerance in zip(shapes_of(holes), shapes_of(theirs), (1, 1, 12, 6), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=tolerance)


def shapes_of(holes: list[np.ndarray]) -> list[np.ndarray]:
    """Quartiles of heights, widths, tops and lefts in pixels."""
    left, top, right, bottom = np.concatenate(holes).T
    return [np.quantile(values, [0.25, 0.5, 0.75]) for values in (bottom - top, right - left, top, left)]


def test_pixels_of_the_cache_are_augmented_like_floats() -> None:
    augment = build_augment(AugmentConfig(preset="mr"), targets=[])
    whole = np.random.default_rng(0).integers(0, 65536, (2, 32, 37)).astype(np.uint16)
    for seed in range(20):
        wanted = augment((whole * np.float32(1 / 65535)).astype(np.float32), seed)
        np.testing.assert_allclose(augment(whole, seed), wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("preset", SHOWN)
def test_what_is_drawn_first_and_normalised_in_the_same_pass_is_the_same_image(preset: str) -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": preset, "strength": 2.0}), targets=[])
    config = PreprocessConfig(windows=("header",) * 3, mean=(0.1, 0.5, 0.3), std=(0.2, 1.5, 0.7))
    whole = np.random.default_rng(0).integers(0, 65536, (3, 32, 37)).astype(np.uint16)
    drawn = [augment.draw((32, 37), seed) for seed in range(30)]
    for seed in range(30):
        for pixels in (whole, (whole * np.float32(1 / 65535)).astype(np.float32)):
            plain = augment(pixels, seed)
            assert (augment.apply(pixels, drawn[seed]) == plain).all()
            wanted = (plain - np.reshape(config.mean, (3, 1, 1))) / np.reshape(config.std, (3, 1, 1))
            np.testing.assert_allclose(augment.apply(pixels, drawn[seed], norm=config), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("preset", SHOWN)
def test_levels_stand_for_black_and_white_after_every_change(preset: str) -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": preset, "strength": 3.0}), targets=[])
    edges = np.zeros((1, 32, 37), np.uint16)
    edges[:, 8:24] = 65535
    for seed in range(60):
        values = augment.apply(edges, augment.draw((32, 37), seed), norm=PreprocessConfig(mean=(0.0,), std=(1.0,)))
        assert -1e-5 < values.min() <= values.max() < 1 + 1e-5


@pytest.mark.parametrize("side", [40, 1100])  # stretches of the table, and numbers of their own
def test_noise_is_white_and_as_strong_as_it_was_drawn(side: int) -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": "mr"}), targets=[])
    augment._steps = [step for step in augment._steps if isinstance(step, A.GaussNoise)]
    gray, seen, deviations = np.full((1, side, side), 0.5, np.float32), [], []
    for seed in range(200 if side == 40 else 12):
        noise = augment(gray, seed)[0] - 0.5
        ((_, drawn),) = augment.draw((side, side), seed) or [(None, None)]
        if drawn is None:
            assert not noise.any()
            continue
        deviations.append(float(noise.std()))
        assert abs(drawn["scale"]) == pytest.approx(deviations[-1], rel=0.1)
        assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.1
        seen.append(noise.ravel()[:1600])
    strongest = PRESETS["mr"].noise
    assert 0.18 * strongest < min(deviations) < max(deviations) < 1.1 * strongest
    pairs = np.corrcoef(np.stack(seen)) - np.eye(len(seen))
    assert np.abs(pairs).max() < 0.2  # no two images have the same noise
    assert np.abs(np.stack(seen).mean()) < 0.002


def test_the_result_can_take_the_place_of_the_image() -> None:
    augment = build_augment(AugmentConfig(preset="mr"), targets=[])
    for seed in range(20):
        pixels = image(3, seed=seed)
        wanted = augment(pixels, seed)
        assert augment(pixels, seed, out=pixels) is pixels
        assert (pixels == wanted).all()


def test_an_image_that_is_not_moved_is_not_interpolated() -> None:
    plane = image()[0]
    spare = np.empty_like(plane)
    assert changes.warp(plane, {"matrix": np.eye(3) + 1e-10}, spare) is plane
    shifted = changes.warp(plane, {"matrix": np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])}, spare)
    assert (shifted[:, 2:] == plane[:, :-2]).all()
    assert not shifted[:, :2].any()


@pytest.mark.parametrize("preset", SHOWN)
def test_equal_channels_stay_equal(preset: str) -> None:
    augment = build_augment(AugmentConfig.model_validate({"preset": preset}), targets=[])
    gray = image()
    for seed in range(20):
        colour = augment(np.repeat(gray, 3, axis=0), seed)
        assert (colour == augment(gray, seed)).all()


def is_mirrored(result: np.ndarray) -> bool:
    """Whether a bright left edge has come to the right."""
    half = result.shape[2] // 2
    return bool(result[:, :, half:].sum() > result[:, :, :half].sum())


@pytest.mark.parametrize("preset", SHOWN)
@pytest.mark.parametrize(
    "target",
    [
        Target("side", "binary", ("absent", "present"), is_lateral=True),
        Target("side", "multiclass", ("none", "left lung", "right lung")),
        Target("findings", "multilabel", ("LeftUpperLobe", "effusion")),
        Target("eye", "binary", ("OD", "OS")),
    ],
)
def test_no_preset_mirrors_where_a_target_tells_sides(preset: str, target: Target) -> None:
    config = AugmentConfig.model_validate({"preset": preset, "flip": True})
    augment = build_augment(config, targets=[PLAIN, target])
    assert not augment.flips
    pixels = np.zeros((1, 32, 32), np.float32)
    pixels[:, :, :12] = 0.6
    assert not any(is_mirrored(augment(pixels, seed)) for seed in range(100))


@pytest.mark.parametrize(
    ("preset", "flips"),
    [("light", False), ("xray", False), ("ct", False), ("mr", True), ("ultrasound", True), ("photo", True)],
)
def test_presets_mirror_only_what_looks_alike_from_both_sides(preset: str, flips: bool) -> None:
    pixels = np.zeros((1, 32, 32), np.float32)
    pixels[:, :, :12] = 0.6
    default = build_augment(AugmentConfig.model_validate({"preset": preset}), targets=[PLAIN])
    assert any(is_mirrored(default(pixels, seed)) for seed in range(40)) == flips
    for wanted in (True, False):
        told = build_augment(AugmentConfig.model_validate({"preset": preset, "flip": wanted}), targets=[PLAIN])
        assert any(is_mirrored(told(pixels, seed)) for seed in range(40)) == wanted


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (PLAIN, False),
        (Target("copyright", "binary", ("a", "b")), False),
        (Target("bright", "binary", ("no", "yes")), False),
        (Target("x", "binary", ("no", "right-sided")), True),
        (Target("x", "binary", ("no", "yes"), column="left_lung"), True),
        (Target("x", "binary", ("L", "R")), True),
        (Target("grade", "multiclass", ("l", "m", "h")), False),
    ],
)
def test_which_targets_tell_sides(target: Target, expected: bool) -> None:
    assert is_lateral_target(target) is expected


@pytest.mark.parametrize(
    "names",
    [
        ("LUL", "none"),
        ("opacity_RLL",),
        ("LCC", "LMLO", "RCC", "RMLO"),
        ("links", "rechts"),
        ("Niere rechts",),
        ("poumon_gauche",),
        ("côté",),
        ("Rim esquerdo",),
        ("riñón izquierdo",),
        ("rene destro",),
        ("höger",),
        ("højre lunge",),
        ("leftlung", "rightlung"),
        ("kidney_L",),
        ("R-lung",),
        ("lung (R)",),
        ("hand Lt",),
        ("side",),
        ("L", "R", "unclear"),
    ],
)
def test_words_for_sides(names: tuple[str, ...]) -> None:
    assert has_side_words(names)


@pytest.mark.parametrize(
    "names",
    [
        ("copyright", "upright", "bright"),
        ("cleft", "no cleft"),
        ("hyperlinks", "osteoma", "os_sacrum"),
        ("L1", "L2", "S1"),
        ("RLS", "LULU"),
        ("inside", "bedside", "sidechain"),
        ("OS_months",),
        ("gaucher", "adroit", "rectum"),
        ("R", "S", "I"),
        ("lateral", "frontal"),
        ("cancer", "no"),
    ],
)
def test_words_that_only_look_like_sides(names: tuple[str, ...]) -> None:
    assert not has_side_words(names)


def test_what_comes_in_from_outside_is_black() -> None:
    augment = build_augment(AugmentConfig(preset="light", strength=3), targets=[])
    pixels = np.ones((1, 64, 64), np.float32)
    corners = [augment(pixels, seed)[0, [0, 0, -1, -1], [0, -1, 0, -1]].min() for seed in range(20)]
    assert min(corners) < 0.3


def test_strength_widens_the_changes() -> None:
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 64
    pixels = (0.5 + 0.2 * np.sin(8 * x) * np.cos(6 * y))[None].astype(np.float32)
    distance = []
    for strength in (0.3, 1.0, 2.0):
        augment = build_augment(AugmentConfig(preset="xray", strength=strength), targets=[])
        distance.append(np.mean([np.abs(augment(pixels, seed) - pixels).mean() for seed in range(30)]))
    assert distance[0] < distance[1] < distance[2]


def test_albumentations_is_kept_from_the_network() -> None:
    code = """
import os, socket
def refuse(*_, **__): raise SystemExit("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import lepton_vision.transforms.augment
print(os.environ.get("NO_ALBUMENTATIONS_UPDATE"))
"""
    environment = {"PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr  # and the environment is as it was
