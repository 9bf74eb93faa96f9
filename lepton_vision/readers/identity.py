"""Pseudonymous ids of patients, studies, series and images.

An id is a keyed hash, so nobody without the key can find out which id a known UID or patient number has got.
The key comes from the environment variable ``LEPTON_VISION_ID_KEY`` (share it between machines that must agree), or
from a random file that is made once per user.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, get_args

from lepton_vision.errors import ConfigError
from lepton_vision.types.id_key import ENVIRONMENT_KEY

IdKind = Literal["image", "series", "study", "patient", "path", "site", "term"]
_KINDS = frozenset(get_args(IdKind))
_KEY_BYTES = 32
_COPY = re.compile(r"([0-9a-f]{16}(?:-[a-z]*[0-9]{1,15})*)-[0-9a-f]{16}")
_HOMES = ("XDG_CONFIG_HOME", "HOME", "APPDATA", "USERPROFILE")  # what ``key_path`` depends on


class Digest(Protocol):
    """Hash object of ``hashlib``."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Text of the digest."""


def pseudonym(kind: IdKind, value: str) -> str:
    """Return the id that stands for ``value``: HMAC-SHA256 under the user's key, first 16 hexadecimal digits.

    Args:
        kind: what is named; the same value gets different ids as a patient and as a study.
        value: the name, UID or path; surrounding blanks and NUL padding do not count.

    Raises:
        ValueError: an unknown kind.
        ConfigError: no key in the environment, and the key file cannot be made or read.
    """
    if kind not in _KINDS:
        raise ValueError(f"Unknown kind of id {kind!r}. Expected one of: {', '.join(sorted(_KINDS))}.")
    return _digest(_key(), kind, value)


def pseudonyms(values: Mapping[IdKind, str | None]) -> dict[IdKind, str | None]:
    """``pseudonym`` of each value by its kind, None of None or an empty text; the key is looked up once."""
    key = _key()
    return {kind: _digest(key, kind, value) if value else None for kind, value in values.items()}


def content_id(*parts: bytes | memoryview) -> str:
    """Return the id of an image whose file has no identifiers of its own: of what it holds, wherever it lies.

    Args:
        parts: bytes of the file, or of its header and its stored values.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return id_of_digest(digest)


def id_of_digest(digest: Digest) -> str:
    """Return ``content_id`` of what a SHA-256 digest was made of."""
    return pseudonym("image", f"content {digest.hexdigest()}")


def path_id(place: str) -> str:
    """Return the id of a place: a file, a member of an archive, an entry of an npz file, see ``inputs.locations``.

    Blanks at the end, which other pseudonyms do not count, tell files apart.
    """
    text = place.rstrip("\0")
    return pseudonym("path", place if text == text.rstrip() else f"{place}\0.")


def id_of_copy(image_id: str, *, place: str) -> str:
    """Return the id of a further copy in a table of unique ids, by its ``path_id``; ``original_id`` undoes it."""
    return f"{image_id}-{place}"


def original_id(image_id: str) -> str:
    """Return the id of the image that this is a copy of, or the id itself.

    Example:
        >>> original_id("0123456789abcdef-3-fedcba9876543210"), original_id("0123456789abcdef-3"), original_id("a-b")
        ('0123456789abcdef-3', '0123456789abcdef-3', 'a-b')
    """
    found = _COPY.fullmatch(image_id)
    return found[1] if found else image_id


def key_check() -> str:
    """Return what tells two keys apart and says nothing about them: the keyed hash of a constant, 16 digits.

    Folders of scores, manifests, bundles and predictions keep it beside ids, so that ids of two keys, which would make
    two images of one, are never mixed or compared.
    """
    return _digest(_key(), "key", "which key")


def key_source() -> Literal["environment", "file", "none"]:
    """Where the key comes from; "none" where the first id would make one. Nothing is made."""
    if os.environ.get(ENVIRONMENT_KEY):
        return "environment"
    return "file" if key_path().is_file() else "none"


def is_other_key(known: str) -> bool:
    """Whether ids were made with another key than the user's, by the ``key_check`` beside them; "" is unknown."""
    return known not in ("", key_check())


def _digest(key: bytes, kind: str, value: str, /) -> str:
    text = value.strip(" \t\r\n\0")
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), "sha256")[:8].hex()


def _key() -> bytes:
    """The user's key, by the environment of the moment."""
    given = os.environ.get(ENVIRONMENT_KEY)
    return _load_key(given, "" if given else _key_file(*map(os.environ.get, _HOMES)))


@lru_cache(maxsize=8)
def _key_file(*_homes: str | None) -> str:
    """Text of ``key_path``; kept for the environment that it was made from: an id takes 3 µs, a path 20."""
    return str(key_path())


def key_path() -> Path:
    """Path of the user's key file, used when the environment does not give a key."""
    if os.name == "nt" and "APPDATA" in os.environ:
        base = Path(os.environ["APPDATA"])
    elif os.environ.get("XDG_CONFIG_HOME"):
        base = Path(os.environ["XDG_CONFIG_HOME"])
    else:
        base = Path(os.path.expanduser("~")) / ".config"  # noqa: PTH111  Path.home() raises where HOME is unset
    return base / "lepton-vision" / "id.key"


@lru_cache(maxsize=8)
def _load_key(from_environment: str | None, file: str) -> bytes:
    """Key bytes; cached for both sources, so that a changed environment (tests) is seen."""
    if from_environment:
        return from_environment.encode("utf-8", "surrogateescape")
    path = Path(file)
    try:
        if not path.exists():
            _make_key(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot keep the key for pseudonymous ids in the user's configuration folder ({type(error).__name__}). "
            f"Set the environment variable {ENVIRONMENT_KEY} to a secret text.",
            key=ENVIRONMENT_KEY,
        ) from None
    if len(key) < _KEY_BYTES:
        raise ConfigError(
            f"The key file for pseudonymous ids is damaged: expected {_KEY_BYTES} bytes, received {len(key)}. "
            f"Restore it, or set {ENVIRONMENT_KEY}.",
            key=ENVIRONMENT_KEY,
        )
    return key


def _make_key(path: Path) -> None:
    """Write a random key with mode 0600; of several processes that do this at once exactly one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".id.key-")  # mkstemp gives 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A hard link, unlike a rename, fails where the name exists: the first process wins, nobody sees half a key.
        with contextlib.suppress(FileExistsError):
            _link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _link(name: str, path: Path) -> None:
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if not path.exists():
            Path(name).replace(path)
