"""The notebook runs from the top to the bottom, holds no outputs, and shows what its text says."""

from __future__ import annotations

import json
from typing import Any

from tests.api.worlds import EXAMPLES


def test_the_notebook_runs() -> None:
    path = EXAMPLES / "projection.ipynb"
    assert path.stat().st_size < 20_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    space: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        exec(compile("".join(cell["source"]), f"cell {number} of {path.name}", "exec"), space)
    table = space["table"]
    for name in ("plain", "projected"):
        assert table[name]["refusals"] < table["start"]["refusals"] / 2
    for reference in ("assist", "reason"):
        risen = {name: table[name][reference] - table["start"][reference] for name in ("plain", "projected")}
        assert risen["projected"] < risen["plain"] / 2
