"""Random erasing: its boxes against timm's own code, its noise, and what it is keyed by."""

import random

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing as TimmErasing

from cast_ray.data.erasing import RandomErasing

DRAWS, HEIGHT, WIDTH = 6000, 60, 80
AREA = (0.02, 1 / 3)


def erasing(**changes) -> RandomErasing:
    return RandomErasing(**{"seed": 1, "probability": 1.0, "mode": "const", "area": AREA} | changes)


def erased(clips: torch.Tensor, *, views=None, epoch=0, ids=None, **changes) -> torch.Tensor:
    clips = clips.clone()
    ids = [f"clip {i}" for i in range(len(clips))] if ids is None else ids
    erasing(**changes)(clips, ids, [0] * len(clips) if views is None else views, epoch)
    return clips


def boxes_of(images: np.ndarray) -> np.ndarray:
    """Top, left, height, width [B, 4] of what is 0 in images [B, H, W] of ones; zeros where nothing is."""
    found = []
    for hidden in images == 0:
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        if not len(rows):
            found.append((0, 0, 0, 0))
            continue
        box = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert hidden.sum() == box[2] * box[3]  # one whole rectangle and nothing else
        found.append(box)
    return np.array(found)


def timm_boxes(height: int, width: int, probability: float, area: tuple[float, float]) -> np.ndarray:
    random.seed(0)
    images = torch.ones(DRAWS, 1, height, width)
    TimmErasing(probability, min_area=area[0], max_area=area[1], mode="const", device="cpu")(images)
    return boxes_of(images[:, 0].numpy())


def our_boxes(height: int, width: int, probability: float, area: tuple[float, float], draws: int = DRAWS) -> np.ndarray:
    clips = erased(torch.ones(draws, 1, 1, height, width), probability=probability, area=area)
    return boxes_of(clips[:, 0, 0].numpy())


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    grid = np.unique(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(sample), grid, "right") / len(sample) for sample in (ours, theirs)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.mark.parametrize(
    ("height", "width", "probability", "area"),
    [(60, 80, 0.25, AREA), (60, 80, 1.0, AREA), (32, 32, 1.0, AREA), (20, 60, 0.5, (0.5, 0.9))],
    ids=["some", "all", "square", "often too large for the frame"],
)
def test_boxes_have_the_statistics_of_timm(height, width, probability, area):
    ours, theirs = (draw(height, width, probability, area) for draw in (our_boxes, timm_boxes))
    present = [boxes[boxes[:, 2] > 0] for boxes in (ours, theirs)]
    shares = [len(boxes) / DRAWS for boxes in present]
    assert abs(shares[0] - shares[1]) < 4 * np.sqrt(0.5 / DRAWS)
    if area == AREA:
        assert abs(shares[0] - probability) < 4 * np.sqrt(probability * (1 - probability) / DRAWS) + 1e-9
    # Two samples of one distribution are further apart in 1 of 1000 cases.
    bound = 1.95 * np.sqrt(sum(1 / len(boxes) for boxes in present))
    values = [
        np.stack([*boxes.T, boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3]]).astype(float) for boxes in present
    ]
    for one, other in zip(*values, strict=True):
        assert distance(one, other) < bound


def test_area_and_aspect_keep_their_limits():
    boxes = our_boxes(160, 160, 1.0, (0.1, 0.2), draws=1500).astype(float)
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 160**2, boxes[:, 2] / boxes[:, 3]
    assert 0.095 < areas.min() < 0.11
    assert 0.19 < areas.max() < 0.205
    assert 0.29 < ratios.min() < 0.32
    assert 3.1 < ratios.max() < 3.45


def test_all_frames_have_the_same_box_and_what_is_outside_stays():
    clips = torch.rand(6, 3, 5, HEIGHT, WIDTH) + 1
    result = erased(clips)
    hidden = result == 0
    assert (hidden == hidden[:, :1, :1]).all()
    assert torch.equal(result[~hidden], clips[~hidden])
    assert hidden[:, 0, 0].flatten(1).any(1).all()
    assert len({tuple(box) for box in boxes_of(result[:, 0, 0].numpy())}) == 6


def test_noise_is_drawn_for_every_pixel_channel_and_frame():
    clips = torch.full((8, 3, 6, HEIGHT, WIDTH), 100.0)
    result = erased(clips, mode="pixel", area=(0.2, 0.3))
    noise = result[result != 100]
    assert noise.numel() > 50_000
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    for clip in result:
        inside = clip[0, 0] != 100
        series = clip[:, :, inside].reshape(18, -1)  # channel and frame
        correlation = np.corrcoef(series.numpy())[~np.eye(18, dtype=bool)]
        assert np.abs(correlation).max() < 6 / np.sqrt(series.shape[1])


@pytest.mark.parametrize("mode", ["pixel", "const"])
def test_a_clip_is_erased_the_same_in_any_batch_and_anew_each_epoch_and_repetition(mode):
    clips = torch.ones(4, 3, 2, HEIGHT, WIDTH)
    together = erased(clips, mode=mode)
    for row in range(4):
        alone = erased(clips[row : row + 1], ids=[f"clip {row}"], mode=mode)
        assert torch.equal(alone[0], together[row])
    backwards = erased(clips, ids=[f"clip {3 - row}" for row in range(4)], mode=mode)
    assert torch.equal(backwards.flip(0), together)
    others = [erased(clips, mode=mode, **other) for other in ({"epoch": 1}, {"seed": 2}, {"views": [1] * 4})]
    for one, other in ((a, b) for i, a in enumerate([together, *others]) for b in others[i:]):
        assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_pixel_and_const_erase_the_same_boxes():
    clips = torch.ones(20, 1, 1, HEIGHT, WIDTH)
    assert torch.equal(erased(clips) != 1, erased(clips, mode="pixel") != 1)


def test_without_probability_nothing_changes():
    clips = torch.rand(4, 3, 2, 16, 16)
    assert torch.equal(erased(clips, probability=0.0), clips)


def test_a_frame_that_no_box_fits_into_is_left_alone():
    clips = torch.rand(4, 3, 2, 1, 1)
    assert torch.equal(erased(clips, area=(0.9, 1.0)), clips)
