"""On which device a model computes in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cast_ray.errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["Device", "chosen_device"]

Device = Literal["auto", "cpu", "cuda"]


def chosen_device(device: Device) -> torch.device:
    """The device that is meant; auto takes a GPU if there is one, and `UserError` if one is asked for in vain."""
    import torch  # late: what only parses flags need not wait for it

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here; use cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
