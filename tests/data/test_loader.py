"""What a decode worker makes of real clips, compared with frames that PyAV decodes and torchvision resizes."""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from cast_ray.data import loader
from cast_ray.data.loader import MEDIA_COLUMNS, VIDEO_ALONE, ClipLoader, Wanted, wanted_by
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.order import PADDING
from cast_ray.data.pipeline import ORDER_COLUMNS, broken_sounds, unreadable_clips
from cast_ray.data.shards import ShardedDataset, read_media
from cast_ray.data.sound import SAMPLE_RATE, read_sound, samples_for
from cast_ray.data.views import CentreView, Sampling, TestViews, TrainView, frame_sampling
from cast_ray.labels import NOUN, VERB, LabelMap
from cast_ray.models.spec import (
    AST,
    AUDIO,
    CLIP,
    TEMPORAL,
    AudioInput,
    Direction,
    ExchangeSpec,
    NetworkSpec,
    VideoInput,
)
from cast_ray.recipes.ssv2 import ssv2

CLIPS = Path(__file__).parents[1] / "clips"
ARM, BROKEN, TALL = "arm_wrestling_k400.mp4", "corrupted.mp4", "rotated_90.mov"
NASA = "nasa_with_audio.mp4"
ARM_FRAMES = 280
WINDOW = (56, 84)
"""First frame and number of frames from 2 s to 5 s of ARM, which has 28 frames per second."""
SIZE, T = 32, 4
UNIFORM = Sampling(kind="uniform", num_frames=T, stride=8, size=SIZE)
DENSE = dataclasses.replace(UNIFORM, kind="dense")
WHOLE = {"crop_area": (1.0, 1.0), "crop_ratio": (340 / 256, 340 / 256)}
"""A "random" crop that can only be the whole frame of ARM."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, sharded) -> ShardedDataset:
    """Real clips, one of them corrupted, one with damaged sound, and windows of two."""
    noise = tmp_path_factory.mktemp("damaged") / "noise.mkv"
    noise.write_bytes(with_damaged_sound())
    clip = functools.partial(Clip, split=TRAIN, uri=str(CLIPS / ARM))
    clips = (
        clip(clip_id="arm", labels=(0, 1)),
        clip(clip_id="broken", uri=str(CLIPS / BROKEN), labels=(1, 0)),
        clip(clip_id="tall", uri=str(CLIPS / TALL), labels=(1, 1)),
        clip(clip_id="window", labels=(0, 0), start_s=2.0, stop_s=5.0),
        clip(clip_id="beyond", labels=(0, 0), start_s=60.0, stop_s=61.0),
        clip(clip_id="nasa", uri=str(CLIPS / NASA), labels=(0, 1)),
        clip(clip_id="word", uri=str(CLIPS / NASA), labels=(0, 1), start_s=3.0, stop_s=4.0),
        clip(clip_id="noise", uri=str(noise), labels=(0, 1)),
    )
    manifest = Manifest(clips=clips, label_map=LabelMap({VERB: ("take", "put"), NOUN: ("cup", "pan")}))
    return sharded(manifest, tmp_path_factory.mktemp("clips"))


def with_damaged_sound() -> bytes:
    """A real video with an AAC track whose packets are random bytes."""
    target, rng = io.BytesIO(), np.random.default_rng(0)
    with av.open(str(CLIPS / NASA)) as source, av.open(target, "w", format="matroska") as copy:
        streams = [source.streams.best("video"), source.streams.best("audio")]
        copies = {stream: copy.add_stream_from_template(stream) for stream in streams}
        for packet in source.demux(streams):
            if packet.dts is not None:
                mixed_up = av.Packet(rng.bytes(packet.size)) if packet.stream.type == "audio" else packet
                mixed_up.pts, mixed_up.dts, mixed_up.time_base = packet.pts, packet.dts, packet.time_base
                mixed_up.stream = copies[packet.stream]
                copy.mux(mixed_up)
    return target.getvalue()


@functools.cache
def decoded(name: str) -> torch.Tensor:
    """All frames as a player shows them, uint8 [T, 3, H, W]."""
    with av.open(str(CLIPS / name)) as container:
        frames = container.decode(container.streams.best("video"))
        upright = [np.rot90(f.to_ndarray(format="rgb24"), k=f.rotation // 90) for f in frames]
    return torch.from_numpy(np.stack(upright)).permute(0, 3, 1, 2)


def resized(frames: torch.Tensor, height: int, width: int) -> np.ndarray:
    """uint8 [T, height, width, 3]."""
    return V.resize(frames, [height, width], antialias=False).permute(0, 2, 3, 1).numpy()


def load(
    dataset: ShardedDataset, view, /, *clip_ids: str, root: str | None = None, wanted: Wanted = VIDEO_ALONE, **order
) -> dict[str, np.ndarray]:
    """What the loader makes of a block of these clips; `order` gives the columns of the order, if there are any."""
    at = {row: place for place, row in enumerate(dataset.index["clip_id"].to_pylist())}
    rows = dataset.index.take([at[clip_id] for clip_id in clip_ids])
    for name in ORDER_COLUMNS if order else ():
        rows = rows.append_column(name, pa.array(order.get(name, [0] * len(clip_ids)), pa.int64()))
    columns = ORDER_COLUMNS if order else ()
    place = root or dataset.uri
    return ClipLoader(root=place, stored=dataset.format, view=view, columns=columns, wanted=wanted)(rows)


def train_view(seed: int = 0, sampling: Sampling = UNIFORM, **crop) -> TrainView:
    return TrainView(sampling=sampling, seed=seed, **({"crop_area": (0.2, 1.0), "crop_ratio": (0.75, 4 / 3)} | crop))


def test_the_central_view_is_the_middle_of_the_segments_and_of_the_frame(dataset):
    (frames,) = load(dataset, CentreView(sampling=UNIFORM), "arm")["frames"]
    middles = [35, 105, 175, 245]  # of 280 frames in 4 segments
    whole = resized(decoded(ARM)[middles], SIZE, SIZE * 340 // 256)
    left = (SIZE * 340 // 256 - SIZE) // 2
    np.testing.assert_array_equal(frames, whole[:, :, left : left + SIZE])


def test_the_central_view_of_dense_sampling_is_the_middle_window(dataset):
    (frames,) = load(dataset, CentreView(sampling=DENSE), "arm")["frames"]
    first = (280 - 4 * 8) // 2
    whole = resized(decoded(ARM)[first : first + 32 : 8], SIZE, 42)
    np.testing.assert_array_equal(frames, whole[:, :, 5:37])


@pytest.mark.parametrize("spatial_crops", [1, 3])
def test_test_views_are_every_crop_of_the_first_temporal_view_then_of_the_next(dataset, spatial_crops):
    view = TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=spatial_crops)
    (views,) = load(dataset, view, "arm")["frames"]
    lefts = {1: [5], 3: [0, 5, 10]}[spatial_crops]  # 340 x 256 becomes 42 x 32
    expected = [
        resized(decoded(ARM)[indices], SIZE, 42)[:, :, left : left + SIZE]
        for indices in ([0, 70, 140, 210], [35, 105, 175, 245])
        for left in lefts
    ]
    assert views.shape == (2 * spatial_crops, T, SIZE, SIZE, 3)
    assert len({view.tobytes() for view in views}) == len(views)
    np.testing.assert_array_equal(views, expected)


def test_test_views_of_dense_sampling_are_evenly_spaced_windows(dataset):
    (views,) = load(dataset, TestViews(sampling=DENSE, temporal_views=3, spatial_crops=1), "arm")["frames"]
    starts = [0, 15 * 8, 31 * 8]  # of 35 frames at stride 8, windows of 4: the first, the middle and the last
    expected = [resized(decoded(ARM)[s : s + 32 : 8], SIZE, 42)[:, :, 5:37] for s in starts]
    np.testing.assert_array_equal(views, expected)


def test_crops_of_an_upright_frame_move_down_and_a_short_clip_repeats_frames(dataset):
    (views,) = load(dataset, TestViews(sampling=UNIFORM, temporal_views=1, spatial_crops=3), "tall")["frames"]
    frames = resized(decoded(TALL)[[0, 0, 1, 2]], 56, SIZE)  # 3 frames of 568 x 320
    np.testing.assert_array_equal(views, [frames[:, top : top + SIZE] for top in (0, 12, 24)])


@pytest.mark.parametrize(("clip_id", "first", "count"), [("arm", 0, ARM_FRAMES), ("window", *WINDOW)])
def test_training_takes_one_random_frame_from_each_segment_anew_in_each_epoch(dataset, clip_id, first, count):
    every = resized(decoded(ARM), SIZE, SIZE)[first : first + count].reshape(count, -1)
    blocks = [load(dataset, train_view(**WHOLE), clip_id, epoch=[epoch])["frames"][0] for epoch in range(4)]
    for frames in blocks:
        for segment, frame in enumerate(frames):
            places = np.flatnonzero((every == frame.reshape(-1)).all(1))
            assert places.size
            assert (places // (count // T) == segment).all()
    assert len({frames.tobytes() for frames in blocks}) == 4


def test_training_with_dense_sampling_takes_a_window_at_the_stride(dataset):
    every = resized(decoded(ARM), SIZE, SIZE).reshape(ARM_FRAMES, -1)
    (frames,) = load(dataset, train_view(sampling=DENSE, **WHOLE), "arm", epoch=[0])["frames"]
    starts = [s for s in range(ARM_FRAMES - 24) if (every[s : s + 32 : 8] == frames.reshape(T, -1)).all()]
    assert len(starts) == 1


def test_training_crops_all_frames_of_a_clip_alike_and_differently_in_each_epoch(dataset):
    same_frame = dataclasses.replace(UNIFORM, num_frames=6)
    blocks = [load(dataset, train_view(sampling=same_frame), "tall", epoch=[epoch])["frames"][0] for epoch in range(8)]
    for frames in blocks:  # 3 frames of the video for 6 of the view: each comes twice
        assert {(frames[2 * i] == frames[2 * i + 1]).all() for i in range(3)} == {True}
    assert len({frames.tobytes() for frames in blocks}) == 8


def test_what_is_drawn_depends_on_seed_epoch_and_clip_and_not_on_the_block(dataset):
    alone = load(dataset, train_view(), "arm", epoch=[5])["frames"][0]
    among = load(dataset, train_view(), "tall", "arm", "window", epoch=[2, 5, 0], step=[9, 8, 7])["frames"][1]
    np.testing.assert_array_equal(among, alone)
    others = [
        load(dataset, train_view(), "arm", epoch=[6])["frames"][0],
        load(dataset, train_view(seed=1), "arm", epoch=[5])["frames"][0],
    ]
    assert len({frames.tobytes() for frames in [alone, *others]}) == 3


def test_a_window_of_a_video_is_treated_as_a_video_of_its_own(dataset):
    first, count = WINDOW
    (frames,) = load(dataset, CentreView(sampling=UNIFORM), "window")["frames"]
    (views,) = load(dataset, TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=1), "window")["frames"]
    starts, middles = ([first + int((i + part) * count / T) for i in range(T)] for part in (0, 0.5))
    by_hand = [resized(decoded(ARM)[indices], SIZE, 42)[:, :, 5:37] for indices in (starts, middles)]
    np.testing.assert_array_equal(frames, by_hand[1])
    np.testing.assert_array_equal(views, by_hand)


@pytest.mark.parametrize(
    "view",
    [CentreView(sampling=UNIFORM), train_view(), TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)],
    ids=["centre", "train", "test"],
)
def test_an_unreadable_clip_keeps_its_place_and_says_why(dataset, view):
    block = load(dataset, view, "arm", "broken", "tall", "beyond", epoch=[0] * 4)
    assert block["valid"].tolist() == [True, False, True, False]
    assert block["clip_id"].tolist() == ["arm", "broken", "tall", "beyond"]
    assert block["labels"].tolist() == [[0, 1], [1, 0], [1, 1], [0, 0]]
    assert [bool(reason) for reason in block["reason"]] == [False, True, False, True]
    assert "the video ends at 10.00 s" in block["reason"][3]
    assert not block["frames"][[1, 3]].any()
    np.testing.assert_array_equal(block["frames"][[0, 2]], load(dataset, view, "arm", "tall", epoch=[0, 0])["frames"])


def test_a_block_of_nothing_but_unreadable_clips_has_the_shape_of_any_other(dataset):
    view = TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)
    block = load(dataset, view, "broken")
    assert block["frames"].shape == (1, 6, T, SIZE, SIZE, 3)
    assert block["frames"].dtype == np.uint8


def test_padding_is_not_valid_has_no_reason_and_is_never_read(dataset, tmp_path):
    nowhere = str(tmp_path / "no such dataset")
    block = load(dataset, train_view(), "arm", "tall", root=nowhere, clip=[PADDING, PADDING])
    assert block["valid"].tolist() == [False, False]
    assert block["reason"].tolist() == ["", ""]
    assert not block["frames"].any()
    assert block["frames"].shape == (2, T, SIZE, SIZE, 3)


def test_the_columns_of_the_order_are_handed_on(dataset):
    order = {"epoch": [3, 3], "step": [7, 8], "accumulation": [0, 1], "clip": [2, PADDING], "view": [0, 1]}
    block = load(dataset, train_view(), "tall", "arm", **order)
    assert {name: block[name].tolist() for name in ORDER_COLUMNS} == order
    assert block["labels"].dtype == np.int64
    assert set(load(dataset, train_view(), "tall")) == {"clip_id", "labels", "frames", "valid", "reason"}


def test_the_sampling_is_that_of_the_configuration():
    assert frame_sampling(ssv2()) == Sampling(kind="uniform", num_frames=16, stride=4, size=224)


EVERYTHING = Wanted(frames=True, frames_per_step=2, sound_columns=100, sound_times=True)
SOUND_ALONE = Wanted(frames=False, sound_columns=100)
PIECE = 99 * 160 + 400
"""Samples of 100 columns."""


@functools.cache
def sound_of(name: str) -> np.ndarray:
    return read_sound((CLIPS / name).read_bytes())


def test_only_what_is_wanted_is_loaded(dataset):
    always = {"clip_id", "labels", "valid", "reason"}
    for wanted, columns in (
        (VIDEO_ALONE, {"frames"}),
        (Wanted(frames=True, frames_per_step=2), {"frames", "video_times"}),
        (SOUND_ALONE, {"audio", "audio_columns"}),
        (EVERYTHING, set(MEDIA_COLUMNS)),
    ):
        assert set(load(dataset, CentreView(sampling=UNIFORM), "nasa", wanted=wanted)) == always | columns


def test_no_video_is_decoded_for_a_network_without_eyes(dataset, monkeypatch):
    monkeypatch.setattr("cast_ray.data.loader.open_media", lambda *_, **__: pytest.fail("opened the video"))
    assert load(dataset, CentreView(sampling=UNIFORM), "nasa", wanted=SOUND_ALONE)["valid"].all()


@pytest.mark.parametrize(
    "view", [CentreView(sampling=UNIFORM), train_view(), TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)]
)
def test_frames_are_the_same_with_and_without_sound(dataset, view):
    ids, order = ("nasa", "arm", "word"), {"epoch": [3] * 3}
    both = load(dataset, view, *ids, wanted=EVERYTHING, **order)
    np.testing.assert_array_equal(both["frames"], load(dataset, view, *ids, **order)["frames"])


def test_validation_hears_the_middle(dataset):
    block = load(dataset, CentreView(sampling=UNIFORM), "nasa", wanted=EVERYTHING)
    first = (len(sound_of(NASA)) - PIECE) // 2
    np.testing.assert_array_equal(block["audio"], [sound_of(NASA)[first : first + PIECE]])
    assert block["audio"].dtype == np.int16
    assert block["audio_columns"].tolist() == [100]
    np.testing.assert_allclose(block["audio_times"], [[first / SAMPLE_RATE, (first + PIECE) / SAMPLE_RATE]])


def test_training_hears_another_piece_in_each_epoch(dataset):
    sound, starts = sound_of(NASA), []
    for epoch in range(6):
        block = load(dataset, train_view(), "nasa", wanted=EVERYTHING, epoch=[epoch])
        start = round(block["audio_times"][0, 0] * SAMPLE_RATE)
        np.testing.assert_array_equal(block["audio"][0], sound[start : start + PIECE])
        starts.append(start)
    assert len(set(starts)) == 6
    among = load(dataset, train_view(), "word", "nasa", wanted=EVERYTHING, epoch=[0, 2])
    assert round(among["audio_times"][1, 0] * SAMPLE_RATE) == starts[2]


def test_every_test_view_hears_its_own_piece(dataset):
    view = TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)
    block = load(dataset, view, "nasa", wanted=EVERYTHING)
    sound = sound_of(NASA)
    starts = [(len(sound) - PIECE) * (3 * chunk + crop + 3) // 12 for chunk in range(2) for crop in range(3)]
    np.testing.assert_array_equal(block["audio"], [[sound[start : start + PIECE] for start in starts]])
    assert block["audio_columns"].tolist() == [[100] * 6]
    np.testing.assert_allclose(block["audio_times"][0, :, 0], np.array(starts) / SAMPLE_RATE, rtol=1e-6)


def test_a_window_of_a_clip_has_the_sound_of_that_window_and_times_that_start_with_it(dataset):
    wanted = dataclasses.replace(EVERYTHING, sound_columns=50)
    block = load(dataset, CentreView(sampling=UNIFORM), "word", wanted=wanted)
    second = sound_of(NASA)[3 * SAMPLE_RATE : 4 * SAMPLE_RATE]
    first = (SAMPLE_RATE - samples_for(50)) // 2
    np.testing.assert_array_equal(block["audio"], [second[first:-first]])
    np.testing.assert_allclose(block["audio_times"], [[first / SAMPLE_RATE, 1 - first / SAMPLE_RATE]], rtol=1e-6)
    np.testing.assert_allclose(block["video_times"].mean(), 0.5, atol=0.05)


def test_short_sound_is_padded_with_zeros_and_its_columns_are_counted(dataset):
    wanted = dataclasses.replace(EVERYTHING, sound_columns=400)
    block = load(dataset, CentreView(sampling=UNIFORM), "word", wanted=wanted)
    assert block["audio"].shape == (1, samples_for(400))
    assert block["audio_columns"].tolist() == [(SAMPLE_RATE - 400) // 160 + 1]
    assert not block["audio"][0, SAMPLE_RATE:].any()
    np.testing.assert_allclose(block["audio_times"], [[0.0, samples_for(400) / SAMPLE_RATE]])


def test_a_clip_without_sound_is_valid_and_has_no_columns(dataset):
    block = load(dataset, CentreView(sampling=UNIFORM), "arm", "nasa", wanted=EVERYTHING)
    assert block["valid"].tolist() == [True, True]
    assert block["reason"].tolist() == ["", ""]
    assert block["audio_columns"].tolist() == [0, 100]
    assert not block["audio"][0].any()
    assert load(dataset, CentreView(sampling=UNIFORM), "arm", wanted=SOUND_ALONE)["valid"].all()


def test_a_clip_with_broken_sound_is_used_without_it_and_says_so(dataset):
    block = load(dataset, CentreView(sampling=UNIFORM), "noise", "nasa", wanted=EVERYTHING)
    assert block["valid"].tolist() == [True, True]
    assert block["reason"][0].startswith("used without its sound: ")
    assert block["audio_columns"].tolist() == [0, 100]
    assert block["frames"][0].any()
    assert list(broken_sounds(block)) == ["noise"]
    assert unreadable_clips(block | {"clip": np.array([0, 1])}) == {}


def test_a_clip_with_broken_sound_is_unreadable_where_sound_is_all_there_is(dataset):
    block = load(dataset, CentreView(sampling=UNIFORM), "noise", "nasa", wanted=SOUND_ALONE)
    assert block["valid"].tolist() == [False, True]
    assert not block["reason"][0].startswith("used")


@pytest.mark.parametrize(
    "view", [CentreView(sampling=UNIFORM), TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)]
)
def test_an_unreadable_clip_has_blanks_of_every_kind(dataset, view):
    block = load(dataset, view, "broken", "nasa", wanted=EVERYTHING)
    assert block["valid"].tolist() == [False, True]
    for name in MEDIA_COLUMNS:
        assert not block[name][0].any()
        assert block[name][1].any()


def test_time_steps_are_those_of_their_frames(dataset):
    fps = 28
    (times,) = load(dataset, CentreView(sampling=UNIFORM), "arm", wanted=EVERYTHING)["video_times"]
    np.testing.assert_allclose(times * fps, [[35, 106], [175, 246]], rtol=1e-6)  # frames 35, 105 and 175, 245
    view = TestViews(sampling=UNIFORM, temporal_views=2, spatial_crops=3)
    (times,) = load(dataset, view, "arm", wanted=EVERYTHING)["video_times"]
    assert times.dtype == np.float32
    np.testing.assert_allclose(times[:3] * fps, [[[0, 71], [140, 211]]] * 3, rtol=1e-6)
    np.testing.assert_allclose(times[3:] * fps, [[[35, 106], [175, 246]]] * 3, rtol=1e-6)
    by_frame = dataclasses.replace(EVERYTHING, frames_per_step=1)
    (times,) = load(dataset, CentreView(sampling=DENSE), "arm", wanted=by_frame)["video_times"]
    np.testing.assert_allclose(times * fps, [[124 + 8 * i, 125 + 8 * i] for i in range(4)], rtol=1e-6)


def test_a_network_says_what_it_wants():
    clip, ast = CLIP(), AST()
    clock = ExchangeSpec(
        directions=(Direction(source=AUDIO, target="spatial", window="space_time"),), positions="clock"
    )
    audio, video = AudioInput(frames=300), VideoInput(frames_per_step=4)
    specs = [
        NetworkSpec(experts={"spatial": clip, TEMPORAL: clip}),
        NetworkSpec(experts={AUDIO: ast}, audio=audio),
        NetworkSpec(experts={AUDIO: ast, "spatial": clip}, audio=audio),
        NetworkSpec(experts={AUDIO: ast, "spatial": clip}, exchanges=(clock,), audio=audio, video=video),
    ]
    assert [wanted_by(spec) for spec in specs] == [
        VIDEO_ALONE,
        Wanted(frames=False, sound_columns=300),
        Wanted(frames=True, sound_columns=300),
        Wanted(frames=True, frames_per_step=4, sound_columns=300, sound_times=True),
    ]


def test_repetitions_of_a_clip_are_other_views_of_one_decoding(dataset, monkeypatch):
    read = []
    monkeypatch.setattr(loader, "read_media", lambda *place: read.append(place[2]) or read_media(*place))
    alone = [load(dataset, train_view(), "arm", epoch=[1], view=[view])["frames"][0] for view in (0, 1)]
    other = load(dataset, train_view(), "tall", epoch=[1])["frames"][0]
    read.clear()
    block = load(dataset, train_view(), "arm", "arm", "tall", epoch=[1] * 3, view=[0, 1, 0])
    np.testing.assert_array_equal(block["frames"], [*alone, other])
    assert len(read) == 2
    assert not np.array_equal(*alone)


@pytest.fixture(scope="module", params=["short-gop", "jpeg"])
def converted(request: pytest.FixtureRequest, dataset: ShardedDataset, tmp_path_factory, sharded) -> ShardedDataset:
    """Some of the same clips, stored in another way."""
    index = dataset.index.to_pylist()
    clips = [
        Clip(
            clip_id=row["clip_id"],
            uri=row["uri"],
            labels=tuple(row["labels"]),
            split=TRAIN,
            start_s=row["source_start_s"],
            stop_s=row["source_stop_s"],
        )
        for row in index
        if row["clip_id"] in ("arm", "broken", "tall", "window", "word", "noise")
    ]
    manifest = Manifest(clips=tuple(clips), label_map=dataset.label_map)
    media_format = MediaFormat(video=request.param, sound="16khz")
    return sharded(manifest, tmp_path_factory.mktemp(request.param), media_format)


@pytest.mark.parametrize("view", [CentreView(sampling=UNIFORM), train_view(sampling=DENSE)], ids=["centre", "train"])
def test_a_view_is_the_same_however_its_clip_is_stored(dataset, converted, view):
    names = ("arm", "window", "tall")
    stored = load(converted, view, *names, epoch=[2] * 3)["frames"].astype(float)
    original = load(dataset, view, *names, epoch=[2] * 3)["frames"].astype(float)
    error = ((stored - original) ** 2).mean((1, 2, 3, 4))
    assert (10 * np.log10(255**2 / error) > [30, 30, 25]).all()  # "tall" is larger than what is stored


def test_sound_of_its_own_is_that_of_the_video(dataset, converted):
    view, wanted = CentreView(sampling=UNIFORM), Wanted(frames=True, sound_columns=100)
    stored, original = (load(each, view, "word", "noise", "arm", wanted=wanted) for each in (converted, dataset))
    assert stored["audio_columns"].tolist() == original["audio_columns"].tolist()
    assert stored["audio_columns"][0] > 90
    np.testing.assert_allclose(stored["audio"], original["audio"], atol=2)
    assert stored["reason"][1].startswith("used without its sound: ")
    assert stored["valid"].all()


def test_a_quarantined_clip_is_not_read_and_keeps_its_reason(dataset, converted, monkeypatch):
    block = load(converted, train_view(), "arm", "broken", epoch=[0, 0])
    assert block["valid"].tolist() == [True, False]
    row = converted.index.filter(pc.equal(converted.index["clip_id"], "broken")).to_pylist()[0]
    assert block["reason"][1] == row["reason"] != ""
    monkeypatch.setattr(loader, "read_media", lambda *place: pytest.fail("it was read"))
    load(converted, train_view(), "broken", epoch=[0])
