"""Folders of parts: whole files, one evaluation each, on disk and S3; what does not belong there is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from cast_ray.data.storage import filesystem
from cast_ray.errors import UserError
from cast_ray.evaluation import part_files
from cast_ray.evaluation.part_files import check_parts, open_folder, read_unreadable, remove_partial, write_part
from cast_ray.evaluation.part_tables import AllProbabilities, BestClasses
from cast_ray.evaluation.parts import PartPlan
from cast_ray.evaluation.predictions import read_predictions
from cast_ray.labels import LabelMap

LABELS = LabelMap({"verb": ("take", "put", "open"), "noun": ("cup", "door")})
MARK = {"checkpoint": "abc", "temporal_views": 2, "clips": 3, "clips_per_part": 2}
UNREADABLE = pa.table({"clip_id": ["broken"], "reason": ["file is empty"]})


def rows(*clip_ids: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    count = len(clip_ids)
    columns = {
        "clip_id": np.array(clip_ids, dtype=object),
        "labels": np.zeros((count, 2), np.int64),
        "num_views": np.full(count, 6, np.int32),
        "uri": np.array([f"/videos/{name}" for name in clip_ids], dtype=object),
        "start_s": np.array([1.5] + [np.nan] * (count - 1)),
        "stop_s": np.full(count, np.nan),
    }
    for field, classes in LABELS.num_classes.items():
        views = random.dirichlet(np.ones(classes), (count, 6)).astype(np.float32)
        columns |= {f"view_probabilities_{field}": views, f"probabilities_{field}": views.mean(1)}
    return columns


ALL = AllProbabilities(label_map=LABELS, checkpoint="abc", views=True)


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path) -> str:
    return str(tmp_path / "out") if request.param == "disk" else f"{request.getfixturevalue('s3_bucket')}/out"


def test_parts_are_one_dataset_of_predictions_and_what_is_finished_is_known(folder):
    assert open_folder(folder, MARK) == frozenset()
    write_part(folder, "part-000001.parquet", ALL.table(rows("c")), UNREADABLE.slice(0, 0))
    assert "part-000001.parquet" in open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    predictions = read_predictions(folder, views=True)
    assert predictions.clip_ids == ("a", "b", "c")
    np.testing.assert_array_equal(predictions.probabilities["verb"][:2], rows("a", "b")["probabilities_verb"])
    np.testing.assert_array_equal(
        predictions.view_probabilities["noun"][:12].reshape(2, 6, 2), rows("a", "b")["view_probabilities_noun"]
    )
    assert read_unreadable(folder) == [("broken", "file is empty")]


def test_an_evaluation_that_is_not_complete_is_not_read_as_if_it_were(tmp_path):
    open_folder(str(tmp_path / "out"), MARK)
    write_part(str(tmp_path / "out"), "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    with pytest.raises(UserError, match="not complete: 1 of 2 parts"):
        read_predictions(tmp_path / "out")


def test_a_part_without_a_single_readable_clip_is_a_part(tmp_path):
    folder = str(tmp_path / "out")
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE.slice(0, 0))
    nothing = {name: values[:0] for name, values in rows("c").items()}
    write_part(folder, "part-000001.parquet", ALL.table(nothing), UNREADABLE)
    assert read_predictions(folder).clip_ids == ("a", "b")


def test_another_evaluation_is_refused_with_what_differs(folder):
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    with pytest.raises(UserError, match="checkpoint abc instead of def, temporal_views 2 instead of 5") as raised:
        open_folder(folder, MARK | {"checkpoint": "def", "temporal_views": 5})
    assert "clips " not in str(raised.value)
    assert "part-000000.parquet" in open_folder(folder, MARK)


def test_a_run_replaces_the_predictions_of_an_earlier_checkpoint(folder):
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    assert open_folder(folder, MARK | {"checkpoint": "def"}, replace=True) == frozenset()
    assert read_unreadable(folder) == []
    storage, path = filesystem(folder)
    with storage.open_input_file(f"{path}/evaluation.json") as file:
        assert json.loads(file.read())["checkpoint"] == "def"


def test_a_single_file_of_predictions_is_replaced_only_if_asked(tmp_path):
    place = tmp_path / "predictions.parquet"
    pq.write_table(ALL.table(rows("a")), place)
    with pytest.raises(UserError, match="is a file; predictions are a folder of parts"):
        open_folder(str(place), MARK)
    assert read_predictions(place).clip_ids == ("a",)
    open_folder(str(place), MARK, replace=True)
    assert (place / "evaluation.json").is_file()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    for replace in (False, True):
        with pytest.raises(UserError, match=r"is not empty and has no evaluation\.json"):
            open_folder(str(tmp_path), MARK, replace=replace)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_leaves_is_no_part_and_is_removed(tmp_path):
    folder = str(tmp_path / "out")
    open_folder(folder, MARK)
    (tmp_path / "out" / "part-000000.parquet.0123.part").write_bytes(b"half")
    assert open_folder(folder, MARK) == {"evaluation.json"}
    remove_partial(folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]


def test_a_list_of_unreadable_clips_is_there_before_its_part(tmp_path):
    """Else a kill between the two would lose it: a part that is there is not made again."""
    folder = str(tmp_path / "out")
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    files = [tmp_path / "out" / "_unreadable" / "part-000000.parquet", tmp_path / "out" / "part-000000.parquet"]
    written = [file.stat().st_mtime_ns for file in files]
    assert written[0] < written[1]


def test_a_list_without_its_part_means_nothing(folder):
    """A kill came between the two; the clips are tried again."""
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    storage, path = filesystem(folder)
    storage.delete_file(f"{path}/part-000000.parquet")
    assert read_unreadable(folder) == []
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "broken")), UNREADABLE.slice(0, 0))
    assert read_unreadable(folder) == []
    assert not [info for info in storage.get_file_info(pafs.FileSelector(f"{path}/_unreadable")) if info.is_file]


def test_the_parts_in_the_folder_are_compared_with_those_that_must_be_there(folder):
    names = PartPlan(clips=3, clips_per_part=2).names
    open_folder(folder, MARK)
    write_part(folder, names[0], ALL.table(rows("a", "b")), UNREADABLE)
    with pytest.raises(UserError, match=r"1 of 2 parts are not in .* the first is part-000001\.parquet"):
        check_parts(folder, names)
    write_part(folder, names[1], ALL.table(rows("c")), UNREADABLE.slice(0, 0))
    check_parts(folder, names)


def test_a_kill_while_old_predictions_are_removed_leaves_an_evaluation_that_can_be_replaced(tmp_path, monkeypatch):
    """Without its mark, what is left would belong to nobody, and every later start would be refused."""
    folder = str(tmp_path / "out")
    open_folder(folder, MARK)
    for name, clips in (("part-000000.parquet", "ab"), ("part-000001.parquet", "c")):
        write_part(folder, name, ALL.table(rows(*clips)), UNREADABLE)
    storage, _ = filesystem(folder)

    class Killed:
        """A file system that can remove as many files as given."""

        def __init__(self, left: int) -> None:
            self.left = left

        def __getattr__(self, name: str):
            if name.startswith("delete"):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            return getattr(storage, name)

    with monkeypatch.context() as patched:
        for removed in (0, 1, 1):
            patched.setattr(part_files, "filesystem", lambda place, left=removed: (Killed(left), place))
            with pytest.raises(KeyboardInterrupt):
                open_folder(folder, MARK | {"checkpoint": "def"}, replace=True)
            assert (tmp_path / "out" / "evaluation.json").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("part")] == []
    assert open_folder(folder, MARK | {"checkpoint": "def"}, replace=True) == frozenset()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"evaluation\.json of .* is damaged"),
        ("[1]", r"evaluation\.json of .* is damaged"),
        ('{"accuracy": 0.9}', "no evaluation wrote it"),
        ('{"clips": 3, "clips_per_part": 0}', "no evaluation wrote it"),
    ],
)
def test_a_mark_that_is_none_is_refused_with_the_reason(tmp_path, text, said):
    pq.write_table(ALL.table(rows("a", "b", "c")), tmp_path / "predictions.of.mine.parquet")
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_predictions(tmp_path)


def test_only_the_parts_of_an_evaluation_make_it_complete(tmp_path):
    folder = str(tmp_path / "out")
    open_folder(folder, MARK)
    write_part(folder, "part-000000.parquet", ALL.table(rows("a", "b")), UNREADABLE)
    pq.write_table(ALL.table(rows("c")), tmp_path / "out" / "other.parquet")
    with pytest.raises(UserError, match="not complete: 1 of 2 parts"):
        read_predictions(folder)
    write_part(folder, "part-000001.parquet", ALL.table(rows("d")), UNREADABLE.slice(0, 0))
    assert read_predictions(folder).clip_ids == ("a", "b", "d")


def test_the_best_classes_come_with_names_and_the_lower_index_wins_a_tie():
    columns = rows("a", "b")
    columns["probabilities_verb"] = np.array([[0.25, 0.5, 0.25], [0.4, 0.2, 0.4]], np.float32)
    table = BestClasses(label_map=LABELS, checkpoint="abc", top=2).table(columns)
    best = [[(row["class"], row["name"], row["probability"]) for row in rows] for rows in table["top_verb"].to_pylist()]
    assert best == [
        [(1, "put", 0.5), (0, "take", 0.25)],
        [(0, "take", np.float32(0.4)), (2, "open", np.float32(0.4))],
    ]
    assert table["uri"].to_pylist() == ["/videos/a", "/videos/b"]
    assert table["start_s"].to_pylist() == [1.5, None]


def test_more_best_classes_than_there_are_mean_all():
    table = BestClasses(label_map=LABELS, checkpoint="abc", top=50).table(rows("a"))
    assert [len(table[f"top_{field}"][0]) for field in LABELS.fields] == [3, 2]
