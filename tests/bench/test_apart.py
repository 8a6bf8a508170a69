"""Measurements in a process of their own: results come back, failures are told, nothing outlives the limit."""

from __future__ import annotations

import json
import os
import time

import pytest

from cast_ray.bench.apart import NoResultError, run_apart


def test_the_result_comes_back():
    assert run_apart(json.loads, '{"speed": 2}', time_limit=60) == {"speed": 2}


def test_an_error_is_told_in_one_line():
    with pytest.raises(NoResultError, match="JSONDecodeError: Expecting value"):
        run_apart(json.loads, "fast", time_limit=60)


def test_a_process_that_dies_is_told_with_its_status():
    with pytest.raises(NoResultError, match="status 3 and no result"):
        run_apart(os._exit, 3, time_limit=60)


def test_the_time_limit_ends_it():
    started = time.monotonic()
    with pytest.raises(NoResultError, match=r"time limit of 0\.5 s"):
        run_apart(time.sleep, 600, time_limit=0.5)
    assert time.monotonic() - started < 60
