"""Which learning rate and weight decay each parameter gets: layer-wise decay from the model's own grouping.

The scheme of BEiT (arXiv 2106.08254): block i of depth L learns at decay ** (L - i), the head at 1, embeddings at
decay ** (L + 1).
"""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters

from cast_ray.models.network import Network

__all__ = ["parameter_groups"]


def parameter_groups(network: Network, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups of the parameters that require gradients, from the first layer to the last.

    Args:
        network: the model, frozen as it will train.
        weight_decay: applies to weights of two or more axes except position tables; the others get 0.
        layer_decay: factor of the learning rate per layer towards the input; 1 switches it off.

    Returns:
        Groups with keys `params`, `names` (same order), `weight_decay` and `lr_scale`. The order depends on the
        architecture only: by layer, decaying group first. Multiply the scheduled learning rate by `lr_scale`.
    """
    layer_of = group_parameters(network, network.group_matcher(), reverse=True)
    exempt = network.no_weight_decay()
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decays = layer_of[name], parameter.ndim > 1 and name not in exempt
        group = groups.setdefault(
            (layer, not decays),
            {
                "params": [],
                "names": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": layer_decay ** (network.depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]
