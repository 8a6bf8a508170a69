"""What a run does when Ray Train gives up on its own: it waits for the storage and goes on from the latest checkpoint.

Ray Train's controller writes its list of checkpoints, and deletes old ones, without a second try; the process of the
controller may be lost too. Both end `fit`, though nothing of the run is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError

from cast_ray.data.storage import check_writable
from cast_ray.errors import UserError
from cast_ray.training.folder import mend_list

__all__ = ["fit_again"]

Result = TypeVar("Result")
LONGEST_WAIT_S = 30.0


def fit_again(
    fit: Callable[[], Result], folder: str, *, times: int, retry_s: float, say: Callable[[str], object]
) -> Result:
    """Call `fit` until it has not failed for want of storage or controller.

    Args:
        fit: makes a new trainer and fits it.
        folder: path or URI of the run.
        times: failures after which it is called again.
        retry_s: seconds in which the storage must be back.
        say: is told of every failure.

    Raises:
        UserError: it has failed too often, or the storage stays away.
    """
    failures = 0
    while True:
        try:
            return fit()
        except (ControllerError, RayActorError, OutOfMemoryError) as error:
            cause = error.controller_failure if isinstance(error, ControllerError) else error
            if isinstance(error, ControllerError) and not isinstance(cause, OSError):
                raise
            what = f"Ray Train's controller failed: {str(cause).strip().splitlines()[0]}"
            if failures == times:
                raise UserError(
                    f"{what}; --scale.max-failures {times} allows no further try. Start the same command again: it "
                    "goes on from the last complete checkpoint"
                ) from error
            failures += 1
            say(f"{what}; going on from the latest checkpoint")
            _wait_for_storage(folder, retry_s)
            mend_list(folder)


def _wait_for_storage(folder: str, retry_s: float) -> None:
    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UserError),
        stop=tenacity.stop_after_delay(retry_s),
        wait=tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
        reraise=True,
    )(check_writable, folder)
