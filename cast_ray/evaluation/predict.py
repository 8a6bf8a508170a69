"""How a trained model becomes predictions of a dataset's split: every clip decoded once for all its views."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rich.console import Console

from cast_ray.data.loader import ROW_COLUMNS, clip_loader
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError
from cast_ray.evaluation.distributed import Outcome, Work, predict_parts
from cast_ray.evaluation.part_tables import AllProbabilities
from cast_ray.evaluation.parts import CLIPS_PER_PART, ROW
from cast_ray.evaluation.trained import TrainedModel

__all__ = ["evaluation_name", "predict", "training_data_remark"]


def predict(
    model: TrainedModel,
    dataset: ShardedDataset,
    split: str,
    *,
    output: str,
    console: Console,
    per_view: bool = False,
    clips_per_part: int = CLIPS_PER_PART,
    replace: bool = False,
    unreadable_flag: str = "--data.max-unreadable",
) -> Outcome:
    """Predictions for a whole split, each clip exactly once, as a folder of Parquet files.

    The same call goes on where a killed one was; `read_predictions` reads the folder when it is complete.

    Args:
        model: what predicts; its configuration says how.
        dataset: the data; its label map must be the model's.
        split: name of the split.
        output: path or URI of the folder.
        console: where progress goes.
        per_view: keep the probabilities of each view too.
        clips_per_part: clips of a file; less than that are predicted again after a kill.
        replace: remove predictions of another model or with other settings that are there.
        unreadable_flag: what messages call the flag that allows more unreadable clips.

    Raises:
        UserError: the model has another label map, too many clips cannot be read, or the folder holds something else.
    """
    if model.label_map.fingerprint != dataset.label_map.fingerprint:
        raise UserError(
            f"{model.place} was trained with label map {model.label_map.fingerprint}, the data has "
            f"{dataset.label_map.fingerprint}; evaluate it on data with its own classes"
        )
    work = Work(
        clips=dataset.split(split).select(ROW_COLUMNS),
        loader=clip_loader(dataset, model.config, model.views, (ROW,)),
        model=model,
        table=AllProbabilities(label_map=model.label_map, checkpoint=model.fingerprint, views=per_view),
        output=output,
        settings=_settings(model, dataset, split, per_view=per_view),
        clips_per_part=clips_per_part,
        max_unreadable=model.config.data.max_unreadable,
        unreadable_flag=unreadable_flag,
        split=split,
        replace=replace,
    )
    return predict_parts(work, console)


def evaluation_name(model: TrainedModel, dataset: ShardedDataset, split: str, *, per_view: bool) -> str:
    """A folder name that model, data and settings determine: the same evaluation goes on, another begins."""
    text = json.dumps(_settings(model, dataset, split, per_view=per_view))
    return f"{model.config.name or model.config.model.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def training_data_remark(model: TrainedModel, dataset: ShardedDataset) -> str | None:
    """A sentence to print if the data are not those of training, else None.

    Other data may well be meant, but one dataset's validation clips can be another's training clips: in another
    official split, or in other files of the same clips.
    """
    if model.dataset == dataset.fingerprint:
        return None
    return (
        f"the checkpoint was trained on dataset {model.dataset}, this is {dataset.fingerprint}: make sure that none of "
        "these clips was trained on"
    )


def _settings(model: TrainedModel, dataset: ShardedDataset, split: str, *, per_view: bool) -> dict[str, Any]:
    return {**model.settings, "dataset": dataset.fingerprint, "split": split, "per_view": per_view}
