"""From clip files to network inputs: the whole way without Ray, and every part of it against its own function."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from cast_ray.data.augment import RandAugmentSpec, TrainAugment, normalise
from cast_ray.data.catalog.table import read_table
from cast_ray.data.erasing import RandomErasing
from cast_ray.data.fbank import LogMel, SpectrogramMasks, normalise_spectrogram
from cast_ray.data.inputs import Augment, InputMaker, in_precision
from cast_ray.data.loader import ClipLoader, wanted_by
from cast_ray.data.manifest import TRAIN
from cast_ray.data.mixup import Mixing, mix
from cast_ray.data.order import PADDING
from cast_ray.data.pipeline import ORDER_COLUMNS
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.synthetic import write_dataset
from cast_ray.data.views import CentreView, Sampling, TestViews, TrainView
from cast_ray.models.spec import (
    AST,
    AUDIO,
    AUDIO_TIMES,
    CLIP,
    HAS_AUDIO,
    SPATIAL,
    VIDEO,
    VIDEO_TIMES,
    AudioInput,
    Direction,
    ExchangeSpec,
    NetworkSpec,
    VideoInput,
)

CPU = torch.device("cpu")
T, SIZE, COLUMNS, BINS = 4, 32, 96, 64
CLIPS, SILENT = 8, 2
CLOCK = ExchangeSpec(directions=(Direction(source=AUDIO, target=SPATIAL, window="space_time"),), positions="clock")
SIZES = {"video": VideoInput(image_size=SIZE, num_frames=T), "audio": AudioInput(mel_bins=BINS, frames=COLUMNS)}
VIDEO_NETWORK = NetworkSpec(experts={SPATIAL: CLIP()}, **SIZES)
AUDIO_NETWORK = NetworkSpec(experts={AUDIO: AST()}, **SIZES)
CAVA = NetworkSpec(experts={AUDIO: AST(), SPATIAL: CLIP()}, **SIZES)
CAVA_CLOCK = NetworkSpec(experts={AUDIO: AST(), SPATIAL: CLIP()}, exchanges=(CLOCK,), **SIZES)

SAMPLING = Sampling(kind="uniform", num_frames=T, stride=4, size=SIZE)
TRAIN_VIEW = TrainView(sampling=SAMPLING, seed=5, crop_area=(0.3, 1.0), crop_ratio=(0.8, 1.25))
CENTRE = CentreView(sampling=SAMPLING)
TEST_VIEWS = TestViews(sampling=SAMPLING, temporal_views=2, spatial_crops=3)

FRAME_CHANGE = TrainAugment(seed=5, randaugment=RandAugmentSpec.parse("rand-m7-n2-inc1"), flip_probability=0.5)
MASKS = SpectrogramMasks(
    seed=5, time_masks=2, time_mask_columns=70, frequency_masks=2, frequency_mask_bins=20, mask_share=0.2
)
ERASING = RandomErasing(seed=5, probability=0.5, mode="const", area=(0.1, 0.3))
AUGMENT = Augment(frames=FRAME_CHANGE, spectrogram=MASKS, erasing=ERASING)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sharded) -> ShardedDataset:
    """Eight training clips with verb, noun and sound, two of them without a sound track."""
    folder = tmp_path_factory.mktemp("sound")
    clips = write_dataset(
        folder / "clips", layout="table", train_clips=CLIPS, validation_clips=4, silent_share=SILENT / CLIPS
    )
    manifest = read_table(clips.videos, clips.annotations)
    return sharded(manifest, folder)


def load(dataset: ShardedDataset, network: NetworkSpec, view, epoch: int = 0) -> dict[str, np.ndarray]:
    """The training split as one block, and a row of padding."""
    rows = dataset.split(TRAIN)
    rows = pa.concat_tables([rows, rows.slice(0, 1)])
    order = {"epoch": [epoch] * (CLIPS + 1), "clip": [*range(CLIPS), PADDING]}
    for name in ORDER_COLUMNS:
        rows = rows.append_column(name, pa.array(order.get(name, [0] * (CLIPS + 1)), pa.int64()))
    return ClipLoader(root=dataset.uri, view=view, columns=ORDER_COLUMNS, wanted=wanted_by(network))(rows)


@pytest.mark.parametrize("network", [VIDEO_NETWORK, AUDIO_NETWORK, CAVA, CAVA_CLOCK])
@pytest.mark.parametrize(("view", "views"), [(TRAIN_VIEW, 1), (CENTRE, 1), (TEST_VIEWS, 6)])
def test_a_network_gets_exactly_the_inputs_that_it_needs(dataset, network, view, views):
    batch, maker = load(dataset, network, view), InputMaker(network, CPU)
    inputs = maker.training(batch, AUGMENT, 0) if view is TRAIN_VIEW else maker.evaluation(batch)
    assert set(inputs) == network.needs
    rows = (CLIPS + 1) * views
    shapes = {
        VIDEO: (rows, 3, T, SIZE, SIZE),
        AUDIO: (rows, BINS, COLUMNS),
        HAS_AUDIO: (rows,),
        VIDEO_TIMES: (rows, T // 2, 2),
        AUDIO_TIMES: (rows, 2),
    }
    for name, value in inputs.items():
        assert value.shape == shapes[name]
        assert value.dtype == (torch.bool if name == HAS_AUDIO else torch.float32)
        assert not value.is_inference()
    assert maker.sound == (network is not VIDEO_NETWORK)


@pytest.mark.parametrize("view", [CENTRE, TEST_VIEWS])
def test_clips_without_sound_track_and_padding_have_no_audio(dataset, view):
    batch = load(dataset, CAVA, view)
    has_audio = InputMaker(CAVA, CPU).evaluation(batch)[HAS_AUDIO].reshape(CLIPS + 1, -1)
    assert (has_audio == has_audio[:, :1]).all()
    has_audio = has_audio[:, 0]
    assert int((~has_audio[:-1]).sum()) == SILENT
    assert not has_audio[-1]
    assert batch["valid"].tolist() == [True] * CLIPS + [False]


def test_evaluation_takes_frames_and_sound_as_they_are(dataset):
    batch = load(dataset, CAVA_CLOCK, TEST_VIEWS)
    inputs = InputMaker(CAVA_CLOCK, CPU).evaluation(batch)
    assert torch.equal(inputs[VIDEO], normalise(torch.from_numpy(batch["frames"]).flatten(0, 1), CAVA_CLOCK.video))
    samples, columns = (torch.from_numpy(batch[name]).flatten(0, 1) for name in ("audio", "audio_columns"))
    assert torch.equal(inputs[AUDIO], normalise_spectrogram(LogMel(BINS, CPU)(samples, columns)))
    assert torch.equal(inputs[AUDIO_TIMES], torch.from_numpy(batch["audio_times"]).flatten(0, 1))
    assert torch.equal(inputs[VIDEO_TIMES], torch.from_numpy(batch["video_times"]).flatten(0, 1))


def test_training_varies_frames_and_spectrograms(dataset):
    batch = load(dataset, CAVA, TRAIN_VIEW, epoch=3)
    maker = InputMaker(CAVA, CPU)
    varied, plain = maker.training(batch, AUGMENT, 3), maker.evaluation(batch)
    ids = batch["clip_id"].tolist()
    frames = FRAME_CHANGE(torch.from_numpy(batch["frames"]), ids, [0] * len(ids), 3)
    expected = normalise(frames, CAVA.video)
    ERASING(expected, ids, [0] * len(ids), 3)
    assert torch.equal(varied[VIDEO], expected)
    assert (expected == 0).flatten(1).any(1).sum() > 1
    blank = normalise_spectrogram(torch.zeros(()))
    masked = varied[AUDIO] == blank
    assert torch.equal(varied[AUDIO][~masked], plain[AUDIO][~masked])
    # Clip by clip: two stripes of at most a fifth each way, in every clip with sound, none the same.
    heard = varied[HAS_AUDIO]
    shares = masked.float().mean((1, 2))[heard]
    assert (shares > 0).sum() >= len(shares) - 1
    assert (shares < 0.65).all()
    assert torch.equal(varied[AUDIO][~heard], plain[AUDIO][~heard])


def test_repetitions_of_a_clip_are_varied_differently_and_alike_in_any_batch(dataset):
    """Eight repetitions of one row: flip, RandAugment, erasing and masks are drawn anew for each."""
    batch = load(dataset, CAVA, TRAIN_VIEW)
    row = int(np.flatnonzero(batch["audio_columns"] > 0)[0])
    repeated = {name: np.repeat(column[row : row + 1], 8, axis=0) for name, column in batch.items()}
    repeated["view"] = np.arange(8)
    maker = InputMaker(CAVA, CPU)
    varied = maker.training(repeated, AUGMENT, 0)
    for name in (VIDEO, AUDIO):
        assert len({value.numpy().tobytes() for value in varied[name]}) > 5
    backwards = maker.training({name: column[::-1] for name, column in repeated.items()}, AUGMENT, 0)
    assert torch.equal(backwards[VIDEO].flip(0), varied[VIDEO])
    torch.testing.assert_close(backwards[AUDIO].flip(0), varied[AUDIO])
    first = maker.training({name: column[:1] for name, column in repeated.items()}, AUGMENT, 0)
    assert torch.equal(first[VIDEO][0], varied[VIDEO][0])


def test_inputs_of_a_clip_do_not_depend_on_the_batch(dataset):
    batch = load(dataset, CAVA, TRAIN_VIEW)
    maker = InputMaker(CAVA, CPU)
    together = maker.training(batch, AUGMENT, 0)
    for row in (0, 5):
        alone = maker.training({name: column[row : row + 1] for name, column in batch.items()}, AUGMENT, 0)
        for name, value in alone.items():
            torch.testing.assert_close(together[name][row : row + 1], value)


def test_the_batch_is_left_alone_even_if_it_cannot_be_written(dataset):
    batch = load(dataset, CAVA_CLOCK, TRAIN_VIEW)
    before = {name: column.copy() for name, column in batch.items()}
    for column in batch.values():
        column.setflags(write=False)  # as Ray's are
    InputMaker(CAVA_CLOCK, CPU).training(batch, AUGMENT, 0)
    for name, column in batch.items():
        np.testing.assert_array_equal(column, before[name])


def test_low_precision_is_for_pixels_and_spectrograms_and_not_for_seconds(dataset):
    inputs = InputMaker(CAVA_CLOCK, CPU).evaluation(load(dataset, CAVA_CLOCK, CENTRE))
    low = in_precision(inputs, torch.bfloat16)
    assert {name: value.dtype for name, value in low.items()} == {
        VIDEO: torch.bfloat16,
        AUDIO: torch.bfloat16,
        HAS_AUDIO: torch.bool,
        VIDEO_TIMES: torch.float32,
        AUDIO_TIMES: torch.float32,
    }


def test_a_training_batch_is_mixed_with_its_labels(dataset):
    """The way of one micro batch in the training loop, but for the network."""
    batch = load(dataset, CAVA, TRAIN_VIEW)
    inputs = InputMaker(CAVA, CPU).training(batch, AUGMENT, 0)
    fields = dataset.label_map.fields
    labels = {field: torch.from_numpy(batch["labels"][:, index]) for index, field in enumerate(fields)}
    valid = torch.from_numpy(batch["valid"])
    mixed, targets = mix(
        inputs,
        labels,
        valid,
        num_classes=dataset.label_map.num_classes,
        mixing=Mixing(probability=1.0, mixup_alpha=0.8, cutmix_alpha=0.0, cutmix_switch=0.5, sound="linear"),
        smoothing=0.0,
        rng=np.random.default_rng(0),
    )
    assert fields == ("verb", "noun", "sound")
    assert {field: tuple(target.shape) for field, target in targets.items()} == {
        field: (CLIPS + 1, count) for field, count in dataset.label_map.num_classes.items()
    }
    both = inputs[HAS_AUDIO] & inputs[HAS_AUDIO].flip(0)
    both[CLIPS // 2] = False  # the middle clip of an odd batch has no partner but itself
    changed = (mixed[AUDIO] != inputs[AUDIO]).flatten(1).any(1)
    assert torch.equal(changed, both)
    assert torch.equal(mixed[HAS_AUDIO], inputs[HAS_AUDIO])


def test_the_sound_classes_differ_in_their_spectrograms(dataset):
    """A tone has its energy in few bins all the time, clicks have it in few columns."""
    batch = load(dataset, AUDIO_NETWORK, CENTRE)
    spectrograms = InputMaker(AUDIO_NETWORK, CPU).evaluation(batch)[AUDIO]
    names = np.array(dataset.label_map.names["sound"])[batch["labels"][:, 2]]
    heard = batch["audio_columns"] > 0
    over_time = spectrograms.mean(1).std(1)
    tones = over_time[torch.from_numpy((names == "tone") & heard & batch["valid"])]
    rhythmic = over_time[torch.from_numpy(np.isin(names, ("clicks", "bursts")) & heard & batch["valid"])]
    assert len(tones)
    assert len(rhythmic)
    assert tones.max() < rhythmic.min()
