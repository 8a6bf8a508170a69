"""Predictions as Parquet files: what is written is read, from any storage, and what is wrong is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import (
    CHECKPOINT_KEY,
    LABEL_MAP_FINGERPRINT_KEY,
    LABEL_MAP_KEY,
    Predictions,
    read_predictions,
    write_predictions,
)
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
    assert schema.metadata[LABEL_MAP_FINGERPRINT_KEY].decode() == predictions.label_map.fingerprint


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
    with pytest.raises(UserError, match=r"nowhere.*do not exist"):
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
        (
            lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [[1]])),
            "2 values for clip 'clip-19', but has 1",
        ),
        (
            lambda table: replace_column(table, "labels", pa.array([[1, 2]] * 19 + [[1, None]])),
            "lists with empty places",
        ),
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
            "'probabilities_noun'.*6 values for clip 'clip-0', but has 8",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", pa.array([[float("nan")] * 6] * 20)),
            "noun probabilities of clip 'clip-0'.*not a finite number",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", pa.array([[1.0, 3, 2, 0, 4, 1]] * 20)),
            r"clip 'clip-0' add up to 11 instead of 1 \(20 rows of 20 are wrong\); if these are logits",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", pa.array([[-0.5, 1.5, 0, 0, 0, 0]] * 20)),
            "hold -0.5, which is below 0",
        ),
        (
            lambda table: replace_column(table, "probabilities_noun", pa.array([[float("inf")] + [0.0] * 5] * 20)),
            "not a finite number",
        ),
        (lambda table: replace_column(table, "num_views", pa.array([0] * 20)), "'clip-0' has 0 views"),
        (lambda table: table.append_column("num_views", pa.array([1] * 20)), r"more than one column \['num_views'\]"),
        (
            lambda table: table.replace_schema_metadata({**table.schema.metadata, LABEL_MAP_FINGERPRINT_KEY: b"abc"}),
            "fingerprint .* its metadata says abc; they were changed",
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
    def full_disk(self, table):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_predictions(written, rows(predictions, np.arange(3)))
    assert [file.name for file in written.parent.iterdir()] == ["predictions.parquet"]
    assert_equal(read_predictions(written), predictions)


@pytest.fixture
def with_views(predictions):
    """1, 2 or 3 views of each clip, whose mean is the clip's probability."""
    num_views = (np.arange(20) % 3 + 1).astype(np.int32)
    random = np.random.default_rng(5)
    views, means = {}, {}
    for field, size in predictions.label_map.num_classes.items():
        views[field] = random.dirichlet(np.ones(size), num_views.sum()).astype(np.float32)
        parts = np.split(views[field], np.cumsum(num_views)[:-1])
        means[field] = np.stack([part.mean(axis=0) for part in parts])
    return dataclasses.replace(predictions, probabilities=means, num_views=num_views, view_probabilities=views)


def test_probabilities_of_views_are_kept_and_read_when_asked_for(tmp_path, with_views, monkeypatch):
    # Several row groups, so that the views of later ones must begin at the right place.
    monkeypatch.setattr("cast_ray.evaluation.predictions.ROWS_AT_ONCE", 7)
    path = write_predictions(tmp_path / "views.parquet", with_views)
    assert pq.ParquetFile(path).num_row_groups == 3
    read = read_predictions(path, views=True)
    assert_equal(read, with_views)
    for field, values in with_views.view_probabilities.items():
        np.testing.assert_array_equal(read.view_probabilities[field], values)
    assert read_predictions(path).view_probabilities is None


def test_views_that_are_not_there_or_not_whole_are_explained(written, tmp_path, with_views):
    with pytest.raises(UserError, match=r"lacks the columns \['view_probabilities_verb', 'view_probabilities_noun'\]"):
        read_predictions(written, views=True)
    path = write_predictions(tmp_path / "views.parquet", with_views)
    table = pq.read_table(path)
    pq.write_table(replace_column(table, "num_views", pa.array([2] * 20, pa.int32())), path)
    with pytest.raises(UserError, match="'view_probabilities_verb' must hold 16 values for clip 'clip-0', but has 8"):
        read_predictions(path, views=True)
    views = {field: values.copy() for field, values in with_views.view_probabilities.items()}
    views["noun"][2] += 1  # the second view of the second clip
    with pytest.raises(UserError, match="noun probabilities of clip 'clip-1' add up to 7"):
        dataclasses.replace(with_views, view_probabilities=views)


def test_clips_of_unknown_truth_are_allowed_but_only_in_all_fields(written, predictions):
    labels = predictions.labels.copy()
    labels[3] = -1
    unknown = dataclasses.replace(predictions, labels=labels)
    assert np.flatnonzero(~unknown.labelled).tolist() == [3]
    assert_equal(read_predictions(write_predictions(written, unknown)), unknown)
    labels[3, 1] = 0
    with pytest.raises(UserError, match="clip 'clip-3' has verb index -1"):
        dataclasses.replace(predictions, labels=labels)


def test_a_runs_folder_means_its_predictions_as_file_or_folder(tmp_path, predictions):
    for place in ("one/predictions.parquet", "many/predictions.parquet/part-0.parquet"):
        write_predictions(tmp_path / place, predictions)
        run = tmp_path / place.split("/")[0]
        write_predictions(run / "other.parquet", dataclasses.replace(predictions, checkpoint="other"))
        assert_equal(read_predictions(run), predictions)


def test_hidden_and_half_written_files_are_no_part_of_a_dataset(tmp_path, predictions):
    write_predictions(tmp_path / "a.parquet", predictions)
    for name in (".hidden.parquet", "_temporary/b.parquet", "c.parquet.0f.part"):
        write_predictions(tmp_path / name, predictions)
    assert_equal(read_predictions(tmp_path), predictions)


def test_predictions_are_written_to_and_read_from_s3(s3_bucket, predictions):
    assert write_predictions(f"{s3_bucket}/runs/a/predictions.parquet", predictions).startswith(s3_bucket)
    write_predictions(f"{s3_bucket}/top.parquet", predictions)
    assert_equal(read_predictions(f"{s3_bucket}/runs/a"), predictions)
    assert_equal(read_predictions(f"{s3_bucket}/top.parquet"), predictions)
    with pytest.raises(UserError, match="do not exist"):
        read_predictions(f"{s3_bucket}/runs/b")


def test_probabilities_stored_in_half_precision_are_accepted(predictions):
    halves = {
        field: values.astype(np.float16).astype(np.float32) for field, values in predictions.probabilities.items()
    }
    assert isinstance(dataclasses.replace(predictions, probabilities=halves), Predictions)
