"""The operations of RandAugment against timm, which leaves them to PIL."""

import random
from pathlib import Path

import av
import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
from PIL import Image

from cast_ray.data.operations import OPERATIONS, Operation, apply_operations

CLIP = Path(__file__).parents[1] / "clips" / "arm_wrestling_k400.mp4"
NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")
WHOLE_ARGUMENT = ("PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd")
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


@pytest.fixture(scope="module")
def image():
    """A real frame with a dull range of values, so that contrast operations have something to do."""
    with av.open(str(CLIP)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return (frame[:200, :260] * 0.6 + 30).astype(np.uint8)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def of_timm(image, name, argument):
    # PIL cannot keep 0 bits, which the law of timm reaches at full strength; we keep 1 there.
    arguments = () if name in NO_ARGUMENT else (max(1, int(argument)) if name in WHOLE_ARGUMENT else argument,)
    options = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.BILINEAR}
    return np.asarray(timm_augment.NAME_TO_OP[name](Image.fromarray(image), *arguments, **options)).astype(int)


def of_ours(image, name, argument):
    return apply_operations(tensor(image), [Operation(name, argument)])[0].permute(1, 2, 0).numpy().astype(int)


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
@pytest.mark.parametrize("level", [0.2, 0.63, 0.7, 1.0])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations_equal_those_of_timm(name, level, sign, image):
    argument = OPERATIONS[name].argument(level, sign)
    ours = of_ours(image, name, argument)
    difference = np.abs(ours - of_timm(image, name, argument))
    if name in GEOMETRIC:
        # A whole grey level may be computed slightly below itself, here or in PIL, and then lose 1 with its fraction.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05
    else:
        assert difference.max() == 0
    if level == 0.7:
        assert np.abs(ours - image).mean() > 0.5


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("kind", ["one colour", "two levels", "noise", "full range"])
def test_operations_equal_those_of_timm_on_extreme_pictures(name, kind):
    """Nothing to stretch, histograms of one or two bins, and no smooth areas."""
    rng = np.random.default_rng(0)
    image = {
        "one colour": np.full((40, 50, 3), (7, 255, 0), np.uint8),
        "two levels": rng.choice(np.array([3, 200], np.uint8), (40, 50, 3)),
        "noise": rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
        "full range": np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3),
    }[kind]
    argument = OPERATIONS[name].argument(0.7, 1.0)
    difference = np.abs(of_ours(image, name, argument) - of_timm(image, name, argument))
    assert (difference > (1 if name in GEOMETRIC else 0)).mean() == 0


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("count", [3, 7])
def test_each_frame_is_treated_by_itself_and_alike(name, count, image):
    # Contrast and histogram operations read statistics of their own frame, as frame-wise PIL code does.
    frames = torch.cat([tensor(image), tensor(image // 2), tensor(255 - image)] * 3)[:count]
    operation = [Operation(name, OPERATIONS[name].argument(0.7, 1.0))]
    together = apply_operations(frames, operation)
    alone = torch.cat([apply_operations(frame[None], operation) for frame in frames])
    assert together.dtype == torch.uint8
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_the_layout_in_memory_does_not_matter_and_the_input_is_left_alone(name, image):
    frames = tensor(image)
    before = frames.clone()
    operation = [Operation(name, OPERATIONS[name].argument(0.7, 1.0))]
    assert torch.equal(apply_operations(frames, operation), apply_operations(frames.contiguous(), operation))
    assert torch.equal(frames, before)


def test_extreme_thresholds_do_not_fail(image):
    for level in (0.0, 1.0):
        for name in OPERATIONS:
            operation = Operation(name, OPERATIONS[name].argument(level, 1.0))
            assert apply_operations(tensor(image), [operation]).shape == tensor(image).shape
