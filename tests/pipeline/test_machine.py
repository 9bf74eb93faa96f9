"""Facts of this machine and the advice that they lead to."""

from __future__ import annotations

import math
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lepton_vision.errors import ConfigError, MissingExtraError
from lepton_vision.pipeline import Machine, examine_machine, hardware, machine
from lepton_vision.readers.dicom.codecs import Codec


@pytest.fixture(scope="module")
def here() -> Machine:
    return examine_machine()


def test_it_tells_the_versions_that_are_needed_and_installed(here: Machine) -> None:
    found = {one.name: one for one in here.packages}
    assert found["numpy"].has == metadata.version("numpy")
    assert found["torch"].needs.startswith(">=")
    assert all(one.is_ok for one in here.packages)
    assert {one.name for one in here.extras} >= {"onnx", "ray", "remote", "mlflow"}
    assert not {"dev", "docs"} & {one.name for one in here.extras}
    assert here.device["device"] in ("cpu", "cuda", "mps")


def test_the_command_of_an_extra_is_that_of_the_error_where_it_is_missing(here: Machine) -> None:
    for one in here.extras:
        assert one.command in str(MissingExtraError("x", extra=one.name, key="x"))


def test_an_extra_needs_what_the_extras_that_it_names_need() -> None:
    texts = ["lepton-vision[onnx]; extra == 'int8'", "nncf>=2; extra == 'int8'", "onnx>=1.16; extra == 'onnx'"]
    found = [Requirement(text) for text in texts]
    assert [one.name for one in machine._of_name("int8", found)] == ["onnx", "nncf"]
    assert [one.name for one in machine._of_name("onnx", found)] == ["onnx"]


def test_it_is_a_result_like_others(here: Machine) -> None:
    plain = here.to_dict()
    assert plain["is_usable"] is here.is_usable
    assert Machine.from_dict(plain) == here
    assert "<table>" in here._repr_html_()
    assert len(repr(here).splitlines()) < 30
    assert list(here.summary())[-1] == "to do"


def test_it_makes_no_key_and_tells_where_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEPTON_VISION_ID_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = tmp_path / "lepton-vision" / "id.key"
    assert machine._ids().facts == {
        "key": "none yet: the first scan makes $XDG_CONFIG_HOME/lepton-vision/id.key; set LEPTON_VISION_ID_KEY where "
        "machines must agree"
    }
    assert list(tmp_path.iterdir()) == []
    key.parent.mkdir()
    key.write_text("ab" * 32)
    key.chmod(0o644)
    facts, advice = machine._ids()
    assert facts["key"] == "file $XDG_CONFIG_HOME/lepton-vision/id.key"
    assert len(facts["key_check"]) == 16
    assert "ab" * 4 not in str(facts)
    assert [one.do for one in advice] == ["Keep it for yourself: chmod 600 $XDG_CONFIG_HOME/lepton-vision/id.key."]
    key.write_text("ab" * 31)  # another text would be kept from above
    monkeypatch.setattr(machine.identity, "key_check", lambda: (_ for _ in ()).throw(ConfigError("It is damaged.")))
    assert [one.is_necessary for one in machine._ids().advice] == [True]


def test_a_package_that_is_missing_or_old_is_necessary() -> None:
    found = [machine._package(Requirement(text)) for text in ("numpy>=999", "no-such-package-of-ours>=1", "numpy>=1")]
    advice = list(machine._of_packages(found))
    assert [one.is_necessary for one in advice] == [True, True]
    assert advice[0].do == "Install it with: pip install 'numpy>=999'."
    assert advice[1].found == "no-such-package-of-ours is not installed."
    assert [one.is_necessary for one in machine._of_packages([])] == [False]


def test_a_decoder_that_fails_is_necessary_and_said_once() -> None:
    broken = [Codec("1", "One", "gdcm", "It crashed."), Codec("2", "Two", "gdcm", "It crashed.")]
    (advice,) = machine._of_codecs([*broken, Codec("3", "Three", "pillow", "")])
    assert advice.found == "DICOM files of One, Two cannot be read: It crashed."
    assert advice.is_necessary


def test_torch_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lepton_vision.pipeline.device_facts", None)
    facts, advice = machine._device()
    assert facts["device"] == "none"
    assert [one.found for one in advice if one.is_necessary] == ["torch cannot be loaded (ModuleNotFoundError)."]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("memory_gb", (64.0, 0.5), "0.5 GiB of memory are free."),
        ("has_nvidia_driver", True, "A driver of NVIDIA is here"),
        ("cores", 0, "threads for 0 cores"),
        ("free_gb", 0.25, "The cache folder"),
        ("shared_memory_gb", 1 / 16, "/dev/shm has 64 MiB"),
        ("is_writable", False, "cannot be written to"),
    ],
)
def test_what_is_unwise_is_told_with_what_to_do(
    place: str, value: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "has_nvidia_driver" and machine._device().facts["device"] != "cpu":
        pytest.skip("torch sees a GPU")
    monkeypatch.setattr(hardware, place, lambda *_: value)
    advice = [*machine._device().advice, *machine._storage().advice]
    assert [one for one in advice if words in one.found and one.do.endswith(".")]


def test_memory_that_is_not_known_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "memory_gb", lambda: (math.nan, math.nan))
    monkeypatch.setattr(hardware, "shared_memory_gb", lambda: math.nan)
    assert not [one for one in machine._device().advice if "memory" in one.found]
    assert "shared_memory_gb" not in machine._storage().facts


def test_few_open_files_and_other_encodings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    told = [one.found for one in machine._process().advice]
    assert told == ["This shell allows 64 open files.", "Names of files are read as iso8859-1."]
    assert os.environ.get("LEPTON_VISION_FILE_SECONDS") is None
