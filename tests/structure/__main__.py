"""``python -m tests.structure``: the picture of the house, the page about it, and the ways of values through it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.structure.code import ROOT


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("draw", help="draw docs/images/architecture.svg and .png from the code")
    actions.add_parser("page", help="write the rooms into docs/architecture.md")
    walk = actions.add_parser("walk", help="follow a value, and say which files it enters")
    walk.add_argument("trip", choices=("basis", "row", "answer"))
    walk.add_argument("--tree", type=Path, default=ROOT, help="the code to walk through, such as an older commit's")
    walk.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    if arguments.action == "draw":
        return _draw()
    if arguments.action == "page":
        return _write_page()
    return _walk(arguments.trip, arguments.tree.resolve(), in_json=arguments.json)


def _draw() -> int:
    from tests.structure import picture

    for path in picture.draw(ROOT / "docs" / "images"):
        print(path.relative_to(ROOT))
    return 0


def _write_page() -> int:
    from tests.structure import page

    page.FILE.write_text(page.with_rooms(page.FILE.read_text(encoding="utf-8")), encoding="utf-8")
    print(page.FILE.relative_to(ROOT))
    return 0


def _walk(trip: str, tree: Path, *, in_json: bool) -> int:
    from tests.structure import trips

    with tempfile.TemporaryDirectory() as workplace:
        found = trips.walk(trip, tree, Path(workplace))
    # After whatever the commands said.
    sys.stdout.flush()
    print(trips.as_json(found) if in_json else trips.as_text(trip, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
