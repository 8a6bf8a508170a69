"""The manifest: what it refuses, and how it is divided."""

from __future__ import annotations

import pytest

from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest, escaped
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

LABELS = LabelMap({LABEL: ("up", "down")})


def clip(clip_id: str, label: int = 0, split: str = TRAIN) -> Clip:
    return Clip(clip_id=clip_id, uri=f"/videos/{clip_id}.mp4", labels=(label,), split=split)


def test_a_split_holds_its_clips_in_manifest_order():
    clips = (clip("c"), clip("a", split=VALIDATION), clip("b"), clip("d", split=VALIDATION))
    manifest = Manifest(clips=clips, label_map=LABELS)
    assert [c.clip_id for c in manifest.split(TRAIN)] == ["c", "b"]
    assert [c.clip_id for c in manifest.split(VALIDATION)] == ["a", "d"]


def test_an_empty_split_is_refused_with_what_there_is():
    manifest = Manifest(clips=(clip("a"),), label_map=LABELS)
    with pytest.raises(
        UserError, match=r"split 'validation' is empty; the annotations have clips only for \['train'\]"
    ):
        manifest.split(VALIDATION)


def test_a_label_outside_the_map_is_refused_with_its_clip():
    with pytest.raises(UserError, match="clip 'b' has label index 2, but the label map has 2 classes"):
        Manifest(clips=(clip("a", 1), clip("b", 2)), label_map=LABELS)


def test_a_clip_id_that_occurs_twice_is_refused_even_across_splits():
    with pytest.raises(UserError, match=r"clip ids occur more than once: \['a'\]"):
        Manifest(clips=(clip("a"), clip("b"), clip("a", split=VALIDATION)), label_map=LABELS)


@pytest.mark.parametrize("where", ["id", "file", "class"])
def test_names_that_are_no_text_are_refused_in_print(where):
    """They could be neither stored nor printed: the message itself must be."""
    odd = "caf\udce9"
    clips = (clip("a"), clip(odd if where == "id" else "b"))
    if where == "file":
        clips = (Clip(clip_id="a", uri=f"/videos/{odd}.mp4", labels=(0,), split=TRAIN),)
    labels = LabelMap({LABEL: ("up", odd)}) if where == "class" else LABELS
    with pytest.raises(UserError, match=r"not UTF-8 text: .*caf.xe9") as caught:
        Manifest(clips=clips, label_map=labels)
    str(caught.value).encode()


def test_escaping_leaves_text_alone_and_shows_bytes():
    assert escaped("caf\u00e9 \\x") == "caf\u00e9 \\x"
    assert escaped("caf\udce9") == "caf\\xe9"
    assert escaped("half \ud83d") == "half \\ud83d"
