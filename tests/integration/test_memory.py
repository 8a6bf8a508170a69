"""Decoded clips in memory are bounded: ten times more of them than the object store holds, and a slow consumer.

The cluster is one of its own, because it needs a small object store; it lives in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from cast_ray.data.decoders.jpeg import encode_jpeg
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.shards import write_index, write_shard
from cast_ray.labels import LabelMap

STORE = 100 * 2**20
CLIPS, EPOCHS = 32, 56
FRAMES, SIZE = 16, 112
CLIP_BYTES = FRAMES * SIZE * SIZE * 3
MICRO_BATCH, CLIPS_PER_TASK, CPUS = 4, 8, 2

CONSUMER = """
import json, sys, threading, time
import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.data import ExecutionOptions
from cast_ray.data.loader import ClipLoader
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.pipeline import ORDER_COLUMNS, PassPlan, iterate_run, pass_dataset
from cast_ray.data.shards import open_complete
from cast_ray.data.views import Sampling, TrainView

uri, numbers = sys.argv[1], json.loads(sys.argv[2])
ray.init(address="local", num_cpus=numbers["cpus"], object_store_memory=numbers["store"], include_dashboard=False,
         log_to_driver=False, logging_level="error")
dataset = open_complete(uri)
order = EpochPlan(
    num_clips=numbers["clips"], seed=0, micro_batch=numbers["micro_batch"], micro_batches_per_step=1, world_size=1
)
plan = PassPlan(order=order, epochs=numbers["epochs"], clips_per_task=numbers["clips_per_task"])
sampling = Sampling(kind="uniform", num_frames=numbers["frames"], stride=1, size=numbers["size"])
view = TrainView(sampling=sampling, seed=0, crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.33))
loader = ClipLoader(root=uri, stored=dataset.format, view=view, columns=ORDER_COLUMNS)
clips = pass_dataset(dataset, "train", plan=plan, loader=loader)
clips.context.execution_options = ExecutionOptions(preserve_order=True)
shard = clips.streaming_split(1, equal=True)[0]

state, used, done = get_state_from_address(ray.get_runtime_context().gcs_address), [], threading.Event()

def watch():
    while not done.wait(0.1):
        # Not "used", which counts clips too that are no longer needed and not yet removed.
        used.append(get_memory_info_reply(state).store_stats.object_store_bytes_primary_copy)

watcher = threading.Thread(target=watch)
watcher.start()
received = valid = 0
for batch in iterate_run(shard, plan=plan, rank=0, start=Position()):
    received += len(batch["valid"])
    valid += int(batch["valid"].sum())
    time.sleep(0.02)  # slower than the decoders
done.set()
watcher.join()
stats = get_memory_info_reply(state).store_stats
print(json.dumps({"received": received, "valid": valid, "peak": max(used), "samples": len(used),
                  "spilled": stats.spilled_bytes_total, "fallback": stats.object_store_bytes_fallback}))
ray.shutdown()
"""


def _write_dataset(root: str) -> None:
    rng = np.random.default_rng(0)
    facts = Facts(
        num_frames=FRAMES, fps=8.0, width=128, height=128, video_codec="jpeg", sound_codec="", source="h264 128x128"
    )
    clips = tuple(Clip(clip_id=f"{number}", uri=__file__, labels=(0,), split=TRAIN) for number in range(CLIPS))
    frames = [encode_jpeg(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8), 50) for _ in range(FRAMES)]
    stored = [StoredClip(clip=clip, media=Media(frames=tuple(frames)), facts=facts) for clip in clips]
    manifest = Manifest(clips=clips, label_map=LabelMap({"label": ("any",)}))
    index = write_shard(root, "train/shard-00000.parquet", stored)
    write_index(root, manifest, MediaFormat(video="jpeg", sound="none"), [index])


def test_a_slow_consumer_does_not_fill_the_object_store(tmp_path: Path, cluster_environment: dict[str, str]) -> None:
    root = str(tmp_path / "dataset")
    _write_dataset(root)
    numbers = {"cpus": CPUS, "store": STORE, "clips": CLIPS, "epochs": EPOCHS, "micro_batch": MICRO_BATCH}
    numbers |= {"clips_per_task": CLIPS_PER_TASK, "frames": FRAMES, "size": SIZE}
    finished = subprocess.run(
        [sys.executable, "-c", CONSUMER, root, json.dumps(numbers)],
        env=cluster_environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout.splitlines()[-1])
    assert CLIPS * EPOCHS * CLIP_BYTES > 10 * STORE
    assert result["received"] == result["valid"] == CLIPS * EPOCHS
    assert (result["spilled"], result["fallback"]) == (0, 0)
    assert result["samples"] > 10
    # Half of the store is Ray Data's to fill; what tasks are writing and what the consumer holds comes on top.
    block = CLIPS_PER_TASK * CLIP_BYTES
    assert result["peak"] <= STORE / 2 + 2 * CPUS * block
