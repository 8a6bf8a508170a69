"""Whether tensors fit a module exactly: nothing missing, nothing left over, every shape equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from cast_ray.errors import UserError

__all__ = ["load_strictly"]

SHOWN = 12
"""At most so many names per kind of problem are listed."""


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    unknown: Sequence[str] = (),
    expected: Collection[str] | None = None,
) -> None:
    """Copy `tensors` into the parameters of `module`, or change nothing and raise.

    Args:
        module: the module to fill; values are cast to its types.
        tensors: new values by our name.
        where: what the tensors come from, for the message.
        unknown: foreign names that could not be translated; they count as unexpected.
        expected: names that must be present; all parameters by default.

    Raises:
        UserError: one message with all missing and unexpected names and all differing shapes.
    """
    parameters = dict(module.named_parameters())
    wanted = set(parameters if expected is None else expected)
    missing = sorted(wanted - set(tensors))
    unexpected = sorted([*unknown, *(set(tensors) - wanted)])
    differing = sorted(
        f"{name} {tuple(tensors[name].shape)} where the model has {tuple(parameters[name].shape)}"
        for name in wanted & set(tensors)
        if tensors[name].shape != parameters[name].shape
    )
    problems = [
        f"  {len(names)} {kind}: {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", differing))
        if names
    ]
    if problems:
        raise UserError(
            "\n".join([f"{where} does not fit the model; nothing was loaded:", *problems])
            + "\n  Give the checkpoint that belongs to this model, or build the model with the checkpoint's sizes."
        )
    with torch.no_grad():
        for name in wanted:
            parameters[name].copy_(tensors[name])
