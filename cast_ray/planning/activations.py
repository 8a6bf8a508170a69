"""What the backward pass of one clip needs to find in memory: traced, not run, so that it costs a second and no memory.

The network is run once with fake tensors, which have shapes and storages but no content. What automatic differentiation
keeps is then the very list that a real run keeps: frozen layers keep less than those that train, views are kept once.
Attention keeps queries, keys, values, the answer and one number per query, as the fused kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cast_ray.data.inputs import in_precision
from cast_ray.models.assemble import assemble
from cast_ray.models.costs import input_shapes
from cast_ray.models.network import Network
from cast_ray.models.spec import HAS_AUDIO, VIDEO, NetworkSpec

__all__ = ["Activations", "trace_activations"]

CLIPS = 2
"""Clips of the traced batch: with one, windows along time are a single stride and are not copied as they are later."""
WORK_TENSORS = 4
"""Tensors of the largest kept size that one operation has at work beyond what is kept: its input and output, computed
again, and the gradients of both. The tests compare the sum with a real backward pass."""
BYTES_PER_PIXEL_BEFORE = 1 + 4
"""Of a frame's value before the network's precision: uint8 as it arrives, float32 as it is normalised."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes per clip."""

    kept: int
    """All that the backward pass needs."""
    between: int
    """Tokens between the blocks: what is kept of the blocks if they are computed again."""
    block: int
    """The most that one block keeps."""
    largest: int
    """The largest tensor that is kept."""
    inputs: int
    """Pixels and spectrograms, from uint8 to what enters the network."""

    def per_clip(self, *, checkpointed: bool) -> int:
        """The most that one clip has in memory at once.

        With checkpointed activations: the tokens between blocks, and one block while it is computed again.
        """
        tokens = self.between + self.block if checkpointed else self.kept
        return min(tokens, self.kept) + WORK_TENSORS * self.largest + self.inputs


def trace_activations(
    spec: NetworkSpec, num_classes: Mapping[str, int], *, train_experts: bool, dtype: torch.dtype
) -> Activations:
    """Follow one forward pass of a training step.

    Args:
        spec: what the network is made of.
        num_classes: classes by label field.
        train_experts: whether the experts' own weights train.
        dtype: of weights and activations.

    Raises:
        UserError: the sizes do not fit together.
    """
    with torch.device("meta"):
        network = assemble(spec, num_classes).to(dtype).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = network.to_empty(device="cpu")
        network.freeze(train_experts)
        kept = _Kept(network)
        inputs = in_precision(
            {
                name: torch.empty(CLIPS, *shape, dtype=torch.bool if name == HAS_AUDIO else torch.float32)
                for name, shape in input_shapes(spec).items()
            },
            dtype,
        )
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            network(inputs)
    size = torch.empty((), dtype=dtype, device="meta").element_size()
    pixels = inputs[VIDEO][0].numel() if VIDEO in inputs else 0
    return Activations(
        kept=kept.bytes // CLIPS,
        between=size * _tokens(network) * spec.depth,
        block=kept.most_between_exchanges() // CLIPS,
        largest=kept.largest // CLIPS,
        inputs=sum(x[0].numel() * x.element_size() for x in inputs.values()) + pixels * BYTES_PER_PIXEL_BEFORE,
    )


def _tokens(network: Network) -> int:
    """Values of all experts' tokens of one clip between two blocks."""
    layouts = [expert.layout for expert in network.experts.values()]
    return sum(layout.steps * (layout.special + layout.patches) * layout.width for layout in layouts)


class _Kept:
    """Counts what is packed for the backward pass, every storage once, without the weights."""

    def __init__(self, network: Network) -> None:
        self.bytes = 0
        self.largest = 0
        self._weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
        # Held, so that no storage takes the identity of one that is gone.
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._at_exchange: list[int] = []
        for stage in network.exchanges:
            stage.register_forward_pre_hook(self._mark)

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights and storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            self.bytes += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor

    def most_between_exchanges(self) -> int:
        """From one exchange to the next lies as much as a block keeps; a network of one block is all one block."""
        marks = [*self._at_exchange, self.bytes]
        return max(after - before for before, after in zip([0, *marks], marks, strict=False))

    def _mark(self, module: nn.Module, inputs: object) -> None:
        self._at_exchange.append(self.bytes)
