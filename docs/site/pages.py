"""Hooks of mkdocs: the files of the root as pages, and no page that fetches anything from elsewhere."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

# mkdocs counts warnings of its own loggers, and fails on them with --strict.
logger = logging.getLogger("mkdocs.plugins.ogpsa")

ROOT: Final = Path(__file__).parents[2]
FROM_THE_ROOT: Final = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_FETCHED: Final = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
                             r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>")  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the root as pages."""
    for name, page in FROM_THE_ROOT.items():
        text = seen_from_the_pages((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def seen_from_the_pages(text: str) -> str:
    """The text of a file of the root with its links as a page in ``docs`` would write them."""
    for name, page in FROM_THE_ROOT.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Warn of whatever a browser would fetch from another server."""
    for fetched in _FETCHED.findall(output):
        logger.warning("%s fetches something from elsewhere: %s", page.file.src_uri, fetched)
    return output
