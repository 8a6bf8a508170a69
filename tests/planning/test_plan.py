"""The arithmetic of a plan: a case worked out by hand, what limits it, and that more never costs speed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.errors import UserError
from cast_ray.planning.known import Known
from cast_ray.planning.rates import DataRates


def test_a_case_worked_out_by_hand(case):
    plan = case.plan()
    # 0.5 TFLOP per clip at 50 TFLOP/s: 10 ms, more than 2 x 1 GB at 1 TB/s. 6 x 4 clips per GPU and step.
    # Gradients: half of 2 x 50 M x 4 bytes cross the network, at 10 GB/s.
    step = 24 * 0.01 + 2 * 0.5 * 50e6 * 4 / 10e9
    assert plan.step_seconds == pytest.approx(step)
    assert plan.exchange_seconds == pytest.approx(0.02)
    assert plan.limited_by == "GPU"
    assert plan.clips_per_second == pytest.approx(384 / step)
    assert plan.steps_per_epoch == 100
    assert plan.epoch_seconds == pytest.approx(100 * step)
    # Forward passes: 0.2 TFLOP per clip on 16 GPUs of 50 TFLOP/s are 4000 clips/s; the network allows 2 x 10 GB/s for
    # 1 MB of stored and half of 2 MB of decoded bytes per clip, 10,000 clips/s.
    assert plan.limits["network"] == pytest.approx(10_000)
    assert plan.validation_seconds == pytest.approx(2.0)
    assert plan.test_seconds == pytest.approx(12.0)
    assert plan.run_seconds == pytest.approx(50 * (100 * step + 2.0) + 12.0)
    assert plan.gpu_hours == pytest.approx(plan.run_seconds * 16 / 3600)
    per_gpu = 384 / step / 16
    assert plan.cores_per_gpu == pytest.approx(per_gpu * 0.02)
    assert plan.cores_per_node == pytest.approx(8 * per_gpu * 0.02 + 8 * 4)
    assert plan.read_per_node == pytest.approx(8 * per_gpu * 1e6)
    assert plan.decoded_per_node == pytest.approx(8 * per_gpu * 1e6)
    assert plan.dataset_bytes == pytest.approx(46_400 * 1e6)
    assert plan.checkpoint_bytes == 50e6 * 12
    # Decode tasks at work on a node: as many as its clips keep busy. Blocks of 5 micro batches of 6 clips.
    assert plan.object_store_per_node == pytest.approx((2 * 8 * per_gpu * 0.02 + 2 * 8) * 30 * 2e6)


def test_the_memory_of_the_same_case_by_hand(case):
    memory = case.plan().memory
    assert memory.frozen_weights == 150e6 * 2
    assert memory.trainable_weights == memory.gradients == 50e6 * 2
    assert memory.optimizer == pytest.approx(50e6 * 12 / 16)
    # A bucket in bf16 and in float32, and float32 gradients of the sixteenth that this GPU updates.
    assert memory.reduction == pytest.approx(2**24 * (2 + 4) + 50e6 * 4 / 16)
    assert memory.average == memory.gathered_weights == memory.host == 0
    assert memory.per_clip == 10**9 + 4 * 10**6
    assert memory.activations == 6 * memory.per_clip
    assert memory.available == pytest.approx((80e9 - 1.5e9) * 0.92)
    assert memory.fits
    assert memory.largest_micro_batch == math.floor((memory.available - memory.at_rest) / memory.per_clip)


def test_stage_2_shares_out_gradients_and_reduces_them_after_every_pass(case):
    one, two = case.plan(), case.plan(_with_scale(case, zero_stage=2))
    assert two.memory.gradients == pytest.approx(one.memory.gradients / 16)
    assert two.step_seconds - one.step_seconds == pytest.approx(3 * 2 * 0.5 * 50e6 * 4 / 10e9)


def test_float32_in_stage_0_needs_no_copy_and_no_buffer(case):
    memory = case.plan(_with_scale(case, precision="float32", zero_stage=0)).memory
    assert memory.frozen_weights == 150e6 * 4
    assert memory.optimizer == 50e6 * 8
    assert memory.reduction == 50e6 * 4


def test_stage_3_shares_out_all_weights_and_sends_them_for_every_pass(case):
    plan = case.plan(_with_scale(case, zero_stage=3))
    assert plan.memory.frozen_weights == pytest.approx(150e6 * 2 / 16)
    assert plan.memory.trainable_weights == plan.memory.gradients == pytest.approx(50e6 * 2 / 16)
    assert plan.memory.gathered_weights == 2 * 2**24 * 2
    # 200 M weights in bf16 for forward and for backward, and the gradients once; 4 passes, half from the other node.
    assert plan.exchange_seconds == pytest.approx(4 * 0.5 * (2 * 200e6 * 2 + 50e6 * 4) / 10e9)


def test_a_moving_average_takes_a_share_of_the_gpu_and_a_third_more_of_a_checkpoint(case):
    one, two = case.plan(), case.plan(replace(case.config, optim=replace(case.config.optim, ema_decay=0.999)))
    assert two.memory.average == pytest.approx(50e6 * 4 / 16)
    assert two.memory.needed - one.memory.needed == pytest.approx(two.memory.average)
    assert two.checkpoint_bytes == pytest.approx(one.checkpoint_bytes * 4 / 3)


def test_an_offloaded_optimiser_moves_to_the_machines_memory_and_costs_time(case):
    one, two = case.plan(), case.plan(_with_scale(case, offload_optimizer=True))
    assert two.memory.optimizer == 0
    # Float32 weights and moments, their gradients, and those in bf16 as they arrive, of a sixteenth of the weights.
    assert two.memory.host == pytest.approx(50e6 / 16 * (12 + 4 + 2))
    assert two.offloaded_per_node == pytest.approx(8 * two.memory.host)
    assert one.memory.needed - two.memory.needed == pytest.approx(50e6 / 16 * 16)
    assert two.update_seconds == pytest.approx(50e6 / 16 / (4 * 120e6))
    assert two.step_seconds - one.step_seconds == pytest.approx(two.update_seconds)


def test_fp16_needs_what_bf16_needs(case):
    assert case.plan(_with_scale(case, precision="fp16")).memory == case.plan().memory


def test_the_memory_is_that_with_the_fewest_workers_of_an_elastic_run(case):
    elastic, full = case.plan(_with_scale(case, min_workers=4)), case.plan()
    assert elastic.memory.optimizer == pytest.approx(50e6 * 12 / 4)
    assert elastic.run_seconds == full.run_seconds


def test_a_model_that_computes_little_is_held_up_by_the_gpus_memory(case):
    plan = case.plan(work=replace(case.work, step_multiply_adds=10**9))
    assert plan.step_seconds == pytest.approx(24 * 2e9 / 1e12 + 2 * 0.5 * 50e6 * 4 / 10e9)


@pytest.mark.parametrize(
    ("scarce", "limit"),
    [
        ({}, "GPU"),
        ({"cpus_per_node": 40.0}, "decode cores"),
        ({"network": 5e8}, "network"),
        ({"storage": 5e8}, "storage"),
        # Room for 24 blocks of 60 MB: 16 for the workers and 8 for 4 decode tasks.
        ({"memory_per_node": 24 * 60e6 / 0.3}, "object store"),
    ],
)
def test_what_is_scarce_limits(case, scarce, limit):
    assert case.plan(**scarce).limited_by == limit


def test_the_limits_of_scarce_parts_by_hand(case):
    limits = case.plan(cpus_per_node=40.0, storage=5e8, memory_per_node=24 * 60e6 / 0.3).limits
    assert limits["decode cores"] == pytest.approx(2 * (40 - 32) / 0.02)
    assert limits["storage"] == pytest.approx(500)
    assert limits["object store"] == pytest.approx(2 * 4 / 0.02)


def test_one_node_sends_nothing_to_others(case):
    config = _with_scale(case, num_workers=8)
    plan = case.plan(config, nodes=1)
    assert plan.decoded_per_node == 0
    assert plan.limits["network"] == pytest.approx(10e9 / 1e6)
    assert plan.step_seconds == pytest.approx(48 * 0.01)


def test_an_epoch_that_does_not_fill_its_last_step_takes_a_whole_one_more(case):
    case_plan = case.plan(replace(case.config, augment=replace(case.config.augment, repeats=2)))
    assert case_plan.steps_per_epoch == 200


@pytest.mark.parametrize(
    ("scarce", "message"),
    [({"cpus_per_node": 32.0}, "none is left to decode"), ({"memory_per_node": 1e9}, "object store|node's memory")],
)
def test_nothing_left_for_decoding_is_said(case, scarce, message):
    with pytest.raises(UserError, match=message):
        case.plan(**scarce)


@given(
    few=st.floats(33, 400),
    more=st.floats(1, 10),
    slow=st.floats(1e12, 500e12),
    faster=st.floats(1, 10),
    seconds=st.floats(1e-3, 1.0),
    narrow=st.floats(1e8, 1e11),
)
def test_more_of_anything_never_slows_a_run(case, few, more, slow, faster, seconds, narrow):
    data = DataRates(stored_bytes=case.data.stored_bytes, core_seconds=Known(value=seconds, origin="a test"))

    def run(cores, flops, network):
        plan = case.plan(flops=Known(value=flops, origin="a test"), data=data, cpus_per_node=cores, network=network)
        assert plan.clips_per_second == min(plan.limits.values())
        return plan.run_seconds

    usual = run(few, slow, narrow)
    slack = 1 + 1e-9
    assert run(few * more, slow, narrow) <= usual * slack
    assert run(few, slow * faster, narrow) <= usual * slack
    assert run(few, slow, narrow * more) <= usual * slack


@given(micro=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), memory=st.floats(10e9, 200e9))
def test_memory_grows_with_the_micro_batch_and_the_largest_one_just_fits(case, micro, memory):
    config = replace(case.config, batch=replace(case.config.batch, micro_batch=micro))
    found = case.plan(config, gpu=replace(case.cluster.gpu, memory=memory)).memory
    assert found.fits == (micro <= found.largest_micro_batch)
    assert found.needed == pytest.approx(found.at_rest + micro * found.per_clip)


def _with_scale(case, **changes):
    return replace(case.config, scale=replace(case.config.scale, **changes))
