"""Deterministic preprocessing of images for the network: window, fit, resize; no torch.

The order is fixed: windowing is not linear, so it comes before resizing; averaging clipped display values is what a
monitor shows, averaging HU first would pull a bright edge below the clip. Everything is float32 until one single
rounding to uint16. The same function serves training, validation and scoring.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.readers.window import CT_PRESETS, apply_window, percentile_window
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels, place_plane
from lepton_vision.types import Image, Pixels, VoiLut, Window, WindowName

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PS3.3 C.7.6.3.1.2 uses for YBR_FULL


Points = npt.NDArray[np.int32]
StoredMask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Labels 0 to 255; uint16 where they are kept beside the pixels."""


_NO_POINTS: Points = np.zeros((0, 4), np.int32)


class Prepared(NamedTuple):
    """An image or a volume that samples are made of; a tuple is made in a tenth of the time of a frozen dataclass.

    Attributes:
        pixels: (C, H, W) or (C, D, H, W) uint16, read-only where it comes from the cache of volumes.
        mask: (H, W) or (D, H, W) numbers of structures, or None where nothing is known.
        points: (N, 4) int32 voxels of structures, see ``find_points``; none of images.
        spacing_mm: of (D, H, W), or None where unknown.
    """

    pixels: UInt16Pixels
    mask: StoredMask | None = None
    points: Points = _NO_POINTS
    spacing_mm: tuple[float, float, float] | None = None


def preprocess_image(image: Image, config: PreprocessConfig, *, is_last_use: bool = False) -> UInt16Pixels:
    """Window, fit and resize one 2-D image; the result is what the cache keeps.

    Args:
        image: pixels (C, H, W) float32 in modality units, C = 1 (gray) or 3 (RGB).
        config: size, windows, colour and fit.
        is_last_use: the pixels of the image may be overwritten, which spares fresh memory.

    Returns:
        (C', height, width) uint16, 0 black to 65535 white; C' = ``config.channels``, windows first, then R, G, B.

    Raises:
        ReadError: reason ``volume`` (has a depth axis), ``channels`` (neither 1 nor 3), ``units`` (a CT preset on
            pixels that are not HU), ``no_window`` (no window in the header and ``missing_window`` is "refuse").

    Example:
        >>> import numpy as np
        >>> gray = Image(np.full((1, 40, 20), 255, np.float32), units="display", value_range=(0, 255))
        >>> pixels = preprocess_image(gray, PreprocessConfig(size=(8, 8)))
        >>> pixels.shape, pixels[0, 4].tolist()
        ((1, 8, 8), [0, 0, 65535, 65535, 65535, 65535, 0, 0])
    """
    _check_image(image)
    copies = 3 if config.color == "rgb" and image.channels == 1 else 1
    out = np.zeros((config.channels, *config.size), np.uint16)
    for number, plane in enumerate(display_planes(image, config, is_last_use=is_last_use)):
        first = out[number * copies]
        place_plane(plane, out=first, fit=config.fit)
        out[number * copies + 1 : (number + 1) * copies] = first
    return out


def display_planes(image: Image, config: PreprocessConfig, *, is_last_use: bool = False) -> Iterator[Pixels]:
    """Yield display values for each window, then each colour; a gray image has one colour whatever is asked for.

    Args:
        image: pixels (C, H, W) or (C, D, H, W), C = 1 or 3; a window that depends on the values sees all of them.
        config: windows and colour.
        is_last_use: as for ``preprocess_image``.

    Yields:
        (H, W) or (D, H, W) float32 in [0, 1].

    Raises:
        ReadError: as for ``preprocess_image``.
    """
    if image.channels not in (1, 3):
        raise ReadError(
            f"Expected 1 (gray) or 3 (RGB) channels. Received: {image.channels}. Convert the image first.",
            reason="channels",
        )
    source = to_luma(image.pixels) if image.channels == 3 and config.color == "gray" else image.pixels
    for number, name in enumerate(config.windows, 1):
        out = source if is_last_use and number == len(config.windows) and source.flags.writeable else None
        yield from _display(source, image=image, window=name, config=config, out=out)


def to_input(
    pixels: UInt16Pixels | Pixels, config: PreprocessConfig, *, out: Pixels | None = None, axes: int = 2
) -> Pixels:
    """Normalise for the network: the one place where mean and standard deviation are applied.

    Args:
        pixels: (C, H, W) or (B, C, H, W), with D before H for volumes; uint16 in [0, 65535] (from
            ``preprocess_image``) or float32 in [0, 1] (from an ``Augment``): the dtype says which.
        config: mean and std, in units of [0, 1].
        out: float32 array of the same shape that takes the result (``pixels`` itself if it is float32); None makes one.
        axes: 2 for images, 3 for volumes.

    Returns:
        float32 of the same shape: (pixels in [0, 1] - mean) / std.

    Raises:
        ReadError: reason ``channels``: another number of channels than the configuration has.
        TypeError: another dtype.
    """
    if pixels.dtype not in (np.uint16, np.float32):
        raise TypeError(f"Expected uint16 in [0, 65535] or float32 in [0, 1]. Received: {pixels.dtype}.")
    axis = pixels.ndim - axes - 1
    if axis not in (0, 1) or pixels.shape[axis] != config.channels:
        raise ReadError(
            f"Expected {config.channels} channels before {axes} axes, of one image or a batch. Received: shape "
            f"{pixels.shape}. Preprocess the image with the configuration of the model.",
            reason="channels",
        )
    scale, shift = normalisation(config.mean, config.std, white=LEVELS if pixels.dtype == np.uint16 else 1, axes=axes)
    result: Pixels = np.multiply(pixels, scale, out=out, dtype=np.float32)
    result -= shift
    return result


