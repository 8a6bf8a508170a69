"""Parts of the training loop that need no cluster: what a configuration asks for, and what is said about sound."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from cast_ray.config import AudioConfig
from cast_ray.data.augment import RandAugmentSpec
from cast_ray.data.fbank import SpectrogramMasks
from cast_ray.errors import UserError
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.training import loop


def test_the_augmentation_is_that_of_the_configuration():
    audio = AudioConfig(
        time_masks=1, time_mask_columns=7, frequency_masks=3, frequency_mask_bins=9, mask_share=0.25, mixing="none"
    )
    augment = loop.train_augment(dataclasses.replace(ssv2(), seed=4, audio=audio))
    assert augment.frames.randaugment == RandAugmentSpec.parse("rand-m7-n4-mstd0.5-inc1")
    assert (augment.frames.seed, augment.frames.flip_probability) == (4, 0.0)
    assert augment.spectrogram == SpectrogramMasks(
        seed=4, time_masks=1, time_mask_columns=7, frequency_masks=3, frequency_mask_bins=9, mask_share=0.25
    )


def test_the_published_masks_are_the_default():
    masks = loop.train_augment(ssv2()).spectrogram
    assert (masks.time_masks, masks.time_mask_columns) == (2, 70)
    assert (masks.frequency_masks, masks.frequency_mask_bins) == (2, 20)


def test_a_malformed_randaugment_text_is_refused():
    config = ssv2()
    config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, rand_augment="rand-x9"))
    with pytest.raises(UserError, match="section 'x9'"):
        loop.train_augment(config)


class Post:
    """Stands for the board's actor."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.remote = self.rows.append


def worker_of(rank: int = 0, sound: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        rank=rank,
        inputs=SimpleNamespace(sound=sound),
        history=[],
        job=SimpleNamespace(board=SimpleNamespace(post=Post())),
    )


def test_a_clip_with_broken_sound_is_reported_once_however_often_it_comes(monkeypatch):
    worker = worker_of()
    monkeypatch.setattr(loop, "_gather", lambda found: [found, {"b": "noise", "a": "noise"}])
    for epoch in range(3):
        loop._log_soundless(worker, {"c": "noise"}, epoch)
    assert [(row["kind"], row["clip_id"], row["epoch"]) for row in worker.history] == [
        ("soundless", clip_id, 0) for clip_id in "abc"
    ]
    assert worker.job.board.post.rows == worker.history


def test_only_rank_0_reports_and_networks_without_ears_do_not_even_ask(monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "_gather", lambda found: asked.append(found) or [found])
    for worker in (worker_of(rank=1), worker_of(sound=False)):
        loop._log_soundless(worker, {"a": "noise"}, 0)
        assert not worker.history
    assert asked == [{"a": "noise"}]
