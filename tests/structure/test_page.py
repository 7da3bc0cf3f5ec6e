"""The page and the picture of the house show the house as it is."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.structure import page, picture
from tests.structure.code import ROOT
from tests.structure.layout import lay_out, rows_of, without_implied

PAGE = page.FILE.read_text(encoding="utf-8")
# What is written in capitals stands for a name that whoever adds something chooses.
PATHS = sorted(
    {
        re.sub(r"[A-Z]{3,}[^/]*$", "", path)
        for path in re.findall(r"`((?:ogpsa_cli|pipelines|data_registry|benchmarks|tests|docs)/[^`\s]*)`", PAGE)
    }
)


def test_the_rooms_on_the_page_are_those_of_the_code() -> None:
    assert page.with_rooms(PAGE) == PAGE, "run python -m tests.structure page"


@pytest.mark.parametrize("path", PATHS)
def test_every_path_on_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_picture_shows_the_code_of_now() -> None:
    shown, now = picture.read_description(ROOT / "docs" / "images" / "architecture.svg"), picture.describe()
    assert shown["arrows"] == now["arrows"], "run python -m tests.structure draw"
    assert {name: box["inside"] for name, box in shown["boxes"].items()} == {
        name: box["inside"] for name, box in now["boxes"].items()
    }, "run python -m tests.structure draw"
    grown = {
        name: (box["lines"], now["boxes"][name]["lines"])
        for name, box in shown["boxes"].items()
        if abs(box["lines"] - now["boxes"][name]["lines"]) > max(100, box["lines"] / 4)
    }
    assert not grown, "run python -m tests.structure draw"


def test_an_arrow_that_a_chain_replaces_is_left_out() -> None:
    assert without_implied({"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}}) == {"a": {"b"}, "b": {"c"}, "c": {"d"}}


def test_boxes_stand_in_their_rows_without_touching() -> None:
    nodes, widths = ["a", "b", "c", "d", "e"], dict.fromkeys("abcde", 1.0)
    arrows = {"a": {"d", "c"}, "b": {"c", "e"}, "c": {"e"}}
    rows = rows_of(nodes, arrows, {"a": 0, "b": 0, "c": 1, "d": 2, "e": 2})
    assert rows == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 2}
    layout = lay_out(nodes, arrows, rows, widths, gap=0.2)
    assert len(layout.ways["a", "d"]) == 3
    for row in layout.rows:
        boxes = [layout.middle[node] for node in row if node in nodes]
        assert all(right - left >= 1.2 - 1e-9 for left, right in itertools.pairwise(boxes))
