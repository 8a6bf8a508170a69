"""Whole clips and segments in every format: what is stored, what is known of it, and why it is not."""

from __future__ import annotations

import io
import re
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.fs as pafs
import pytest

from cast_ray.data import ingest, media, recording
from cast_ray.data.decode import UnreadableVideo, frame_window, open_video
from cast_ray.data.decoders.jpeg import open_jpegs
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.ingest import stored_clips
from cast_ray.data.loader import ClipLoader, Wanted
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.shards import write_index, write_shard
from cast_ray.data.sound import read_sound
from cast_ray.data.transcode import decoded, shrunk
from cast_ray.data.views import Sampling, TrainView
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

CLIPS = Path(__file__).parents[1] / "clips"
ARM, PANCAKE, NASA = "arm_wrestling_k400.mp4", "flipping_pancake_k400.mkv", "nasa_with_audio.mp4"
ROTATED, UNORDERED, CORRUPTED = "rotated_90.mov", "unordered_timestamps.mov", "corrupted.mp4"
FORMATS = {
    "original": MediaFormat(),
    "verified": MediaFormat(verify=True),
    "original, sound apart": MediaFormat(sound="16khz"),
    "short-gop": MediaFormat(video="short-gop", sound="16khz", short_side=128, crf=10),
    "jpeg": MediaFormat(video="jpeg", sound="none", short_side=64, quality=95),
    "some frames": MediaFormat(video="jpeg", sound="16khz", short_side=64, quality=95, frame_rate=4.0),
}
FACTS = {  # frames, per second, width, height, sound
    ARM: (280, 28.0, 340, 256, ""),
    PANCAKE: (310, 30.0, 426, 240, "opus"),
    NASA: (390, 30000 / 1001, 480, 270, "aac"),
    ROTATED: (3, 30.0, 320, 568, ""),
    UNORDERED: (4, 32.0, 50, 50, ""),
}
SHRUNK = {  # by short side
    ARM: {128: (170, 128), 64: (84, 64)},
    PANCAKE: {128: (228, 128), 64: (114, 64)},
    NASA: {128: (228, 128), 64: (114, 64)},
    ROTATED: {128: (128, 228), 64: (64, 114)},
    UNORDERED: {128: (50, 50), 64: (50, 50)},
}


@pytest.fixture
def resized(tmp_path):
    """20 frames of 160x120 and 20 of 320x240 in one stream."""
    stream = b""
    for size in ((160, 120), (320, 240)):
        target = io.BytesIO()
        with av.open(target, "w", format="h264") as container:
            video = container.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height = size
            for index in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 10 * index, np.uint8), format="rgb24")
                frame.pts = index
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        stream += target.getvalue()
    path = tmp_path / "resized.ts"
    with av.open(io.BytesIO(stream), format="h264") as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for index, packet in enumerate(packets):
            packet.stream, packet.time_base = video, Fraction(1, 90_000)
            packet.pts = packet.dts = 3600 * index
            container.mux(packet)
    return path


def stored_one(path, media_format):
    (result,) = stored_clips([clip_of(path)], media_format)
    return result


def clip_of(uri, start_s=None, stop_s=None):
    return Clip(clip_id="clip", uri=str(uri), labels=(0,), split=TRAIN, start_s=start_s, stop_s=stop_s)


def stored(name, media_format, start_s=None, stop_s=None):
    clip = clip_of(CLIPS / name, start_s, stop_s)
    (result,) = stored_clips([clip], media_format)
    assert result.clip == clip
    return result


def opened(result):
    if result.media.frames is not None:
        return open_jpegs(result.media.frames, num_frames=result.facts.num_frames, fps=result.facts.fps)
    return open_video(result.media.video)


def source_frames(name, indices, short_side):
    listing = list_packets((CLIPS / name).read_bytes())
    frames = enumerate(decoded(listing, 0, max(indices) + 1))
    found = {index: shrunk(frame, short_side) for index, frame in frames if index in indices}
    return np.stack([found[index] for index in indices])


def psnr(frames, expected):
    assert frames.shape == expected.shape
    return 10 * np.log10(255**2 / max(np.mean((frames.astype(float) - expected) ** 2), 1e-9))


