"""What happens between the two halves of one block: all exchanges of that block, and how their results are joined.

Legend: B batch, T time steps, S special tokens, N patches per step, D width, R reduced width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.exchange import Side, bottleneck_width, check_grids, enter, leave, talk
from cast_ray.models.spec import Direction, ExchangeSpec, Merge

__all__ = ["Context", "ExchangeStage"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What exchanges need to know of a batch beside the tokens."""

    present: Mapping[str, Tensor] = field(default_factory=dict)
    """Booleans [B] for experts whose input may be missing: where False, nobody hears them."""
    clock: Mapping[str, Tensor] = field(default_factory=dict)
    """Embedded seconds of every expert, to be added to its reduced patches; broadcasts to [B, T, N, R]."""


class ExchangeStage(nn.Module):
    """All exchanges of one block.

    Every exchange has one way in (`reduce`) and one way out (`expand`) per expert that its directions share. Special
    tokens of the target skip the attention: they pass only the ways in and out, where there is a way out. An expert
    whose input is missing is not heard: the update that it would cause is left out, whatever its tokens are.

    Args:
        exchanges: the exchanges of this block.
        sides: layout and heads of each expert by name.
        shared: whether exchanges share each expert's ways in and out.
        long_names: whether ways in and out are named by both experts, as they must be where an expert has several.
        merge: how several results reach one expert.
        drop_path: chance of dropping an update, per clip.

    Raises:
        UserError: grids or widths of the experts do not fit together, or a direction occurs twice.
    """

    def __init__(
        self,
        exchanges: Sequence[ExchangeSpec],
        *,
        sides: Mapping[str, Side],
        shared: bool,
        long_names: bool,
        merge: Merge,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.exchanges = tuple(exchanges)
        self.special = {name: side.layout.special for name, side in sides.items()}
        self.long_names = long_names and not shared
        self.merge = merge
        self.reduce = nn.ModuleDict()
        self.attention = nn.ModuleDict()
        self.expand = nn.ModuleDict()
        self.drop_path = DropPath(drop_path)
        if shared:
            _check_shared(self.exchanges, sides)
        for exchange in self.exchanges:
            check_grids(exchange, sides)
            for name in exchange.experts:
                key = self.key(exchange, name)
                if key not in self.reduce:
                    self.reduce[key] = enter(exchange, name, sides)
                way_out = leave(exchange, name, sides) if name in exchange.targets else None
                if way_out is not None and key not in self.expand:
                    self.expand[key] = way_out
            for direction in exchange.directions:
                if direction.name in self.attention:
                    raise UserError(f"{direction.name} occurs twice in one block; leave one of the two away")
                self.attention[direction.name] = talk(exchange, direction, sides)

    def forward(self, tokens: Mapping[str, Tensor], context: Context) -> dict[str, Tensor]:
        """Tokens [B, T, S + N, D] of every expert, before to after the exchanges."""
        after = dict(tokens)
        if self.merge == "sequence":
            for exchange in self.exchanges:
                after = self._add(after, [(exchange, after)], context)
            return after
        return self._add(after, [(exchange, tokens) for exchange in self.exchanges], context)

    def _add(
        self,
        before: Mapping[str, Tensor],
        heard: Sequence[tuple[ExchangeSpec, Mapping[str, Tensor]]],
        context: Context,
    ) -> dict[str, Tensor]:
        """The tokens `before` plus the updates of all exchanges, each computed from the tokens that it hears."""
        updates: dict[str, list[tuple[Tensor, Tensor | None]]] = {}
        for exchange, tokens in heard:
            special, patches = self._enter(exchange, tokens, context)
            for direction in exchange.directions:
                update = self._update(exchange, direction, special, patches)
                updates.setdefault(direction.target, []).append((update, context.present.get(direction.source)))
        return {
            name: x + _join(updates[name], average=self.merge == "average") if name in updates else x
            for name, x in before.items()
        }

    def _enter(
        self, exchange: ExchangeSpec, tokens: Mapping[str, Tensor], context: Context
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        special, patches = {}, {}
        for name in exchange.experts:
            reduced = self.reduce[self.key(exchange, name)](tokens[name])
            special[name], patches[name] = reduced[:, :, : self.special[name]], reduced[:, :, self.special[name] :]
            if exchange.positions == "clock":
                patches[name] = patches[name] + context.clock[name]
        return special, patches

    def _update(
        self,
        exchange: ExchangeSpec,
        direction: Direction,
        special: Mapping[str, Tensor],
        patches: Mapping[str, Tensor],
    ) -> Tensor:
        attended = self.attention[direction.name](patches[direction.target], patches[direction.source])
        bypass = special[direction.target]
        key = self.key(exchange, direction.target)
        if key not in self.expand:
            bypass = torch.zeros_like(bypass)
        update = torch.cat([bypass, attended], dim=2) if bypass.shape[2] else attended  # no copy without special tokens
        return self.drop_path(self.expand[key](update) if key in self.expand else update)

    def key(self, exchange: ExchangeSpec, name: str) -> str:
        if not self.long_names:
            return name
        (other,) = set(exchange.experts) - {name}
        return f"{name}_with_{other}"


def _check_shared(exchanges: Sequence[ExchangeSpec], sides: Mapping[str, Side]) -> None:
    """Raise `UserError` if exchanges that share an expert's ways in and out need different ones."""
    ways: dict[str, set[tuple[str, int]]] = {}
    for exchange in exchanges:
        width = bottleneck_width(exchange, sides)[0] if exchange.kind == "bottleneck" else 0
        for name in exchange.experts:
            ways.setdefault(name, set()).add((exchange.kind, width))
    for name, needed in ways.items():
        if len(needed) > 1:
            raise UserError(
                f"shared projections of the {name} expert would have to be all of {sorted(needed)} (kind, width), "
                "because the experts differ in width; use separate projections"
            )


def _join(updates: Sequence[tuple[Tensor, Tensor | None]], *, average: bool) -> Tensor:
    """Sum, or mean, of updates [B, T, N, D] over those whose source is present; zero where there is none."""
    heard = [
        update if present is None else torch.where(present[:, None, None, None], update, 0.0)
        for update, present in updates
    ]
    total = functools.reduce(torch.add, heard)
    if not average or len(updates) == 1:
        return total
    always = sum(present is None for _, present in updates)
    sometimes = [present.to(total.dtype) for _, present in updates if present is not None]
    if not sometimes:
        return total / always
    count = (always + torch.stack(sometimes).sum(0)).clamp(min=1.0)
    return total / count[:, None, None, None]
