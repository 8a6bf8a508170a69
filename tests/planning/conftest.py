"""A small plan whose every number is round, so that results can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cast_ray.models.costs import Costs
from cast_ray.planning.activations import Activations
from cast_ray.planning.datasets import Dataset
from cast_ray.planning.gpus import Gpu
from cast_ray.planning.known import Known
from cast_ray.planning.plan import Cluster, make_plan
from cast_ray.planning.rates import DataRates
from cast_ray.planning.work import Work
from cast_ray.recipes import RECIPES


def known(value: float) -> Known:
    return Known(value=value, origin="a test")


class Case:
    """The parts of a plan; `plan` puts them together, with some of them changed."""

    def __init__(self) -> None:
        self.config = RECIPES["ssv2"]()
        gpu = Gpu(device="Some", memory=80e9, bf16=100e12, fp16=100e12, float32=10e12, bandwidth=1e12)
        self.cluster = Cluster(
            nodes=2,
            gpus_per_node=8,
            gpu=gpu,
            cpus_per_node=None,
            memory_per_node=None,
            network=10e9,
            storage=None,
        )
        self.dataset = Dataset(
            train_clips=known(38_400),
            validation_clips=known(8_000),
            num_classes={"label": 10},
            seconds=known(4),
            fps=known(12),
        )
        self.work = Work(
            costs=Costs(parameters=200_000_000, trainable_parameters=50_000_000, multiply_adds=100_000_000_000),
            activations=Activations(kept=10**9, between=10**7, block=10**8, largest=10**6, inputs=0),
            step_multiply_adds=250_000_000_000,
            frames=16,
            sound=False,
            decoded_bytes=2_000_000,
        )
        self.flops = known(50e12)
        self.data = DataRates(stored_bytes=known(1e6), core_seconds=known(0.02))

    def plan(self, config=None, flops=None, data=None, work=None, **cluster):
        return make_plan(
            config or self.config,
            replace(self.cluster, **cluster),
            self.dataset,
            work or self.work,
            flops=flops or self.flops,
            data=data or self.data,
        )


@pytest.fixture(scope="session")
def case() -> Case:
    return Case()
