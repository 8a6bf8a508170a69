"""When a run goes on by itself after Ray Train gave up, and when it ends."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError

from cast_ray.errors import UserError
from cast_ray.training.refit import fit_again


class Fitting:
    """`fit`, which fails with the given errors one after the other and then returns."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "trained"


def away() -> ControllerError:
    return ControllerError(OSError(errno.EIO, "the storage is away"))


@pytest.mark.parametrize("lost", [away(), RayActorError(), OutOfMemoryError("no memory")])
def test_a_run_goes_on_as_often_as_allowed(lost: Exception, tmp_path: Path) -> None:
    said: list[str] = []
    fit = Fitting(lost, away())
    assert fit_again(fit, str(tmp_path / "run"), times=2, retry_s=1, say=said.append) == "trained"
    assert len(said) == 2
    assert "the storage is away; going on from the latest checkpoint" in said[1]
    with pytest.raises(UserError, match=r"max-failures 1 allows no further try\. Start the same command again"):
        fit_again(Fitting(away(), away()), str(tmp_path / "run"), times=1, retry_s=1, say=said.append)


def test_it_waits_for_the_storage_but_not_for_ever(tmp_path: Path) -> None:
    said: list[str] = []
    place = tmp_path / "storage"
    place.write_text("no folder")
    with pytest.raises(UserError, match="cannot write to storage"):
        fit_again(Fitting(away()), str(place / "run"), times=3, retry_s=0.2, say=said.append)
    back = threading.Timer(1, place.unlink)
    back.start()
    begun = time.monotonic()
    assert fit_again(Fitting(away()), str(place / "run"), times=3, retry_s=60, say=said.append) == "trained"
    assert time.monotonic() - begun > 0.9


def test_other_errors_end_the_run(tmp_path: Path) -> None:
    for error in (ControllerError(ValueError("a mistake in the program")), RuntimeError("another")):
        with pytest.raises(type(error)) as caught:
            fit_again(Fitting(error), str(tmp_path / "run"), times=3, retry_s=1, say=print)
        assert caught.value is error
