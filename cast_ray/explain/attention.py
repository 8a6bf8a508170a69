"""Where the exchanges of a network look: their attention probabilities, recorded beside the ordinary computation.

The network computes what it always does, with fused attention that keeps no probabilities. A hook on every exchange
computes them again from its inputs, and checks that they give its output.
Legend: B batch, W windows, Q and K queries and keys of a window, H heads, U and V time bins, T time steps, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.attention import Window
from cast_ray.models.exchange import CrossAttention
from cast_ray.models.experts.expert import TokenLayout
from cast_ray.models.network import Network
from cast_ray.models.spec import AUDIO, Direction
from cast_ray.models.stage import ExchangeStage

__all__ = [
    "AttentionMap",
    "Side",
    "attention_probabilities",
    "by_exchange",
    "check_attends",
    "recorded_attention",
]

TOLERANCE = 1e-3
"""How far from an exchange's output the recomputed one may be in float32, relative to the largest value."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """The tokens of one expert that takes part."""

    expert: str
    modality: str
    """VIDEO or AUDIO."""
    layout: TokenLayout

    @property
    def time_bins(self) -> int:
        """Time steps of video, columns of a spectrogram's patches of sound."""
        return self.layout.grid[1] if self.modality == AUDIO else self.layout.steps

    def bin_of_token(self) -> Tensor:
        """[T * N] the time bin of every patch."""
        rows, columns = self.layout.grid
        if self.modality == AUDIO:
            return torch.arange(columns).repeat(self.layout.steps * rows)
        return torch.arange(self.layout.steps).repeat_interleave(rows * columns)


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """What one exchange looks at in one block."""

    name: str
    """SOURCE_to_TARGET."""
    block: int
    """From 1."""
    counts: bool
    """Whether the answers can change what the network says, see `_counts`."""
    window: Window
    asks: Side
    """The expert that looks."""
    answers: Side
    """The expert that is looked at."""
    weights: Tensor
    """[B, W, Q, K] float32 on the CPU: mean over the heads; the last axis adds up to 1."""
    entropy: Tensor
    """[B] mean over windows, heads and queries, as a share of the largest possible: 1 looks everywhere alike, 0 at one
    token."""

    @property
    def received(self) -> Tensor:
        """[B, T, N] attention that every patch of the answering expert gets, in multiples of an even look."""
        mean = self.weights.mean(dim=2) * self.weights.shape[3]
        steps, patches = self.answers.layout.steps, self.answers.layout.patches
        if self.window.axes == ("time",):
            return mean.transpose(1, 2)  # [B, N, T] before
        return mean.reshape(len(mean), steps, patches)

    @property
    def over_time(self) -> Tensor | None:
        """[B, U, V] how the asking expert's attention spreads over time bins; None where a window has one time step.

        Rows add up to 1.
        """
        if self.window.axes == ("time",):
            return self.weights.mean(dim=1)
        if self.window.axes == ("space",):
            return None
        asks, answers = self.asks.bin_of_token(), self.answers.bin_of_token()
        asked = nn.functional.one_hot(asks, self.asks.time_bins).float()
        answered = nn.functional.one_hot(answers, self.answers.time_bins).float()
        return (asked / asked.sum(dim=0)).T @ self.weights[:, 0] @ answered


