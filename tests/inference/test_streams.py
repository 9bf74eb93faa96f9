"""Parallel steps: as many at once as the engine allows, each on its processors, with equal results."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event, Timer

import numpy as np
import pytest
import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.inference import autotune
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.runtimes.choice import load_engine
from lepton_vision.inference.streams import SHORT_TURNS, Streams, streams_here
from lepton_vision.models import Bundle, build_model
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = Config(targets=(SICK,)).override("preprocess.size=[32, 32]")
    return Bundle(config=config, targets=config.targets, state=build_model(config).state_dict())


@pytest.fixture
def threads() -> Iterator[None]:
    """torch with 4 threads."""
    kept = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(kept)


@pytest.mark.usefixtures("threads")
def test_steps_meet_and_share_the_threads(bundle: Bundle) -> None:
    turn, both, other = sys.getswitchinterval(), Barrier(2), ThreadPoolExecutor(1)

    def meet() -> int:
        both.wait(timeout=60)  # broken, and so an error, if the other step does not run at the same time
        return torch.get_num_threads()

    with closing(Streams(Engine(bundle, device="cpu", streams=2))) as streams:
        assert streams.engine.threads == 2
        assert [one.result() for one in [streams.submit(meet), streams.submit(meet)]] == [2, 2]
        assert other.submit(torch.get_num_threads).result() == 4  # of a thread that came later and is none of ours
        torch.ones(1000, 1000).sum()
        assert [one.result() for one in [streams.submit(meet), streams.submit(meet)]] == [2, 2]
        assert sys.getswitchinterval() == turn
        with SHORT_TURNS, SHORT_TURNS:
            assert sys.getswitchinterval() < turn
    assert (torch.get_num_threads(), sys.getswitchinterval()) == (4, turn)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnx"])
def test_a_step_gives_the_same_beside_others(bundle: Bundle, runtime: str) -> None:
    if runtime != "torch":
        pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[runtime])
    engine = load_engine(bundle, engine=runtime, device="cpu", precision="fp32", batch_size=4, streams=2)
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 4, 1, 32, 32)).astype(np.uint16)
    true = Engine(bundle, device="cpu", precision="fp32", batch_size=4)
    with closing(Streams(engine)) as streams:
        alone = [streams.submit(engine.examine_pixels, one).result().probabilities["sick"] for one in pixels]
        steps = [streams.submit(engine.examine_pixels, one) for one in pixels]
        np.testing.assert_array_equal([step.result().probabilities["sick"] for step in steps], alone)
    np.testing.assert_allclose(alone, [true.examine_pixels(one).probabilities["sick"] for one in pixels], atol=1e-4)


@pytest.mark.usefixtures("threads")
def test_how_many(bundle: Bundle) -> None:
    found = {}
    for count in (1, 2, 3, 5, 6, 8, 16):
        torch.set_num_threads(count)
        found[count] = streams_here()
    assert found == {1: 1, 2: 2, 3: 3, 5: 1, 6: 3, 8: 4, 16: 4}
    assert Engine(bundle, engine="torch-compile", device="cpu", streams=2).streams == 1
    with pytest.raises(ConfigError, match=r"streams of at least 1. Received: 32 and 0"):
        Engine(bundle, streams=0)


@pytest.mark.usefixtures("threads")
def test_ways_change_without_running_side_by_side(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(bundle, device="cpu", precision="fp32", batch_size=4, streams=2)
    monkeypatch.setattr(autotune, "_compare", lambda window: iter_ways(window))
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 4, 1, 32, 32)).astype(np.uint16)
    seen: list[int] = []

    def look(images: np.ndarray) -> np.ndarray:
        seen.append(torch.get_num_threads())
        return engine.examine_pixels(images).probabilities["sick"]

    with closing(Streams(engine, way="streams")) as streams:
        alone = [streams.submit(look, one).result() for one in pixels]
    assert set(seen) == {2}
    seen.clear()
    with closing(Streams(engine)) as streams:
        running: deque[Future[np.ndarray]] = deque()
        found = []
        for one in pixels:
            running.append(streams.submit(look, one))
            if len(running) > 3:
                found.append(running.popleft().result())
        found += [one.result() for one in running]
    np.testing.assert_array_equal(found, alone)  # to the bit
    assert {2, 4} == set(seen)


def test_closing_drops_steps_that_wait_for_those_of_the_other_way(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "_compare", lambda window: iter_ways(window))
    streams, began, go = Streams(Engine(bundle, device="cpu", streams=2)), Event(), Event()

    def wait() -> None:
        began.set()
        go.wait(timeout=60)

    for _ in range(4):
        streams.submit(lambda: None).result()
    first = streams.submit(wait)
    others = [streams.submit(wait) for _ in range(4)]
    assert began.wait(timeout=60)
    Timer(0.2, go.set).start()
    streams.close()
    assert first.done()
    assert any(one.cancelled() for one in others)


def iter_ways(window: int) -> Generator[autotune.Trial, float, None]:
    """The two ways in turn."""
    while True:
        yield autotune.Trial("streams", window)
        yield autotune.Trial("steps", window)