def assert_as_the_source(name, media_format, result, first):
    """Frame i of what is stored is the source's frame `first` + i, or the nearest earlier one that is kept."""
    video, count = opened(result), result.facts.num_frames
    begin, length = frame_window(video, result.start_s, result.stop_s)
    assert length == count
    indices = np.unique(np.linspace(0, count - 1, 9).round().astype(int)).tolist()
    kept = count if result.media.frames is None else len(result.media.frames)
    from_source = [first + -(-(index * kept // count) * count // kept) for index in indices]
    short_side = 10_000 if media_format.video == "original" else media_format.short_side
    expected = source_frames(name, from_source, short_side)
    frames = video.frames([begin + index for index in indices])
    for frame, right in zip(frames, expected, strict=True):
        assert psnr(frame, right) > (90 if media_format.video == "original" else 33)


@pytest.mark.parametrize("choice", FORMATS)
@pytest.mark.parametrize("name", FACTS)
def test_real_clips_in_every_format_are_as_the_source(name, choice):
    media_format, result = FORMATS[choice], stored(name, FORMATS[choice])
    count, fps, width, height, sound = FACTS[name]
    facts = result.facts
    assert result.reason == ""
    assert (result.start_s, result.stop_s) == (None, None)
    assert (facts.num_frames, facts.fps) == (count, pytest.approx(fps))
    assert facts.source == f"h264 {width}x{height}"
    if media_format.video == "original":
        assert result.media.video == (CLIPS / name).read_bytes()
        assert (facts.video_codec, facts.width, facts.height) == ("h264", width, height)
    else:
        codec = {"short-gop": "h264", "jpeg": "jpeg"}[media_format.video]
        assert facts.video_codec == codec
        assert (facts.width, facts.height) == SHRUNK[name][media_format.short_side]
    expected = {"original": sound, "16khz": "flac" if sound else "", "none": ""}[media_format.sound]
    assert facts.sound_codec == expected
    assert (result.media.sound is not None) == (expected == "flac")
    if expected == "flac":
        np.testing.assert_array_equal(read_sound(result.media.sound), read_sound((CLIPS / name).read_bytes()))
    assert_as_the_source(name, media_format, result, 0)


@pytest.mark.parametrize("choice", FORMATS)
@pytest.mark.parametrize(("name", "start_s", "stop_s"), [(ARM, 2.0, 3.5), (PANCAKE, 5.5, 7.0), (NASA, 6.0, None)])
def test_segments_in_every_format_are_that_part_of_the_source(name, start_s, stop_s, choice):
    media_format, result = FORMATS[choice], stored(name, FORMATS[choice], start_s, stop_s)
    data = (CLIPS / name).read_bytes()
    first, count = frame_window(open_video(data), start_s, stop_s)
    assert result.reason == ""
    assert (result.facts.num_frames, result.facts.fps) == (count, FACTS[name][1])
    assert_as_the_source(name, media_format, result, first)
    if media_format.sound == "16khz" and FACTS[name][4]:
        sound, expected = read_sound(result.media.sound), read_sound(data, start_s, stop_s)
        assert abs(len(sound) - len(expected)) < 200  # Opus in Matroska states where it ends, to some milliseconds
        if name == NASA:
            np.testing.assert_array_equal(sound, expected)
    if result.media.video is not None and media_format.sound != "original":
        assert read_sound(result.media.video) is None


def test_some_frames_are_kept_evenly():
    result = stored(ARM, MediaFormat(video="jpeg", sound="none", frame_rate=7.0, short_side=32))
    assert len(result.media.frames) == 70  # 280 frames at 28 per second
    assert len(stored(UNORDERED, MediaFormat(video="jpeg", sound="none", frame_rate=999.0)).media.frames) == 4
    assert len(stored(UNORDERED, MediaFormat(video="jpeg", sound="none", frame_rate=0.01)).media.frames) == 1


def test_damage_is_found_where_frames_are_decoded():
    for choice, media_format in FORMATS.items():
        result = stored(CORRUPTED, media_format)
        found = choice not in ("original", "original, sound apart")
        assert result.quarantined == found
        if found:
            assert result.media.size == 0
            assert 5 < len(result.reason) <= 160


@pytest.fixture
def flipped(tmp_path):
    """A real clip with 200 wrong bytes."""
    data = bytearray((CLIPS / ARM).read_bytes())
    for place in np.random.default_rng(0).integers(len(data) // 4, len(data) * 3 // 4, 200):
        data[place] ^= 255
    (tmp_path / "flipped.mp4").write_bytes(data)
    return tmp_path / "flipped.mp4"


@pytest.mark.parametrize("choice", [name for name, each in FORMATS.items() if each.verify or each.video != "original"])
def test_a_video_with_damaged_frames_is_quarantined_with_their_number(choice, flipped):
    with av.open(str(flipped)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        damaged = sum(frame.is_corrupt for frame in container.decode(video=0))
    assert damaged > 60
    (result,) = stored_clips([clip_of(flipped)], FORMATS[choice])
    assert result.reason == f"{damaged} of 280 frames are damaged"
    assert result.media.size == 0


def test_only_damage_inside_a_segment_counts(flipped):
    media_format = MediaFormat(video="jpeg", sound="none", short_side=32)
    before, inside = stored_clips([clip_of(flipped, 0.0, 1.0), clip_of(flipped, 4.0, 6.0)], media_format)
    assert before.facts.num_frames == 28
    assert re.fullmatch(r"\d\d? of 56 frames are damaged", inside.reason)


def test_a_file_that_no_shard_can_hold_is_not_even_read(tmp_path):
    path = tmp_path / "huge.mp4"
    shutil.copy(CLIPS / ARM, path)
    with path.open("r+b") as file:
        file.truncate(2_200_000_000)  # holes, which take no space
    huge, next_one = stored_clips([clip_of(path), clip_of(CLIPS / ARM)], MediaFormat(video="jpeg", sound="none"))
    assert huge.reason == "file has 2,200,000,000 bytes, a clip may have 2,146,435,072"
    assert not next_one.quarantined


@pytest.mark.parametrize(
    ("media_format", "start_s", "what"),
    [
        (MediaFormat(), 0.5, "segment"),
        (MediaFormat(video="short-gop", sound="none", crf=0), None, "video"),
        (MediaFormat(video="jpeg", sound="none", quality=100), None, "the sum of its JPEG frames"),
        (MediaFormat(video="jpeg", sound="16khz", quality=1, short_side=16, frame_rate=0.1), None, "sound"),
    ],
)
def test_no_part_of_a_clip_is_larger_than_a_shard_can_hold(media_format, start_s, what, monkeypatch):
    limit = 100_000 if what == "sound" else 1_000_000 if start_s is None else 200_000
    monkeypatch.setattr(media, "LARGEST", limit)
    # The size of the source is no matter here.
    monkeypatch.setattr(recording, "check_size", lambda what, size: None)
    result = stored(NASA, media_format, start_s)
    assert re.fullmatch(rf"{what} has [\d,]+ bytes, a clip may have {limit:,}", result.reason)


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """5 s at 30 frames per second, 20 s at 5, 5 s at 30: 13.3 on average; and a tone that begins at second 24."""
    path = tmp_path_factory.mktemp("varying") / "vfr.mp4"
    seconds = np.cumsum([0, *[1 / 30] * 150, *[1 / 5] * 100, *[1 / 30] * 149])
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"bf": "2", "g": "30"})
        track = container.add_stream("aac", rate=16_000, layout="mono")
        video.width, video.height, video.codec_context.time_base = 64, 48, Fraction(1, 90_000)
        for index, second in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(second * 90_000), Fraction(1, 90_000)
            container.mux(video.encode(frame))
        for second in range(30):
            wave = 8000 * (second >= 24) * np.sin(np.arange(16_000) / 5)
            piece = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            piece.sample_rate, piece.pts = 16_000, second * 16_000
            container.mux(track.encode(piece))
        container.mux([*video.encode(None), *track.encode(None)])
    return path


VARYING = {(None, 2.0): 30.0, (6.0, 8.0): 5.0, (23.0, 27.0): 70 / 4, (26.0, 28.0): 30.0, (28.0, None): 30.0}
"""Segments and their own frame rates."""


@pytest.mark.parametrize("choice", ["original", "original, sound apart", "short-gop", "jpeg", "some frames"])
@pytest.mark.parametrize("part", VARYING)
def test_segments_of_varying_rate_have_their_own_rate_in_every_format(part, choice, varying):
    (result,) = stored_clips([clip_of(varying, *part)], FORMATS[choice])
    facts = result.facts
    assert facts.fps == pytest.approx(VARYING[part], rel=0.03)
    seconds = min(part[1] or 30.0, 30.0) - (part[0] or 0.0)
    assert facts.num_frames / facts.fps == pytest.approx(seconds, abs=0.2)
    if choice == "short-gop":
        assert open_video(result.media.video).fps == pytest.approx(facts.fps)
    if choice == "some frames":
        assert len(result.media.frames) == pytest.approx(min(4.0, facts.fps) * seconds, abs=1)


def test_times_of_a_segment_of_varying_rate_are_the_same_in_every_format(varying, tmp_path):
    sampling = Sampling(kind="uniform", num_frames=8, stride=4, size=32)
    view = TrainView(sampling=sampling, seed=0, crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.33))
    clips = (clip_of(varying, 23.0, 27.0),)
    times = []
    for choice in ("original", "short-gop", "jpeg"):
        media_format, root = FORMATS[choice], str(tmp_path / choice)
        shard = write_shard(root, "train/shard-00000.parquet", stored_clips(clips, media_format))
        manifest = Manifest(clips=clips, label_map=LabelMap({"label": ("a",)}))
        index = write_index(root, manifest, media_format, [shard]).index
        wanted = Wanted(frames=True, frames_per_step=2)
        loaded = ClipLoader(root=root, stored=media_format, view=view, columns=(), wanted=wanted)(index)
        assert loaded["reason"].tolist() == [""]
        times.append(loaded["video_times"][0])
    np.testing.assert_array_equal(times[1], times[0])
    np.testing.assert_array_equal(times[2], times[0])
    assert 2.5 < times[0].max() <= 4.2


def test_sound_of_a_segment_is_that_of_its_seconds_where_the_rate_varies(varying):
    (result,) = stored_clips([clip_of(varying, 23.0, 27.0)], MediaFormat(video="jpeg", sound="16khz"))
    sound = np.abs(read_sound(result.media.sound).astype(int))
    assert len(sound) == 4 * 16_000
    assert np.argmax(sound > 2000) / 16_000 == pytest.approx(1.0, abs=0.02)


def test_a_segment_between_two_frames_names_the_next_one(varying):
    (result,) = stored_clips([clip_of(varying, 10.05, 10.1)], MediaFormat())
    assert result.reason == "no frame between 10.05 s and 10.1 s: the next one is at 10.20 s"


def test_a_changing_size_is_found_by_verification_and_stored_as_the_first_one(resized):
    assert stored_one(resized, MediaFormat()).facts is not None
    verified = stored_one(resized, MediaFormat(verify=True))
    assert verified.reason == "frames differ in size: 160x120, 320x240"
    for video in ("short-gop", "jpeg"):
        result = stored_one(resized, MediaFormat(video=video, sound="none"))
        assert (result.facts.width, result.facts.height) == (160, 120)
        assert opened(result).frames([0, 10, 39]).shape == (3, 120, 160, 3)


def test_files_that_are_no_video_are_quarantined_with_the_reason(tmp_path):
    web_page, empty = tmp_path / "page.mp4", tmp_path / "empty.mp4"
    web_page.write_text("<html>404</html>" * 100)
    empty.write_bytes(b"")
    clips = [
        clip_of(web_page),
        clip_of(web_page, 1.0, 2.0),
        clip_of(empty),
        clip_of(empty, 1.0, 2.0),
        clip_of(CLIPS / ARM),
    ]
    for media_format in FORMATS.values():
        *broken, last = stored_clips(clips, media_format)
        assert [each.quarantined for each in broken] == [True] * 4
        assert [each.media.size for each in broken] == [0] * 4
        assert all("Invalid data" in each.reason or "empty" in each.reason for each in broken)
        assert not last.quarantined


@pytest.mark.parametrize("choice", FORMATS)
def test_a_segment_beyond_the_end_is_quarantined_and_the_next_one_is_not(choice):
    clips = [clip_of(CLIPS / ARM, 20.0, 21.0), clip_of(CLIPS / ARM, 9.5, 99.0)]
    beyond, last = stored_clips(clips, FORMATS[choice])
    assert beyond.reason == "no frame between 20.0 s and 21.0 s: the video ends at 10.00 s"
    assert last.facts.num_frames == 14


def test_broken_sound_leaves_a_clip_without_sound_and_says_so(monkeypatch):
    def broken(*_, **__):
        raise ingest.UnreadableSound("track is damaged")

    monkeypatch.setattr(ingest, "read_sound", broken)
    result = stored(NASA, MediaFormat(video="jpeg", sound="16khz", short_side=32, frame_rate=1.0))
    assert result.reason == "used without its sound: track is damaged"
    assert not result.quarantined
    assert (result.media.sound, result.facts.sound_codec) == (None, "")


@pytest.mark.parametrize("sound", ["16khz", "original"])
def test_a_segment_after_the_end_of_the_sound_has_none(sound, tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        video, track = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=16_000, layout="mono")
        video.width = video.height = 64
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index, np.uint8), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        piece = av.AudioFrame.from_ndarray(np.ones((1, 16_000), np.int16), format="s16", layout="mono")
        piece.sample_rate = 16_000
        container.mux([*track.encode(piece), *track.encode(None), *video.encode(None)])
    before, after = stored_clips([clip_of(path, 0.5, 1.5), clip_of(path, 4.0, 5.0)], MediaFormat(sound=sound))
    assert before.facts.sound_codec == {"16khz": "flac", "original": "aac"}[sound]
    assert (after.facts.num_frames, after.facts.sound_codec, after.reason) == (10, "", "")


def test_a_clip_that_does_not_come_to_an_end_is_given_up_and_the_next_one_is_not(monkeypatch):
    release, calls, encode = threading.Event(), [], ingest.short_gop

    def stuck_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            release.wait(30)
        return encode(*arguments)

    monkeypatch.setattr(ingest, "short_gop", stuck_once)
    media_format = MediaFormat(video="short-gop", sound="none", time_limit_s=3.0, short_side=32)
    clips = [clip_of(CLIPS / ARM, 1.0, 1.2), clip_of(CLIPS / ARM, 2.0, 2.2)]
    stuck, after = stored_clips(clips, media_format)
    release.set()
    assert stuck.reason == "decoding did not finish within 3 s"
    assert after.facts.num_frames == 6


@pytest.mark.parametrize("part", [(None, None), (0.0, 300.0)])
def test_a_long_clip_has_the_time_limit_for_each_of_its_minutes(part, tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "3000"})
        video.width = video.height = 16
        frame = av.VideoFrame(16, 16, "yuv420p")
        for index in range(9000):
            frame.pts, frame.pict_type = index, 0
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    limits, guard = [], ingest.guarded
    monkeypatch.setattr(ingest, "guarded", lambda work, limit_s: (limits.append(limit_s), guard(work, limit_s))[1])
    media_format = MediaFormat(time_limit_s=7.0)
    (long,) = stored_clips([clip_of(path, *part)], media_format)
    assert long.facts.num_frames == 9000
    assert limits[-1] == 5 * 7.0
    stored(ARM, media_format)
    assert limits[-1] == 7.0


