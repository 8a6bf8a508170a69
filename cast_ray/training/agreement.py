"""What all workers find out together: flags before every backward pass, values, and mistakes that only one has seen.

Everything here is a collective. Workers that act on what only one of them knows would wait for each other for ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from cast_ray.errors import UserError

__all__ = ["Notice", "agree", "gather", "together"]

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What one worker, or after `agree` any worker, has to tell the others."""

    bad_loss: bool = False
    """The loss of this micro batch is not finite."""
    stop: bool = False
    """The driver was asked to stop the run."""
    leave: bool = False
    """A worker was asked to end, as on a machine that is taken away."""
    written: bool = False
    """The checkpoint in the background is complete, or has failed for good."""
    look: bool = False
    """It is time to ask whether Ray is about to take a machine away."""


def agree(notice: Notice, device: torch.device) -> Notice:
    """What holds on any worker."""
    flags = torch.tensor(dataclasses.astuple(notice), dtype=torch.float32, device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    names = (field.name for field in dataclasses.fields(Notice))
    return Notice(**dict(zip(names, flags.bool().tolist(), strict=True)))


def gather(value: Value) -> list[Value]:
    """Every worker's value, by rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], Value]) -> Value:
    """Do `work`; if it is a `UserError` on any worker, raise it on all.

    A weights file may be missing on one node only. The other workers must not wait for that one in the next collective.
    """
    result, message = None, None
    try:
        result = work()
    except UserError as error:
        message = str(error)
    messages = [text for text in gather(message) if text is not None]
    if messages:
        raise UserError(messages[0])
    return cast(Value, result)
