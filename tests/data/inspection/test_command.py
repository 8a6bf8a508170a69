"""`cast-ray inspect`: what it prints and writes, where it looks, and how it answers mistakes."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cast_ray.data.decoders.jpeg import encode_jpeg
from cast_ray.data.inspection.command import main
from cast_ray.data.media import WITHOUT_SOUND, Media, MediaFormat
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

NAMES = LabelMap({VERB: ("[put] it", "take"), NOUN: tuple(f"noun {number}" for number in range(40))})
FRAMES = tuple(encode_jpeg(np.full((24, 32, 3), level, np.uint8), 90) for level in (0, 250))
JPEG = MediaFormat(video="jpeg", sound="none")


@pytest.fixture(scope="module")
def clips(stored):
    """Noun n has n clips; eleven clips more are quarantined, and one has broken sound."""
    media, clips = Media(frames=FRAMES), []
    for noun in range(40):
        clips += [stored(f"{noun}-{copy}", (copy % 2, noun), media=media, width=32, height=24) for copy in range(noun)]
    clips += [stored(f"bad-{number}", (0, 0), reason=f"no frame after {number}.5 s") for number in range(11)]
    clips += [stored("deaf", (0, 1), media=media, sound_codec="", reason=f"{WITHOUT_SOUND}bad packet")]
    return [*clips, stored("v", (1, 2), "validation", uri="/videos/3-1.mp4", media=media, source="hevc 64x48")]


@pytest.fixture(scope="module")
def root(tmp_path_factory, clips, written):
    return Path(written(tmp_path_factory.mktemp("shown") / "dataset", clips, NAMES, JPEG).uri)


@pytest.fixture
def own_root(root, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "own"))


@pytest.fixture
def printed(capsys, monkeypatch):
    """What the command prints on stdout, in a terminal of 80 columns unless told."""

    def printed(*arguments: object, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return printed


def cells(text: str, first: str) -> list[str]:
    """The words after the first cell of the row that begins with it."""
    (line,) = (line for line in text.splitlines() if line.startswith(f" {first} "))
    return line.strip().removeprefix(first).split()


def test_the_tables_say_what_the_json_says(root, printed):
    text, data = printed(root, "--all-classes", "--quarantine"), json.loads(printed(root, "--json"))
    assert f"dataset      {root}" in text
    assert "fingerprint  0123456789abcdef" in text
    assert data["fingerprint"] == "0123456789abcdef"
    for name, split in data["splits"].items():
        usable = split["clips"] - split["quarantined"]
        assert cells(text, name)[:3] == [str(split["clips"]), str(usable), str(split["without_sound"])]
    assert data["splits"]["train"]["clips"] == 780 + 11 + 1
    for entries in data["classes"].values():
        for entry in entries:
            row = cells(text, entry["name"])
            assert row[:3] == [str(entry["index"]), str(entry["clips"]["train"]), str(entry["clips"]["validation"])]
    assert cells(text, "seconds")[:6] == ["2"] * 6
    assert data["duration_s"]["median"] == 2
    assert "sound codec  aac (781, 99.9%), none (1, 0.1%)" in text
    assert data["sound_codecs"] == {"aac": 781, "none": 1}
    for clip in [*data["quarantined"]["clips"], *data["broken_sound"]["clips"]]:
        assert f"  {clip['split']}  {clip['clip_id']}  {clip['uri']}: {clip['reason']}\n" in text
    assert "11  no frame after # s\n" in text
    assert len(data["warnings"]) == 4
    for warning in data["warnings"]:
        assert f"warning: {warning}\n" in text


def test_a_file_that_two_splits_show_is_warned_of(root, printed):
    data = json.loads(printed(root, "--json"))
    assert {overlap["clip_id"] for overlap in data["overlaps"]} == {"3-1", "v"}
    assert data["warnings"][-1].startswith("splits share content: 1 of ")


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(root, printed, columns):
    lines = printed(root, columns=columns).splitlines()
    tables = [line for line in lines if not line.startswith(("warning:", "  train  ", "dataset "))]
    assert max(map(len, tables)) <= columns


def test_of_many_classes_and_clips_the_ends_are_shown_unless_all_are_asked_for(root, printed):
    text = printed(root)
    shown = re.findall(r"^ noun (\d+) ", text, re.MULTILINE)
    assert shown == [*map(str, range(39, 29, -1)), *map(str, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0])]
    assert "... 20 more ..." in text
    assert "... 1 more (--quarantine shows them)" in text
    assert "  train  bad-9  " in text
    assert "  train  bad-10  " not in text
    every = printed(root, "--all-classes", "--quarantine")
    assert len(re.findall(r"^ noun \d+ ", every, re.MULTILINE)) == 40
    assert "more" not in re.sub("warning: .*", "", every)


def test_imbalance_stands_above_the_classes(root, printed):
    text = printed(root)
    assert "noun: 39 of 40 classes in train, 2 to 39 clips each (1:20), median 20" in text


def test_nothing_is_written_unless_a_sheet_is_asked_for(root, printed, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    printed(root)
    assert list((tmp_path / "here").iterdir()) == []
    assert len(list(root.rglob("*"))) == 6
    picture = Path("new/sheet.png")
    data = json.loads(printed(root, "--json", "--contact-sheet", picture, "--clips", 3, "--split", "train"))
    assert data["splits"]["train"]["clips"] == 792
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG"
        assert np.asarray(sheet)[41 + 72, 272 + 96].max() <= 2  # the middle of the first frame, which is black


def test_the_sheet_is_the_same_for_the_same_seed_and_another_for_another(root, printed, tmp_path):
    files = []
    for number, seed in enumerate((1, 1, 2)):
        files.append(tmp_path / f"{number}.png")
        printed(root, "--contact-sheet", files[-1], "--clips", 2, "--frames", 2, "--seed", seed)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


def test_the_storage_of_runs_is_searched_for_its_dataset(tmp_path, clips, written, printed):
    written(tmp_path / "shards/aa", clips[-2:], NAMES, JPEG)
    assert f"dataset      {tmp_path}/shards/aa" in printed(tmp_path, columns=200)
    assert f"dataset      {tmp_path}/shards/aa" in printed(f"{tmp_path}/shards/", columns=200)
    written(tmp_path / "shards/bb", clips[-2:], NAMES, JPEG)
    (tmp_path / "shards/cc").mkdir()
    (tmp_path / "shards/cc/preparation.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        main([str(tmp_path)])
    assert str(caught.value) == (
        f"'{tmp_path}' holds 3 datasets; give one of them: {tmp_path}/shards/aa, {tmp_path}/shards/bb, "
        f"{tmp_path}/shards/cc (not complete)"
    )


def test_a_preparation_that_did_not_end_is_told_with_its_shards(own_root):
    (own_root / "dataset.json").unlink()
    (own_root / "preparation.json").write_text("{}")
    (own_root / "train/shard-00001.parquet.123.part").write_bytes(b"half")
    with pytest.raises(UserError, match=r"is not complete: 2 shards are written, dataset\.json is not; run the same"):
        main([str(own_root)])


def test_damage_is_told_by_name(own_root):
    shard = own_root / "train/shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"1 of 2 shards .* train/shard-00000\.parquet is \d+ bytes long"):
        main([str(own_root)])


@pytest.mark.parametrize("place", ["nowhere", "dataset/dataset.json", "dataset/train"])
def test_a_place_without_a_dataset_is_answered_with_what_to_give(root, place):
    with pytest.raises(UserError, match=r"no complete prepared dataset at .*; give the folder or URI that"):
        main([str(root.parent / place)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "take"), "choose the clips of a contact sheet; add --contact-sheet"),
        (("--split", "train"), "choose the clips of a contact sheet; add --contact-sheet"),
        (("--contact-sheet", "sheet.jpg"), r"--contact-sheet is 'sheet.jpg'; give a file that ends in .png"),
        (("--clips", "0"), "--clips is 0; give 1 to 200"),
        (("--frames", "17"), "--frames is 17; give 1 to 16"),
        (("--contact-sheet", "sheet.png", "--split", "test"), "--split is 'test'"),
        (("--contact-sheet", "/proc/no/sheet.png"), "cannot write to storage '/proc/no'"),
    ],
)
def test_mistakes_are_refused_and_write_nothing(root, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=message):
        main([str(root), *arguments])
    assert list((tmp_path / "here").iterdir()) == []


def test_a_dataset_on_s3_is_shown_and_its_sheet_written_there(clips, written, printed, monkeypatch):
    import boto3
    import pyarrow.fs as pafs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in {**settings, "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": host}.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="clips")
        written("s3://clips/runs/shards/aa", clips[-2:], NAMES, JPEG)
        text = printed("s3://clips/runs", "--contact-sheet", "s3://clips/sheets/one.png")
        assert "dataset      s3://clips/runs/shards/aa" in text
        storage, path = pafs.FileSystem.from_uri("s3://clips/sheets/one.png")
        with storage.open_input_stream(path) as source, Image.open(io.BytesIO(source.read())) as sheet:
            assert sheet.width == 1460
    finally:
        server.stop()
