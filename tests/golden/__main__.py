"""``python -m tests.golden compare|record``: whether the tool still does what the record says, or a new record."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.golden import record
from tests.golden.comparison import compare_artifacts, compare_texts
from tests.golden.machine import machine


def main() -> int:
    """Make or compare the parts that are asked for; 1 when something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("action", choices=("compare", "record"))
    parser.add_argument("--only", choices=tuple(record.PARTS), default="all", help="a part, text, or numbers")
    parser.add_argument("--numbers", choices=("exact", "close", "auto"), default="auto",
                        help="auto: exact where processor and versions are the record's")  # fmt: skip
    parser.add_argument("--record", type=Path, default=record.DIRECTORY, help="directory of the record")
    arguments = parser.parse_args()
    parts = record.PARTS[arguments.only]
    if arguments.action == "record":
        for part in parts:
            _write(arguments.record, part)
        return 0
    exact = arguments.numbers == "exact" or (arguments.numbers == "auto" and _same_machine(arguments.record))
    # Every part is compared, also after the first that differs.
    return int(sum(_differs(arguments.record, part, exact=exact) for part in parts) > 0)


def _write(directory: Path, part: str) -> None:
    if part in record.TEXTS:
        record.write_texts(directory, part, record.make_texts(part))
    else:
        record.write_numbers(directory, part, record.make_numbers(part))
        (directory / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    print(f"{part}: recorded in {directory}", flush=True)


def _same_machine(directory: Path) -> bool:
    path = directory / "machine.json"
    return path.exists() and json.loads(path.read_text()) == machine()


def _differs(directory: Path, part: str, *, exact: bool) -> bool:
    if part in record.TEXTS:
        how = "exact"
        differences = compare_texts(record.read_texts(directory, part), record.make_texts(part))
    else:
        how = "exact" if exact else "close"
        differences = compare_artifacts(record.read_numbers(directory, part), record.make_numbers(part), exact=exact)
    print(f"{part}: {f'{len(differences)} differences' if differences else f'equal ({how})'}", flush=True)
    for difference in differences:
        print(difference)
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
