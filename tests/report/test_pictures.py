"""Every chart becomes a PNG and an SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from cast_ray.errors import UserError
from cast_ray.report.contents import make_contents
from cast_ray.report.pictures import write_pictures


def test_every_chart_is_written_with_its_names(three_runs, tmp_path):
    charts = make_contents(three_runs[1:]).charts
    wanted = {name: charts[name] for name in ("headline", "curve-loss", "confusion-verb-A", "gain-noun-B-over-A")}
    written = write_pictures(wanted, tmp_path / "new")
    assert {file.name for file in written} == {f"{name}{end}" for name in wanted for end in (".png", ".svg")}
    for file in written:
        if file.suffix == ".png":
            colours = Image.open(file).convert("RGB").getcolors(1 << 20)
            assert len(colours) > 20, "something is drawn"
        else:
            ElementTree.parse(file)
    assert "noun 3" in (tmp_path / "new" / "gain-noun-B-over-A.svg").read_text()


def test_names_with_signs_of_formulas_are_drawn_as_they_are(make_runs, tmp_path):
    runs = make_runs({"label": ("_a", "$b$ {", "50 % \\frac")}, clips=20, skills=(1.0, 2.0))
    from cast_ray.report.record import RunRecord

    contents = make_contents([RunRecord(name=f"_{i}$", predictions=run) for i, run in enumerate(runs)])
    write_pictures(contents.charts, tmp_path)
    assert "$b$ {" in (tmp_path / "gain-label-B-over-A.svg").read_text()


def test_a_folder_that_cannot_be_written_is_named(three_runs, tmp_path):
    (tmp_path / "file").write_text("")
    charts = make_contents(three_runs[:1]).charts
    with pytest.raises(UserError, match="cannot write pictures to"):
        write_pictures({"headline": charts["headline"]}, tmp_path / "file")
