"""VOI windows and lookup tables on arrays: modality units in, display values in [0, 1] out (PS3.3 C.11.2).

Everything is monotone: a larger pixel is never darker. A MONOCHROME1 file has already been turned by the reader,
its window with it (``reflect``).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.types import Pixels, VoiLut, Window

# Usual center and width in HU, as on most consoles (Radiopaedia, "Windowing (CT)"). Only for pixels in HU.
CT_PRESETS: MappingProxyType[str, Window] = MappingProxyType(
    {
        "lung": Window(-600.0, 1500.0),
        "mediastinum": Window(50.0, 350.0),
        "soft_tissue": Window(50.0, 400.0),
        "brain": Window(40.0, 80.0),
        "subdural": Window(75.0, 215.0),
        "stroke": Window(40.0, 40.0),
        "bone": Window(400.0, 1800.0),
        "liver": Window(30.0, 150.0),
    }
)


def apply_window(pixels: npt.NDArray[Any], window: Window | VoiLut, *, out: Pixels | None = None) -> Pixels:
    """Map modality values to [0, 1], black to white, by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Args:
        pixels: any shape, real numbers in the units of the window; not changed, unless they are ``out``.
        window: a window, or a lookup table (values outside the table get its first or last entry).
        out: float32 array of the same shape that may be overwritten (``pixels`` itself if it is float32): fresh memory
            takes as long as the arithmetic. What is returned counts.

    Returns:
        float32, the shape of ``pixels``, in [0, 1]. NaN stays NaN under a window.

    Example:
        >>> apply_window(np.array([-1000.0, 40.0, 1000.0]), Window(40, 400, "LINEAR_EXACT")).tolist()
        [0.0, 0.5, 1.0]
    """
    if isinstance(window, VoiLut):
        return _apply_table(pixels, window)
    # float32 subtraction of the center comes first: it is exact for usual values, so that the slope is not biased.
    if window.function == "LINEAR":
        result: Pixels = np.subtract(pixels, np.float32(window.center - 0.5), out=out, dtype=np.float32)
        if window.width <= 1.0:  # the formula's slope is infinite: a step, at and below the middle is black
            return (result > 0.0).astype(np.float32)
        np.multiply(result, np.float32(1.0 / (window.width - 1.0)), out=result)
    else:
        result = np.subtract(pixels, np.float32(window.center), out=out, dtype=np.float32)
        if window.function == "SIGMOID":
            return _sigmoid(result, width=window.width)
        np.multiply(result, np.float32(1.0 / window.width), out=result)
    np.add(result, np.float32(0.5), out=result)
    np.clip(result, 0.0, 1.0, out=result)
    return result


def percentile_window(pixels: npt.NDArray[Any], *, low: float = 0.5, high: float = 99.5) -> Window:
    """Window from the ``low``-th to the ``high``-th percentile of these pixels.

    Args:
        pixels: any shape, at least one value; NaN is not allowed.
        low: percentile that becomes black, 0 to 100.
        high: percentile that becomes white, above ``low``.

    Returns:
        A LINEAR_EXACT window in the pixels' units. A constant image gets width 1 around its value.

    Raises:
        ValueError: percentiles out of order or outside 0 to 100, or no pixels.

    Example:
        >>> percentile_window(np.arange(101.0), low=0, high=100)
        Window(center=50.0, width=100.0, function='LINEAR_EXACT')
    """
    if not 0.0 <= low < high <= 100.0:
        raise ValueError(f"Expected 0 <= low < high <= 100. Received: low={low}, high={high}.")
    if pixels.size == 0:
        raise ValueError("Expected at least one pixel. Received: none.")
    first, last = (float(value) for value in np.percentile(pixels, [low, high]))
    if last - first <= 0.0:
        return Window(first, 1.0, "LINEAR_EXACT")
    return Window((first + last) / 2.0, last - first, "LINEAR_EXACT")


def reflect(window: Window | VoiLut, *, total: float) -> Window | VoiLut:
    """Window for pixels that were turned by ``turned = total - pixel``: what was white becomes black.

    ``apply_window(total - x, reflect(w, total=total))`` equals ``1 - apply_window(x, w)``.
    """
    if isinstance(window, VoiLut):
        last = window.first + len(window.values) - 1
        return VoiLut((np.float32(1.0) - window.values[::-1]).astype(np.float32), total - last)
    # LINEAR is centered on center - 0.5 (PS3.3 C.11.2.1.2.1), the other functions on center itself.
    shift = 1.0 if window.function == "LINEAR" else 0.0
    return Window(total - window.center + shift, window.width, window.function)


def _sigmoid(offset: Pixels, *, width: float) -> Pixels:
    """PS3.3 C.11.2.1.3.1, on pixel minus center; clipped before exp so that it cannot overflow."""
    np.multiply(offset, np.float32(-4.0 / width), out=offset)
    np.clip(offset, -80.0, 80.0, out=offset)
    np.exp(offset, out=offset)
    np.add(offset, np.float32(1.0), out=offset)
    np.divide(np.float32(1.0), offset, out=offset)
    return offset


def _apply_table(pixels: npt.NDArray[Any], table: VoiLut) -> Pixels:
    """PS3.3 C.11.2.1.1; modality values between two entries take the nearer one."""
    index = np.rint(np.subtract(pixels, table.first, dtype=np.float64))
    np.clip(index, 0, len(table.values) - 1, out=index)
    values: Pixels = np.asarray(table.values, dtype=np.float32)[index.astype(np.intp)]
    return values
