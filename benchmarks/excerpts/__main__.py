"""Make the excerpts that come with ogpsa: ``python -m benchmarks.excerpts --data DIR --heldout FILE --heldout FILE``.

DIR has the public files by the names that the README beside the excerpts gives. Held-out files have prompts that no
training row may be like: JSON Lines with a column ``prompt``, or text with a prompt a line.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.excerpts.general import EXCERPTS, draw
from benchmarks.excerpts.kinds import read_kinds
from benchmarks.excerpts.overlap import alike, words_of
from benchmarks.excerpts.refusals import compose
from benchmarks.excerpts.requests import choose_requests, first_turns

OUT: Final = Path(__file__).parents[2] / "data_registry" / "specs" / "excerpts"
HH: Final = "hh_rlhf_harmless_base_test.jsonl.gz"
XSTEST: Final = "xstest_prompts.csv"
VALIDATION: Final = 100
"""Requests that are kept for choosing settings: the last of those that are like no other one."""


def main() -> None:
    """Read, choose, compose and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public files")
    parser.add_argument("--heldout", type=Path, action="append", default=[], help="prompts to keep out of training")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    xstest = _xstest(asked.data / XSTEST)
    heldout = [words_of(row["prompt"]) for row in xstest]
    heldout += [words_of(prompt) for path in asked.heldout for prompt in _prompts(path)]
    _write(asked.out / "xstest.jsonl.gz", xstest)
    requests = choose_requests(first_turns(asked.data / HH), read_kinds())
    kept = [request for request in requests if not alike(request.text, heldout)]
    validation = _unlike_others([request.text for request in kept])[-VALIDATION:]
    _write(
        asked.out / "hh-validation.jsonl.gz",
        (
            {"id": f"v{number:03d}", "kind": kept[index].kind.name, "request": kept[index].text}
            for number, index in enumerate(validation, start=1)
        ),
    )
    rows = compose([request for index, request in enumerate(kept) if index not in validation])
    _write(
        asked.out / "hh-refusals.jsonl.gz",
        (
            {
                "id": f"{number:04d}",
                "kind": row.request.kind.name,
                "act": row.request.act.name,
                "request": row.request.text,
                "refusal": row.refusal,
                "compliance": row.compliance,
            }
            for number, row in enumerate(rows, start=1)
        ),
    )
    print(f"{len(requests)} requests, {len(requests) - len(kept)} of them like held-out ones and left out")
    for kind, number in Counter(row.request.kind.name for row in rows).most_common():
        print(f"  {number:4d} {kind}")
    for excerpt in EXCERPTS:
        for side, drawn in draw(excerpt, asked.data).items():
            _write(asked.out / f"{excerpt.name}-{side}.jsonl.gz", drawn)


def _unlike_others(requests: Sequence[str]) -> list[int]:
    """The numbers of the requests that are like no other one."""
    words = [words_of(request) for request in requests]
    return [
        number for number, request in enumerate(requests) if not alike(request, words[:number] + words[number + 1 :])
    ]


def _xstest(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: row[name] for name in ("id", "prompt", "type", "label")} for row in csv.DictReader(stream)]


def _prompts(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line)["prompt"] for line in lines] if path.suffix == ".jsonl" else lines


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # Without name and time, so that the same rows are the same bytes.
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


if __name__ == "__main__":
    main()
