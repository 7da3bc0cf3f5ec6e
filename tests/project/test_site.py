"""The site has every page, each once, and nothing in it is fetched from elsewhere. ``make docs`` builds it strictly."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.structure.code import ROOT

SETTINGS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
HOOKS = (ROOT / "docs" / "site" / "pages.py").read_text(encoding="utf-8")


def pages(entries: Any) -> Iterator[str]:
    """The pages of the navigation, in order."""
    if isinstance(entries, str):
        yield entries
    for entry in entries if isinstance(entries, list) else entries.values() if isinstance(entries, dict) else ():
        yield from pages(entry)


def constant(name: str) -> Any:
    """The value of a constant of the hooks, which are read and not imported: mkdocs need not be there."""
    (found,) = re.findall(rf"^{name}: Final = (.+)$", HOOKS, re.MULTILINE)
    return ast.literal_eval(found)


def test_the_navigation_has_every_page_once() -> None:
    named = list(pages(yaml.safe_load("nav:" + SETTINGS.partition("\nnav:")[2])["nav"]))
    here = {path.name for path in (ROOT / "docs").glob("*.md")} | set(constant("FROM_THE_ROOT").values())
    assert sorted(named) == sorted(here), "name each page once under nav in mkdocs.yml"
    assert all((ROOT / name).is_file() for name in constant("FROM_THE_ROOT"))


def test_fonts_and_scripts_are_the_sites_own() -> None:
    settings = re.sub(r"!!python/\S+", "", SETTINGS)
    values = yaml.safe_load(settings)
    assert values["theme"]["font"] is False
    assert not re.findall(r"https?://", settings)
    assert "http" not in (ROOT / "docs" / "site" / "wide.css").read_text(encoding="utf-8")


def test_what_a_page_would_fetch_is_seen() -> None:
    source = HOOKS.partition("_FETCHED: Final = ")[2].partition("\n\n")[0]
    fetched = eval(source, {"re": re})
    for foreign in (
        '<script src="https://unpkg.com/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        "<img alt=x src=https://example.org/a.png>",
    ):
        assert fetched.findall(foreign), foreign
    for own in (
        '<script src="assets/x.js"></script>',
        '<a href="https://arxiv.org/abs/2602.07892">',
        '<img src="images/a.png">',
    ):
        assert not fetched.findall(own), own
