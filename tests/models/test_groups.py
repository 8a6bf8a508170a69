"""Parameter groups against timm's own and against the rule written out."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

import cast_ray.models.zoo  # noqa: F401  (registers the models)
from cast_ray.models.groups import parameter_groups

DECAY, FACTOR, DEPTH = 0.05, 0.75, 3


@pytest.fixture(params=["cast_tiny", "ca2st_tiny_clock", "cast_tiny_eva", "msca_kv_tiny"])
def fresh(request):
    return timm.create_model(request.param, num_classes={"verb": 3, "noun": 4})


@pytest.fixture(params=[False, True], ids=["frozen experts", "all trains"])
def network(fresh, request):
    fresh.freeze(train_experts=request.param)
    return fresh


def by_name(groups):
    return {name: (group["weight_decay"], group["lr_scale"]) for group in groups for name in group["names"]}


def test_every_trainable_parameter_is_in_exactly_one_group(network):
    groups = parameter_groups(network, DECAY, FACTOR)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in network.named_parameters() if p.requires_grad)
    parameters = dict(network.named_parameters())
    for group in groups:
        assert [id(parameters[name]) for name in group["names"]] == [id(p) for p in group["params"]]


def test_groups_follow_the_rule_of_layer_decay(network):
    for name, (decay, scale) in by_name(parameter_groups(network, DECAY, FACTOR)).items():
        block = re.search(r"(?:blocks|exchanges)\.(\d+)\.", name)
        embedding = ".embedding." in name
        layer = 0 if embedding else int(block[1]) + 1 if block else DEPTH + 1
        assert scale == pytest.approx(FACTOR ** (DEPTH + 1 - layer)), name
        exempt = not name.endswith("weight") or network.get_parameter(name).ndim == 1
        assert decay == (0.0 if exempt else DECAY), name


def test_groups_equal_those_of_timm(network):
    groups = param_groups_layer_decay(
        network, weight_decay=DECAY, no_weight_decay_list=network.no_weight_decay(), layer_decay=FACTOR
    )
    name_of = {id(p): name for name, p in network.named_parameters()}
    theirs = {name_of[id(p)]: (g["weight_decay"], pytest.approx(g["lr_scale"])) for g in groups for p in g["params"]}
    assert by_name(parameter_groups(network, DECAY, FACTOR)) == theirs


def test_order_does_not_depend_on_the_weights():
    first, second = (timm.create_model("cast_tiny") for _ in range(2))
    names = [[group["names"] for group in parameter_groups(x, DECAY, FACTOR)] for x in (first, second)]
    assert names[0] == names[1]


def test_groups_drive_a_torch_optimizer(network):
    optimizer = torch.optim.AdamW(parameter_groups(network, DECAY, FACTOR), lr=1e-3)
    assert {group["lr_scale"] for group in optimizer.param_groups} <= {FACTOR**power for power in range(DEPTH + 2)}
