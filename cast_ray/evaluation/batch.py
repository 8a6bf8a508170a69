"""How any number of clips without labels becomes predictions: video files as they lie, or prepared shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console

from cast_ray.data.file_loader import FileLoader
from cast_ray.data.loader import ROW_COLUMNS, ClipLoader, clip_loader, wanted_by
from cast_ray.data.shards import ShardedDataset
from cast_ray.evaluation.distributed import Outcome, Work, predict_parts
from cast_ray.evaluation.listing import Listing
from cast_ray.evaluation.part_tables import SOURCE_COLUMNS, AllProbabilities, BestClasses, PartTable
from cast_ray.evaluation.parts import CLIPS_PER_PART, ROW
from cast_ray.evaluation.predictions import UNKNOWN
from cast_ray.evaluation.trained import TrainedModel
from cast_ray.models.named import spec_of

__all__ = ["Batch", "batch_of_files", "batch_of_shards", "predict_batch"]

COLUMNS = (ROW, *SOURCE_COLUMNS)
"""What travels with a clip's media to the table of its part."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips that a model is to predict."""

    clips: pa.Table
    """What `loader` takes, and `SOURCE_COLUMNS`; labels are not known."""
    loader: ClipLoader
    fingerprint: str
    """Of the clips."""


def batch_of_files(listing: Listing, model: TrainedModel) -> Batch:
    """Video files as they lie."""
    config, clips = model.config, listing.clips
    return Batch(
        clips=clips.append_column("labels", _unknown(clips.num_rows, model)),
        loader=FileLoader(
            root=listing.root,
            view=model.views,
            columns=COLUMNS,
            wanted=wanted_by(spec_of(config.model)),
            decoder=config.data.decoder,
            time_limit_s=config.data.decode_time_limit_s,
        ),
        fingerprint=_fingerprint(clips),
    )


def batch_of_shards(dataset: ShardedDataset, model: TrainedModel) -> Batch:
    """All clips of a prepared dataset, whatever its splits and labels."""
    index = dataset.index
    clips = index.select([*ROW_COLUMNS, "uri"])
    labels = clips.column_names.index("labels")
    return Batch(
        clips=clips.set_column(labels, "labels", _unknown(clips.num_rows, model)),
        loader=clip_loader(dataset, model.config, model.views, COLUMNS),
        fingerprint=dataset.fingerprint,
    )


def predict_batch(
    model: TrainedModel,
    batch: Batch,
    *,
    output: str,
    console: Console,
    top: int = 5,
    probabilities: bool = False,
    clips_per_part: int = CLIPS_PER_PART,
) -> Outcome:
    """Predictions for all clips, each once, as a folder of Parquet files; clips that cannot be read are listed there.

    The same call goes on where a killed one was.

    Args:
        model: what predicts; its configuration says how.
        batch: the clips.
        output: path or URI of the folder.
        console: where progress goes.
        top: best classes that are kept of each label field.
        probabilities: keep those of all classes instead, in the documented format of predictions.
        clips_per_part: clips of a file; less than that are predicted again after a kill.

    Raises:
        UserError: the folder holds something else, or what loading the model raises.
    """
    table: PartTable
    if probabilities:
        table = AllProbabilities(label_map=model.label_map, checkpoint=model.fingerprint, source=True)
    else:
        table = BestClasses(label_map=model.label_map, checkpoint=model.fingerprint, top=top)
    kept: dict[str, Any] = {"top": "all" if probabilities else top}
    work = Work(
        clips=batch.clips,
        loader=batch.loader,
        model=model,
        table=table,
        output=output,
        settings={**model.settings, "dataset": batch.fingerprint, **kept},
        clips_per_part=clips_per_part,
    )
    return predict_parts(work, console)


def _unknown(count: int, model: TrainedModel) -> pa.Array:
    fields = len(model.label_map.fields)
    values = pa.array([UNKNOWN] * (count * fields), pa.int32())
    return pa.FixedSizeListArray.from_arrays(values, fields).cast(pa.list_(pa.int32()))


def _fingerprint(clips: pa.Table) -> str:
    """First 16 hex digits of a SHA-256 over the columns of a listing."""
    digest = hashlib.sha256()
    for batch in clips.combine_chunks().to_batches(max_chunksize=100_000):
        digest.update(repr(batch.to_pydict()).encode())
    return digest.hexdigest()[:16]
