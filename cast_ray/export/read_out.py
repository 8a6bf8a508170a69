"""What the last block computes and nobody reads, and how it is left out.

An expert that is read through its special tokens (class tokens of CLIP and of the frame-wise ViTs, AST's two tokens)
needs, after the last exchange, only those: the feed-forward layer for its patches, and the attention by which its
patches hear another expert, change no score. Where no exchange of the last block listens to its patches either, its
self-attention is needed for the special tokens alone.
Legend: B batch, T time steps, S special tokens, N patches per step, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from cast_ray.models.attention import windowed_attention
from cast_ray.models.experts.block import Block, SelfAttention
from cast_ray.models.experts.expert import Expert
from cast_ray.models.network import Network
from cast_ray.models.spec import Direction, ExchangeSpec
from cast_ray.models.stage import Context, ExchangeStage

__all__ = ["leave_out_unread"]


def leave_out_unread(network: Network) -> None:
    """Change the last block of a network, in place, so that it computes nothing that no score depends on.

    Exchanges that act one after the other, or are averaged, keep theirs.
    """
    last = network.exchanges[-1]
    if not isinstance(last, ExchangeStage) or (last.merge != "sum" and len(last.exchanges) > 1):
        return
    unread = {name: expert.layout.special for name, expert in network.experts.items() if expert.pooled}
    if not unread:
        return
    stage = _ReadOutStage(last, unread)
    network.exchanges[-1] = stage
    for name, special in unread.items():
        if name not in stage.heard:
            _attend_for_special(network.experts[name], special)


class _ReadOutStage(nn.Module):
    """The exchanges of the last block, with the special tokens alone of the experts that are read through these.

    Args:
        stage: the exchanges as they are; its attentions that are not needed are taken away.
        unread: number of special tokens of the experts whose patches nobody reads afterwards.
    """

    def __init__(self, stage: ExchangeStage, unread: Mapping[str, int]) -> None:
        super().__init__()
        self.unread = dict(unread)
        self.bypass = nn.ModuleDict({name: nn.ModuleList() for name in unread})
        self.sources: dict[str, list[str]] = {name: [] for name in unread}
        for exchange in stage.exchanges:
            for direction in exchange.directions:
                if direction.target in unread:
                    self._take_over(stage, exchange, direction)
        stage.exchanges = tuple(
            replace(exchange, directions=directions)
            for exchange in stage.exchanges
            if (directions := tuple(x for x in exchange.directions if x.target not in unread))
        )
        self.stage = stage
        self.heard = {x.source for exchange in stage.exchanges for x in exchange.directions}
        """Experts whose patches others hear."""

    def _take_over(self, stage: ExchangeStage, exchange: ExchangeSpec, direction: Direction) -> None:
        del stage.attention[direction.name]
        key = stage.key(exchange, direction.target)
        if key in stage.expand:  # else special tokens get no update
            cast(nn.ModuleList, self.bypass[direction.target]).append(
                nn.Sequential(stage.reduce[key], stage.expand[key])
            )
            self.sources[direction.target].append(direction.source)

    def forward(self, tokens: Mapping[str, Tensor], context: Context) -> dict[str, Tensor]:
        """As `ExchangeStage`, but tokens [B, T, S, D] of the experts whose patches nobody reads."""
        after = self.stage(tokens, context)
        for name, count in self.unread.items():
            special = tokens[name][:, :, :count]
            after[name] = functools.reduce(torch.add, self._updates(name, special, context), special)
        return after

    def _updates(self, name: str, special: Tensor, context: Context) -> list[Tensor]:
        updates = []
        for way, source in zip(cast(Sequence[nn.Module], self.bypass[name]), self.sources[name], strict=True):
            update, present = way(special), context.present.get(source)
            updates.append(update if present is None else torch.where(present[:, None, None, None], update, 0.0))
        return updates


def _attend_for_special(expert: Expert, special: int) -> None:
    """Let the last block of an expert compute its self-attention for the special tokens only, where that is known."""
    blocks = cast(nn.ModuleList, expert.blocks)
    block = blocks[-1]
    if not isinstance(block, Block) or not isinstance(block.attention, SelfAttention):
        return
    shift = block.attention.shift
    if shift is not None and shift.shift.axis == "patch":
        return  # it moves queries by their place among all tokens
    blocks[-1] = _ReadOutBlock(block, block.attention, special)


class _ReadOutBlock(nn.Module):
    """A transformer block that takes all tokens and goes on with the special ones.

    Args:
        block: the block as it is.
        attention: its self-attention.
        special: S.
    """

    def __init__(self, block: Block, attention: SelfAttention, special: int) -> None:
        super().__init__()
        self.block = block
        self.special = special
        block.attention = _SpecialAttention(attention, special)

    def attend(self, x: Tensor) -> Tensor:
        """First half: [B, T, S + N, D] to [B, T, S, D]."""
        block = self.block
        x = block.trunk_shift(x)
        attended = block.attention(block.attention_norm(x))
        adapted = attended if block.attention_adapter is None else block.attention_adapter(attended)
        return x[:, :, : self.special] + adapted

    def feed_forward(self, x: Tensor) -> Tensor:
        """Second half: as that of the block."""
        return self.block.feed_forward(x)


class _SpecialAttention(nn.Module):
    """Self-attention of [B, T, S + N, D] for the queries of the first S tokens."""

    def __init__(self, attention: SelfAttention, special: int) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.window = attention.window
        self.special = special
        self.shift = attention.shift
        self.project = attention.project
        width = attention.project.in_features
        weights, biases = attention.qkv.weight, attention.qkv.bias
        if biases is None:
            raise TypeError("experts without a bias of keys are read by their patches")
        self.query = _part(weights[:width], biases[:width])
        self.key_value = _part(weights[width:], biases[width:])

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x[:, :, : self.special])
        key, value = self.key_value(x).chunk(2, dim=-1)
        if self.shift is not None:
            query, key, value = self.shift(query, key, value)
        return self.project(windowed_attention(query, key, value, window=self.window, num_heads=self.num_heads))


def _part(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    linear.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return linear
