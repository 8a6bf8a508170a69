"""The small form of a recipe: what it keeps, and that it fits on two CPU cores."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cast_ray.config import AugmentConfig, DataConfig, RunConfig, TestConfig
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network


@pytest.fixture
def dense() -> RunConfig:
    """A recipe that differs from SSV2's in whatever the small form promises to keep."""
    return RunConfig(
        name="mine",
        storage="/elsewhere",
        seed=5,
        data=DataConfig(sampling="dense", stride=3, max_unreadable=0.25),
        augment=AugmentConfig(flip=0.25),
        test=TestConfig(temporal_views=5, spatial_crops=1),
    )


def test_it_keeps_the_sampling_the_flips_the_test_views_and_the_place_of_the_run(dense):
    made = small(dense)
    assert (made.data.sampling, made.data.stride, made.data.max_unreadable) == ("dense", 3, 0.25)
    assert made.augment.flip == 0.25
    assert (made.test.temporal_views, made.test.spatial_crops) == (5, 1)
    assert (made.name, made.storage, made.seed) == ("mine", "/elsewhere", 5)
    assert small(ssv2()).augment.flip == 0.0


@pytest.mark.parametrize("config", [small(ssv2()), toy()], ids=["small", "toy"])
def test_it_runs_on_two_cpu_cores_from_scratch(config):
    scale = config.scale
    assert not scale.use_gpu
    assert scale.precision == "float32"
    assert scale.num_workers == 2
    # Something must be left for the decoders, or nothing ever starts.
    assert scale.num_workers * scale.cpus_per_worker + config.data.cpus_per_decode <= 2
    assert config.predictors * scale.cpus_per_worker + config.data.cpus_per_decode <= 2
    config.check_experts()


def test_its_network_trains_whole_and_is_small():
    config = small(ssv2())
    network, _ = build_network(config.model, config.weights, LabelMap({LABEL: ("up", "down")}), seed=0)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert sum(parameter.numel() for parameter in network.parameters()) < 1_000_000
    size = config.model.image_size
    assert network(torch.zeros(1, 3, config.model.num_frames, size, size))[LABEL].shape == (1, 2)


def test_single_settings_can_still_be_changed():
    made = small(ssv2())
    changed = dataclasses.replace(made, batch=dataclasses.replace(made.batch, micro_batch=made.batch.micro_batch // 2))
    assert changed.batch.accumulation(changed.scale.num_workers) == 2
