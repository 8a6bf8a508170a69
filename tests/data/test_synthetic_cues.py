"""What small classifiers read from the embedded dataset: the noun from one frame, the verb only from the order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from sklearn.ensemble import RandomForestClassifier

from cast_ray.data.synthetic import NOUNS, VERBS
from cast_ray.data.synthetic.classes import balanced_labels
from cast_ray.data.synthetic.motion import draw_motion
from cast_ray.data.synthetic.scene import draw_scene, render

CHANCE = 1 / len(VERBS)
NUM_FRAMES, SIZE = 16, 32
TRAIN_MOTIONS, TEST_MOTIONS = 2400, 1200
TRAIN_CLIPS, TEST_CLIPS = 576, 288
MARGIN = 0.05
"""Four standard deviations of a coin of chance 1/6 thrown TEST_MOTIONS times."""


def score(train, test) -> float:
    return float((fit(train).predict(test[0]) == test[1]).mean())


def fit(train) -> RandomForestClassifier:
    return RandomForestClassifier(150, min_samples_leaf=3, random_state=0).fit(*train)


def latents(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What nobody can see better: exact position, size and angle [clips, T, 4] of the object, and the verbs."""
    verbs = np.arange(count) % len(VERBS)
    motions = [draw_motion(np.random.default_rng([seed, i]), int(verb), NUM_FRAMES) for i, verb in enumerate(verbs)]
    return np.array([np.stack([m.x, m.y, np.log(m.radius), m.angle], axis=-1) for m in motions]), verbs


def order_blind(values: np.ndarray) -> np.ndarray:
    """Everything simple that does not depend on the order of the frames: quantiles, gaps and correlations of axes."""
    ordered = np.sort(values, axis=1)
    gap = np.diff(ordered, axis=1).max(axis=1)
    upper = np.triu_indices(values.shape[-1], 1)
    with np.errstate(invalid="ignore"):
        correlation = np.nan_to_num([np.corrcoef(clip.T)[upper] for clip in values])
    return np.concatenate([ordered[:, ::3].reshape(len(values), -1), values.std(axis=1), gap, correlation], axis=1)


@pytest.fixture(scope="module")
def motions():
    return latents(TRAIN_MOTIONS, seed=1), latents(TEST_MOTIONS, seed=2)


@pytest.mark.parametrize("frame", [0, NUM_FRAMES // 2, NUM_FRAMES - 1, "random"])
def test_no_single_frame_tells_the_verb_even_with_exact_latents(motions, frame):
    rng = np.random.default_rng(0)

    def one_frame(values: np.ndarray) -> np.ndarray:
        index = rng.integers(0, NUM_FRAMES, len(values)) if frame == "random" else np.full(len(values), frame)
        return values[np.arange(len(values)), index]

    (train, train_verbs), (test, test_verbs) = motions
    assert score((one_frame(train), train_verbs), (one_frame(test), test_verbs)) < CHANCE + MARGIN


def test_shuffled_frames_do_not_tell_the_direction_even_with_exact_latents(motions):
    """The axis may show, the direction not: half of the clips is the most that anyone can get right."""
    (train, train_verbs), (test, test_verbs) = motions
    predicted = fit((order_blind(train), train_verbs)).predict(order_blind(test))
    right_axis = predicted // 2 == test_verbs // 2
    assert (predicted == test_verbs).mean() < 0.5 + MARGIN
    assert abs((predicted == test_verbs)[right_axis].mean() - 0.5) < MARGIN


def test_ordered_frames_tell_the_verb(motions):
    """The bounds above are no accident of a weak classifier: with the order it is right nearly always."""

    def steps(values: np.ndarray) -> np.ndarray:
        return np.sort(np.diff(values, axis=1), axis=1).reshape(len(values), -1)

    (train, train_verbs), (test, test_verbs) = motions
    assert score((steps(train), train_verbs), (steps(test), test_verbs)) > 0.95


@pytest.fixture(scope="module")
def clips():
    """(frames [clips, T, S, S, 3], verbs, nouns) for training and test."""

    def rendered(count: int, seed: int):
        labels = [balanced_labels(position) for position in range(count)]
        frames = [
            render(draw_scene(np.random.default_rng([seed, i]), verb=of.verb, noun=of.noun, num_frames=8, size=SIZE))
            for i, of in enumerate(labels)
        ]
        return np.array(frames), np.array([of.verb for of in labels]), np.array([of.noun for of in labels])

    return rendered(TRAIN_CLIPS, seed=1), rendered(TEST_CLIPS, seed=2)


def silhouette(frame: np.ndarray) -> np.ndarray:
    """Features of what stands out of the background, whatever its place, size and angle."""
    contrast = frame.astype(float).mean(axis=-1)
    contrast -= np.median(contrast)
    weight = contrast**2 / (contrast**2).sum()
    rows, columns = np.indices(contrast.shape)
    row, column = (weight * rows).sum(), (weight * columns).sum()
    spread = np.sqrt((weight * ((rows - row) ** 2 + (columns - column) ** 2)).sum())
    radius = spread * np.linspace(0.15, 2.0, 8)[:, None]
    angle = 2 * np.pi * np.arange(24) / 24
    polar = map_coordinates(
        contrast, [row + radius * np.sin(angle), column + radius * np.cos(angle)], order=1, mode="nearest"
    )
    return np.abs(np.fft.rfft(polar / np.abs(polar).max(), axis=1))[:, :7].ravel()


def brightness(frames: np.ndarray) -> np.ndarray:
    """Frames [..., S, S, 3] as 8 x 8 grey pictures [..., 64]."""
    cell = SIZE // 8
    grey = frames.astype(float).mean(axis=-1)
    return grey.reshape(*grey.shape[:-2], 8, cell, 8, cell).mean(axis=(-3, -1)).reshape(*grey.shape[:-2], 64)


@pytest.mark.parametrize("frame", [0, 7])
def test_one_frame_tells_the_noun(clips, frame):
    """Chance is one in six, and all the classifier sees is a crude silhouette of 32 x 32 pixels."""
    features = [(np.array([silhouette(f) for f in frames[:, frame]]), nouns) for frames, _, nouns in clips]
    assert score(*features) > 3 / len(NOUNS)


@pytest.mark.parametrize("frame", [0, 4])
def test_the_pixels_of_one_frame_do_not_tell_the_verb(clips, frame):
    features = [(brightness(frames[:, frame]), verbs) for frames, verbs, _ in clips]
    assert score(*features) < CHANCE + 2 * MARGIN


def test_the_pixels_of_shuffled_frames_do_not_tell_the_verb(clips):
    """Statistics over time of every pixel: what a reader of unordered frames has."""

    def over_time(frames: np.ndarray) -> np.ndarray:
        grey = brightness(frames)
        return np.concatenate([f(grey, axis=1) for f in (np.mean, np.std, np.min, np.max)], axis=1)

    features = [(over_time(frames), verbs) for frames, verbs, _ in clips]
    assert score(*features) < 0.4
