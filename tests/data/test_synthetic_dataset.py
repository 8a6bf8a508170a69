"""The embedded dataset on disk: known layouts, playable files with sound, balance, the same bytes per seed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from cast_ray.data.catalog import read_ek100, read_ssv2, read_table
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.data.synthetic import NOUNS, SOUNDS, VERBS, write_dataset
from cast_ray.data.synthetic.classes import balanced_labels
from cast_ray.data.synthetic.dataset import EK100_COLUMNS, UNREADABLE_SIZES
from cast_ray.data.synthetic.encode import encode_mp4
from cast_ray.data.synthetic.scene import draw_scene, render
from cast_ray.data.synthetic.sound import SAMPLE_RATE, draw_sound
from cast_ray.errors import UserError

COMBINATIONS = len(VERBS) * len(NOUNS) * len(SOUNDS)
READERS = {"ssv2": read_ssv2, "ek100": read_ek100, "table": read_table}
FIELDS = {
    "ssv2": {"label": VERBS},
    "ek100": {"verb": VERBS, "noun": NOUNS},
    "table": {"verb": VERBS, "noun": NOUNS, "sound": SOUNDS},
}
SMALL = {"train_clips": 20, "validation_clips": 7, "size": 32, "num_frames": 6}


@pytest.fixture(scope="module", params=READERS)
def dataset(request, tmp_path_factory):
    """(layout, dataset): one small dataset in each layout."""
    return request.param, write_dataset(tmp_path_factory.mktemp(request.param), layout=request.param, **SMALL)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def clip(verb: int = 0, noun: int = 0, sound: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Rendered frames, drawn sound, and the file made of both."""
    rng = np.random.default_rng(seed)
    frames = render(draw_scene(rng, verb=verb, noun=noun, num_frames=16, size=40))
    wave = draw_sound(rng, sound, 16 / 12)
    return frames, wave, encode_mp4(frames, frames_per_second=12, sound=wave)


def heard(data: bytes) -> np.ndarray:
    """The sound track of a file in -1..1."""
    with av.open(io.BytesIO(data)) as container:
        return np.concatenate([packet.to_ndarray()[0] for packet in container.decode(audio=0)])


@pytest.mark.parametrize("layout", READERS)
def test_the_same_seed_gives_the_same_bytes_however_many_processes_write_them(layout, tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        write_dataset(tmp_path / name, layout=layout, seed=5, workers=workers, **SMALL)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_another_seed_gives_other_clips(tmp_path):
    for seed in (0, 1):
        write_dataset(tmp_path / str(seed), layout="ssv2", seed=seed, **SMALL)
    videos = [digests(tmp_path / str(seed) / "videos") for seed in (0, 1)]
    assert not set(videos[0].values()) & set(videos[1].values())
    assert len(set(videos[0].values())) == len(videos[0])


def test_encoding_reads_no_memory_that_it_never_wrote():
    """x264's look-ahead does so on frames this small, and the bytes then depend on what the allocator hands out."""
    script = (
        "import hashlib, sys; from cast_ray.data.synthetic.dataset import ClipSpec, encode_clip;"
        "from cast_ray.data.synthetic.classes import balanced_labels;"
        "specs = [ClipSpec(clip_id='', split='train', index=i, labels=balanced_labels(i), seed=0, size=40,"
        " num_frames=16, frames_per_second=12) for i in range(12)];"
        "print(hashlib.sha256(b''.join(map(encode_clip, specs))).hexdigest())"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"MALLOC_PERTURB_": fill},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for fill in ("0", "85", "170")
    }
    assert len(results) == 1


def test_the_annotations_are_read_back_as_written(dataset):
    layout, where = dataset
    manifest = READERS[layout](where.videos, where.annotations)
    assert [len(manifest.split(split)) for split in (TRAIN, VALIDATION)] == [20, 7]
    names = FIELDS[layout]
    found = manifest.label_map.names
    if layout == "ssv2":  # has templates instead of the verbs' names
        assert manifest.label_map.num_classes == {"label": len(VERBS)}
    elif layout == "ek100":
        assert found == names
    else:  # knows the classes that occur
        assert all(set(found[field]) <= set(names[field]) for field in names)
    assert manifest.label_map.fields == tuple(names)
    for split, count in ((TRAIN, 20), (VALIDATION, 7)):
        written = [(label.verb, label.noun, label.sound)[: len(names)] for label in map(balanced_labels, range(count))]
        expected = Counter(
            label
            if layout == "ssv2"
            else tuple(found[field].index(names[field][index]) for field, index in zip(names, label, strict=True))
            for label in written
        )
        assert Counter(clip.labels for clip in manifest.split(split)) == expected


