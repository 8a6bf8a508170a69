"""The page in a real browser: Chromium, on a laptop and a phone, light and dark."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cast_ray.report.contents import make_contents
from cast_ray.report.page import write_report
from cast_ray.report.record import Attention

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(three_runs, make_runs, tmp_path_factory) -> Path:
    attention = Attention(entropy={"T to S": [0.9, 0.5]})
    runs = [three_runs[0], three_runs[1], dataclasses.replace(three_runs[2], attention=attention)]
    place = tmp_path_factory.mktemp("page") / "report.html"
    write_report(make_contents(runs, groups={"noun": ["a", "b"] * 3}), str(place))
    return place


@pytest.fixture
def opened(browser, report):
    """Opens the report in a window of its own; at the end nothing may have been complained about or loaded."""
    contexts, complaints = [], []

    def open_page(size=LAPTOP, scheme="light", touch=False):
        context = browser.new_context(
            viewport=size, color_scheme=scheme, reduced_motion="reduce", has_touch=touch, is_mobile=touch
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("data:") else complaints.append(request.url))
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == [report.as_uri()] * len(contexts)


def drawn(page, name: str):
    """The place that shows that chart at first, scrolled to and drawn."""
    plot = page.locator(f"#plot-{name}")
    plot.scroll_into_view_if_needed()
    page.wait_for_selector(f"#plot-{name}[data-drawn] .main-svg")
    return plot


@pytest.mark.parametrize(("size", "scheme"), [(LAPTOP, "light"), (LAPTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_all_plots_are_drawn_and_nothing_is_wider_than_the_window(opened, size, scheme):
    page = opened(size, scheme, touch=size is PHONE)
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    wide = "[...document.querySelectorAll('main .card, main select, .plot .main-svg')]"
    assert page.evaluate(f"{wide}.filter((one) => one.getBoundingClientRect().right > innerWidth + 1).length") == 0
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot._fullData.length > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")


def test_hovering_over_a_cell_tells_its_classes_and_counts(opened, three_runs):
    page = opened()
    drawn(page, "confusion-noun-A")
    box = page.locator("#plot-confusion-noun-A .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 12, box["y"] + box["height"] / 12)
    page.wait_for_selector("#plot-confusion-noun-A .hoverlayer .hovertext")
    text = page.locator("#plot-confusion-noun-A .hoverlayer").text_content()
    run = three_runs[0].predictions
    clips = int(((run.true("noun") == 0) & (run.predicted("noun") == 0)).sum())
    assert "true: noun 0" in text
    assert "predicted: noun 0" in text
    assert f"{clips} clip" in text


def test_hovering_over_a_bar_tells_the_gain(opened):
    page = opened()
    bars = drawn(page, "gain-verb-C-over-A")
    box = bars.locator(".point path").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot-gain-verb-C-over-A .hoverlayer .hovertext")
    assert re.search(r"verb \d.*F1 [\d.]+ to [\d.]+", bars.locator(".hoverlayer").text_content())


def test_other_runs_and_orders_can_be_chosen(opened):
    page = opened()
    matrix = drawn(page, "confusion-verb-A")
    card = page.locator("figure", has=matrix)
    before = matrix.evaluate("(plot) => JSON.stringify(plot.data[0].z)")
    card.locator(".chart-choice").select_option("CAST")
    assert matrix.get_attribute("data-chart") == "confusion-verb-C"
    other = matrix.evaluate("(plot) => JSON.stringify(plot.data[0].z)")
    assert other != before
    card.locator(".order-choice").select_option("confused classes side by side")
    assert matrix.evaluate("(plot) => JSON.stringify(plot.data[0].z)") != other
    assert sorted(matrix.evaluate("(plot) => plot.layout.meta.names.x")) == [f"verb {index}" for index in range(8)]


def test_zooming_in_shows_fewer_names(opened):
    page = opened()
    matrix = drawn(page, "confusion-verb-A")
    assert matrix.evaluate("(plot) => plot.layout.xaxis.ticktext.length") == 8
    zoom = "(plot) => Plotly.relayout(plot, {'xaxis.range': [1.5, 4.5]})"
    matrix.evaluate(zoom)
    page.wait_for_function("document.getElementById('plot-confusion-verb-A').layout.xaxis.ticktext.length === 3")


def test_filters_leave_the_clips_that_fit(opened):
    page = opened()
    cards = page.locator("article.clip")
    total = cards.count()
    right = [card.get_attribute("data-right") for card in cards.all()]
    page.locator("#filter-right").select_option(right[0])
    shown = page.locator("article.clip:visible")
    assert shown.count() == right.count(right[0]) < total
    assert {card.get_attribute("data-right") for card in shown.all()} == {right[0]}
    label = shown.first.get_attribute("data-labels").split()[0]
    page.locator("#filter-class").select_option(label)
    assert all(label in card.get_attribute("data-labels").split() for card in shown.all())
    assert page.locator("#filter-count").text_content() == f"{shown.count()} of {total} shown"
    page.locator("#filter-class").select_option("")
    page.locator("#filter-right").select_option("")
    assert shown.count() == total


def test_the_table_of_classes_is_filtered_and_sorted(opened):
    page = opened()
    box = page.locator(".class-table").first
    box.locator("summary").click()
    box.locator("th button").nth(2).click()
    values = [float(cell.text_content()) for cell in box.locator("tbody tr td:nth-child(3)").all()]
    assert values == sorted(values, reverse=True)
    box.locator("input").fill("VERB 3")
    assert box.locator("tbody tr:visible").count() == 1


def test_paper_is_white_in_a_dark_room(opened):
    page = opened(scheme="dark")
    drawn(page, "headline")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    colour = page.evaluate("document.getElementById('plot-headline')._fullLayout.font.color")
    assert colour == "#3d4656"
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
