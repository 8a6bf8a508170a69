"""What CAST is: a spatial and a temporal expert that talk to each other in every block.

Lee et al., "CAST: cross-attention in space and time for video action recognition", NeurIPS 2023, arXiv 2311.18825.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB
from cast_ray.models.attention import SPACE, TIME
from cast_ray.models.exchange import BottleneckExchange, Exchange
from cast_ray.models.experts.expert import Expert, ExpertSize
from cast_ray.models.experts.spatial import spatial_expert
from cast_ray.models.experts.temporal import temporal_expert
from cast_ray.models.heads import CompositionalHead, SingleLabelHead
from cast_ray.models.network import Network

__all__ = ["SPATIAL", "TEMPORAL", "CastSize", "build_cast"]

SPATIAL, TEMPORAL = "spatial", "temporal"
"""Names of the experts."""

EXCHANGES = (
    Exchange(source=TEMPORAL, target=SPATIAL, window=TIME),
    Exchange(source=SPATIAL, target=TEMPORAL, window=SPACE),
)
READ_FROM = {VERB: TEMPORAL, NOUN: SPATIAL}


@dataclass(frozen=True, kw_only=True)
class CastSize(ExpertSize):
    """All sizes of a CAST; the defaults are those of the paper.

    Raises:
        UserError: a size is not positive, or two sizes do not fit together.
    """

    down_ratio: int = 2
    """How many times narrower the exchanges are than the experts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_divides("width", "down_ratio")
        reduced = self.width // self.down_ratio
        if reduced % self.num_heads:
            raise UserError(
                f"width {self.width} / down_ratio {self.down_ratio} = {reduced} is not a multiple of "
                f"num_heads {self.num_heads}; change one of the three"
            )


def build_cast(size: CastSize, num_classes: Mapping[str, int]) -> Network:
    """A CAST with random weights, everything trainable.

    Args:
        size: the sizes.
        num_classes: {'label': C} or {'verb': C, 'noun': C}, as `LabelMap.num_classes` gives it.

    Raises:
        UserError: other label fields, or a number of classes that is not positive.
    """
    experts = {SPATIAL: spatial_expert(size), TEMPORAL: temporal_expert(size)}
    return Network(experts=experts, exchanges=_exchanges(size, experts), head=_head(size, num_classes))


def _exchanges(size: CastSize, experts: Mapping[str, Expert]) -> list[nn.Module]:
    layouts = {name: expert.layout for name, expert in experts.items()}
    return [
        BottleneckExchange(
            EXCHANGES,
            layouts=layouts,
            width=size.width,
            down_ratio=size.down_ratio,
            num_heads=size.num_heads,
            drop_path=rate,
        )
        for rate in size.drop_path_rates
    ]


def _head(size: CastSize, num_classes: Mapping[str, int]) -> nn.Module:
    if any(not isinstance(count, int) or count < 1 for count in num_classes.values()):
        raise UserError(f"num_classes is {dict(num_classes)}; give a positive number for every label field")
    if set(num_classes) == {LABEL}:
        return SingleLabelHead((SPATIAL, TEMPORAL), size.width, num_classes[LABEL])
    if set(num_classes) == {VERB, NOUN}:
        return CompositionalHead(READ_FROM, size.width, num_classes)
    raise UserError(f"num_classes has the fields {list(num_classes)}; use ['{LABEL}'] or ['{VERB}', '{NOUN}']")
