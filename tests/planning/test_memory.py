"""What makes a run fit that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cast_ray.planning.memory import memory_of, remedies


def _remedies(case, gigabytes, **model):
    config = replace(case.config, model=replace(case.config.model, **model))
    return remedies(config, case.work.costs, case.work.activations, gpu_memory=gigabytes * 1e9)


def test_a_smaller_micro_batch_that_still_divides_the_global_batch_comes_first(case):
    # 1.5 GB of CUDA, then 8 % lost: 5.98 GB for 0.65 at rest and clips of 1 GB.
    assert _remedies(case, 8)[0] == "--batch.micro-batch 4"
    assert "--model.checkpoint-activations" in _remedies(case, 8)


def test_checkpointing_can_need_a_smaller_micro_batch_too(case):
    assert _remedies(case, 2.62) == ("--batch.micro-batch 3 --model.checkpoint-activations",)


def test_what_is_checkpointed_already_is_not_proposed(case):
    found = _remedies(case, 2.62, checkpoint_activations=True)
    # Gradients that are shared out leave room for one clip more, weights that are for all.
    assert found == ("--batch.micro-batch 3", "--batch.micro-batch 4 --scale.zero-stage 2", "--scale.zero-stage 3")


def test_an_optimiser_that_is_offloaded_makes_room_where_its_state_is_large(case):
    alone = replace(case.config.scale, num_workers=1)
    config = replace(case.config, scale=alone, batch=replace(case.config.batch, micro_batch=1))
    # One worker has the whole state of 600 MB, and gradients of 200 MB in float32.
    found = remedies(config, case.work.costs, case.work.activations, gpu_memory=3.7e9)
    assert found == ("--scale.offload-optimizer", "--model.checkpoint-activations")


def test_nothing_helps_where_the_weights_alone_do_not_fit(case):
    assert _remedies(case, 2) == ()


@pytest.mark.parametrize("gigabytes", [2.62, 5, 8])
def test_what_is_proposed_really_fits(case, gigabytes):
    for flags in _remedies(case, gigabytes):
        config = case.config
        words = flags.split()
        if "--batch.micro-batch" in words:
            micro = int(words[words.index("--batch.micro-batch") + 1])
            config = replace(config, batch=replace(config.batch, micro_batch=micro))
            config.batch.accumulation(config.scale.num_workers)
        if "--scale.zero-stage" in words:
            stage = int(words[words.index("--scale.zero-stage") + 1])
            config = replace(config, scale=replace(config.scale, zero_stage=stage))
        if "--model.checkpoint-activations" in words:
            config = replace(config, model=replace(config.model, checkpoint_activations=True))
        assert memory_of(config, case.work.costs, case.work.activations, gpu_memory=gigabytes * 1e9).fits
