from __future__ import annotations

import base64
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cast_ray.evaluation import report
from cast_ray.evaluation.report import RunRecord, Video, choose_examples, write_report

PLOTLY_BYTES = 4_900_000
LOADING_ATTRIBUTES = {"src", "href", "srcset", "poster", "data", "action", "formaction", "background", "ping"}
EVIL = "</script><script>alert('1')</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Everything a test asks a page about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._open.append(tag)
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            (self.scripts if self._open[-1] == "script" else self.styles)[-1] += data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).replace("\xa0", " ").split())

    @property
    def figures(self) -> dict[str, dict]:
        """The figures as a browser would parse them."""
        start = self.scripts[-1].index("const figures = {") + len("const figures = ")
        body = self.scripts[-1][start : self.scripts[-1].index("\n  };", start)]
        return json.loads(body.rstrip().rstrip(",") + "}")


@pytest.fixture
def toy_run(make_predictions, verb_noun_names) -> RunRecord:
    predictions = make_predictions(verb_noun_names, clips=120)
    steps = [
        {
            "kind": "step",
            "step": step,
            "epoch": step / 20,
            "loss": 3 / step,
            "learning_rate": 1e-3,
            "clips_per_s": 100 + step % 3,
            "data_wait": 0.05,
            "grad_norm": 1.0,
        }
        for step in range(1, 61)
    ]
    validation = {"loss": 1.0, "verb_top1": 0.5, "noun_top1": 0.6, "action_top1": 0.4}
    return RunRecord(
        name="toy",
        config={"seed": 7, "data": {"frames": 16, "crop": [32, 32]}, "model": {"exchange": {"ratio": 0.125}}},
        history=[*steps, {"kind": "epoch", "epoch": 3, "step": 60, "validation": validation}],
        predictions=predictions,
        videos={clip_id: Video(data=clip_id.encode()) for clip_id in choose_examples(predictions, count=8)},
        quarantined=[("broken-1", "moov atom not found")],
        seconds=433.4,
    )


def render(run: RunRecord, folder: Path) -> Page:
    return Page(write_report(run, folder / "report.html").read_text(encoding="utf-8"))


def with_names(run: RunRecord, make_predictions, names: dict[str, tuple[str, ...]], clips: int) -> RunRecord:
    predictions = make_predictions(names, clips=clips)
    examples = choose_examples(predictions, count=4)
    return dataclasses.replace(run, predictions=predictions, videos={name: Video(data=b"x") for name in examples})


def test_the_page_shows_every_part_of_the_run(toy_run, tmp_path):
    page = render(toy_run, tmp_path)
    right = [toy_run.predictions.predicted(field) == toy_run.predictions.true(field) for field in ("verb", "noun")]
    for title, share, chance in (
        ("Verb top-1", right[0].mean(), "12.5 %"),
        ("Noun top-1", right[1].mean(), "16.7 %"),
        ("Action top-1", (right[0] & right[1]).mean(), "2.1 %"),
    ):
        assert f"{title} {100 * share:.1f} % chance {chance}" in page.words
    for fact in ("clips evaluated 120", "unreadable clips 1", "duration 7 min 13 s", "training clips/s 101"):
        assert fact in page.words
    assert "broken-1 moov atom not found" in page.words
    for setting in ("seed 7", "frames 16", "crop 32, 32", "exchange.ratio 0.125"):
        assert setting in page.words
    assert set(page.figures) == {
        "curve-loss", "curve-validation", "curve-rate", "curve-wait", "confusion-verb", "confusion-noun",
    }  # fmt: skip
    assert set(page.figures) == {tag["id"] for tag in page.all("div") if tag.get("class") == "plot"}


def test_clips_show_their_video_truth_answer_and_mark(toy_run, tmp_path):
    page, predictions = render(toy_run, tmp_path), toy_run.predictions
    videos = page.all("video")
    assert len(videos) == 8
    shown = [base64.b64decode(tag["src"].removeprefix("data:video/mp4;base64,")).decode() for tag in videos]
    assert sorted(shown) == sorted(toy_run.videos)
    for tag in videos:
        assert {"muted", "loop", "autoplay", "playsinline"} <= tag.keys()
        assert tag["aria-label"]
    row = predictions.clip_ids.index(shown[0])
    wrong_fields = [
        field for field in ("verb", "noun") if predictions.predicted(field)[row] != predictions.true(field)[row]
    ]
    assert wrong_fields, "wrong clips come first"
    field = wrong_fields[0]
    best, true = predictions.predicted(field)[row], predictions.true(field)[row]
    probability = predictions.probabilities[field][row, best]
    assert f"{field} {best} {100 * probability:.1f} % truth: {field} {true}" in page.words
    marks = [tag["class"] for tag in page.all("span") if tag.get("class", "").startswith("badge")]
    assert marks == ["badge wrong"] * 4 + ["badge right"] * 4