def test_files_that_cannot_be_read_stop_the_preparation(tmp_path):
    for clip in (clip_of(tmp_path / "gone.mp4"), clip_of(tmp_path / "gone.mp4", 1.0, 2.0)):
        with pytest.raises(UserError, match=r"gone\.mp4"):
            list(stored_clips([clip], MediaFormat()))


class FailingStorage:
    """A local file system whose files can be read `reads` times."""

    def __init__(self, reads):
        self.left = reads

    def open_input_file(self, path):
        self._file = pafs.LocalFileSystem().open_input_file(path)
        return self

    def size(self):
        return self._file.size()

    def read_at(self, size, offset):
        self.left -= 1
        if self.left < 0:
            raise PermissionError("the bucket is closed")
        return self._file.read_at(size, offset)


@pytest.mark.parametrize("reads", [0, 1, 2, 3])
def test_a_storage_that_fails_in_the_middle_is_no_fault_of_the_clip(monkeypatch, reads):
    monkeypatch.setattr(recording, "CHUNK", 2**15)
    monkeypatch.setattr(recording, "filesystem", lambda uri: (FailingStorage(reads), uri))
    with pytest.raises(UserError, match="the bucket is closed"):
        stored(ARM, MediaFormat(), 5.0, 9.0)


def test_short_faults_of_the_storage_are_waited_for(monkeypatch):
    reads = []

    class Flaky(FailingStorage):
        def read_at(self, size, offset):
            reads.append(size)
            if len(reads) == 2:
                raise OSError("connection reset")
            return self._file.read_at(size, offset)

    monkeypatch.setattr(recording, "filesystem", lambda uri: (Flaky(0), uri))
    assert stored(ARM, MediaFormat(), 5.0, 6.0).facts.num_frames == 28


