"""Signals to a driver while a run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from cast_ray.training.stopping import heeding_signals, listen_for_sigterm, worker_asked_to_end


class Board:
    """Stands for the board's actor; a run would ask it."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.asked = threading.Event()
        self.stop = SimpleNamespace(remote=self._stop)

    def _stop(self, name: str) -> None:
        self.signals.append(name)
        self.asked.set()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_signal_asks_the_run_to_stop_and_is_told_with_its_result(board, number):
    before = signal.getsignal(number)

    def run() -> str:
        os.kill(os.getpid(), number)
        assert board.asked.wait(30)
        return "result"

    assert heeding_signals(run, board.stop.remote) == ("result", number.name)
    assert board.signals == [number.name]
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_program_as_it_would_have_without_the_run(board):
    def run() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert board.asked.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        heeding_signals(run, board.stop.remote)


def test_without_a_signal_the_result_and_the_errors_of_the_run_come_through(board):
    assert heeding_signals(lambda: 7, board.stop.remote) == (7, None)
    with pytest.raises(ZeroDivisionError):
        heeding_signals(lambda: 1 / 0, board.stop.remote)
    assert not board.signals


def test_outside_the_main_thread_signals_are_left_alone(board):
    results = []
    before = signal.getsignal(signal.SIGTERM)

    def task() -> None:
        results.append(heeding_signals(lambda: signal.getsignal(signal.SIGTERM), board.stop.remote))

    thread = threading.Thread(target=task)
    thread.start()
    thread.join(30)
    assert results == [(before, None)]


def test_a_worker_notes_its_first_sigterm_and_the_second_one_is_for_ray():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        listen_for_sigterm()
        assert not worker_asked_to_end()
        os.kill(os.getpid(), signal.SIGTERM)
        assert worker_asked_to_end()
        assert not received
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