@pytest.mark.parametrize("kind", ["toy", "many classes"])
def test_the_page_loads_nothing_and_stays_small(toy_run, tmp_path, kind, make_predictions):
    run = toy_run
    if kind == "many classes":
        names = {"label": tuple(f"Pretending to do something with number {index}" for index in range(174))}
        run = with_names(toy_run, make_predictions, names, clips=2000)
    page = render(run, tmp_path)
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"onload", "onerror", "onclick"}
        for name in LOADING_ATTRIBUTES & attributes.keys():
            assert attributes[name].startswith(("data:", "#")), f"<{tag} {name}={attributes[name][:60]}>"
    assert not any("url(" in style or "@import" in style for style in page.styles)
    assert "plotly.js v" in page.scripts[0][:200]
    assert len(page.scripts) == 2
    assert (tmp_path / "report.html").stat().st_size < PLOTLY_BYTES + (200_000 if kind == "toy" else 2_000_000)


def test_one_label_is_called_top1(toy_run, tmp_path, make_predictions):
    names = {"label": tuple(f"class {index}" for index in range(174))}
    page = render(with_names(toy_run, make_predictions, names, clips=300), tmp_path)
    assert "Top-1" in page.words
    assert "Action" not in page.words
    assert {name for name in page.figures if name.startswith("confusion")} == {"confusion-label"}


def test_markup_from_outside_stays_text_everywhere(toy_run, tmp_path, make_predictions):
    names = {"verb": (EVIL, "b<!--", "]]>"), "noun": ("<script>", "&amp;", "'\"")}
    run = dataclasses.replace(
        with_names(toy_run, make_predictions, names, clips=60),
        name=EVIL,
        config={EVIL: {EVIL: EVIL}, "list": [EVIL]},
        quarantined=[(EVIL, EVIL)],
    )
    clean, page = render(toy_run, tmp_path), render(run, tmp_path)
    assert len(page.scripts) == len(clean.scripts) == 2
    assert not page.all("img")
    assert EVIL in page.words
    for figure in page.figures.values():
        assert "<script" not in json.dumps(figure)
    assert "&lt;script&gt;" in page.figures["confusion-noun"]["layout"]["xaxis"]["ticktext"]
    assert "<!--" not in page.scripts[1]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_hardly_happened_still_gets_a_page(toy_run, tmp_path, make_predictions, steps):
    predictions = make_predictions({"label": ("only", "two")}, clips=1)
    run = RunRecord(name="x", config={}, history=toy_run.history[:steps], predictions=predictions, seconds=0.3)
    page = render(run, tmp_path)
    assert ("The run recorded no steps." in page.words) == (steps == 0)
    assert len(page.figures) == (4 if steps else 1)
    assert "None: every clip could be read." in page.words
    assert "The run kept no clips to show." in page.words


def test_a_long_quarantine_is_cut_and_counted(toy_run, tmp_path):
    run = dataclasses.replace(toy_run, quarantined=[(f"bad-{index}", "truncated") for index in range(1234)])
    page = render(run, tmp_path)
    assert "unreadable clips 1,234" in page.words
    assert "... and 1034 more." in page.words


def test_a_failed_write_leaves_the_old_page(toy_run, tmp_path, monkeypatch):
    render(toy_run, tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def killed(source, destination):
        raise OSError("disk on fire")

    monkeypatch.setattr(report.os, "replace", killed)
    with pytest.raises(OSError, match="disk on fire"):
        write_report(dataclasses.replace(toy_run, name="second"), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_videos_need_a_prediction(toy_run):
    with pytest.raises(ValueError, match="stranger"):
        dataclasses.replace(toy_run, videos={"stranger": Video(data=b"")})


def test_examples_are_half_wrong_half_right_and_spread_over_the_classes(make_predictions, verb_noun_names):
    predictions = make_predictions(verb_noun_names, clips=400)
    chosen = [predictions.clip_ids.index(clip_id) for clip_id in choose_examples(predictions, count=12)]
    assert len(set(chosen)) == 12
    right = predictions.right()[chosen]
    assert right.tolist() == [False] * 6 + [True] * 6
    for group in (chosen[:6], chosen[6:]):
        assert len(set(predictions.true("verb")[group])) >= 5


@pytest.mark.parametrize(("skill", "clips", "expected"), [(50, 40, 12), (-50, 40, 12), (1.5, 5, 5)])
def test_examples_fill_up_when_a_kind_is_missing(make_predictions, skill, clips, expected):
    predictions = make_predictions({"label": tuple("abcd")}, clips=clips, skill=skill)
    chosen = choose_examples(predictions, count=12)
    assert len(set(chosen)) == len(chosen) == expected
    assert set(chosen) <= set(predictions.clip_ids)
    assert np.isin(chosen, predictions.clip_ids).all()
