"""Predictions of an imaginary model, of any size and skill."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LabelMap


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    def make(names: dict[str, tuple[str, ...]], *, clips: int, skill: float = 1.5, seed: int = 0) -> Predictions:
        random, label_map = np.random.default_rng(seed), LabelMap(names)
        labels = np.stack([random.integers(0, size, clips) for size in label_map.num_classes.values()], axis=1)
        probabilities = {}
        for column, (field, size) in enumerate(label_map.num_classes.items()):
            logits = random.normal(size=(clips, size))
            logits[np.arange(clips), labels[:, column]] += skill
            odds = np.exp(logits)
            probabilities[field] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return Predictions(
            clip_ids=tuple(f"clip-{index}" for index in range(clips)),
            labels=labels,
            probabilities=probabilities,
            num_views=np.full(clips, 6, np.int32),
            label_map=label_map,
            checkpoint="0123456789abcdef",
        )

    return make


@pytest.fixture(scope="session")
def verb_noun_names() -> dict[str, tuple[str, ...]]:
    return {"verb": tuple(f"verb {index}" for index in range(8)), "noun": tuple(f"noun {index}" for index in range(6))}
