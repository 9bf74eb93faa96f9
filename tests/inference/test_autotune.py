"""Choice of the faster way: kept while it is faster, made again when the load of the machine changes."""

from __future__ import annotations

from lepton_vision.inference.autotune import Autotuner, Way


class Machine:
    """A clock, and how many images a second each way gives at a time."""

    def __init__(self, speeds: dict[Way, float]) -> None:
        self.seconds, self.speeds, self.ways = 0.0, speeds, list[Way]()
        self.pace = Autotuner(window=4, clock=lambda: self.seconds)

    def run(self, steps: int) -> float:
        """Images per second of some steps of 32 images."""
        started = self.seconds
        for _ in range(steps):
            way = self.pace.way
            self.seconds += 32 / self.speeds[way]
            self.ways.append(way)
            self.pace.finished(way, images=32)
        return 32 * steps / (self.seconds - started)


def test_the_faster_way_is_kept_at_little_cost() -> None:
    for speeds in (
        {"streams": 120.0, "steps": 71.0},
        {"streams": 71.0, "steps": 115.0},
        {"streams": 50.0, "steps": 50.0},
    ):
        assert Machine(speeds).run(400) > 0.97 * max(speeds.values())


def test_ways_as_fast_as_each_other_do_not_change_in_turn() -> None:
    machine = Machine({"streams": 100.0, "steps": 103.0})
    machine.run(400)
    assert machine.ways[-100:].count("streams") >= 92


def test_the_choice_is_taken_again_when_the_load_changes() -> None:
    machine = Machine({"streams": 120.0, "steps": 100.0})
    machine.run(100)
    machine.speeds = {"streams": 45.0, "steps": 70.0}
    machine.run(24)
    assert machine.pace.way == "steps"
    assert machine.run(200) > 0.97 * 70
    machine.speeds = {"streams": 120.0, "steps": 100.0}
    machine.run(24)
    assert machine.pace.way == "streams"


def test_a_change_that_the_pace_does_not_show_is_found_after_a_while() -> None:
    machine = Machine({"streams": 60.0, "steps": 50.0})
    machine.run(100)
    machine.speeds = {"streams": 60.0, "steps": 90.0}
    machine.run(250)
    assert machine.pace.way == "steps"


def test_steps_of_the_way_before_are_not_counted() -> None:
    machine = Machine({"streams": 10.0, "steps": 20.0})
    machine.run(8)
    assert machine.pace.way == "steps"
    machine.seconds += 100.0
    machine.pace.finished("streams", images=32)  # was running still, and was slow
    machine.run(12)  # compared twice, and settled
    assert machine.pace.way == "steps"
