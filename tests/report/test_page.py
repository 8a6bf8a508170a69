"""The page holds everything it needs, and shows what is known of the runs."""

from __future__ import annotations

import base64
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from cast_ray.errors import UserError
from cast_ray.report.charts import COLOURS
from cast_ray.report.contents import MOST_RUNS, make_contents
from cast_ray.report.interactive import TEMPLATES
from cast_ray.report.page import write_report
from cast_ray.report.record import Attention, AttentionPicture, RunRecord, Video

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
        return json.loads(self.scripts[1])["figures"]


def render(runs: list[RunRecord], folder: Path, **options) -> Page:
    place = write_report(make_contents(runs, **options), str(folder / "report.html"))
    return Page(Path(place).read_text(encoding="utf-8"))


def test_the_page_of_one_run_shows_every_part_of_it(three_runs, tmp_path):
    run = three_runs[2]
    page = render([run], tmp_path)
    right = [run.predictions.right(field) for field in ("verb", "noun")]
    for title, share, chance in (
        ("Verb top-1", right[0].mean(), "12.5 %"),
        ("Noun top-1", right[1].mean(), "16.7 %"),
        ("Action top-1", (right[0] & right[1]).mean(), "2.1 %"),
    ):
        assert f"{title} {100 * share:.1f} %" in page.words
        assert f"chance {chance}" in page.words
    for fact in ("clips evaluated 120", "unreadable clips 1", "duration 7 min 13 s", "training clips/s 101"):
        assert fact in page.words
    assert "broken-1 moov atom not found" in page.words
    assert "Differences from the recipe ek100 setting recipe run seed 0 2" in page.words
    assert {"headline", "curve-loss", "confusion-verb", "confusion-noun", "f1-verb", "frequency-noun"} <= set(
        page.figures
    )
    assert not any(name.startswith("gain") for name in page.figures)


def test_every_plot_of_the_page_has_a_figure_that_plotly_accepts(three_runs, tmp_path):
    page = render(three_runs, tmp_path, groups={"noun": ["a", "b"] * 3})
    drawn = {tag["data-chart"] for tag in page.all("div") if tag.get("class") == "plot"}
    chosen = {tag["value"] for tag in page.all("option")}
    assert drawn <= set(page.figures) <= drawn | chosen
    for figure in page.figures.values():
        if figure["kind"] != "matrix":
            go.Figure({"data": figure["data"], "layout": figure["layout"]})
    for template in TEMPLATES.values():
        go.layout.Template(template)


def test_runs_are_compared_over_their_common_clips(three_runs, tmp_path):
    page = render(three_runs, tmp_path, groups={"noun": ["a", "b"] * 3})
    assert {"gain-verb-C-over-A", "gain-verb-C-over-B", "gain-verb-B-over-A", "group-noun-C-over-A"} <= set(
        page.figures
    )
    assert "Differences between the runs setting A B C seed 0 1 2" in page.words
    (verb, noun, action, mean) = page.figures["headline"]["data"][2]["y"]
    expected = three_runs[2].predictions.right("verb").mean(), three_runs[2].predictions.right("noun").mean()
    assert (verb, noun) == pytest.approx([100 * value for value in expected], rel=1e-5)
    assert mean == pytest.approx(2 / (1 / verb + 1 / noun), rel=1e-5)
    assert action <= min(verb, noun)


def test_clips_show_their_video_truth_and_the_answers_of_all_runs(three_runs, tmp_path):
    page = render(three_runs, tmp_path)
    videos, cards = page.all("video"), page.all("article")
    assert len(videos) == len(cards) == 12
    assert base64.b64decode(videos[0]["src"].split(",")[1]) == next(iter(three_runs[2].videos.values())).data
    first = three_runs[0].predictions
    shown = [clip_id for clip_id in first.clip_ids if clip_id in three_runs[2].videos]
    patterns = {
        clip_id: "".join(str(int(run.predictions.right()[first.clip_ids.index(clip_id)])) for run in three_runs)
        for clip_id in shown
    }
    assert sorted(card["data-right"] for card in cards) == sorted(patterns.values())
    assert [card["data-right"].count("1") for card in cards] == sorted(card["data-right"].count("1") for card in cards)
    row = first.clip_ids.index(shown[0])
    labels = [f"verb:{first.true('verb')[row]} noun:{first.true('noun')[row]}"]
    assert set(labels) <= {card["data-labels"] for card in cards}


@pytest.mark.parametrize("classes", [20, 400])
def test_the_page_loads_nothing_and_stays_small(make_runs, tmp_path, classes):
    names = {"label": tuple(f"Pretending to do something with number {index}" for index in range(classes))}
    runs = make_runs(names, clips=4000, skills=(1.0, 2.0))
    page = render([RunRecord(name=str(i), predictions=run) for i, run in enumerate(runs)], tmp_path)
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"onload", "onerror", "onclick"}
        for name in LOADING_ATTRIBUTES & attributes.keys():
            assert attributes[name].startswith(("data:", "#")), f"<{tag} {name}={attributes[name][:60]}>"
    assert not any("url(" in style or "@import" in style for style in page.styles)
    assert "plotly.js v" in page.scripts[0][:200]
    assert (tmp_path / "report.html").stat().st_size < PLOTLY_BYTES + (150_000 if classes == 20 else 700_000)


