import random
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as V

from cast_ray.data.augment import (
    OPERATIONS,
    Operation,
    RandAugmentSpec,
    TrainAugment,
    apply_operations,
    draw_operations,
    flip_clips,
    normalise,
)
from cast_ray.errors import UserError
from cast_ray.models.spec import VideoInput

CONFIG = "rand-m7-n4-mstd0.5-inc1"
SPEC = RandAugmentSpec.parse(CONFIG)
CLIP = Path(__file__).parents[1] / "clips" / "arm_wrestling_k400.mp4"
NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")
WHOLE_ARGUMENT = ("PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd")
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
# Largest difference in grey levels: all others are exact.
ONE_LEVEL = ("AutoContrast", "ColorIncreasing", "ContrastIncreasing")


@pytest.fixture(scope="module")
def image():
    """A real frame with a dull range of values, so that contrast operations have something to do."""
    with av.open(str(CLIP)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return (frame[:200, :260] * 0.6 + 30).astype(np.uint8)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_operations_are_those_of_timm_in_its_order():
    assert list(OPERATIONS) == timm_augment._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_arguments_follow_the_laws_of_timm(name, monkeypatch):
    law = timm_augment.LEVEL_TO_ARG[name]
    for negated, sign in ((0.0, 1.0), (1.0, -1.0)):
        monkeypatch.setattr(random, "random", lambda value=negated: value)
        for magnitude in (0.0, 0.3, 2.5, 5.0, 7.0, 8.4, 10.0):
            expected = 0.0 if law is None else law(magnitude, timm_augment._HPARAMS_DEFAULT)[0]
            assert OPERATIONS[name].argument(magnitude / 10, sign) == pytest.approx(expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("level", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations_equal_those_of_timm(name, level, sign, image):
    argument = OPERATIONS[name].argument(level, sign)
    # PIL cannot keep 0 bits, which the law of timm reaches at full strength; we keep 1 there.
    arguments = () if name in NO_ARGUMENT else (max(1, int(argument)) if name in WHOLE_ARGUMENT else argument,)
    options = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.BILINEAR}
    expected = np.asarray(timm_augment.NAME_TO_OP[name](Image.fromarray(image), *arguments, **options)).astype(int)
    ours = apply_operations(tensor(image), [Operation(name, argument)])[0].permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(ours - expected)
    if name in GEOMETRIC:
        # Rounding inside the moved frame; its border, a small part of the pixels, is blended with the fill.
        assert difference.mean() <= 0.6
        assert np.quantile(difference, 0.97) <= 1
    else:
        assert difference.max() <= (1 if name in ONE_LEVEL else 0)
    if level == 0.7:
        assert np.abs(ours - image).mean() > 0.5


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_each_frame_is_treated_by_itself_and_alike(name, image):
    # Contrast and histogram operations read statistics of their own frame, as frame-wise PIL code does.
    frames = torch.cat([tensor(image), tensor(image // 2), tensor(255 - image)])
    operation = [Operation(name, OPERATIONS[name].argument(0.7, 1.0))]
    together = apply_operations(frames, operation)
    alone = torch.cat([apply_operations(frame[None], operation) for frame in frames])
    assert together.dtype == torch.uint8
    assert torch.equal(together, alone)


def test_extreme_thresholds_do_not_fail(image):
    for level in (0.0, 1.0):
        for name in OPERATIONS:
            operation = Operation(name, OPERATIONS[name].argument(level, 1.0))
            assert apply_operations(tensor(image), [operation]).shape == tensor(image).shape


def test_draws_have_the_statistics_of_timm(monkeypatch):
    calls = []
    for name in timm_augment._RAND_INCREASING_TRANSFORMS:
        recorder = lambda img, *args, name=name, **_: calls.append((name, args))  # noqa: E731
        monkeypatch.setitem(timm_augment.NAME_TO_OP, name, recorder)
    random.seed(0)
    np.random.seed(0)
    theirs = timm_augment.rand_augment_transform(CONFIG, {})
    rng = np.random.default_rng(0)
    ours = []
    for _ in range(6000):
        theirs(None)
        ours += draw_operations(SPEC, rng)
    # 24000 operations drawn, half of them applied, each of 15 kinds equally often: 800 +- 28 (one sigma).
    assert abs(len(ours) - 12000) < 5 * 78
    assert abs(len(calls) - 12000) < 5 * 78
    counts = Counter(operation.name for operation in ours)
    assert all(abs(counts[name] - 800) < 5 * 28 for name in OPERATIONS)
    for name in OPERATIONS:
        if name in NO_ARGUMENT:
            continue
        a = np.array([operation.argument for operation in ours if operation.name == name])
        b = np.array([float(args[0]) for called, args in calls if called == name])
        spread = b.std() + 1e-9
        assert abs(a.mean() - b.mean()) < 0.25 * spread
        assert abs(a.std() - b.std()) < 0.15 * spread + 1e-6
        assert abs(np.abs(a).mean() - np.abs(b).mean()) < 0.05 * np.abs(b).mean() + 1e-6


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


def test_flip_mirrors_only_the_chosen_clips():
    frames = torch.randint(0, 256, (3, 2, 4, 5, 3), dtype=torch.uint8)
    flipped = flip_clips(frames, torch.tensor([True, False, True]))
    assert torch.equal(flipped[1], frames[1])
    for b in (0, 2):
        expected = V.horizontal_flip(frames[b].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        assert torch.equal(flipped[b], expected)


def test_a_clip_is_augmented_the_same_in_any_batch_and_anew_each_epoch():
    frames = torch.randint(0, 256, (4, 2, 24, 24, 3), dtype=torch.uint8)
    names = ["a", "b", "c", "d"]
    augment = TrainAugment(seed=3, randaugment=SPEC, flip_probability=0.5)
    whole = augment(frames, names, 0)
    assert whole.shape == frames.shape
    assert whole.dtype == torch.uint8
    assert torch.equal(whole[2:], augment(frames[2:], names[2:], 0))
    assert not torch.equal(whole, augment(frames, names, 1))
    other_seed = TrainAugment(seed=4, randaugment=SPEC, flip_probability=0.5)
    assert not torch.equal(whole, other_seed(frames, names, 0))


def test_switched_off_it_changes_nothing():
    frames = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    augment = TrainAugment(seed=0, randaugment=None, flip_probability=0.0)
    assert torch.equal(augment(frames, ["a", "b"], 0), frames)


def test_flip_probability_is_kept():
    frames = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4, 1).expand(1, 1, 1, 4, 3)
    augment = TrainAugment(seed=0, randaugment=None, flip_probability=0.25)
    flips = sum(not torch.equal(augment(frames, [f"clip {i}"], 0), frames) for i in range(1000))
    assert abs(flips - 250) < 5 * 14
