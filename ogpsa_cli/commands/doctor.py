"""``ogpsa doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.configs.tools import DoctorConfig
    from pipelines.inspecting.machine import Finding

_MARKS = {"ok": ("ok", "green"), "limited": ("!", "yellow"), "missing": ("x", "red"), "info": ("-", "dim")}


def execute(config: DoctorConfig) -> int:
    """Show what the machine has."""
    from ogpsa_cli import console
    from pipelines.commands import doctor

    findings = doctor.run(config)
    if config.as_json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    return 0


def _show(findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ogpsa_cli import console

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    area = ""
    for finding in findings:
        if finding.area != area:
            if area:
                table.add_row()
            area = finding.area
            table.add_row("", Text(area, style="bold yellow"))
        mark, style = _MARKS[finding.state]
        value = console.text(finding.value)
        if finding.consequence:
            value.append("\n").append_text(console.text(finding.consequence, style))
        table.add_row(Text(mark, style=style), console.text(finding.name), value)
    wrong = [finding for finding in findings if finding.state == "missing"]
    less = [finding for finding in findings if finding.state == "limited"]
    if wrong:
        verdict = Text(f"{len(wrong)} things will not work here (marked x), {len(less)} less well (!).", style="red")
    elif less:
        verdict = Text(f"Everything works here; {len(less)} things less well than elsewhere (marked !).")
    else:
        verdict = Text("Everything works here.", style="green")
    console.show(table, "", verdict)