def test_the_table_says_what_is_in_the_files(tmp_path):
    where = write_dataset(tmp_path, layout="table", **SMALL)
    with (where.annotations / "sounds.csv").open(newline="") as file:
        sounds = {f"{row['clip_id']}.mp4": row["sound"] for row in csv.DictReader(file)}
    rows = []
    for split in (TRAIN, VALIDATION):
        with (where.annotations / f"{split}.csv").open(newline="") as file:
            rows += list(csv.DictReader(file))
    assert list(rows[0]) == ["clip", "verb", "noun", "sound"]
    assert {row["clip"]: row["sound"] for row in rows} == sounds
    assert all((where.videos / row["clip"]).is_file() for row in rows)


def test_ssv2_annotations_have_the_official_form(tmp_path):
    where = write_dataset(tmp_path, layout="ssv2", **SMALL)
    labels = json.loads((where.annotations / "labels.json").read_text())
    assert list(labels.values()) == [str(index) for index in range(len(VERBS))]
    assert labels["Moving something to the left"] == str(VERBS.index("move-left"))
    for entry in json.loads((where.annotations / "train.json").read_text()):
        assert list(entry) == ["id", "label", "template", "placeholders"]
        assert entry["template"].replace("[", "").replace("]", "") in labels
        (thing,) = entry["placeholders"]
        assert entry["label"].lower() == entry["template"].lower().replace("[something]", thing)


