from __future__ import annotations

from dataclasses import fields

import pytest

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.manifest import TRAIN, Clip
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip, check_size
from cast_ray.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"video": "jpeg"}, "sound 'original' does not go with video 'jpeg'; use 16khz or none"),
        ({"video": "short-gop"}, "sound 'original' does not go with video 'short-gop'"),
        ({"frame_rate": 8.0}, "frame-rate 8.0 goes with video 'jpeg' only"),
        ({"video": "jpeg", "sound": "none", "frame_rate": 0.0}, "frame-rate is 0.0; give a number above 0"),
        ({"short_side": 8}, "short-side is 8; give 16 to 8192"),
        ({"gop": 0}, "gop is 0; give 1 to 1000"),
        ({"crf": 52}, "crf is 52; give 0 to 51"),
        ({"quality": 101}, "quality is 101; give 1 to 100"),
        ({"time_limit_s": -1.0}, "time-limit-s is -1.0"),
        ({"time_limit_s": float("nan")}, "time-limit-s is nan"),
    ],
)
def test_choices_that_contradict_are_refused_with_what_to_do(wrong, message):
    with pytest.raises(UserError, match=message):
        MediaFormat(**wrong)


def test_time_limit_and_verification_do_not_decide_about_what_is_stored():
    one, other = MediaFormat(time_limit_s=5.0, verify=True), MediaFormat()
    assert one.stored == other.stored
    assert one.stored != MediaFormat(sound="none").stored
    assert set(other.stored) == {field.name for field in fields(MediaFormat)} - {"time_limit_s", "verify"}


def test_sizes_that_parquet_cannot_hold_are_a_verdict():
    check_size("file", 2**31 - 2**20)
    with pytest.raises(UnreadableVideo, match=r"file has 2,200,000,000 bytes, a clip may have 2,146,435,072"):
        check_size("file", 2_200_000_000)


def test_the_size_counts_video_frames_and_sound():
    assert Media().size == 0
    assert Media(video=b"12345", sound=b"123").size == 8
    assert Media(frames=(b"12", b"123"), sound=b"1").size == 6


def test_a_clip_without_facts_is_quarantined():
    clip = Clip(clip_id="a", uri="a.mp4", labels=(0,), split=TRAIN)
    facts = Facts(num_frames=1, fps=1.0, width=2, height=2, video_codec="h264", sound_codec="", source="h264 2x2")
    assert StoredClip(clip=clip, reason="broken").quarantined
    assert not StoredClip(clip=clip, facts=facts, reason="used without its sound: broken").quarantined
