"""Rows as published data sets have them: read as what they are, or refused by name, and nothing gone without a word."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.preparing.published import LAYOUTS
from tests.preparing.trials import attempt, cases


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    assert attempt(tmp_path / "lines", name, "lines", "plain", "", random.Random(0)) == []


def test_so_it_is_in_any_kind_of_file_and_spelling_and_damage_is_an_error(tmp_path: Path) -> None:
    rng = random.Random(5)
    for number, case in enumerate(rng.sample(cases(), 25)):
        assert attempt(tmp_path / str(number), *case, rng) == [], case
