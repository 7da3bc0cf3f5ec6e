"""What a training command says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def last_lines(summary: Mapping[str, Any]) -> list[str]:
    """The figures of a run's summary, then in words what it learned and what is remarkable about it."""
    from ogpsa_cli import console

    words = ("learned", "remarks")
    lines = console.summary_lines({name: value for name, value in summary.items() if name not in words})
    lines += [f"  {summary['learned']}"] if "learned" in summary else []
    return lines + [f"  note: {remark}" for remark in summary.get("remarks", ())]
