"""Whether a run may go on from a checkpoint: same data, same labels, same settings where they change the result."""

from __future__ import annotations

from typing import Any

from cast_ray.config import RunConfig
from cast_ray.configuration import flat_settings
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.training.checkpoint import CheckpointState

__all__ = ["changed_settings", "check_continues"]

FREE = {
    "name",
    "storage",
    "log_every",
    "validate_every",
    "keep_checkpoints",
    "checkpoint_every",
    "checkpoint_retry_s",
    "optim.on_bad_loss",
    "scale",
    "test",
    "tracking",
    "model.checkpoint_activations",
    "weights",  # compared by the fingerprint of their bytes
    "data.max_unreadable",
    "data.clips_per_task",
    "data.cpus_per_decode",
    "data.decode_time_limit_s",
    "data.tasks_per_decoder",
}
"""Settings, or groups of them, that may change between two parts of a run."""


def check_continues(state: CheckpointState, config: RunConfig, label_map: LabelMap, dataset: str) -> None:
    """Raise `UserError` unless the run of `state` can go on with this configuration and data."""
    if state.label_map.fingerprint != label_map.fingerprint:
        raise UserError(
            f"the run '{config.name}' was started with label map {state.label_map.fingerprint}, this data has "
            f"{label_map.fingerprint}; give the data it was started with, or another --name"
        )
    if state.dataset != dataset:
        raise UserError(
            f"the run '{config.name}' was started on dataset {state.dataset}, this is {dataset}; "
            "give the data it was started with, or another --name"
        )
    changed = changed_settings(state.config, config.to_dict())
    if changed:
        listed = ", ".join(f"--{_flag(name)} was {was}, is {is_now}" for name, (was, is_now) in changed.items())
        raise UserError(
            f"the run '{config.name}' was started with other settings: {listed}; give the same ones to continue it, or "
            "another --name"
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two configurations, as `RunConfig.to_dict` returns them, and changes a run's result.

    Returns:
        Dotted name -> value before and now.
    """
    old, new = _settings(before), _settings(now)
    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that must not change, flat: `optim.epochs` and so on."""
    flat = dict(flat_settings(config))
    return {name: value for name, value in flat.items() if name not in FREE and name.split(".")[0] not in FREE}


def _flag(name: str) -> str:
    return name.replace("_", "-")
