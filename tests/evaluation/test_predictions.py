from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import CHECKPOINT_KEY, LABEL_MAP_KEY, read_predictions, write_predictions
from cast_ray.labels import LabelMap


@pytest.fixture
def predictions(make_predictions, verb_noun_names):
    return make_predictions(verb_noun_names, clips=20)


@pytest.fixture
def written(tmp_path, predictions):
    return write_predictions(tmp_path / "out" / "predictions.parquet", predictions)


def rows(predictions, chosen, **changes):
    return dataclasses.replace(
        predictions,
        clip_ids=tuple(predictions.clip_ids[row] for row in chosen),
        labels=predictions.labels[chosen],
        probabilities={field: values[chosen] for field, values in predictions.probabilities.items()},
        num_views=predictions.num_views[chosen],
        **changes,
    )


def assert_equal(actual, expected):
    assert actual.clip_ids == expected.clip_ids
    assert actual.label_map == expected.label_map
    assert actual.checkpoint == expected.checkpoint
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.num_views, expected.num_views)
    for field, values in expected.probabilities.items():
        assert actual.probabilities[field].dtype == np.float32
        np.testing.assert_array_equal(actual.probabilities[field], values)


def test_what_is_written_is_read_back_and_nothing_else_is_left(written, predictions):
    assert_equal(read_predictions(written), predictions)
    assert [file.name for file in written.parent.iterdir()] == ["predictions.parquet"]


def test_the_files_of_a_folder_are_one_dataset(tmp_path, predictions):
    write_predictions(tmp_path / "b.parquet", rows(predictions, np.arange(8, 20)))
    write_predictions(tmp_path / "a.parquet", rows(predictions, np.arange(8)))
    assert_equal(read_predictions(tmp_path), predictions)


def test_the_schema_is_the_documented_one(written, predictions):
    schema = pq.read_schema(written)
    assert schema.names == ["clip_id", "labels", "probabilities_verb", "probabilities_noun", "num_views"]
    assert schema.field("labels").type == pa.list_(pa.int32())
    assert schema.field("probabilities_noun").type == pa.list_(pa.float32())
    assert schema.field("num_views").type == pa.int32()
    assert LabelMap.from_json(schema.metadata[LABEL_MAP_KEY].decode()) == predictions.label_map
    assert schema.metadata[CHECKPOINT_KEY] == b"0123456789abcdef"


def test_files_of_other_programs_with_wider_types_are_read(tmp_path):
    columns = {
        "num_views": [1, 2],
        "extra": ["x", "y"],
        "probabilities_label": pa.array([[0.25, 0.75], [0.5, 0.5]], pa.list_(pa.float64(), 2)),
        "labels": pa.array([[1], [0]], pa.large_list(pa.int64())),
        "clip_id": pa.array(["a", "b"], pa.large_string()),
    }
    table = pa.table(columns).replace_schema_metadata({LABEL_MAP_KEY: b'{"label": ["no", "yes"]}'})
    pq.write_table(table, tmp_path / "other.parquet")
    read = read_predictions(tmp_path / "other.parquet")
    assert read.labels.tolist() == [[1], [0]]
    assert read.probabilities["label"].tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert read.num_views.tolist() == [1, 2]
    assert read.checkpoint == ""


def test_a_clip_that_occurs_in_two_files_is_refused(tmp_path, predictions):
    write_predictions(tmp_path / "a.parquet", rows(predictions, np.arange(9)))
    write_predictions(tmp_path / "b.parquet", rows(predictions, np.arange(8, 20)))
    with pytest.raises(UserError, match=r"clip-8.*exactly once"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("change", [{"checkpoint": "another"}, {"label_map": LabelMap({"label": ("a",)})}])
def test_files_of_different_models_are_refused(tmp_path, predictions, change, make_predictions):
    other = rows(predictions, np.arange(9, 20))
    if "label_map" in change:
        other = make_predictions({"label": ("a", "b")}, clips=2)
    else:
        other = dataclasses.replace(other, **change)
    write_predictions(tmp_path / "a.parquet", rows(predictions, np.arange(9)))
    write_predictions(tmp_path / "b.parquet", other)
    with pytest.raises(UserError, match=r"a\.parquet.*b\.parquet.*different"):
        read_predictions(tmp_path)


def test_nothing_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*does not exist"):
        read_predictions(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no \*\.parquet files"):
        read_predictions(tmp_path)


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match=r"bad\.parquet.*cannot be read"):
        read_predictions(tmp_path / "bad.parquet")


def replace_column(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.drop_columns(["num_views"]), r"lacks the columns \['num_views'\]"),
        (lambda table: table.replace_schema_metadata(None), "has no label map"),
        (lambda table: table.replace_schema_metadata({LABEL_MAP_KEY: b"[1]"}), "not a JSON object"),
        (lambda table: table.replace_schema_metadata({LABEL_MAP_KEY: b"{"}), "not a JSON object"),
        (lambda table: table.slice(0, 0), "hold no clips"),
        (lambda table: replace_column(table, "labels", table["clip_id"]), "wrong type"),
        (lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [None])), "empty cells"),
        (lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [[1]])), "clip-19' has 1"),
        (lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [[1, None]])), "some are empty"),
        (
            lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [[1, 6]])),
            "clip-19' has noun index 6",
        ),
        (
            lambda table: replace_column(table, "labels", pa.array([[-1, 2]] + [[1, 5]] * 19)),
            "clip-0' has verb index -1",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", table["probabilities_verb"]),
            "'probabilities_noun'.*6 values for each clip, but clip 'clip-0' has 8",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", pa.array([[float("nan")] * 6] * 20)),
            "noun probabilities of clip 'clip-0'.*not a finite number",
        ),
    ],
)
def test_damaged_content_is_explained(written, damage, message):
    pq.write_table(damage(pq.read_table(written)), written)
    with pytest.raises(UserError, match=message):
        read_predictions(written)


def test_arrays_that_do_not_fit_are_refused_when_built(predictions):
    with pytest.raises(UserError, match=r"labels.*shape \[20, 1\]; expected \[20, 2\]"):
        dataclasses.replace(predictions, labels=predictions.labels[:, :1])
    with pytest.raises(UserError, match="predictions are for"):
        dataclasses.replace(predictions, probabilities={"verb": predictions.probabilities["verb"]})


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(written, predictions, monkeypatch):
    def full_disk(table, where):
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_predictions(written, rows(predictions, np.arange(3)))
    assert [file.name for file in written.parent.iterdir()] == ["predictions.parquet"]
    assert_equal(read_predictions(written), predictions)
