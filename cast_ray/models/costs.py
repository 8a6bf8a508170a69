"""What a network costs: its parameters, those that train, and its multiply-adds, without any memory for weights.

Everything is counted on PyTorch's meta device, where tensors have shapes and no content. Multiply-adds are those of
matrix products, attention and convolutions; one of them is two of the FLOPs that PyTorch counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cast_ray.models.assemble import assemble
from cast_ray.models.network import Network
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, VIDEO_TIMES, ExchangeSpec, NetworkSpec

__all__ = ["Costs", "count_costs", "count_step", "input_shapes"]

FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The size of a network and the work of one view."""

    parameters: int
    trainable_parameters: int
    multiply_adds: int
    """Of the forward pass of one view."""


def input_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Shape, without the batch, of every input that a network of this kind takes."""
    shapes: dict[str, tuple[int, ...]] = {
        VIDEO: spec.video.shape,
        AUDIO: spec.audio.shape,
        HAS_AUDIO: (),
        VIDEO_TIMES: (spec.video.steps, 2),
        AUDIO_TIMES: (2,),
    }
    return {name: shape for name, shape in shapes.items() if name in spec.needs}


def count_costs(spec: NetworkSpec, num_classes: Mapping[str, int], *, train_experts: bool | None = None) -> Costs:
    """Parameters and multiply-adds of a network.

    Args:
        spec: what it is made of.
        num_classes: classes by label field.
        train_experts: whether the experts' own weights train; None: only where they have no adapters.

    Raises:
        UserError: the sizes do not fit together.
    """
    network = _assemble_on_meta(spec, num_classes)
    trainable = set(network.trainable_names(spec.trains_whole if train_experts is None else train_experts))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return Costs(
        parameters=sum(sizes.values()),
        trainable_parameters=sum(size for name, size in sizes.items() if name in trainable),
        multiply_adds=_forward_multiply_adds(spec, num_classes),
    )


def count_step(
    spec: NetworkSpec,
    num_classes: Mapping[str, int],
    *,
    train_experts: bool | None = None,
    checkpoint_activations: bool = False,
) -> int:
    """Multiply-adds of a forward and backward pass of one view, as automatic differentiation really does them.

    Frozen weights get no gradient, but the gradient still passes through them to whatever trains before them.
    Attention counts its scores once, although fused kernels compute them again in the backward pass.

    Args:
        spec: what the network is made of.
        num_classes: classes by label field.
        train_experts: as in `count_costs`.
        checkpoint_activations: count what is computed again, too.
    """
    network = _assemble_on_meta(spec, num_classes).train()
    network.freeze(spec.trains_whole if train_experts is None else train_experts)
    network.set_grad_checkpointing(checkpoint_activations)
    with FlopCounterMode(display=False) as counter:
        logits = network(_inputs_on_meta(spec))
        torch.stack([scores.sum() for scores in logits.values()]).sum().backward()
    return counter.get_total_flops() // FLOPS_PER_MULTIPLY_ADD


def _assemble_on_meta(spec: NetworkSpec, num_classes: Mapping[str, int]) -> Network:
    with torch.device("meta"):
        return assemble(spec, num_classes)


def _inputs_on_meta(spec: NetworkSpec) -> dict[str, Tensor]:
    return {
        name: torch.empty(1, *shape, device="meta", dtype=torch.bool if name == HAS_AUDIO else None)
        for name, shape in input_shapes(spec).items()
    }


def _forward_multiply_adds(spec: NetworkSpec, num_classes: Mapping[str, int]) -> int:
    """Runs one block of each kind, because blocks with the same exchanges cost the same.

    Running all blocks would say the same several times slower, which matters to whoever lists all models.
    """
    kinds: dict[tuple[ExchangeSpec, ...], list[int]] = {}
    for block in range(1, spec.depth + 1):
        exchanges = tuple(x for x in spec.exchanges if x.acts_in(block))
        kinds.setdefault(exchanges, []).append(block)
    network = _assemble_on_meta(_with_blocks(spec, [blocks[0] for blocks in kinds.values()]), num_classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_inputs_on_meta(spec))
    flops = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}
    stages = [flops.get(f"Network.exchanges.{index}", 0) for index in range(len(kinds))]
    around = [f"Network.experts.{name}.embedding" for name in spec.experts] + ["Network.clock", "Network.head"]
    outside = sum(flops.get(name, 0) for name in around)
    experts = (counter.get_total_flops() - outside - sum(stages)) // len(kinds)
    talks = sum(stage * len(blocks) for stage, blocks in zip(stages, kinds.values(), strict=True))
    return (outside + spec.depth * experts + talks) // FLOPS_PER_MULTIPLY_ADD


def _with_blocks(spec: NetworkSpec, blocks: list[int]) -> NetworkSpec:
    """The network with only these of its blocks, numbered from 1."""
    kept = {
        exchange: tuple(new for new, old in enumerate(blocks, start=1) if exchange.acts_in(old))
        for exchange in spec.exchanges
    }
    return replace(
        spec,
        experts={name: replace(expert, depth=len(blocks)) for name, expert in spec.experts.items()},
        exchanges=tuple(replace(exchange, blocks=numbers) for exchange, numbers in kept.items()),
    )
