"""Graceful stop on Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from lepton_vision.training.interrupt import listen_for_interrupt


def test_first_interrupt_is_a_wish_and_the_second_is_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with listen_for_interrupt() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_the_handler_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def listen() -> None:
        with listen_for_interrupt() as stop:
            seen.append((stop.is_set, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
