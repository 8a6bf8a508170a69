"""The recipe of Something-Something-V2 against the published figures (arXiv 2311.18825, Table 4 and released code)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cast_ray.data.augment import RandAugmentSpec
from cast_ray.recipes.ssv2 import ssv2

PUBLISHED = {
    "model": {"name": "cast_base_patch16_224", "num_frames": 16, "image_size": 224, "drop_path": 0.3},
    "data": {"sampling": "uniform"},
    "augment": {
        "crop_area": (0.08, 1.0),
        "crop_ratio": (0.75, 4 / 3),
        "flip": 0.0,
        "rand_augment": "rand-m7-n4-mstd0.5-inc1",
        "mixup_alpha": 0.8,
        "mixup_probability": 0.9,
    },
    "batch": {"global_batch": 384, "micro_batch": 6},
    "optim": {
        "epochs": 50,
        "base_lr": 1e-3,
        "min_lr": 1e-6,
        "warmup_epochs": 5,
        "layer_decay": 0.75,
        "weight_decay": 0.05,
        "betas": (0.9, 0.999),
        "label_smoothing": 0.1,
        "clip_grad": 0,
    },
    "scale": {"num_workers": 16, "use_gpu": True},
    "test": {"temporal_views": 2, "spatial_crops": 3},
}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, fields in PUBLISHED.items() for name in fields])
def test_every_figure_is_the_published_one(group: str, name: str):
    value: Any = getattr(getattr(ssv2(), group), name)
    assert value == PUBLISHED[group][name]


def test_six_clips_on_sixteen_gpus_are_accumulated_four_times_and_learn_at_the_published_rate():
    config = ssv2()
    assert config.batch.accumulation(config.scale.num_workers) == 4
    assert config.optim.peak_lr(config.batch.global_batch) == pytest.approx(1.5e-3)
    assert config.optim.last_lr(config.batch.global_batch) == pytest.approx(1.5e-6)


def test_rand_augment_has_strength_7_with_deviation_a_half_and_four_operations():
    spec = RandAugmentSpec.parse(ssv2().augment.rand_augment)
    assert (spec.magnitude, spec.layers, spec.magnitude_std, spec.probability) == (7, 4, 0.5, 0.5)


def test_only_adapters_exchanges_norms_and_heads_train_so_the_expert_weights_must_be_given():
    assert not ssv2().model.train_experts
    assert ssv2().weights.sources() == {}


def test_another_batch_keeps_the_recipe_and_scales_the_rate():
    half = dataclasses.replace(ssv2(), batch=dataclasses.replace(ssv2().batch, global_batch=192))
    assert half.batch.accumulation(16) == 2
    assert half.optim.peak_lr(half.batch.global_batch) == pytest.approx(0.75e-3)
