"""Which operations a clip gets, its flip and its normalisation, against timm and torchvision."""

import random
from collections import Counter

import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
from torchvision.transforms.v2 import functional as V

from cast_ray.data.augment import RandAugmentSpec, TrainAugment, draw_operations, normalise
from cast_ray.data.operations import OPERATIONS, Operation, apply_operations
from cast_ray.data.randomness import rng_for
from cast_ray.errors import UserError
from cast_ray.models.spec import VideoInput

CONFIG = "rand-m7-n4-mstd0.5-inc1"
SPEC = RandAugmentSpec.parse(CONFIG)
NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")
CLIPS = 6000


@pytest.fixture(scope="module")
def drawn() -> tuple[list[list[Operation]], list[list[Operation]]]:
    """The operations of 6000 clips, as we draw them and as timm does: its own code, with operations that only count."""
    theirs = []
    with pytest.MonkeyPatch.context() as patch:
        for name in timm_augment._RAND_INCREASING_TRANSFORMS:
            recorder = lambda img, *args, name=name, **_: theirs[-1].append(Operation(name, *map(float, args or [0])))  # noqa: E731
            patch.setitem(timm_augment.NAME_TO_OP, name, recorder)
        random.seed(0)
        np.random.seed(0)
        transform = timm_augment.rand_augment_transform(CONFIG, {})
        for _ in range(CLIPS):
            theirs.append([])
            transform(None)
    return [draw_operations(SPEC, rng_for(0, 0, f"clip {i}", "augment")) for i in range(CLIPS)], theirs


def distance(ours, theirs) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    grid = np.unique(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(sample), grid, "right") / len(sample) for sample in (ours, theirs)]
    return np.abs(shares[0] - shares[1]).max()


def test_as_many_operations_are_applied_to_a_clip_as_by_timm(drawn):
    counts = [np.bincount([len(clip) for clip in clips], minlength=5) / CLIPS for clips in drawn]
    binomial = np.array([1, 4, 6, 4, 1]) / 16
    for shares in counts:
        np.testing.assert_allclose(shares, binomial, atol=5 * np.sqrt(0.25 / CLIPS))
    np.testing.assert_allclose(counts[0], counts[1], atol=5 * np.sqrt(0.5 / CLIPS))


def test_every_operation_is_drawn_as_often_as_by_timm_also_twice_for_one_clip(drawn):
    for clips in drawn:
        counts = Counter(operation.name for clip in clips for operation in clip)
        expected = CLIPS * 4 / 2 / 15
        assert all(abs(counts[name] - expected) < 5 * np.sqrt(expected) for name in OPERATIONS)
    # Of 4 draws with one chance in two each, a pair is equal with chance 1/15, both applied with 1/4: 6 pairs.
    twice = [sum(len(clip) - len({operation.name for operation in clip}) for clip in clips) for clips in drawn]
    assert all(abs(count - CLIPS * 6 / 4 / 15) < 5 * np.sqrt(CLIPS * 6 / 4 / 15) for count in twice)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in NO_ARGUMENT])
def test_the_strength_of_an_operation_has_the_distribution_of_timm(drawn, name):
    ours, theirs = (
        np.array([operation.argument for clip in clips for operation in clip if operation.name == name])
        for clips in drawn
    )
    # 800 of each: two samples of one distribution are further apart in 1 of 1000 cases.
    assert distance(ours, theirs) < 1.95 * np.sqrt(1 / len(ours) + 1 / len(theirs))
    assert len(np.unique(ours)) > 1


def test_configuration_string_is_read():
    assert RandAugmentSpec(magnitude=7, layers=4, magnitude_std=0.5) == SPEC
    assert RandAugmentSpec.parse("rand-m9-p0.25-mmax8-inc1") == RandAugmentSpec(
        magnitude=9, layers=2, probability=0.25, magnitude_max=8
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m7-n4", "inc1"),
        ("rand-m7-n4-inc0", "inc1"),
        ("augmix-m7-inc1", "section 'm7' is not understood"),
        ("rand-x7-inc1", "section 'x7' is not understood"),
        ("rand-m-inc1", "section 'm' is not understood"),
        ("rand-m7-n1.5-inc1", "n must be whole"),
        ("rand-m7-p2-inc1", "p in"),
        ("", "inc1"),
    ],
)
def test_wrong_configuration_strings_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        RandAugmentSpec.parse(text)


def test_normalise_equals_torchvision():
    frames = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8)
    video = VideoInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.3))
    ours = normalise(frames, video)
    for b in range(2):
        for t in range(3):
            pixels = V.to_dtype(frames[b, t].permute(2, 0, 1), torch.float32, scale=True)
            expected = V.normalize(pixels, list(video.mean), list(video.std))
            torch.testing.assert_close(ours[b, :, t], expected)
    assert ours.is_contiguous()


def test_flip_mirrors_all_frames_of_a_clip():
    frames = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    flipped = TrainAugment(seed=0, randaugment=None, flip_probability=1.0)(frames, ["a", "b"], [0, 0], 0)
    expected = V.horizontal_flip(frames.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)
    assert torch.equal(flipped, expected)


def test_a_clip_gets_the_operations_that_are_drawn_for_it():
    frames = torch.randint(0, 256, (2, 3, 24, 30, 3), dtype=torch.uint8)
    varied = TrainAugment(seed=3, randaugment=SPEC, flip_probability=0.0)(frames, ["a", "b"], [0, 1], 7)
    for clip, expected, clip_id, view in zip(varied, frames, ["a", "b"], [0, 1], strict=True):
        rng = rng_for(3, 7, clip_id, "augment", view)
        rng.random()  # the flip
        operations = draw_operations(SPEC, rng)
        assert torch.equal(clip.permute(0, 3, 1, 2), apply_operations(expected.permute(0, 3, 1, 2), operations))


def test_a_clip_is_augmented_the_same_in_any_batch_and_anew_each_epoch_and_repetition():
    frames = torch.randint(0, 256, (4, 2, 24, 24, 3), dtype=torch.uint8)
    names, views = ["a", "b", "c", "d"], [0, 0, 0, 0]
    augment = TrainAugment(seed=3, randaugment=SPEC, flip_probability=0.5)
    whole = augment(frames, names, views, 0)
    assert whole.shape == frames.shape
    assert whole.dtype == torch.uint8
    assert torch.equal(whole[2:], augment(frames[2:], names[2:], views[2:], 0))
    assert not torch.equal(whole, augment(frames, names, views, 1))
    repeated = augment(frames, names, [0, 1, 0, 1], 0)
    assert torch.equal(repeated[::2], whole[::2])
    assert not torch.equal(repeated[1::2], whole[1::2])
    other_seed = TrainAugment(seed=4, randaugment=SPEC, flip_probability=0.5)
    assert not torch.equal(whole, other_seed(frames, names, views, 0))


def test_switched_off_it_changes_nothing():
    frames = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    augment = TrainAugment(seed=0, randaugment=None, flip_probability=0.0)
    assert torch.equal(augment(frames, ["a", "b"], [0, 0], 0), frames)


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_flip_probability_is_kept(probability):
    frames = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4, 1).expand(1, 1, 1, 4, 3)
    augment = TrainAugment(seed=0, randaugment=None, flip_probability=probability)
    flips = sum(not torch.equal(augment(frames, [f"clip {i}"], [0], 0), frames) for i in range(1000))
    assert abs(flips - 1000 * probability) < 5 * np.sqrt(1000 * probability * (1 - probability))
