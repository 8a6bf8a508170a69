"""The DataLoaders that ours is compared with make what a model takes, and RandAugment draws once per clip."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from cast_ray.bench import data_loaders
from cast_ray.bench.data_loaders import PilClips, TensorClips, endless_loader

FILE = str(Path(__file__).parents[1] / "clips" / "arm_wrestling_k400.mp4")


@pytest.mark.parametrize("kind", [PilClips, TensorClips])
def test_clips_are_normalised_floats_of_the_models_size(kind):
    clip = kind((FILE,))[0]
    assert (clip.shape, clip.dtype) == ((3, 16, 224, 224), torch.float32)
    assert clip.std() > 0.1
    assert -2.2 < clip.min() < clip.max() < 2.7


@pytest.mark.parametrize("kind", [PilClips, TensorClips])
def test_a_loader_goes_round_and_round(kind):
    loader = endless_loader(kind((FILE,)), count=1, batch=2, workers=0)
    assert [len(batch) for batch in itertools.islice(loader, 2)] == [2, 2]


@pytest.mark.parametrize("kind", [PilClips, TensorClips])
def test_the_stages_are_what_makes_a_clip(kind, monkeypatch):
    """Every function of a stage is called exactly once per clip."""
    work, called = kind((FILE,)), []
    stages = work.stages()
    for functions in stages.values():
        for function in functions:

            def counted(argument, function=function):
                called.append(function)
                return function(argument)

            monkeypatch.setattr(data_loaders, function.__name__, counted)
    assert work(7) == 1
    assert sorted(map(id, called)) == sorted(id(each) for functions in stages.values() for each in functions)


def test_all_frames_of_a_clip_are_varied_alike():
    frame = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    changed = 0
    for seed in range(8):
        random.seed(seed)
        np.random.seed(seed)
        images = [np.asarray(image) for image in data_loaders._augment(np.stack([frame] * 3))]
        assert all(np.array_equal(image, images[0]) for image in images)
        changed += not np.array_equal(images[0], frame)
    assert changed > 4


def test_frames_come_one_from_each_segment_in_order():
    for count in (10, 16, 40, 280):
        edges = np.arange(17) * count / 16
        for _ in range(20):
            indices = np.array(data_loaders._indices(count))
            assert (np.floor(edges[:-1]) <= indices).all()
            assert (indices < edges[1:]).all()
