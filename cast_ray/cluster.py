"""How a program joins a Ray cluster, and whether the cluster is large enough."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from cast_ray.config import RunConfig
from cast_ray.errors import UserError

__all__ = ["call_task", "check_room", "connect", "get", "needs", "on_this_node", "raise_user_error"]

Result = TypeVar("Result")

# Set before Ray starts, so that every process of the cluster or job inherits them.
_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # fills the dashboard's Train page
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a report waits for the controller's next look
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # our own lines say more, and bars are noise in a job's log
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(*, worker_logs: bool = False) -> bool:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start one on this machine.

    Args:
        worker_logs: print what the workers print, beside the run's own progress lines.

    Returns:
        Whether the cluster was started here, and so is all there will ever be.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Without this, ray.init would join whatever cluster somebody has left running on this machine.
    address = os.environ.get("RAY_ADDRESS", "local")
    try:
        if not ray.is_initialized():
            level = logging.INFO if worker_logs else logging.ERROR
            ray.init(address=address, log_to_driver=worker_logs, logging_level=level)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster at RAY_ADDRESS={address}: {error}; start one with "
            "`ray start --head`, or unset RAY_ADDRESS to use this machine alone"
        ) from error
    logging.getLogger("ray.train").setLevel(logging.INFO if worker_logs else logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.INFO if worker_logs else logging.WARNING)
    return address == "local"


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Keeps an actor on the machine of this process: what the driver cannot do without must not go with another one."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def call_task(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run `function` as a Ray task and wait for it; a `UserError` in it, or in a task below it, is raised as such.

    What it prints goes to the task's log and not to the terminal.
    """
    return get(ray.remote(num_cpus=0)(function).remote(*arguments))


def get(reference: ray.ObjectRef) -> Any:
    """`ray.get`, with a `UserError` from the task raised as such, and without Ray's stack trace around it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise_user_error(error)
        raise


def raise_user_error(error: BaseException) -> None:
    """Raise the `UserError` that lies behind an error that Ray reports, if there is one."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, UserError):
            raise UserError(str(behind.args[0])) from None
        # Ray's tasks keep what they raised in `cause`, Ray Train's workers in `_base_exc`.
        behind = getattr(behind, "cause", None) or getattr(behind, "_base_exc", None) or behind.__cause__


def needs(config: RunConfig) -> dict[str, float]:
    """Cores and GPUs without which a run cannot go on, by Ray's names: its workers, and one decoder."""
    scale = config.scale
    workers = _least_workers(config)
    cores = {"CPU": workers * scale.cpus_per_worker + config.data.cpus_per_decode}
    return cores | ({"GPU": float(workers)} if scale.use_gpu else {})


def _least_workers(config: RunConfig) -> int:
    return config.scale.min_workers or max(config.scale.num_workers, config.predictors)


def _can_never_be(bundles: list[dict[str, float]]) -> bool:
    """Whether the cluster's autoscaler (version 2) says that no machines it may start would do.

    Asks for 15 s at most. False: they would, or nobody can tell.
    """
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    wanted = placement_group(bundles)
    deadline = time.monotonic() + 15  # it looks every 5 s
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    try:
        while time.monotonic() < deadline and not wanted.wait(timeout_seconds=0.5):
            state = GetClusterStatusReply.FromString(gcs.get_cluster_status()).autoscaling_state
            # Others may have asked for too much as well.
            if any(wanted.id.hex() in request.details for request in state.infeasible_gang_resource_requests):
                return True
            if state.pending_instances or state.pending_instance_requests:
                return False
        return False
    finally:
        remove_placement_group(wanted)


def _check_decoders(config: RunConfig, has: Mapping[str, float]) -> None:
    """Raise `UserError` if elastic workers, of which Ray starts as many as fit, would leave the decoders no core."""
    scale, data = config.scale, config.data
    fit = min(scale.num_workers, int(has["CPU"] // scale.cpus_per_worker))
    if scale.use_gpu:
        fit = min(fit, int(has["GPU"]))
    left = has["CPU"] - fit * scale.cpus_per_worker
    if scale.min_workers is not None and left < data.cpus_per_decode:
        raise UserError(
            f"{fit} workers fit on this machine and leave {left:g} of its {has['CPU']:g} cores, so that no clip would "
            f"ever be decoded; lower --scale.num-workers to {fit - 1}, or lower --scale.cpus-per-worker"
        )


def check_room(config: RunConfig, *, may_grow: bool, console: Console) -> None:
    """Compare what the run needs with what the cluster has.

    Raises:
        UserError: it does not fit and the cluster cannot grow.
    """
    scale, has = config.scale, ray.cluster_resources()
    short = {name: amount for name, amount in needs(config).items() if has.get(name, 0) < amount}
    if not short:
        if not may_grow:
            _check_decoders(config, has)
        return
    text = ", ".join(f"{amount:g} {name} (it has {has.get(name, 0):g})" for name, amount in short.items())
    if not may_grow:
        raise UserError(
            f"the run needs {text} on this machine; lower --scale.num-workers or --scale.cpus-per-worker, use --small "
            "to try it on a few CPU cores, or submit it to a cluster with `ray job submit`"
        )
    if _can_never_be([scale.resources_per_worker] * _least_workers(config)):
        raise UserError(
            f"the run needs {text}, more than the cluster can ever have, says its autoscaler; lower "
            "--scale.num-workers or --scale.cpus-per-worker, or raise max_workers of its node types"
        )
    limit = f"up to {scale.start_timeout_s} s " if scale.min_workers is None else ""
    console.print(f"waiting {limit}for the cluster to grow: the run needs {text}")
