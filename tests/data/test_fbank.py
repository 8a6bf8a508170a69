"""The filter bank against Kaldi's own code and against transformers; the masks against what SpecAugment says."""

from __future__ import annotations

import functools
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor

from cast_ray.data.fbank import LogMel, SpectrogramMasks, normalise_spectrogram
from cast_ray.data.randomness import rng_for
from cast_ray.data.sound import HOP, SAMPLE_RATE, WINDOW, read_sound

CPU = torch.device("cpu")
CLIPS = Path(__file__).parents[1] / "clips"


@functools.cache
def real_sound(name: str = "nasa_with_audio.mp4") -> np.ndarray:
    return read_sound((CLIPS / name).read_bytes())


def sounds() -> list[np.ndarray]:
    """Speech, a noisy kitchen, noise with an offset, a tone, and near silence; of odd lengths."""
    rng = np.random.default_rng(0)
    time = np.arange(20_001) / SAMPLE_RATE
    return [
        real_sound()[:50_033],
        real_sound("flipping_pancake_k400.mkv")[3000:40_000],
        rng.integers(-9000, 11_000, 16_000).astype(np.int16),
        (20_000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16),
        rng.integers(-2, 3, 4000).astype(np.int16),
    ]


def kaldi(samples: np.ndarray, mel_bins: int) -> np.ndarray:
    """Log-mel values [F, M] of Kaldi's C++ code, as AST calls it."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = mel_bins
    options.use_energy = False
    options.htk_compat = True
    bank = kaldi_native_fbank.OnlineFbank(options)
    wave = samples.astype(np.float32) / 32768
    bank.accept_waveform(SAMPLE_RATE, (wave - wave.mean()).tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])


def log_mel(samples: np.ndarray, mel_bins: int = 128, columns: int | None = None) -> np.ndarray:
    """[M, F] of one sound."""
    columns = (len(samples) - WINDOW) // HOP + 1 if columns is None else columns
    return LogMel(mel_bins, CPU)(torch.from_numpy(samples)[None], torch.tensor([columns]))[0].numpy()


@pytest.mark.parametrize("samples", sounds(), ids=["speech", "kitchen", "noise", "tone", "quiet"])
@pytest.mark.parametrize("mel_bins", [128, 40])
def test_values_are_those_of_kaldi(samples, mel_bins):
    expected = kaldi(samples, mel_bins)
    ours = log_mel(samples, mel_bins).T
    assert ours.shape == expected.shape
    # Logarithms of energies that are differences of float32 numbers; the values range from -16 to 5.
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    assert np.abs(ours - expected).mean() < 5e-5


@pytest.mark.parametrize("length", [50_000, 160 * 99 + 400, 9000])
@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_padded_and_normalised_it_is_what_transformers_feeds_ast(length):
    columns = 100
    samples = real_sound()[20_000 : 20_000 + length]
    wave = samples.astype(np.float32) / 32768
    extractor = ASTFeatureExtractor(max_length=columns)
    (expected,) = extractor(wave - wave.mean(), sampling_rate=SAMPLE_RATE, return_tensors="np")["input_values"]
    wanted = (columns - 1) * HOP + WINDOW
    piece = np.pad(samples[:wanted], (0, max(wanted - length, 0)))
    real = min((length - WINDOW) // HOP + 1, columns)
    ours = normalise_spectrogram(LogMel(128, CPU)(torch.from_numpy(piece)[None], torch.tensor([real])))[0]
    assert ours.shape == (128, columns)
    np.testing.assert_allclose(ours.T.numpy(), expected, atol=2e-4)


def test_a_batch_is_its_clips_one_by_one():
    batch = np.stack([sound[:4000] for sound in sounds()])
    columns = torch.tensor([23, 10, 0, 1, 23])
    together = LogMel(128, CPU)(torch.from_numpy(batch), columns)
    for clip, count, spectrogram in zip(batch, columns.tolist(), together, strict=True):
        np.testing.assert_allclose(spectrogram.numpy(), log_mel(clip, columns=count), atol=1e-5)
        assert not spectrogram[:, count:].any()
        assert spectrogram[:, :count].all()


def test_a_constant_offset_of_the_recording_changes_nothing():
    """Therefore the recording's own mean need not be subtracted first, as AST does."""
    samples = real_sound()[:16_000] // 2
    np.testing.assert_allclose(log_mel(samples + 1000), log_mel(samples), atol=5e-3)


SIZES = {"time_masks": 2, "time_mask_columns": 70, "frequency_masks": 2, "frequency_mask_bins": 20, "mask_share": 1.0}


