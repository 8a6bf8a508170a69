"""What a configuration asks of a worker."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.config import AudioConfig
from cast_ray.data.augment import RandAugmentSpec
from cast_ray.data.fbank import SpectrogramMasks
from cast_ray.errors import UserError
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.training.worker import train_augment


def test_the_augmentation_is_that_of_the_configuration():
    audio = AudioConfig(
        time_masks=1, time_mask_columns=7, frequency_masks=3, frequency_mask_bins=9, mask_share=0.25, mixing="none"
    )
    augment = train_augment(dataclasses.replace(ssv2(), seed=4, audio=audio))
    assert augment.frames.randaugment == RandAugmentSpec.parse("rand-m7-n4-mstd0.5-inc1")
    assert (augment.frames.seed, augment.frames.flip_probability) == (4, 0.0)
    assert augment.spectrogram == SpectrogramMasks(
        seed=4, time_masks=1, time_mask_columns=7, frequency_masks=3, frequency_mask_bins=9, mask_share=0.25
    )


def test_the_published_masks_are_the_default():
    masks = train_augment(ssv2()).spectrogram
    assert (masks.time_masks, masks.time_mask_columns) == (2, 70)
    assert (masks.frequency_masks, masks.frequency_mask_bins) == (2, 20)


def test_a_malformed_randaugment_text_is_refused():
    config = ssv2()
    config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, rand_augment="rand-x9"))
    with pytest.raises(UserError, match="section 'x9'"):
        train_augment(config)
