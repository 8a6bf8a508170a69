"""DeepSpeed's buffers are as large as the training needs, and never as large as its default."""

from __future__ import annotations

import pytest

from cast_ray.models.costs import count_costs
from cast_ray.models.named import NAMED
from cast_ray.training.buckets import bucket_size


@pytest.mark.parametrize(("trainable", "expected"), [(1, 2), (96_078, 96_078), (10**6 + 1, 10**6 + 2), (10**9, 2**24)])
def test_a_bucket_holds_all_that_trains_up_to_a_limit_and_is_even(trainable, expected):
    assert bucket_size(trainable) == expected


def test_the_papers_model_takes_67_mb_of_float32_instead_of_two_gigabytes():
    trainable = count_costs(NAMED["cast_base_patch16_224"], {"label": 174}).trainable_parameters
    assert trainable > 45_000_000
    assert 4 * bucket_size(trainable) == 67_108_864


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_configuration_of_a_run_has_the_buckets_in_every_stage(stage):
    from cast_ray.training.strategy import deepspeed_config

    zero = deepspeed_config(
        precision="float32", zero_stage=stage, micro_batch=1, accumulation=1, clip_grad=0.0, trainable=45_205_038
    )["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 2**24
    held = [value for name, value in zero.items() if name.startswith("stage3_")]
    assert held == ([2**24] * 3 if stage == 3 else [])
