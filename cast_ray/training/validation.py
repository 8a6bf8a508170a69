"""How well the network does on the validation split while it is being trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import ray.train
import torch
from torch import Tensor

from cast_ray.data.inputs import in_precision
from cast_ray.data.pipeline import broken_sounds, check_unreadable, iterate_once, unreadable_clips
from cast_ray.training.agreement import gather
from cast_ray.training.metrics import ValidationCounts
from cast_ray.training.worker import Worker

__all__ = ["VALIDATION_SHARD", "forward", "labels_and_valid", "validate"]

VALIDATION_SHARD = "validation"
"""Name under which the worker finds its shard of the validation split."""


@torch.no_grad()
def validate(worker: Worker, epoch: int) -> dict[str, float]:
    """Metrics of the whole validation split, one central view of each clip. A collective.

    Raises:
        UserError: too many clips cannot be read. On all workers.
    """
    job, strategy = worker.job, worker.strategy
    found: dict[str, str] = {}
    soundless: dict[str, str] = {}
    counts = ValidationCounts(job.label_map.fields, strategy.device)
    strategy.engine.eval()
    shard = ray.train.get_dataset_shard(VALIDATION_SHARD)
    with strategy.averaged():
        for batch in iterate_once(shard, plan=job.validation_plan, rank=worker.rank):
            worker.watchdog.beat("validating")
            labels, valid = labels_and_valid(worker, batch)
            counts.add(forward(worker, worker.inputs.evaluation(batch)), labels, valid)
            found |= unreadable_clips(batch)
            soundless |= broken_sounds(batch)
    strategy.engine.train()
    if worker.inputs.sound:
        worker.log.soundless(soundless, epoch)
    unreadable = sum(len(clips) for clips in gather(found))
    if unreadable:
        worker.log.unreadable(found, epoch)
        check_unreadable(
            unreadable, job.validation_plan.order.num_clips, job.config.data.max_unreadable, VALIDATION_SHARD
        )
    return counts.reduce()


def forward(worker: Worker, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits per label field [B, C]."""
    return worker.strategy.engine(in_precision(inputs, worker.strategy.dtype))


def labels_and_valid(worker: Worker, batch: dict[str, np.ndarray]) -> tuple[dict[str, Tensor], Tensor]:
    """Labels per field [B], valid [B]."""
    device = worker.strategy.device
    columns = torch.from_numpy(batch["labels"].astype(np.int64)).to(device)
    labels = {field: columns[:, i] for i, field in enumerate(worker.job.label_map.fields)}
    return labels, torch.from_numpy(batch["valid"].astype(bool)).to(device)
