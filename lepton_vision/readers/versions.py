"""Names and versions of decoders, recorded as provenance of the pixels."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from lepton_vision.errors import ReadError


@lru_cache(maxsize=32)
def package_version(package: str) -> str:
    """Name and version of an installed distribution, e.g. "pillow 11.0.0".

    Raises:
        ReadError: reason ``decoder_missing``.
    """
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        raise ReadError(
            f"The decoder {package} is not installed. Install it: pip install {package}", reason="decoder_missing"
        ) from None
