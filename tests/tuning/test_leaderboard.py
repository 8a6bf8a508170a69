"""The leaderboard page in a real browser."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from cast_ray.recipes.ek100 import ek100
from cast_ray.recipes.small import small
from cast_ray.tuning.leaderboard import leaderboard_page
from cast_ray.tuning.lineage import Stage
from cast_ray.tuning.space import with_settings

FIELDS = ("optim.base_lr", "model.options.to_spatial", "augment.rand_augment", "optim.betas")


@pytest.fixture(scope="module")
def trials(make_result):
    random = np.random.default_rng(0)
    made = []
    for number in range(12):
        values = {
            "optim.base_lr": float(10 ** random.uniform(-4, -2)),
            "model.options.to_spatial": ("time", "space")[number % 2],
            "augment.rand_augment": (None, "rand-m7-n4-mstd0.5-inc1")[number // 2 % 2],
            "optim.betas": (0.9, 0.98),
        }
        made.append(make_result(f"ab12_{number:05d}", values, *random.uniform(0, 0.9, 1 + number % 4)))
    made.append(make_result("ab12_00099", made[0].values, error="ValueError: </script><b>no</b> clips"))
    return made


@pytest.fixture(scope="module")
def page_text(trials) -> str:
    return leaderboard_page(trials, FIELDS, with_settings(small(ek100()), trials[0].values))


@pytest.fixture
def opened(browser, page_text, tmp_path):
    """Opens the page; at the end nothing may have been complained about or loaded."""
    place: Path = tmp_path / "leaderboard.html"
    place.write_text(page_text)
    complaints, contexts = [], []

    def open_page(width, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(place.as_uri())
        page.wait_for_selector("#plot-importance .main-svg")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not text.startswith("data:")] == [place.as_uri()] * len(contexts)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_drawn_and_no_wider_than_the_window(opened, width, scheme):
    page = opened(width, scheme)
    assert page.locator(".plot .main-svg").count() >= 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_trials_are_ranked_and_the_failed_one_says_why(opened, trials):
    page = opened(1280)
    rows = page.locator("#trials + .card tbody tr").all_inner_texts()
    scores = [float(found[1]) for row in rows if (found := re.search(r"([\d.]+).%", row))]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 12
    assert "ValueError: </script><b>no</b> clips" in rows[-1]
    best = max((trial for trial in trials if trial.best is not None), key=lambda trial: trial.best)
    assert best.name in rows[0]


def test_the_best_settings_are_there_to_paste(page_text, trials):
    best = max((trial for trial in trials if trial.best is not None), key=lambda trial: trial.best)
    assert f"--optim.base-lr {best.values['optim.base_lr']}" in page_text
    assert "--optim.betas 0.9 0.98" in page_text
    assert "</script><b>" not in page_text


def test_a_population_shows_who_went_on_from_whom_and_the_best_schedule(make_result):
    first = Stage(after=0, trial="a", taken_from=None, values={"optim.base_lr": 0.1})
    second = Stage(after=1, trial="b", taken_from="a", values={"optim.base_lr": 0.12})
    heir = make_result("b", second.values, 0.25, 0.75)
    heir = dataclasses.replace(heir, schedule=(first, second), takeovers=(second,))
    text = leaderboard_page([make_result("a", first.values, 0.5), heir], ("optim.base_lr",), small(ek100()))
    assert "epoch 1: --optim.base-lr 0.1\nepoch 2: --optim.base-lr 0.12\n" in text
    assert re.search(r">1</td><td>b</td><td>a</td>\s*<td>0\.12</td>", text)
    assert "they are a schedule" in text
    alone = leaderboard_page([make_result("a", first.values, 0.5)], ("optim.base_lr",), small(ek100()))
    assert "a schedule" not in alone
    assert "went on" not in alone


def test_a_search_of_two_trials_has_a_page_without_importance(make_result):
    trials = [make_result("a", {"optim.base_lr": 0.1}, 0.5), make_result("b", {"optim.base_lr": 0.1}, 0.25)]
    text = leaderboard_page(trials, ("optim.base_lr",), small(ek100()))
    assert "plot-importance" not in text
    assert "2 trials, best score 50.0" in text
