"""Range of the pixel values in use against the range of the file format, and images left dark by it.

Many hospitals export X-rays of 12 bits as PNG files of 16 bits. They use a sixteenth of the range of the file: shown
by its full range, their white is 0.06.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.types import Image

NARROW: Final = 0.1  # of the range of values that a file could hold
_FEWEST: Final = 0.01  # of all images: fewer of one kind are looked at by nobody's eye
_OUTLIERS: Final = 0.001  # images with a burnt-in white or a single hot pixel
_BYTE: Final = 255  # size of a range: an image of 8 bits is dark, but never one of fewer bits in a wider file
_KIND: Final = ["source_format", "bits_stored", "header_window"]


@dataclass(frozen=True, slots=True)
class NarrowRange:
    """Images of one kind that use little of the range that they are shown by: a sentence, and their rows."""

    message: str
    rows: tuple[int, ...]


def value_facts(image: Image) -> dict[str, Any]:
    """Columns of a manifest row: what the pixels hold, what the file could hold, and its window.

    ``header_window`` is "header" where the file names a window, "full" where its full range is meant (raster files and
    colour), "none" where neither holds.
    """
    is_full = image.channels == 3 or image.units == "display"
    return {
        "value_low": float(image.pixels.min()),
        "value_high": float(image.pixels.max()),
        "range_low": float(image.value_range[0]),
        "range_high": float(image.value_range[1]),
        "header_window": "full" if is_full else "none" if image.window is None else "header",
    }


def narrow_ranges(frame: pd.DataFrame, config: PreprocessConfig) -> list[NarrowRange]:
    """Images whose values, all of them together, are less than a tenth of the range they are shown by.

    Kinds are formats and depths: all images of one, else, of more than 8 bits, those that are so dark among others, as
    one scanner writes 12 bits and another one 16. Constant images, rows without these figures (a manifest of an older
    version) and images that another window than the full range is set for do not count.

    Args:
        frame: rows of a manifest that can be read.
        config: names the windows.
    """
    kinds = frame["header_window"].astype(object)
    used = frame[kinds.isin(_shown_whole(config)).to_numpy(dtype=bool) & (frame["value_high"] > frame["value_low"])]
    found = []
    for _, group in used.groupby(_KIND, dropna=False, sort=False):
        shares = _shares(group)
        if not _is_narrow(shares):
            shares = _alike(shares[(group["range_high"] - group["range_low"] > _BYTE).to_numpy(dtype=bool)])
        if _is_narrow(shares) and len(shares) >= _FEWEST * len(frame):
            rows = tuple(int(row) for row in shares.index)
            found.append(NarrowRange(_sentence(group.loc[shares.index], shares), rows))
    return found


def _shares(group: pd.DataFrame) -> pd.DataFrame:
    """Lowest and highest value of each image as parts of the range of its file."""
    size = group["range_high"] - group["range_low"]
    return pd.DataFrame({side: (group[f"value_{side}"] - group["range_low"]) / size for side in ("low", "high")})


def _span(shares: pd.DataFrame) -> tuple[float, float]:
    return _quantile(shares["low"], _OUTLIERS), _quantile(shares["high"], 1.0 - _OUTLIERS)


def _is_narrow(shares: pd.DataFrame) -> bool:
    if shares.empty:
        return False
    low, high = _span(shares)
    return high - low < NARROW


def _alike(shares: pd.DataFrame) -> pd.DataFrame:
    """The images among others that are narrow each and lie side by side; none where that is a single one."""
    each = shares[shares["high"] - shares["low"] < NARROW]
    middle = (each["low"] + each["high"]) / 2
    near = each[(middle - middle.median()).abs() < NARROW / 2]
    return near if len(near) > 1 else near.iloc[:0]


def narrow_image(image: Image, config: PreprocessConfig) -> str | None:
    """Finding of ``narrow_ranges`` about one image, or None."""
    row = value_facts(image) | {"source_format": image.source_format, "bits_stored": image.facts.get("bits_stored")}
    found = narrow_ranges(pd.DataFrame([row]), config)
    return found[0].message if found else None


def _shown_whole(config: PreprocessConfig) -> set[str]:
    """Values of ``header_window`` for which one of the windows is the full range."""
    if "full" in config.windows:
        return {"full", "header", "none"}
    if "header" not in config.windows:
        return set()
    return {"full", "none"} if config.missing_window == "full" else {"full"}


def _quantile(values: pd.Series[Any], share: float) -> float:
    return float(np.quantile(values.to_numpy(), share, method="nearest"))


def _sentence(group: pd.DataFrame, shares: pd.DataFrame) -> str:
    low, high = _span(shares)
    bits = group["bits_stored"].iloc[0]
    kind = str(group["source_format"].iloc[0]) + ("" if pd.isna(bits) else f", {int(bits)} bits")
    first, last = _quantile(group["value_low"], _OUTLIERS), _quantile(group["value_high"], 1.0 - _OUTLIERS)
    smallest, largest = float(group["range_low"].min()), float(group["range_high"].max())
    return (
        f"{len(group)} of the images ({kind}) hold values from {first:g} to {last:g}, where the files could hold "
        f"{smallest:g} to {largest:g}. Displayed by that full range, they reach the network as "
        f"{low:.2f} to {high:.2f} of 0 to 1. Set preprocess.windows to [percentile], or to one window for all, "
        f"[{{center: {(first + last) / 2:g}, width: {last - first:g}, function: LINEAR_EXACT}}]."
    )
