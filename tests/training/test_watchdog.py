"""The watchdog against a worker that is silent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from cast_ray.training.watchdog import EXIT_HUNG, Watchdog


class End:
    """Stands for the end of the process."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.reached = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self.reached.set()


@pytest.fixture
def end() -> End:
    return End()


def test_a_worker_that_gives_signs_of_life_is_left_alone_and_a_silent_one_is_ended(end, capfd):
    said: list[str] = []
    watchdog = Watchdog(limit_s=1.0, start_limit_s=1.0, say=said.append, end=end)
    for _ in range(20):
        watchdog.beat("training")
        time.sleep(0.1)
    assert end.status is None
    watchdog.beat("waiting for data")
    assert end.reached.wait(20)
    assert end.status == EXIT_HUNG
    assert "while waiting for data" in said[0]
    assert "--scale.hang-timeout-s" in said[0]
    assert "test_a_worker_that_gives_signs_of_life" in capfd.readouterr().err


def test_before_the_first_update_there_is_more_time(end):
    watchdog = Watchdog(limit_s=0.2, start_limit_s=600, say=print, end=end)
    assert not end.reached.wait(1.0)
    watchdog.begin()
    assert end.reached.wait(20)


def test_a_closed_watchdog_ends_nothing(end):
    watchdog = Watchdog(limit_s=0.2, start_limit_s=0.2, say=print, end=end)
    watchdog.close()
    assert not end.reached.wait(1.0)


def test_a_process_whose_main_thread_is_stuck_ends_with_its_stacks_in_the_log():
    program = (
        "from cast_ray.training.watchdog import Watchdog\nimport time\n"
        "def stuck():\n    time.sleep(600)\n"
        "Watchdog(limit_s=0.3, start_limit_s=0.3, say=print)\nstuck()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_HUNG
    assert "in stuck" in ended.stderr