def test_segments_of_a_long_recording_are_read_without_the_rest(tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "25", "crf": "20"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        pictures = [noise.integers(0, 255, (180, 160), np.uint8) for _ in range(16)]
        for index in range(2500):
            frame = av.VideoFrame.from_ndarray(pictures[index % 16], format="yuv420p")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    opened, reads, read = [], [], recording._File.read
    begin = recording._File.__init__

    def counted(self, size):
        reads.append(len(data := read(self, size)))
        return data

    monkeypatch.setattr(recording._File, "read", counted)
    monkeypatch.setattr(recording._File, "__init__", lambda self, uri: (opened.append(uri), begin(self, uri))[1])
    clips = [clip_of(path, second, second + 1.0) for second in (70.0, 20.0, 99.0)]
    assert [each.facts.num_frames for each in stored_clips(clips, MediaFormat())] == [25, 25, 25]
    assert len(opened) == 1
    assert path.stat().st_size > 2e7
    assert sum(reads) < 0.12 * path.stat().st_size


def test_whole_clips_and_segments_of_one_file_share_its_bytes(tmp_path, monkeypatch):
    shutil.copy(CLIPS / ARM, tmp_path / "a.mp4")
    reads, read = [], recording.Recording._read_whole
    monkeypatch.setattr(recording.Recording, "_read_whole", lambda self: (reads.append(self.uri), read(self))[1])
    clips = [clip_of(tmp_path / "a.mp4"), clip_of(tmp_path / "a.mp4", 1.0, 2.0), clip_of(tmp_path / "a.mp4")]
    results = stored_clips(clips, MediaFormat())
    assert next(results).facts.num_frames == 280
    (tmp_path / "a.mp4").unlink()
    assert [each.facts.num_frames for each in results] == [28, 280]
    assert len(reads) == 1


def test_clips_come_one_at_a_time(tmp_path):
    results = stored_clips([clip_of(CLIPS / UNORDERED), clip_of(tmp_path / "gone.mp4")], MediaFormat())
    assert not next(results).quarantined
    with pytest.raises(UserError):
        next(results)


@pytest.mark.parametrize("size", [(16, 16), (24, 32), (48, 32), (72, 96), (50, 50), (34, 18)])
def test_small_stored_frames_can_be_read(size, tmp_path):
    path = tmp_path / "small.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height = size
        for index in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 20 * index, np.uint8), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    (result,) = stored_clips([clip_of(path)], MediaFormat(video="short-gop", sound="none"))
    frames = open_video(result.media.video).frames(range(9))
    assert frames.shape == (9, size[1], size[0], 3)
    assert np.abs(frames.mean((1, 2, 3)) - 20 * np.arange(9)).max() < 4


def test_a_verdict_of_the_decoder_is_the_reason(monkeypatch):
    def refuse(*_):
        raise UnreadableVideo("frames differ in size")

    monkeypatch.setattr(ingest, "jpegs", refuse)
    assert stored(ARM, MediaFormat(video="jpeg", sound="none")).reason == "frames differ in size"
