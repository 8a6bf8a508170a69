"""How a checkpoint becomes predictions: every clip decoded once for all its views, by a pool of model workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train
from ray.data import ActorPoolStrategy

from cast_ray.config import RunConfig
from cast_ray.data.loader import MEDIA_COLUMNS, clip_loader
from cast_ray.data.pipeline import check_unreadable
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.views import TestViews, frame_sampling
from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import Predictions
from cast_ray.models.named import spec_of
from cast_ray.training.checkpoint import CheckpointState, fetch_state, load_weights, read_state

__all__ = ["Evaluation", "predict", "training_data_remark"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions for every readable clip of a split, and the clips that could not be read with the reason."""

    predictions: Predictions
    unreadable: tuple[tuple[str, str], ...]


class _Model:
    """One replica of the network; turns blocks of clips into blocks of probabilities."""

    def __init__(self, config: RunConfig, checkpoint: ray.train.Checkpoint) -> None:
        import torch

        from cast_ray.data.inputs import InputMaker
        from cast_ray.training.build import build_network

        self._device = torch.device("cuda" if config.scale.use_gpu else "cpu")
        self._dtype = torch.bfloat16 if config.scale.precision == "bf16" else torch.float32
        if not config.scale.use_gpu:
            torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
        with checkpoint.as_directory() as folder:
            state = read_state(Path(folder))
            network, frozen = build_network(config.model, config.weights, state.label_map, seed=config.seed)
            load_weights(Path(folder), network, frozen=frozen)
        self._inputs = InputMaker(spec_of(config.model), self._device)
        self._network = network.to(self._device, self._dtype).eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Media of clips with V views in; per label field `probabilities_<field>` [B, C], the mean over views."""
        import torch

        from cast_ray.data.inputs import in_precision

        with torch.inference_mode():
            logits = self._network(in_precision(self._inputs.evaluation(batch), self._dtype))
        clips = len(batch["clip_id"])
        for field, scores in logits.items():
            probabilities = scores.float().softmax(-1).unflatten(0, (clips, -1)).mean(1)
            batch[f"probabilities_{field}"] = probabilities.cpu().numpy()
        return {name: column for name, column in batch.items() if name not in MEDIA_COLUMNS}


def predict(checkpoint: ray.train.Checkpoint, dataset: ShardedDataset, split: str, config: RunConfig) -> Evaluation:
    """Predictions of a checkpoint for a whole split, each clip exactly once.

    Args:
        checkpoint: as written in training.
        dataset: the data; its label map must be the checkpoint's.
        split: name of the split.
        config: `model` and `weights` as in training; `test`, `scale` and `data` say how to evaluate.

    Raises:
        UserError: the checkpoint belongs to another label map, or too many clips cannot be read.
    """
    state = fetch_state(checkpoint)
    if state.label_map.fingerprint != dataset.label_map.fingerprint:
        raise UserError(
            f"the checkpoint {checkpoint.path} was trained with label map {state.label_map.fingerprint}, the data has "
            f"{dataset.label_map.fingerprint}; evaluate it on data with its own classes"
        )
    rows = dataset.split(split)
    columns = _collect(_predicted(checkpoint, dataset, rows, config))
    valid = columns["valid"].astype(bool)
    broken = tuple(zip(columns["clip_id"][~valid].tolist(), columns["reason"][~valid].tolist(), strict=True))
    check_unreadable(len(broken), rows.num_rows, config.data.max_unreadable, split)
    counted = sorted(columns["clip_id"].tolist())
    if counted != sorted(rows["clip_id"].to_pylist()):
        raise RuntimeError(f"{len(counted)} clips were predicted, the split has {rows.num_rows}; this is a defect")
    order = np.argsort(columns["clip_id"][valid].astype(str))
    predictions = Predictions(
        clip_ids=tuple(columns["clip_id"][valid][order].tolist()),
        labels=columns["labels"][valid][order],
        probabilities={field: columns[f"probabilities_{field}"][valid][order] for field in dataset.label_map.fields},
        num_views=np.full(valid.sum(), config.test.temporal_views * config.test.spatial_crops),
        label_map=dataset.label_map,
        checkpoint=state.fingerprint,
    )
    return Evaluation(predictions=predictions, unreadable=broken)


def training_data_remark(state: CheckpointState, dataset: ShardedDataset) -> str | None:
    """A sentence to print if the data are not those of training, else None.

    Other data may well be meant, but one dataset's validation clips can be another's training clips: in another
    official split, or in other files of the same clips.
    """
    if state.dataset == dataset.fingerprint:
        return None
    return (
        f"the checkpoint was trained on dataset {state.dataset}, this is {dataset.fingerprint}: make sure that none of "
        "these clips was trained on"
    )


def _predicted(
    checkpoint: ray.train.Checkpoint, dataset: ShardedDataset, rows: pa.Table, config: RunConfig
) -> ray.data.Dataset:
    """The Ray Data graph: index rows -> all views of each clip -> probabilities."""
    test, scale = config.test, config.scale
    view = TestViews(
        sampling=frame_sampling(config), temporal_views=test.temporal_views, spatial_crops=test.spatial_crops
    )
    blocks = max(1, rows.num_rows // max(test.clips_per_batch, config.data.clips_per_task))
    clips = (
        ray.data.from_arrow(rows)
        .repartition(blocks)
        .map_batches(
            clip_loader(dataset, config, view),
            batch_size=test.clips_per_batch,
            batch_format="pyarrow",
            num_cpus=config.data.cpus_per_decode,
            max_calls=config.data.tasks_per_decoder,
        )
    )
    return clips.map_batches(
        _Model,
        fn_constructor_args=(config, checkpoint),
        batch_size=test.clips_per_batch,
        compute=ActorPoolStrategy(size=config.predictors),
        num_gpus=1 if scale.use_gpu else 0,
        num_cpus=0 if scale.use_gpu else scale.cpus_per_worker,
    )


def _collect(predicted: ray.data.Dataset) -> dict[str, np.ndarray]:
    batches = list(predicted.iter_batches(batch_size=None, batch_format="numpy"))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