@functools.lru_cache(maxsize=64)
def normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], *, white: int = LEVELS, axes: int = 2
) -> tuple[Pixels, Pixels]:
    """Return factors of pixels, and what is taken away after them, (C, 1, …) float32 with ``axes`` ones.

    C is 1 where one mean and one deviation are for all channels.
    """
    means, deviations = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(std, np.float64))
    shape = (-1, *(1,) * axes)
    scale, shift = 1.0 / (white * deviations), means / deviations
    return scale.astype(np.float32).reshape(shape), shift.astype(np.float32).reshape(shape)


def _check_image(image: Image) -> None:
    if image.is_volume:
        raise ReadError(
            f"Expected one 2-D image. Received: a volume or a file of {image.pixels.shape[1]} frames. "
            "Scan its folder so that each frame becomes a row, or give the frame.",
            reason="volume",
        )


def to_luma(pixels: Pixels) -> Pixels:
    """Turn RGB (3, H, W) or (3, D, H, W) into gray, (1, …), by ITU-R BT.601."""
    gray = pixels[0] * np.float32(_LUMA[0])
    gray += pixels[1] * np.float32(_LUMA[1])
    gray += pixels[2] * np.float32(_LUMA[2])
    luma: Pixels = gray[None]
    return luma


def _display(
    source: Pixels, *, image: Image, window: WindowName | Window, config: PreprocessConfig, out: Pixels | None
) -> Pixels:
    """Display values (C, H, W) float32 in [0, 1]; ``out`` may be overwritten."""
    chosen = _choose_window(source, image=image, window=window, config=config)
    return _full(source, image.value_range) if chosen is None else apply_window(source, chosen, out=out)


def display_window(image: Image, config: PreprocessConfig | None = None) -> Window | VoiLut:
    """Window that the first channel of ``preprocess_image`` is seen through, for pictures of another size.

    Args:
        image: (C, H, W) or (C, D, H, W), C = 1 or 3; a percentile is that of all its voxels.
        config: names the window; None uses the defaults.

    Raises:
        ReadError: reason ``units`` or ``no_window``, as ``preprocess_image``.

    Example:
        >>> display_window(Image(np.zeros((1, 4, 4), np.float32), value_range=(0.0, 255.0)))
        Window(center=127.5, width=255.0, function='LINEAR_EXACT')
    """
    settings = config or PreprocessConfig()
    chosen = _choose_window(image.pixels, image=image, window=settings.windows[0], config=settings)
    if chosen is not None:
        return chosen
    low, high = image.value_range
    return Window((low + high) / 2.0, high - low if high > low else 1.0, "LINEAR_EXACT")


def _choose_window(
    source: Pixels, *, image: Image, window: WindowName | Window, config: PreprocessConfig
) -> Window | VoiLut | None:
    """Window of the configuration or the header; None is the full range of the file."""
    if isinstance(window, Window):
        return window
    if window in CT_PRESETS:
        if image.units != "HU":
            raise ReadError(
                f"The window {window!r} is in Hounsfield units. Received: {image.modality or 'an image'} in "
                f"{image.units!r}. Use 'header', 'percentile' or a Window in the image's own units.",
                reason="units",
            )
        return CT_PRESETS[window]
    choice = _resolve_header(image, config) if window == "header" else window
    if choice == "percentile":
        return percentile_window(source)
    return None if choice == "full" else image.window


def _resolve_header(image: Image, config: PreprocessConfig) -> str:
    """Window that "header" means for this image.

    Colour and raster files hold display values already: a VOI window is defined for MONOCHROME images only
    (PS3.3 C.11.2.1), so their full range is shown.
    """
    if image.channels == 3 or image.units == "display":
        return "full"
    if image.window is not None:
        return "header"
    if config.missing_window == "refuse":
        raise ReadError(
            "Expected a VOI window in the header. Received: none. Name a window in preprocess.windows, or set "
            "preprocess.missing_window to 'percentile' or 'full'.",
            reason="no_window",
        )
    return config.missing_window


def _full(source: Pixels, value_range: tuple[float, float]) -> Pixels:
    low, high = value_range
    shown = source - np.float32(low)
    shown *= np.float32(1.0 / (high - low) if high > low else 0.0)
    return np.clip(shown, 0.0, 1.0, out=shown)
