"""What holds in every test process; the environment is set before torch and Ray are imported."""

from __future__ import annotations

import os

import pytest

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The machine's cores belong to several processes, and one thread adds in one order."""
    import torch

    torch.set_num_threads(1)
