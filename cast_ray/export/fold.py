"""How a trained network becomes an equivalent one that computes less: only for inference.

What changes, each time with the same result but for the rounding of float32:

* the last block does not compute what nobody reads, see `cast_ray.export.read_out`;
* biases that are added after a projection become its own;
* two linear layers in a row become one: concatenated features and classifier (late fusion), and the attention's output
  and the adapter behind it (ablation `attention_adapter`), where no special tokens enter between the two.

Adapters and the ways into and out of the bottleneck have an activation or a norm between their linear layers, so there
is nothing to fold in them. docs/export.md has the figures, docs/log.md what is exact and gains nothing.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cast_ray.export.read_out import leave_out_unread
from cast_ray.models.exchange import CrossAttention
from cast_ray.models.experts.adapter import Adapter
from cast_ray.models.experts.block import SelfAttention
from cast_ray.models.heads import Head
from cast_ray.models.network import Network
from cast_ray.models.stage import ExchangeStage

__all__ = ["fold"]


def fold(network: Network) -> Network:
    """An equivalent network for inference; the given one stays as it is.

    Its parameters have other names and shapes, so that no checkpoint fits it.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        leave_out_unread(folded)
        for module in list(folded.modules()):
            if isinstance(module, SelfAttention):
                _merge_biases(module)
            elif isinstance(module, ExchangeStage):
                _merge_way_out(module)
            elif isinstance(module, Head):
                _merge_fusion(module)
    return folded


def _merge_biases(attention: SelfAttention) -> None:
    """Biases of queries and values, added after the projection, become those of the projection."""
    query, value = attention.q_bias, attention.v_bias
    if query is not None and value is not None:
        attention.qkv.bias = nn.Parameter(torch.cat([query, torch.zeros_like(query), value]), requires_grad=False)
        attention.q_bias = attention.v_bias = None


def _merge_way_out(stage: ExchangeStage) -> None:
    """The attention's output projection and the first layer of the adapter behind it become one layer."""
    merged: dict[str, nn.Linear] = {}
    for exchange in stage.exchanges:
        for direction in exchange.directions:
            key = stage.key(exchange, direction.target)
            if key not in stage.expand or stage.special[direction.target]:
                continue
            adapter = stage.expand[key]
            if not isinstance(adapter, Adapter):
                continue
            attention = stage.attention[direction.name]
            if not isinstance(attention, CrossAttention):
                raise TypeError(f"an adapter stands behind a {type(attention).__name__}")
            merged.setdefault(key, adapter.reduce)  # exchanges may share their way out
            attention.project = _in_a_row(attention.project, merged[key])
            adapter.register_module("reduce", nn.Identity())


def _merge_fusion(head: Head) -> None:
    """The projection of concatenated features becomes part of the classifiers."""
    if head.project is None:
        return
    for field, classify in head.classify.items():
        if field not in head.read_from and isinstance(classify, nn.Linear):
            head.classify[field] = _in_a_row(head.project, classify)
    head.register_module("project", nn.Identity())


def _in_a_row(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """One layer that does what two do, multiplied in float64."""
    weight = second.weight.double() @ first.weight.double()
    bias = second.weight.double() @ first.bias.double() + second.bias.double()
    return _linear(weight.to(first.weight.dtype), bias.to(first.weight.dtype))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
