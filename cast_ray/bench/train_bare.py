"""The loop that training is compared with: the same network, loss and batches in plain torch, everything in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cast_ray.bench.plain import PlainAdamW
from cast_ray.models.groups import parameter_groups
from cast_ray.training.losses import soft_cross_entropy

if TYPE_CHECKING:
    from cast_ray.config import OptimConfig
    from cast_ray.models.network import Network

__all__ = ["BareLoop", "Prepared"]

Prepared = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor]
"""Inputs as the network takes them, targets [B, C] per label field, valid [B]: all on the device."""


class BareLoop:
    """Forward, loss, backward, AdamW; with several workers torch's DistributedDataParallel.

    Args:
        network: frozen as it will train.
        batches: micro batches of this worker.
        accumulation: micro batches per update.
        optim: weight decay and layer decay; clipping is off.
        rate: learning rate.
        device: where to train.
        dtype: of weights and activations.
    """

    def __init__(
        self,
        network: Network,
        batches: Sequence[Prepared],
        *,
        accumulation: int,
        optim: OptimConfig,
        rate: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        network = network.to(device=device, dtype=dtype).train()
        groups: list[dict[str, Any]] = parameter_groups(
            network, weight_decay=optim.weight_decay, layer_decay=optim.layer_decay
        )
        for group in groups:
            group["lr"] = rate * group["lr_scale"]
        self._optimizer = PlainAdamW(groups, fused=device.type == "cuda", lr=rate)
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._network = DistributedDataParallel(network) if several else network
        self._batches = batches
        self._accumulation = accumulation
        self._losses: list[Tensor] = []

    def run(self, places: Iterator[int]) -> None:
        """Train on the batches with these indices."""
        self._losses = []
        for count, place in enumerate(places, start=1):
            inputs, targets, valid = self._batches[place]
            updates = count % self._accumulation == 0
            with nullcontext() if updates else self._unsynchronised():
                loss = soft_cross_entropy(self._network(inputs), targets, valid)
                (loss / self._accumulation).backward()
            if updates:
                self._optimizer.step()
            self._losses.append(loss.detach())

    def mean_loss(self) -> float:
        """Of the last `run`, over all workers."""
        loss = torch.stack(self._losses).double().mean()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        return loss.item()

    def _unsynchronised(self) -> AbstractContextManager[None]:
        return self._network.no_sync() if isinstance(self._network, DistributedDataParallel) else nullcontext()
