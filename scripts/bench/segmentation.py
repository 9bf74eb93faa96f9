"""HD95, surface Dice and Dice of one structure: our figures against MONAI's metrics, interleaved in one process.

Both get what they take: we boolean arrays, MONAI one-hot tensors made beforehand. MONAI computes the surfaces once for
HD95 and once for the surface Dice; we once for both, and the time is for all three figures. The largest difference
between the two is shown beside the ratio.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np

from lepton_vision.evaluation import compare_masks

SIZES = {"hippocampus 36x50x35": (36, 50, 35), "organ 96x160x160": (96, 160, 160), "slice 512x512": (512, 512)}


def organ(shape: tuple[int, ...], *, seed: int, share: float) -> np.ndarray:
    """An ellipsoid with a wavy edge that fills ``share`` of each axis."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"), axis=-1)
    waves = sum(0.05 * np.sin(rng.uniform(4, 9) * grid[..., axis] + rng.uniform(0, 6)) for axis in range(len(shape)))
    return ((grid / share) ** 2).sum(axis=-1) + waves < 1 + 0.1 * seed


def median_seconds(runs: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Take turns, so that a busy moment hits both."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def monai_figures(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...]) -> Callable[[], np.ndarray]:
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric

    y, y_pred = (torch.from_numpy(mask[None, None]).float() for mask in (truth, prediction))
    dice, hd95 = DiceMetric(), HausdorffDistanceMetric(include_background=True, percentile=95)
    surface = SurfaceDiceMetric(class_thresholds=[1.0], include_background=True)

    def run() -> np.ndarray:
        found = dice(y_pred, y), hd95(y_pred, y, spacing=spacing), surface(y_pred, y, spacing=spacing)
        return np.array([float(value) for value in found])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(
        f"{'case':<24}{'ours ms':>10}{'MONAI ms':>10}{'ratio':>8}{'min':>8}{'max':>8}{'difference':>12}   n = {rounds}"
    )
    for name, shape in SIZES.items():
        spacing = (2.0, 0.8, 0.8)[-len(shape) :]
        truth, prediction = (organ(shape, seed=seed, share=0.6) for seed in (0, 1))

        def ours(
            truth: np.ndarray = truth, prediction: np.ndarray = prediction, spacing: tuple[float, ...] = spacing
        ) -> np.ndarray:
            found = compare_masks(truth, prediction, spacing_mm=spacing, tolerance_mm=1.0)
            return np.array([found.dice, found.hd95_mm, found.surface_dice])

        theirs = monai_figures(truth, prediction, spacing)
        gap = float(np.abs(ours() - theirs()).max())
        seconds = median_seconds({"ours": ours, "MONAI": theirs}, rounds=rounds)
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["MONAI"], strict=True)]
        ms = [1000 * statistics.median(seconds[key]) for key in ("ours", "MONAI")]
        print(
            f"{name:<24}{ms[0]:>10.2f}{ms[1]:>10.2f}{statistics.median(ratios):>8.2f}{min(ratios):>8.2f}"
            f"{max(ratios):>8.2f}{gap:>12.1e}"
        )


if __name__ == "__main__":
    main()
