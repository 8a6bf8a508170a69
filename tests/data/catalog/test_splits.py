"""Classes that one split has and the other lacks: an error where names are counted, a remark where they are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cast_ray.data import catalog
from cast_ray.data.catalog.splits import split_remarks
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

LAYOUTS = json.loads(Path(__file__).with_name("layouts.json").read_text())
UNLEARNED = "have validation clips but no training clip, so that no model can learn them: "
UNMEASURED = "have training clips but no validation clip, so that nothing measures them: "


def read(folder: Path, layout: str, changes: dict[str, tuple[str, str]] | None = None) -> Manifest:
    """The clips of a tiny copy of a dataset; `changes` says what to replace in which annotation file."""
    values = LAYOUTS[layout]
    (folder / "annotations").mkdir()
    for name, text in values["files"].items():
        old, new = (changes or {}).get(name, ("", ""))
        assert old in text
        (folder / "annotations" / name).write_text(text.replace(old, new) if old else text)
    for video in values["videos"]:
        (folder / "videos" / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / video).touch()
    reader = getattr(catalog, values["read"])
    return reader(folder / "videos", folder / "annotations", **values.get("settings", {}))


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("kinetics", {"val.csv": ("testifying", "abseiling")}),
        ("vggsound", {"vggsound.csv": ('"playing violin, fiddle",test', "abseiling,test")}),
        (
            "activitynet",
            {"activity_net.v1-3.min.json": ('68.125], "label": "Belly dance"', '68.125], "label": "abseiling"')},
        ),
    ],
)
def test_a_validation_class_that_has_no_name_in_training_is_an_error(layout, changes, tmp_path):
    """These datasets have no list of classes: a name that training lacks is a mistake or a class that cannot be."""
    with pytest.raises(UserError, match=r"label 'abseiling' of clip .* does not occur among the training clips"):
        read(tmp_path, layout, changes)


@pytest.mark.parametrize(
    ("layout", "changes", "expected"),
    [
        (
            "ssv2",
            {"train.json": ("Holding [", "Putting ["), "validation.json": ("Putting [", "Holding [")},
            [
                f"1 of 2 classes of 'label' {UNLEARNED}Holding something",
                f"1 of 2 classes of 'label' {UNMEASURED}Putting something",
            ],
        ),
        (
            "ek100, cut",
            {
                "EPIC_100_train.csv": ("open,1,door", "take,0,door"),
                "EPIC_100_validation.csv": ("take,0,door", "open,1,door"),
            },
            [
                f"1 of 2 classes of 'verb' {UNLEARNED}open",
                f"1 of 2 classes of 'verb' {UNMEASURED}take",
                f"1 of 2 classes of 'noun' {UNMEASURED}light",
            ],
        ),
        (
            "ucf101",
            {
                "trainlist02.txt": ("YoYo/v_YoYo_g25_c05.avi 2\n", ""),
                "testlist02.txt": ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "YoYo/v_YoYo_g25_c05.avi"),
            },
            [
                f"1 of 2 classes of 'label' {UNLEARNED}YoYo",
                f"1 of 2 classes of 'label' {UNMEASURED}ApplyEyeMakeup",
            ],
        ),
        (
            "epic_sounds",
            {},
            [
                f"1 of 44 classes of 'label' {UNLEARNED}ceramic / wood collision",
                f"2 of 44 classes of 'label' {UNMEASURED}rustle, water",
            ],
        ),
        (
            "CAST, label",
            {},
            [f"1 of 3 classes of 'label' {UNLEARNED}2", f"2 of 3 classes of 'label' {UNMEASURED}0, 1"],
        ),
        (
            "CAST, verb and noun",
            {},
            [
                f"1 of 2 classes of 'verb' {UNMEASURED}0",
                f"1 of 3 classes of 'noun' {UNLEARNED}1",
                f"2 of 3 classes of 'noun' {UNMEASURED}0, 2",
            ],
        ),
        ("kinetics", {}, [f"1 of 2 classes of 'label' {UNMEASURED}playing \"drums\", loud"]),
        ("vggsound", {}, [f"1 of 2 classes of 'label' {UNMEASURED}waterfall burbling"]),
        ("hd_epic", {}, []),
        ("hd_epic_sounds", {}, []),
    ],
)
def test_other_differences_are_remarked_upon(layout, changes, expected, tmp_path):
    assert split_remarks(read(tmp_path, layout, changes)) == expected


def test_a_class_whose_training_clips_were_all_left_out_is_remarked_upon(tmp_path):
    for file in ("train/fall/1.mp4", "train/sit/1.mp4", "validation/fall/1.mp4", "validation/sit/1.mp4"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert split_remarks(catalog.read_folders(tmp_path)) == []
    rows = "clip,label\n{0}/fall/1.mp4,fall\n{0}/sit/1.mp4,sit\n"
    for split in (TRAIN, VALIDATION):
        (tmp_path / f"{split}.csv").write_text(rows.format(split))
    (tmp_path / "train/sit/1.mp4").unlink()
    manifest = catalog.read_table(tmp_path, tmp_path, on_skip=lambda _: None)
    assert split_remarks(manifest) == [f"1 of 2 classes of 'label' {UNLEARNED}sit"]


def test_classes_that_nobody_has_are_no_difference_and_many_are_cut_short():
    names = tuple(f"class {index}" for index in range(20))
    clips = [Clip(clip_id=str(index), uri="x.mp4", labels=(index,), split=TRAIN) for index in range(8)]
    clips.append(Clip(clip_id="v", uri="x.mp4", labels=(0,), split=VALIDATION))
    (remark,) = split_remarks(Manifest(clips=tuple(clips), label_map=LabelMap({LABEL: names})))
    assert remark == f"7 of 20 classes of 'label' {UNMEASURED}class 1, class 2, class 3, class 4, class 5 ..."
