"""HD-EPIC: what is its own; see test_readers.py for the rest."""

from __future__ import annotations

import pytest

from cast_ray.data.catalog import read_hd_epic
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap

COLUMNS = "unique_narration_id,video_id,start_timestamp,end_timestamp,main_action_classes\n"
VIDEO = "P01-20240202-110250"


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "HD_EPIC_verb_classes.csv").write_text(
        "id,key,instances,category\n0,take,x,y\n1,open,x,y\n2,prove,x,y\n"
    )
    (tmp_path / "HD_EPIC_noun_classes.csv").write_text("id,key,instances,category\n0,tap,x,y\n1,cupboard,x,y\n")
    (tmp_path / "videos" / "P01").mkdir(parents=True)
    (tmp_path / "videos" / "P01" / f"{VIDEO}.mp4").touch()
    return tmp_path


def read(folder, *actions: str, **settings):
    rows = [f'{VIDEO}-{n},{VIDEO},{n}.5,{n + 1}.5,"{action}"\n' for n, action in enumerate(actions)]
    (folder / "HD_EPIC_Narrations.csv").write_text(COLUMNS + "".join(rows))
    return read_hd_epic(folder / "videos", folder, **settings)


def test_the_first_main_action_is_the_label(dataset):
    assert [clip.labels for clip in read(dataset, "[(1, 1)]", "[(2, 0), (1, 1)]").clips] == [(1, 1), (2, 0)]


def test_labels_follow_the_names_of_another_label_map_and_others_are_left_out_on_request(dataset):
    other = LabelMap({VERB: ("wash", "open", "take"), NOUN: ("cupboard",)})
    actions = ("[(0, 1)]", "[(2, 1)]", "[(1, 0)]", "[(1, 1)]")
    reports = []
    manifest = read(dataset, *actions, label_map=other, on_skip=reports.append)
    assert manifest.label_map == other
    assert [(clip.clip_id, clip.labels) for clip in manifest.clips] == [(f"{VIDEO}-0", (2, 0)), (f"{VIDEO}-3", (1, 0))]
    assert len(reports) == 1
    assert f"2 clips of 4 with a verb or noun that the label map does not have: {VIDEO}-1 (line 3)" in reports[0]
    with pytest.raises(UserError, match="a verb or noun that the label map does not have"):
        read(dataset, *actions, label_map=other)


def test_narrations_without_a_main_action_are_reported(dataset):
    reports = []
    assert len(read(dataset, "[(1, 1)]", "[]", on_skip=reports.append).clips) == 1
    assert f"with no main action: {VIDEO}-1 (line 3);" in reports[0]


@pytest.mark.parametrize("text", ["", "(1, 1)", "[(1)]", "[('open', 'tap')]", "__import__('os')", "[(1, -1)]", "nan"])
def test_other_texts_are_refused_and_never_run(dataset, text):
    with pytest.raises(UserError, match=r"line 2: main_action_classes is .*; it must be a list of verb and noun"):
        read(dataset, text)


@pytest.mark.parametrize(("action", "field"), [("[(3, 0)]", VERB), ("[(0, 2)]", NOUN)])
def test_classes_outside_the_class_files_are_located(dataset, action, field):
    with pytest.raises(UserError, match=f"line 2 has {field} index"):
        read(dataset, action)


def test_a_label_map_of_another_task_is_refused(dataset):
    with pytest.raises(UserError, match=r"fields \['label'\]; HD-EPIC needs \['verb', 'noun'\]"):
        read(dataset, "[(1, 1)]", label_map=LabelMap({LABEL: ("open",)}))


def test_the_official_pickle_is_not_opened_but_its_conversion_is_shown(dataset):
    (dataset / "HD_EPIC_Narrations.pkl").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(UserError, match=r"a pickle can run code; .* convert it once: python -c"):
        read_hd_epic(dataset / "videos", dataset)


def test_the_conversion_that_is_shown_gives_a_table_that_can_be_read(dataset, monkeypatch):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "unique_narration_id": [f"{VIDEO}-1"],
            "video_id": [VIDEO],
            "start_timestamp": [7.44],
            "end_timestamp": [8.75],
            "main_action_classes": [[(1, 1), (0, 1)]],
        }
    )
    table.to_pickle(dataset / "HD_EPIC_Narrations.pkl")
    with pytest.raises(UserError) as caught:
        read_hd_epic(dataset / "videos", dataset)
    monkeypatch.chdir(dataset)
    exec(str(caught.value).split('python -c "')[1].rstrip('"'), {})
    clip = read_hd_epic(dataset / "videos", dataset).clips[0]
    assert (clip.labels, clip.start_s, clip.stop_s) == ((1, 1), 7.44, 8.75)