def masked(
    epoch: int = 0, clip_ids=("a",), columns=None, bins: int = 128, frames: int = 400, seed=0, views=None, **sizes
):
    """The boolean masks [B, M, F] that are drawn: zeros in a spectrogram of ones."""
    masks = SpectrogramMasks(seed=seed, **(SIZES | sizes))
    columns = columns or [frames] * len(clip_ids)
    views = views or [0] * len(clip_ids)
    return masks(torch.ones(len(clip_ids), bins, frames), columns, clip_ids, views, epoch).numpy() == 0


def stripes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masked bins [M] and columns [F] of one clip; fails if the mask is anything but whole stripes."""
    rows, columns = mask.all(axis=1), mask.all(axis=0)
    np.testing.assert_array_equal(mask, rows[:, None] | columns[None, :])
    return rows, columns


def test_masks_are_stripes_that_lie_anywhere_and_have_every_width():
    drawn_stripes = [stripes(masked(epoch, time_masks=1, frequency_masks=1)[0]) for epoch in range(1500)]
    bins, columns = (np.array(drawn) for drawn in zip(*drawn_stripes, strict=True))
    for drawn, limit in ((bins, 20), (columns, 70)):
        widths = drawn.sum(axis=1)
        assert set(widths) == set(range(limit + 1))
        assert widths.mean() == pytest.approx(limit / 2, rel=0.05)  # even over 0 to the limit
        assert (np.abs(np.diff(drawn.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one run
        assert drawn.any(axis=0).all()
    # A stripe starts anywhere with the same chance, so the places in the middle are covered evenly.
    middle = columns.mean(axis=0)[80:320]
    assert middle.max() < 1.6 * middle.min()


def test_two_masks_of_each_kind_hide_more_than_one():
    one = np.mean([masked(epoch, time_masks=1, frequency_masks=1).mean() for epoch in range(200)])
    two = np.mean([masked(epoch).mean() for epoch in range(200)])
    assert 1.6 * one < two < 2 * one


def mask_along_axis(size: int, param: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """First index and width of one mask, by the text of torchaudio's functional.mask_along_axis."""
    param = min(param, int(size * share))
    value = rng.random() * param
    low = rng.random() * (size - value)
    return int(low), int(value)


@pytest.mark.parametrize(
    ("size", "param", "share", "axis"),
    [(400, 70, 1.0, "time"), (60, 70, 0.2, "time"), (128, 20, 1.0, "frequency")],
)
def test_stripes_have_the_statistics_of_torchaudio(size, param, share, axis):
    """Widths are whole numbers up to the limit in both, but torchaudio cuts a fraction off: its limit is one less."""
    draws, rng = 3000, np.random.default_rng(0)
    limit = min(param, int(size * share))
    sizes = {"time_masks": int(axis == "time"), "frequency_masks": int(axis == "frequency"), "mask_share": share}
    sizes |= {"time_mask_columns": param, "frequency_mask_bins": param}
    ids = [f"clip {i}" for i in range(draws)]
    bins, frames = (4, size) if axis == "time" else (size, 4)
    hidden = masked(clip_ids=ids, bins=bins, frames=frames, **sizes)[:, 0 if axis == "time" else slice(None)]
    hidden = hidden.reshape(draws, size) if axis == "time" else hidden[..., 0]
    theirs = np.array([mask_along_axis(size, limit + 1, 1.0, rng) for _ in range(draws)])
    widths = hidden.sum(1)
    assert widths.max() == theirs[:, 1].max() == limit
    starts = hidden.argmax(1)
    for a, b in ((widths, theirs[:, 1]), (starts[widths > 0], theirs[theirs[:, 1] > 0, 0])):
        grid = np.arange(size + 1)
        shares = [np.searchsorted(np.sort(sample), grid, "right") / len(sample) for sample in (a, b)]
        assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(1 / len(a) + 1 / len(b))


def test_a_short_sound_is_masked_inside_its_own_columns_and_in_proportion():
    for epoch in range(100):
        mask = masked(epoch, clip_ids=("a", "b"), columns=[50, 0], time_masks=1, frequency_masks=0, mask_share=0.2)
        _, columns = stripes(mask[0])
        assert columns.sum() <= 10
        assert not columns[50:].any()
        assert not mask[1].any()


def test_masks_depend_on_seed_epoch_clip_and_view_and_not_on_the_batch():
    alone = masked(3, clip_ids=("b",))[0]
    np.testing.assert_array_equal(masked(3, clip_ids=("a", "b", "c"))[1], alone)
    others = [
        masked(4, clip_ids=("b",)),
        masked(3, clip_ids=("a",)),
        masked(3, clip_ids=("b",), seed=1),
        masked(3, clip_ids=("b",), views=[1]),
    ]
    assert len({mask.tobytes() for mask in [alone, *others]}) == 5
    assert rng_for(0, 3, "b", "spectrogram").random() != rng_for(0, 3, "b", "augment").random()


def test_without_masks_nothing_changes():
    assert not masked(time_masks=0, frequency_masks=0).any()
