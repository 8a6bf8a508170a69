"""The figures of a dataset, against counts made by hand and by a slow literal count."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from cast_ray.data.inspection.summary import summarise
from cast_ray.data.inspection.warnings import warnings_about
from cast_ray.data.media import WITHOUT_SOUND, Media
from cast_ray.labels import NOUN, VERB, LabelMap

NAMES = LabelMap({VERB: ("take", "put", "wash"), NOUN: ("cup", "pan")})


@pytest.fixture(scope="module")
def summary(tmp_path_factory, stored, written):
    """Eight clips that can be used and three that cannot."""
    clips = [
        stored("a", (0, 0), media=Media(video=b"x" * 100), num_frames=25),
        stored("b", (0, 1), media=Media(video=b"x" * 200, sound=b"x" * 50), num_frames=50),
        stored("c", (0, 1), media=Media(video=b"x" * 50), num_frames=100, fps=50.0, sound_codec=""),
        stored("d", (1, 1), media=Media(video=b"x" * 100), num_frames=75, width=1080, height=1920),
        stored("e", (1, 0), media=Media(video=b"x" * 100), num_frames=5, fps=0.0, window=(2.0, 2.5)),
        stored("f", (0, 0), media=Media(video=b"x" * 100), num_frames=5, fps=0.0, video_codec="hevc"),
        stored("g", (0, 0), reason=f"{WITHOUT_SOUND}bad packet", sound_codec="", media=Media(video=b"x" * 100)),
        stored("late", (0, 0), window=(60.0, 61.0), reason="no frame between 60.0 s and 61.0 s"),
        stored("later", (0, 0), window=(70.0, 71.0), reason="no frame between 70.0 s and 71.0 s"),
        stored("empty", (2, 1), "validation", reason="file is empty"),
        stored("v", (1, 1), "validation", media=Media(video=b"x" * 400), num_frames=250, source="hevc 640x480"),
    ]
    return summarise(written(tmp_path_factory.mktemp("data"), clips, NAMES))


def test_splits_count_clips_seconds_and_bytes_of_what_can_be_used(summary):
    train, validation = summary.splits["train"], summary.splits["validation"]
    assert list(summary.splits) == ["train", "validation"]
    assert (train.clips, train.quarantined, train.without_sound) == (9, 2, 2)
    assert train.hours * 3600 == pytest.approx(1 + 2 + 2 + 3 + 0.5 + 0 + 2)  # that of f is unknown
    assert (train.bytes, train.bytes_per_clip) == (800, 800 / 7)
    assert (validation.clips, validation.quarantined, validation.bytes, validation.without_sound) == (2, 1, 400, 0)
    assert validation.hours * 3600 == pytest.approx(10)


def test_classes_count_usable_clips_by_split_and_name_those_without(summary):
    verbs = {each.name: each.clips for each in summary.classes[VERB]}
    assert verbs == {
        "take": {"train": 5, "validation": 0},
        "put": {"train": 2, "validation": 1},
        "wash": {"train": 0, "validation": 0},
    }
    nouns = {each.name: (each.index, *each.clips.values()) for each in summary.classes[NOUN]}
    assert nouns == {"cup": (0, 4, 0), "pan": (1, 3, 1)}


def test_spreads_leave_out_what_is_not_known(summary):
    seconds = summary.duration_s
    known = [1, 2, 2, 3, 0.5, 2, 10]
    assert (seconds.unknown, seconds.minimum, seconds.maximum, seconds.median) == (1, 0.5, 10, 2)
    assert seconds.mean == pytest.approx(np.mean(known))
    assert (seconds.percentile_5, seconds.percentile_95) == pytest.approx(tuple(np.percentile(known, [5, 95])))
    assert sum(seconds.histogram) == len(known)
    assert (seconds.histogram[0], seconds.histogram[-1]) == (2, 1)  # bins of 9.5 / 12 s
    assert (summary.fps.unknown, summary.fps.minimum, summary.fps.maximum) == (2, 25, 50)
    assert (summary.num_frames.unknown, summary.num_frames.minimum, summary.num_frames.maximum) == (0, 5, 250)


def test_formats_are_tallied_the_most_frequent_first(summary):
    assert list(summary.sizes.items()) == [("340x256", 7), ("1080x1920", 1)]
    assert list(summary.frame_rates.items()) == [("25.00", 5), ("unknown", 2), ("50.00", 1)]
    assert summary.video_codecs == {"h264": 7, "hevc": 1}
    assert summary.sound_codecs == {"aac": 6, "none": 2}
    assert summary.sources == {"h264 1920x1080": 7, "hevc 640x480": 1}


def test_reasons_that_differ_in_numbers_alone_are_counted_together_and_every_clip_keeps_its_own(summary):
    assert list(summary.quarantined.reasons.items()) == [("no frame between # s and # s", 2), ("file is empty", 1)]
    reasons = {clip["clip_id"]: (clip["split"], clip["reason"]) for clip in summary.quarantined.clips}
    assert reasons == {
        "late": ("train", "no frame between 60.0 s and 61.0 s"),
        "later": ("train", "no frame between 70.0 s and 71.0 s"),
        "empty": ("validation", "file is empty"),
    }


def test_broken_sound_is_told_apart_from_clips_that_cannot_be_used(summary):
    assert summary.broken_sound.reasons == {f"{WITHOUT_SOUND}bad packet": 1}
    assert [clip["clip_id"] for clip in summary.broken_sound.clips] == ["g"]


def test_all_of_it_goes_through_json(summary):
    read = json.loads(json.dumps(summary.to_dict()))
    assert read["splits"]["train"]["bytes"] == 800
    assert read["classes"][VERB][1] == {"index": 1, "name": "put", "clips": {"train": 2, "validation": 1}}
    assert read["format"]["video"] == "original"
    assert read["overlaps"] == []


def test_warnings_name_what_is_lacking(summary):
    assert warnings_about(summary) == [
        "1 of 3 classes of verb have no training clip: 'wash'",
        "1 of 3 classes of verb have training clips, none in validation: 'take'",
        "1 of 2 classes of noun have training clips, none in validation: 'cup'",
        "2 clips have no known frame rate: their seconds are not counted, and a model that needs the times of frames "
        "cannot use them",
    ]


def test_a_dataset_without_faults_has_no_warnings(tmp_path, stored, written):
    clips = [stored(f"{split}{label}", (label, 0), split) for split in ("train", "validation") for label in range(3)]
    names = LabelMap({VERB: ("take", "put", "wash"), NOUN: ("cup",)})
    assert warnings_about(summarise(written(tmp_path, clips, names))) == []


def test_splits_that_cannot_serve_are_warned_of(tmp_path, stored, written):
    names = LabelMap({"label": tuple("abcdefghijkl")})
    clips = [stored("one", (0,), reason="file is empty"), stored("two", (3,), "validation")]
    unusable, lacking = warnings_about(summarise(written(tmp_path / "one", clips, names)))
    assert unusable == "split 'train' has no clip that can be used: all 1 are quarantined"
    # Those with validation clips come first, of the others only some are named.
    assert lacking.startswith(
        "12 of 12 classes of label have no training clip, 1 of them have clips in validation: 'd', 'a', 'b', 'c', 'e'"
    )
    assert lacking.endswith("'h' and 4 more (--all-classes shows them)")
    (alone,) = warnings_about(summarise(written(tmp_path / "two", clips[1:], names)))
    assert alone == "there is no split 'train', so nothing can be trained; there is validation"


def test_many_clips_are_counted_as_by_hand(tmp_path, stored, written):
    rng = np.random.default_rng(0)
    clips = [
        stored(f"{i}", rng.integers(0, (3, 2)), ("train", "validation")[rng.integers(2)], num_frames=int(i + 1))
        for i in range(80)
    ]
    found = summarise(written(tmp_path, clips, NAMES))
    for place, (field, names) in enumerate(NAMES.names.items()):
        expected = Counter((each.clip.split, names[each.clip.labels[place]]) for each in clips)
        counted = {(split, each.name): count for each in found.classes[field] for split, count in each.clips.items()}
        assert {key: count for key, count in counted.items() if count} == expected
    assert sum(split.hours for split in found.splits.values()) * 3600 == pytest.approx(sum(range(1, 81)) / 25)
