"""How a specification becomes a network with random weights."""

from __future__ import annotations

from collections.abc import Mapping

from cast_ray.errors import UserError
from cast_ray.models.clock import Clock
from cast_ray.models.exchange import Side, bottleneck_width
from cast_ray.models.experts.adapter import BOTTLENECK
from cast_ray.models.experts.ast import ast_expert
from cast_ray.models.experts.clip import clip_expert
from cast_ray.models.experts.expert import Expert
from cast_ray.models.experts.timm_vit import timm_expert
from cast_ray.models.experts.videomae import videomae_expert
from cast_ray.models.experts.vit import vit_expert
from cast_ray.models.heads import Head
from cast_ray.models.network import Network
from cast_ray.models.spec import AST, CLIP, ExchangeSpec, ExpertSpec, NetworkSpec, TimmViT, VideoMAE, ViT
from cast_ray.models.stage import ExchangeStage

__all__ = ["assemble"]


def assemble(spec: NetworkSpec, num_classes: Mapping[str, int]) -> Network:
    """A network with random weights, everything trainable.

    Args:
        spec: what it is made of.
        num_classes: C of each label field, as `LabelMap.num_classes` gives it.

    Raises:
        UserError: sizes that do not fit together, or a number of classes that is not positive.
    """
    if not num_classes or any(not isinstance(count, int) or count < 1 for count in num_classes.values()):
        raise UserError(f"num_classes is {dict(num_classes)}; give a positive number for every label field")
    side = _grid_side(spec)
    experts = {name: _expert(expert, spec, side) for name, expert in spec.experts.items()}
    sides = {name: Side(layout=x.layout, num_heads=x.spec.num_heads) for name, x in experts.items()}
    stages = [
        ExchangeStage(
            [exchange for exchange in spec.exchanges if exchange.acts_in(block)],
            sides=sides,
            shared=spec.shared_projections,
            long_names=len(spec.exchanges) > 1,
            merge=spec.merge,
            drop_path=rate,
        )
        for block, rate in enumerate(spec.drop_path_rates, start=1)
    ]
    return Network(
        spec=spec,
        experts=experts,
        exchanges=stages,
        head=Head(spec.head, {name: expert.layout.width for name, expert in experts.items()}, num_classes),
        clock=_clock(spec, experts, sides),
    )


def _grid_side(spec: NetworkSpec) -> int:
    """Patches along one side of a frame: all experts that see share the coarsest grid among them."""
    patch_sizes = [expert.patch_size for expert in spec.experts.values() if not isinstance(expert, AST)]
    if not patch_sizes:
        return 0
    coarsest = max(patch_sizes)
    if spec.video.image_size % coarsest:
        raise UserError(
            f"image size {spec.video.image_size} is not a multiple of patch size {coarsest}; change one of them"
        )
    return spec.video.image_size // coarsest


def _expert(expert: ExpertSpec, spec: NetworkSpec, side: int) -> Expert:
    if expert.adapters and expert.width % BOTTLENECK:
        raise UserError(f"width is {expert.width}; adapters need a multiple of {BOTTLENECK}")
    rates = spec.drop_path_rates
    match expert:
        case CLIP():
            return clip_expert(expert, spec.video, side=side, drop_path_rates=rates)
        case VideoMAE():
            return videomae_expert(expert, spec.video, side=side, drop_path_rates=rates)
        case ViT():
            return vit_expert(expert, spec.video, side=side, drop_path_rates=rates)
        case TimmViT():
            return timm_expert(expert, spec.video, side=side, drop_path_rates=rates)
        case AST():
            return ast_expert(expert, spec.audio, drop_path_rates=rates)
    raise TypeError(f"no expert is built from a {type(expert).__name__}")


def _clock(spec: NetworkSpec, experts: Mapping[str, Expert], sides: Mapping[str, Side]) -> Clock | None:
    timed: list[ExchangeSpec] = [exchange for exchange in spec.exchanges if exchange.positions == "clock"]
    if not timed:
        return None
    widths = {bottleneck_width(exchange, sides)[0] for exchange in timed if exchange.kind == "bottleneck"}
    if len(widths) != 1 or any(exchange.kind != "bottleneck" for exchange in timed):
        raise UserError("positions from the clock need bottleneck exchanges of one width; use learned positions")
    told = {name: x for name, x in experts.items() if any(name in exchange.experts for exchange in timed)}
    return Clock(
        {name: expert.layout for name, expert in told.items()},
        {name: expert.modality for name, expert in told.items()},
        width=widths.pop(),
        split=spec.split_clock,
    )