def test_ek100_annotations_have_the_official_form(tmp_path):
    where = write_dataset(tmp_path, layout="ek100", **SMALL | {"train_clips": 60})
    with (where.annotations / "EPIC_100_train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == EK100_COLUMNS
    for row in rows:
        assert row["narration_id"].rpartition("_")[0] == row["video_id"]
        assert row["video_id"].startswith(row["participant_id"] + "_")
        assert VERBS[int(row["verb_class"])] == row["verb"]
        assert NOUNS[int(row["noun_class"])] == row["noun"]
        assert int(row["stop_frame"]) - int(row["start_frame"]) + 1 == SMALL["num_frames"]
        assert row["start_timestamp"] < row["stop_timestamp"]
    spans = {(row["video_id"], row["start_frame"]) for row in rows}
    assert len(spans) == len(rows)


def test_the_sound_of_every_clip_is_written_beside_the_labels(dataset):
    _, where = dataset
    with (where.annotations / "sounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["clip_id"] for row in rows} == {path.stem for path in where.videos.iterdir()}
    assert all(SOUNDS[int(row["sound_class"])] == row["sound"] for row in rows)


@pytest.mark.parametrize("start", [0, 37])
def test_verb_noun_and_sound_are_independent_and_balanced(start):
    labels = [balanced_labels(position) for position in range(start, start + COMBINATIONS)]
    counts = Counter((label.verb, label.noun, label.sound) for label in labels)
    assert counts == Counter(product(range(len(VERBS)), range(len(NOUNS)), range(len(SOUNDS))))


@pytest.mark.parametrize("count", [48, 100, 500])
def test_few_clips_are_balanced_too(count):
    labels = [balanced_labels(position) for position in range(count)]
    for field, names in (("verb", VERBS), ("noun", NOUNS), ("sound", SOUNDS)):
        of_class = Counter(getattr(label, field) for label in labels)
        assert len(of_class) == len(names)
        assert max(of_class.values()) - min(of_class.values()) <= len(VERBS)


def test_clips_of_a_class_do_not_lie_together(tmp_path):
    """A reader of the first clips alone must not see one noun only."""
    where = write_dataset(tmp_path, layout="ek100", **SMALL | {"train_clips": 144, "num_frames": 2})
    nouns = [clip.labels[1] for clip in read_ek100(where.videos, where.annotations).split(TRAIN)]
    assert len(set(nouns[: len(VERBS) * 4])) == len(NOUNS)


def test_decord_reads_the_frames_that_were_rendered():
    frames, _, data = clip(seed=3)
    video = decord.VideoReader(io.BytesIO(data), num_threads=1)
    assert len(video) == len(frames)
    assert video.get_avg_fps() == pytest.approx(12)
    read = video.get_batch(range(len(frames))).asnumpy().astype(int)
    error = np.abs(read - frames).mean(axis=(1, 2, 3))
    assert error.max() < 8  # grey levels lost to compression and to colour at half the resolution
    assert error.max() < np.abs(frames[1:].astype(int) - frames[:-1]).mean()


def test_colours_survive_the_conversion():
    """Flat frames lose nothing to compression, so a wrong matrix or range would show."""
    for colour in ((200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0)):
        frames = np.full((4, 32, 32, 3), colour, np.uint8)
        data = encode_mp4(frames, frames_per_second=12, sound=np.zeros(4000, np.int16))
        read = decord.VideoReader(io.BytesIO(data), num_threads=1)[2].asnumpy()
        assert np.abs(read.astype(int) - colour).max() <= 4


def test_files_hold_h264_and_sound_as_long_as_the_frames():
    _, wave, data = clip(seed=4)
    with av.open(io.BytesIO(data)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264"
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", SAMPLE_RATE, 1)
    sound = heard(data)
    assert len(sound) / SAMPLE_RATE == pytest.approx(16 / 12, abs=0.15)
    shortest = min(len(sound), len(wave))
    assert np.abs(sound[:shortest]).mean() == pytest.approx(np.abs(wave[:shortest] / 32768).mean(), rel=0.3)


def test_sounds_are_told_apart_from_the_track_alone():
    def features(sound: int, seed: int) -> np.ndarray:
        track = heard(clip(sound=sound, seed=seed)[2])
        power = np.abs(np.fft.rfft(track[: len(track) // 512 * 512].reshape(-1, 512))) ** 2
        bands = np.log(power[:, 1:].reshape(len(power), 16, 16).mean(axis=-1) + 1e-6)
        level = bands.mean(axis=1)
        peak = power.argmax(axis=1)
        return np.concatenate(
            [
                bands.std(axis=0),
                [
                    level.std(),
                    np.diff(level).std(),
                    np.corrcoef(peak, np.arange(len(peak)) + 0.0)[0, 1] if peak.std() else 0.0,
                ],
            ]
        )

    labels = np.arange(160) % len(SOUNDS)
    found = np.array([features(int(sound), seed) for seed, sound in enumerate(labels)])
    model = RandomForestClassifier(100, random_state=0).fit(found[:100], labels[:100])
    assert model.score(found[100:], labels[100:]) > 0.8


def test_the_refused_sizes_are_those_that_decord_cannot_read():
    unreadable = []
    for size in range(20, 129, 4):
        data = encode_mp4(np.zeros((2, size, size, 3), np.uint8), frames_per_second=12, sound=np.zeros(2000, np.int16))
        try:
            decord.VideoReader(io.BytesIO(data), num_threads=1).get_batch([0])
        except decord.DECORDError:
            unreadable.append(size)
    assert tuple(unreadable) == UNREADABLE_SIZES


def has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        assert container.streams.video
        return bool(container.streams.audio)


@pytest.mark.parametrize(("share", "silent"), [(0.0, [0, 0]), (0.25, [5, 2]), (1.0, [20, 7])])
def test_a_share_of_the_clips_has_no_sound_track(tmp_path, share, silent):
    where = write_dataset(tmp_path, layout="table", silent_share=share, **SMALL)
    for split, count in zip((TRAIN, VALIDATION), silent, strict=True):
        assert sum(not has_sound(path) for path in where.videos.glob(f"{split}-*")) == count


def test_silence_changes_nothing_else(tmp_path):
    """The same frames in every file, the same bytes where there is sound, the same labels."""
    for name, share in (("loud", 0.0), ("mixed", 0.3)):
        write_dataset(tmp_path / name, layout="table", silent_share=share, **SMALL)
    loud, mixed = digests(tmp_path / "loud"), digests(tmp_path / "mixed")
    different = {name for name in loud if loud[name] != mixed[name]}
    silent = {
        str(path.relative_to(tmp_path / "mixed"))
        for path in (tmp_path / "mixed" / "videos").iterdir()
        if not has_sound(path)
    }
    assert different == silent
    name = min(silent)
    frames = [
        decord.VideoReader(str(tmp_path / kind / name)).get_batch(range(6)).asnumpy() for kind in ("loud", "mixed")
    ]
    np.testing.assert_array_equal(*frames)


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    write_dataset(tmp_path, layout="ssv2", progress=lambda done, total: seen.append((done, total)), **SMALL)
    assert seen == [(done, 27) for done in range(1, 28)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": "k400"}, "layout 'k400' is unknown; use one of ['ssv2', 'ek100', 'table']"),
        ({"silent_share": 1.5}, "silent_share is 1.5; it must be a share between 0 and 1"),
        ({"train_clips": 0}, "train_clips is 0"),
        ({"validation_clips": -1}, "validation_clips is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"num_frames": 1}, "num_frames is 1"),
        ({"size": 34}, "size is 34"),
        ({"size": 16}, "size is 16"),
        ({"size": 48}, "which decord cannot read"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, change, said):
    with pytest.raises(UserError) as caught:
        write_dataset(tmp_path / "new", **({"layout": "ssv2"} | SMALL | change))
    assert said in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_complete_dataset_is_not_overwritten(tmp_path):
    write_dataset(tmp_path, layout="ssv2", **SMALL)
    before = digests(tmp_path)
    with pytest.raises(UserError, match="already holds a dataset"):
        write_dataset(tmp_path, layout="ek100", **SMALL)
    assert digests(tmp_path) == before
