"""Runs of imaginary models over the same clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LabelMap
from cast_ray.recipes import RECIPES
from cast_ray.report.examples import choose_examples
from cast_ray.report.record import RunRecord, Video

CLIP = Path(__file__).parents[1] / "clips" / "unordered_timestamps.mov"


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., list[Predictions]]:
    """Predictions of one model for each skill, with the same true labels."""

    def make(names: dict[str, tuple[str, ...]], *, clips: int, skills: tuple[float, ...]) -> list[Predictions]:
        random, label_map = np.random.default_rng(0), LabelMap(names)
        labels = np.stack([random.integers(0, size, clips) for size in label_map.num_classes.values()], axis=1)
        made = []
        for number, skill in enumerate(skills):
            probabilities = {}
            for column, (field, size) in enumerate(label_map.num_classes.items()):
                logits = random.normal(size=(clips, size))
                logits[np.arange(clips), labels[:, column]] += skill
                odds = np.exp(logits)
                probabilities[field] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
            made.append(
                Predictions(
                    clip_ids=tuple(f"clip-{index}" for index in range(clips)),
                    labels=labels,
                    probabilities=probabilities,
                    num_views=np.full(clips, 6, np.int32),
                    label_map=label_map,
                    checkpoint=f"{number:016x}",
                )
            )
        return made

    return make


@pytest.fixture(scope="session")
def history() -> list[dict]:
    steps = [
        {
            "kind": "step",
            "step": step,
            "epoch": step / 20,
            "loss": 3 / step,
            "learning_rate": 1e-3,
            "clips_per_s": 100 + step % 3,
            "data_wait": 0.05,
        }
        for step in range(1, 61)
    ]
    validation = {"loss": 1.0, "verb_top1": 0.5, "noun_top1": 0.6, "action_top1": 0.4}
    return [*steps, {"kind": "epoch", "epoch": 3, "step": 60, "validation": validation}]


@pytest.fixture(scope="session")
def three_runs(make_runs, history) -> list[RunRecord]:
    """Three complete runs, the last of which has clips; verbs and nouns."""
    names = {"verb": tuple(f"verb {index}" for index in range(8)), "noun": tuple(f"noun {index}" for index in range(6))}
    predictions = make_runs(names, clips=120, skills=(0.5, 1.5, 2.0))
    config = RECIPES["ek100"]().to_dict()
    shown = choose_examples(predictions, count=12)
    return [
        RunRecord(
            name=name,
            predictions=of_run,
            config={**config, "seed": number},
            history=history,
            videos={clip_id: Video(data=CLIP.read_bytes()) for clip_id in shown} if number == 2 else {},
            quarantined=[("broken-1", "moov atom not found")],
            seconds=433.4,
            training_clips={"verb": np.arange(8) * 20, "noun": np.arange(6) + 5},
        )
        for number, (name, of_run) in enumerate(zip(("spatial", "temporal", "CAST"), predictions, strict=True))
    ]
