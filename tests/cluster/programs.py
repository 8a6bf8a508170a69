"""Programs of the system that tests need."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["installed"]


def installed(*names: str) -> str:
    """Path of the first that is there; without any, a test is skipped, or fails where CI is set."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{names[0]} is not installed")
    return found
