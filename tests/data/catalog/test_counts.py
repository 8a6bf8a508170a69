"""Published counts: when a dataset is called incomplete."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.data.catalog.counts import PUBLISHED, Published, check_counts
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.labels import LABEL, LabelMap

SMALL = Published(name="Small", classes={LABEL: 2}, clips={TRAIN: 2_000, VALIDATION: 1}, source="its page")


def manifest(train: int, validation: int, classes: int = 2) -> Manifest:
    splits = [TRAIN] * train + [VALIDATION] * validation
    return Manifest(
        clips=tuple(Clip(clip_id=str(n), uri="x", labels=(0,), split=split) for n, split in enumerate(splits)),
        label_map=LabelMap({LABEL: tuple(map(str, range(classes)))}),
    )


def test_the_published_counts_need_no_remark():
    assert check_counts(manifest(2_000, 1), SMALL) is None


def test_all_classes_with_other_counts_are_remarked():
    remark = check_counts(manifest(1_999, 0), SMALL)
    assert remark is not None
    assert "all classes of Small, but 1,999 train clips instead of 2,000 and 0 validation clips instead of 1" in remark
    assert "(its page)" in remark


def test_too_many_clips_are_remarked_and_only_the_split_that_differs():
    assert "but 2 validation clips instead of 1 (its page)" in str(check_counts(manifest(2_000, 2), SMALL))


def test_a_part_with_fewer_classes_needs_no_remark():
    assert check_counts(manifest(3, 3, classes=1), SMALL) is None


def test_a_dataset_without_a_training_set_is_not_asked_for_one():
    assert check_counts(manifest(0, 1), dataclasses.replace(SMALL, clips={VALIDATION: 1})) is None


@pytest.mark.parametrize("split", [1, 2, 3])
def test_each_split_of_ucf101_has_all_its_13320_clips(split):
    assert sum(PUBLISHED[f"ucf101-{split}"].clips.values()) == 13_320
