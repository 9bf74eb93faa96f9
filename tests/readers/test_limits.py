"""Resource limits of reading: budgets by size, settings of the environment, and the clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers import limits as limits_module
from lepton_vision.readers.limits import Clock, Limits, check_size


def reason_of(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    return caught.value.reason


def test_a_file_has_ten_seconds_and_a_gibibyte_and_a_large_one_more() -> None:
    limits = Limits()
    assert (limits.seconds, limits.memory) == (10.0, 2**30)
    assert limits.for_file(40_000_000) is limits
    large = limits.for_file(600_000_000)
    assert (large.seconds, large.memory) == (150.0, 4_800_000_000)
    assert limits.for_file(100_000_000).memory == 2**30


@pytest.mark.parametrize(
    ("value", "shown"), [("2.5", "2.5 268435456"), ("0", "ConfigError"), ("-1", "ConfigError"), ("ten", "ConfigError")]
)
def test_settings_of_the_environment(value: str, shown: str) -> None:
    code = (
        "import os; os.environ |= {'LEPTON_VISION_FILE_SECONDS': '%s', 'LEPTON_VISION_FILE_MEMORY_GB': '0.25'}\n"
        "try:\n    from lepton_vision.readers.limits import DEFAULT_LIMITS as one\n    print(one.seconds, one.memory)\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code % value], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == shown


def test_frames_are_bounded_by_the_bytes_of_the_file() -> None:
    Limits().check_frames(32_768, size=1000)
    Limits().check_frames(236_386, size=125_000_000)  # TissueMNIST
    assert reason_of(Limits().check_frames, 32_769, size=1000) == "too_large"
    assert reason_of(Limits().check_frames, 2**31 - 1, size=25_000) == "too_large"


def test_what_pixels_take_while_they_are_read_counts() -> None:
    limits = Limits(memory=1000)
    check_size(10, 10, limits=limits)
    check_size(10, 10, limits=limits, itemsize=6)
    assert reason_of(check_size, 10, 10, limits=limits, itemsize=7) == "too_large"
    assert reason_of(check_size, 10, 10, limits=limits, itemsize=2, held=500) == "too_large"


def test_the_clock_counts_the_time_of_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr(limits_module.time, "thread_time", lambda: now[0])
    clock, long = Clock(Limits(seconds=2.0)), Clock(Limits(seconds=2.0), frames=4000)
    now[0] = 7.0
    clock.check()
    now[0] = 7.1
    assert reason_of(clock.check) == "too_slow"
    long.check()
    limits_module.add_cpu_seconds(1.0)  # of a child process
    now[0] = 8.1
    assert reason_of(long.check) == "too_slow"


def test_every_file_has_its_own_budget(tmp_path: Path) -> None:
    """The budget of a file grows with its size, wherever it is opened."""
    from lepton_vision.readers.content import open_content

    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(200_000_000)  # sparse
    with open_content(path, what="Cannot read the file", limits=Limits(seconds=1.0)) as content:
        assert (content.size, content.limits.seconds, content.limits.memory) == (200_000_000, 50.0, 1_600_000_000)
