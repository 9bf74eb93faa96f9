"""Pseudonymous ids: stability, keys, and files of the user."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_vision.errors import ConfigError
from lepton_vision.readers import identity
from lepton_vision.readers.identity import key_check, key_path, pseudonym, pseudonyms
from lepton_vision.types.id_key import ENVIRONMENT_KEY


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a key in the environment and with an empty configuration folder."""
    monkeypatch.delenv(ENVIRONMENT_KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("APPDATA", raising=False)
    return tmp_path


def test_is_a_keyed_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_KEY, "secret")
    expected = hmac.new(b"secret", b"patient\x00P1", hashlib.sha256).hexdigest()[:16]
    assert pseudonym("patient", "P1") == expected
    assert pseudonym("patient", " P1\0") == expected
    assert pseudonym("study", "P1") != expected
    monkeypatch.setenv(ENVIRONMENT_KEY, "another")
    assert pseudonym("patient", "P1") != expected


def test_several_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("secret", "another"):
        monkeypatch.setenv(ENVIRONMENT_KEY, key)
        found = pseudonyms({"series": "1.2", "study": None, "patient": " P1\0", "image": ""})
        expected = {"series": pseudonym("series", "1.2"), "study": None, "patient": pseudonym("patient", "P1")}
        assert found == expected | {"image": None}


def test_the_check_value_is_of_the_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_KEY, "secret of a ward")
    found = key_check()
    assert found == hmac.new(b"secret of a ward", b"key\0which key", "sha256").hexdigest()[:16]
    monkeypatch.setenv(ENVIRONMENT_KEY, "secret of another")
    assert key_check() != found


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown kind"):
        pseudonym("doctor", "x")  # type: ignore[arg-type]


def test_key_is_made_once_and_private(home: Path) -> None:
    first = pseudonym("image", "1.2.3")
    path = key_path()
    assert path.is_relative_to(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    identity._load_key.cache_clear()
    assert pseudonym("image", "1.2.3") == first
    assert [entry.name for entry in path.parent.iterdir()] == ["id.key"]


def test_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file = pseudonym("image", "1.2.3")
    monkeypatch.setenv(ENVIRONMENT_KEY, "secret")
    assert pseudonym("image", "1.2.3") != of_file


def test_processes_that_start_together_agree(home: Path) -> None:
    code = "from lepton_vision.readers.identity import pseudonym; print(pseudonym('image', 'x'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(6)
    ]
    assert len({process.communicate()[0] for process in running}) == 1


def test_damaged_or_impossible_key_is_a_clear_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_path().parent.mkdir(parents=True)
    key_path().write_text("abcd")
    with pytest.raises(ConfigError, match="damaged"):
        pseudonym("image", "x")
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(blocked))
    with pytest.raises(ConfigError, match=ENVIRONMENT_KEY):
        pseudonym("image", "x")