def attention_probabilities(module: CrossAttention, target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [B, W, H, Q, K] in float32 of an exchange, and its output computed from them, as the module's.

    Args:
        module: the exchange.
        target: [B, T, N, R], as the module takes it.
        source: [B, T', M, R'], as the module takes it.
    """
    window, heads = module.window, module.num_heads
    query = module.query(module.target_positions(target))
    key, value = module.key_value(module.source_positions(source)).chunk(2, dim=-1)
    gather = f"b t n (h d) -> {window.batch} h {window.tokens} d"
    query, key, value = (rearrange(x, gather, h=heads).float() for x in (query, key, value))
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    steps, locations = target.shape[1:3]
    scatter = f"{window.batch} h {window.tokens} d -> b t n (h d)"
    attended = rearrange(weights @ value, scatter, b=len(target), t=steps, n=locations)
    return weights.unflatten(0, (len(target), -1)), module.project(attended.to(target.dtype))


def check_attends(network: Network) -> None:
    """Raise `UserError` if the network has no exchange that attends."""
    if any(True for _ in _exchanges(network)):
        return
    kinds = sorted({exchange.kind for exchange in network.spec.exchanges})
    what = f"its exchanges are of kind {kinds}, which do not attend" if kinds else "it has no exchange"
    raise UserError(f"the model has no attention between experts to show: {what}; give one such as cast_tiny")


@contextmanager
def recorded_attention(network: Network) -> Iterator[list[AttentionMap]]:
    """Record the attention of every exchange while the block runs; what the network computes is the same.

    Yields the maps recorded so far, in the order of computation: block by block.

    Raises:
        UserError: the network has no exchange that attends.
        RuntimeError: in the forward pass, if the probabilities do not give the exchange's output: a defect.
    """
    check_attends(network)
    recorded: list[AttentionMap] = []
    hooks = [
        module.register_forward_hook(_Recorder(recorded, network, direction, block))
        for block, direction, module in _exchanges(network)
    ]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def by_exchange(maps: Sequence[AttentionMap]) -> dict[str, list[AttentionMap]]:
    """The maps of every exchange, block by block."""
    grouped: dict[str, list[AttentionMap]] = {}
    for one in maps:
        grouped.setdefault(one.name, []).append(one)
    return grouped


def _exchanges(network: Network) -> Iterator[tuple[int, Direction, CrossAttention]]:
    for block, stage in enumerate(cast(Iterable[ExchangeStage], network.exchanges), start=1):
        for exchange in stage.exchanges:
            for direction in exchange.directions:
                module = stage.attention[direction.name]
                if isinstance(module, CrossAttention):
                    yield block, direction, module


def _counts(network: Network, direction: Direction, block: int) -> bool:
    """Whether anything reads the patches of the asking expert after the exchange.

    An expert that is read out by its class token looks at its patches for the last time in the self-attention of the
    last block, and that comes before the exchange: what its patches learn there goes nowhere. Where exchanges of a
    block come one after the other, a later one may still tell another expert.
    """
    last = block == network.depth and network.experts[direction.target].pooled > 0
    return not last or network.spec.merge == "sequence"


class _Recorder:
    """The hook on one exchange in one block."""

    def __init__(self, recorded: list[AttentionMap], network: Network, direction: Direction, block: int) -> None:
        self._recorded, self._direction, self._block = recorded, direction, block
        self._counts = _counts(network, direction, block)
        self._sides = {
            name: Side(expert=name, modality=expert.modality, layout=expert.layout)
            for name, expert in network.experts.items()
        }

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        exchange, (target, source) = cast(CrossAttention, module), inputs
        with torch.no_grad():
            weights, again = attention_probabilities(exchange, target, source)
            error = (again - output).abs().max().item()
            if error > TOLERANCE * max(output.abs().max().item(), 1e-6):
                raise RuntimeError(
                    f"recomputed {self._direction.name} in block {self._block} is off by {error:.3g}; this is a defect"
                )
            # x log x is 0 at 0, as entropy has it.
            entropy = -torch.special.xlogy(weights, weights).sum(-1).mean(dim=(1, 2, 3))
            keys = weights.shape[-1]
            self._recorded.append(
                AttentionMap(
                    name=self._direction.name,
                    block=self._block,
                    counts=self._counts,
                    window=exchange.window,
                    asks=self._sides[self._direction.target],
                    answers=self._sides[self._direction.source],
                    weights=weights.mean(dim=2).cpu(),
                    entropy=(entropy / math.log(keys) if keys > 1 else entropy).cpu(),
                )
            )
