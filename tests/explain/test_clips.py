from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.errors import UserError
from cast_ray.explain.clips import named_clips, opened_file, opened_sample, stratified


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8), count=st.integers(1, 80), seed=st.integers(0, 9))
def test_every_class_has_its_share_of_the_sample(sizes, count, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)[:, None]
    labels = np.random.default_rng(seed).permutation(labels)
    chosen = stratified(labels, count, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    found = np.bincount(labels[chosen, 0], minlength=len(sizes))
    share = np.array(sizes) * len(chosen) / len(labels)
    assert (np.abs(found - share) < 1 + 1e-9).all()


def test_every_clip_is_as_likely_as_another_to_be_in_the_sample():
    labels = np.array([[0]] * 7 + [[1]] * 3)
    counts = np.zeros(10)
    for seed in range(2000):
        counts[stratified(labels, 4, np.random.default_rng(seed))] += 1
    np.testing.assert_allclose(counts / 2000, 0.4, atol=0.05)


def test_a_sample_of_a_manifest_is_that_of_its_prepared_dataset(data):
    with opened_sample(data.dataset, "validation", 5, seed=3) as (_, rows):
        of_shards = rows["clip_id"].to_pylist()
    with opened_sample(data.manifest, "validation", 5, seed=3) as (dataset, rows):
        assert set(rows["clip_id"].to_pylist()) == set(of_shards)
        assert dataset.index.num_rows == 5  # nothing else was read


def test_a_clip_that_does_not_exist_is_named_with_those_near_it(data):
    with pytest.raises(UserError, match=r"no clip is called 'validation-00001.mp4'.*'validation-000001\.mp4'"):
        named_clips(data.dataset, ["validation-00001.mp4"])


def test_clips_come_in_the_order_in_which_they_are_asked_for(data):
    wanted = ["validation-000005.mp4", "validation-000001.mp4"]
    assert named_clips(data.dataset, wanted)["clip_id"].to_pylist() == wanted


@pytest.mark.parametrize("content", [b"", b"this is no video"])
def test_a_file_that_is_no_video_is_refused_with_the_reason(tmp_path, data, content):
    (tmp_path / "text.mp4").write_bytes(content)
    with (
        pytest.raises(UserError, match=r"clip 'text\.mp4' cannot be used: "),
        opened_file(str(tmp_path / "text.mp4"), data.manifest.label_map),
    ):
        pass
