"""What is traced without memory equals what a real pass keeps, and bounds what a real backward pass has in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from cast_ray.data.inputs import in_precision
from cast_ray.models.assemble import assemble
from cast_ray.models.costs import input_shapes
from cast_ray.models.named import NAMED
from cast_ray.models.spec import HAS_AUDIO
from cast_ray.planning.activations import trace_activations

CLASSES = {"label": 174}
CLIPS = 2


def _real(name, dtype, clips, *, train_experts=False, checkpointed=False):
    torch.manual_seed(0)
    spec = NAMED[name]
    network = assemble(spec, CLASSES).to(dtype).train()
    network.freeze(spec.trains_whole or train_experts)
    network.set_grad_checkpointing(checkpointed)
    inputs = {
        key: torch.ones(clips, dtype=torch.bool) if key == HAS_AUDIO else torch.rand(clips, *shape)
        for key, shape in input_shapes(spec).items()
    }
    return network, in_precision(inputs, dtype)


def _kept(network, inputs):
    """Bytes of the unique storages that automatic differentiation packs, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(inputs)
    return sum(storage.nbytes() for storage in storages.values())


class _Live(TorchDispatchMode):
    """The most bytes that tensors made under it had at once; a literal watch over every operation."""

    def __init__(self, network):
        super().__init__()
        self._sizes = {weight.untyped_storage()._cdata: 0 for weight in network.parameters()}
        self._now = self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata)
        self.peak = max(self.peak, self._now)
        return made

    def _gone(self, identity):
        self._now -= self._sizes.pop(identity)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("train_experts", [False, True])
@pytest.mark.parametrize("name", ["cast_tiny", "ca2st_tiny_clock", "msca_kv_tiny", "cast_tiny_lateral"])
def test_the_trace_keeps_what_a_real_pass_keeps(name, train_experts, dtype):
    traced = trace_activations(
        NAMED[name], CLASSES, train_experts=NAMED[name].trains_whole or train_experts, dtype=dtype
    )
    real = _kept(*_real(name, dtype, CLIPS, train_experts=train_experts))
    assert traced.kept == pytest.approx(real / CLIPS, rel=0.001)


def test_one_clip_of_cast_base_in_float32_is_met_within_two_percent():
    """One clip keeps 1.4 % less than its share of two, whose windows along time are copied."""
    name = "cast_base_patch16_224"
    traced = trace_activations(NAMED[name], CLASSES, train_experts=False, dtype=torch.float32)
    assert traced.kept == pytest.approx(_kept(*_real(name, torch.float32, 1)), rel=0.02)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["cast_tiny", "ca2st_tiny", "msca_kv_tiny", "spatial_tiny"])
def test_a_clip_takes_at_most_what_was_worked_out_and_not_much_less(name, checkpointed):
    """The difference between two batch sizes, so that gradients of weights do not count."""
    peaks = {}
    for clips in (4, 12):
        network, inputs = _real(name, torch.float32, clips, checkpointed=checkpointed)
        with _Live(network) as live:
            sum(scores.sum() for scores in network(inputs).values()).backward()
        peaks[clips] = live.peak
    real = (peaks[12] - peaks[4]) / 8
    traced = trace_activations(NAMED[name], CLASSES, train_experts=NAMED[name].trains_whole, dtype=torch.float32)
    worked_out = traced.per_clip(checkpointed=checkpointed) - traced.inputs
    assert 0.95 * real <= worked_out <= 1.5 * real


def test_frozen_experts_keep_less_and_checkpointing_needs_less():
    frozen, trained = (
        trace_activations(NAMED["cast_tiny"], CLASSES, train_experts=train, dtype=torch.float32)
        for train in (False, True)
    )
    assert frozen.kept < trained.kept
    assert frozen.per_clip(checkpointed=True) < frozen.per_clip(checkpointed=False)
    assert frozen.block < frozen.kept
    # 4 steps x (1 class token + 16 patches) and 4 x 16 tubelets, width 64, 3 blocks, float32.
    assert frozen.between == (4 * 17 + 4 * 16) * 64 * 3 * 4
    # 3 x 8 x 32 x 32 values: uint8, float32, and float32 as they enter the network.
    assert frozen.inputs == 3 * 8 * 32 * 32 * (1 + 4 + 4)
