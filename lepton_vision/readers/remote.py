"""Objects in a store, named by URL (``s3://bucket/key``): the doorway to fsspec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_vision.errors import ConfigError, MissingExtraError, ReadError
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_bytes, raise_read_errors
from lepton_vision.readers.temporary import copy_bounded, temporary_file

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Whether a text names an object by URL."""
    return _URL.match(text) is not None


def list_objects(url: str) -> list[str]:
    """URLs of the objects below one, or that match its pattern, sorted; hidden ones left out.

    An object that is not there stays in the list: it ends as a failure.

    Raises:
        ConfigError: the package for this store is not installed (``MissingExtraError``), or the store cannot be listed.

    Example:
        >>> list_objects("s3://hospital-inbox/2024/")  # doctest: +SKIP
    """
    store, root = _store(url)
    try:
        names = store.glob(root) if any(sign in root for sign in "*?[") else [root]
        found = [one for name in names or [root] for one in (store.find(name) if store.isdir(name) else [name])]
    except Exception as error:  # each store has errors of its own, and their text may hold names
        raise ConfigError(
            f"Cannot list the object store ({type(error).__name__}). Check the URL, the network and the credentials.",
            key="inputs",
        ) from None
    below = len(root.rstrip("/"))
    visible = (name for name in found if not any(part.startswith(".") for part in name[below:].split("/")))
    return sorted({store.unstrip_protocol(name) for name in visible})


@contextmanager
def fetch_object(url: str, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Path]:
    """Give one object as a temporary file.

    Raises:
        ReadError: reason ``missing``, ``too_large`` (before it is fetched where the store tells the size) or
            ``unreachable``.
    """
    with temporary_file() as (file, place):
        try:
            store, name = _store(url)
            check_bytes(int(store.size(name) or 0), limits=limits)
            with store.open(name, "rb") as source:
                copy_bounded(source, file, limits=limits)
        except ReadError:
            raise
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise ReadError("The object is not there, or may not be read.", reason="missing") from None
        except Exception as error:
            raise ReadError(
                f"The object store did not give the object ({type(error).__name__}).", reason="unreachable"
            ) from None
        with raise_read_errors("Cannot read the file", reason="corrupt"):
            yield place


def _store(url: str) -> tuple[Any, str]:
    """Fsspec's file system and the name in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError("fsspec", extra="remote", key="inputs") from None
    try:
        store, name = url_to_fs(url)
    except ImportError as error:  # fsspec says which package this kind of store needs
        if url.startswith(("s3://", "s3a://")):
            raise MissingExtraError("s3fs", extra="remote", key="inputs") from None
        raise ConfigError(f"This object store needs a package that is not installed. {error}", key="inputs") from None
    except ValueError:
        raise ConfigError("fsspec knows no object store of this kind of URL.", key="inputs") from None
    return store, str(name)