def test_predictions_alone_give_a_page(make_runs, tmp_path):
    (run,) = make_runs({"label": ("only", "two")}, clips=1, skills=(1.0,))
    page = render([RunRecord(name="x", predictions=run)], tmp_path)
    for words in (
        "No log is known",
        "No configuration is known",
        "No videos of clips",
        "Predictions alone do not tell",
    ):
        assert words in page.words
    assert set(page.figures) == {"f1-label", "confusion-label"}


def test_attention_is_shown_if_it_is_there(three_runs, tmp_path):
    picture = AttentionPicture(clip_id="clip-1", title="T to S", caption="mean of heads", data=b"png", mime="image/png")
    film = dataclasses.replace(picture, mime="video/mp4")
    attention = Attention(pictures=[picture, film], entropy={"T to S": [None, 0.9, 0.5]})
    page = render([dataclasses.replace(three_runs[0], attention=attention, videos={})], tmp_path)
    assert "T to S mean of heads clip-1" in page.words
    assert [len(page.all(tag)) for tag in ("img", "video")] == [1, 1]
    assert page.figures["entropy-A"]["data"][0]["y"] == [0.9, 0.5]
    assert "Attention" not in render(three_runs[:1], tmp_path).words


def test_markup_from_outside_stays_text_everywhere(make_runs, tmp_path):
    names = {"verb": (EVIL, "b<!--", "]]>"), "noun": ("<script>", "&amp;", "'\"")}
    runs = [
        RunRecord(
            name=f"{EVIL}{index}",
            predictions=run,
            config={EVIL: {EVIL: EVIL}, "list": [EVIL, index]},
            history=[{"kind": "step", "epoch": 1.0, "loss": 2.0}],
            videos={"clip-1": Video(data=b"x")},
            quarantined=[(EVIL, EVIL)],
            attention=Attention(
                pictures=[AttentionPicture(clip_id=EVIL, title=EVIL, caption=EVIL, data=b"", mime="image/png")],
                entropy={EVIL: [0.5]},
            ),
        )
        for index, run in enumerate(make_runs(names, clips=60, skills=(1.0, 2.0)))
    ]
    page = render(runs, tmp_path, groups={"verb": [EVIL, EVIL, "other"]})
    assert len(page.scripts) == 3
    assert all(tag["src"].startswith("data:") for tag in page.all("img"))
    assert EVIL in page.words
    for figure in page.figures.values():
        # The title is set as text and never read as markup.
        assert "<script" not in json.dumps({key: value for key, value in figure.items() if key != "title"})
    assert "<!--" not in page.scripts[1]


def test_a_long_quarantine_is_cut_and_counted(three_runs, tmp_path):
    run = dataclasses.replace(three_runs[0], quarantined=[(f"bad-{index}", "truncated") for index in range(1234)])
    page = render([run], tmp_path)
    assert "unreadable clips 1,234" in page.words
    assert "... and 1034 more." in page.words


def test_a_report_replaces_a_report_and_nothing_else(three_runs, tmp_path):
    contents, place = make_contents(three_runs[:1]), tmp_path / "new" / "report.html"
    write_report(contents, str(place))
    write_report(contents, str(place))
    place.write_text("my own notes on cast-ray report")
    with pytest.raises(UserError, match="is no report; give another file"):
        write_report(contents, str(place))
    with pytest.raises(UserError, match="is a folder"):
        write_report(contents, str(tmp_path))
    assert place.read_text() == "my own notes on cast-ray report"
    assert [file.name for file in place.parent.iterdir()] == ["report.html"]


def test_runs_that_cannot_be_compared_are_refused(three_runs, make_runs):
    with pytest.raises(UserError, match="two runs are called the same"):
        make_contents([three_runs[0], three_runs[0]])
    other = RunRecord(name="other", predictions=make_runs({"label": ("a", "b")}, clips=120, skills=(1.0,))[0])
    with pytest.raises(UserError, match="'other' and 'spatial' have different label maps: the fields are"):
        make_contents([three_runs[0], other])
    many = [dataclasses.replace(three_runs[0], name=str(index)) for index in range(MOST_RUNS + 1)]
    with pytest.raises(UserError, match="at most 8"):
        make_contents(many)
    assert len(COLOURS) == MOST_RUNS


def test_runs_may_list_their_clips_in_any_order(three_runs):
    run = three_runs[1].predictions
    order = np.random.default_rng(0).permutation(len(run.clip_ids))
    shuffled = dataclasses.replace(
        run,
        clip_ids=tuple(run.clip_ids[row] for row in order),
        labels=run.labels[order],
        probabilities={field: values[order] for field, values in run.probabilities.items()},
    )
    plain, other = (
        make_contents([three_runs[0], dataclasses.replace(three_runs[1], predictions=one)]) for one in (run, shuffled)
    )
    assert other.charts["gain-verb-B-over-A"] == plain.charts["gain-verb-B-over-A"]
    assert other.runs[1].predictions.clip_ids == other.runs[0].predictions.clip_ids


def test_videos_need_a_prediction(three_runs):
    with pytest.raises(ValueError, match="stranger"):
        dataclasses.replace(three_runs[0], videos={"stranger": Video(data=b"")})
